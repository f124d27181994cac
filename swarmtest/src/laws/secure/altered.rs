//! Identities that are nearly right.

use std::collections::BTreeSet;

use p2p::{Addr, Packet, Swarm as _};
use rand::seq::SliceRandom as _;
use tokio::time::timeout;

use crate::harness::{PLAIN, ensure, numbered_payload};
use crate::report::{Outcome, Unmet};
use crate::testbed::Testbed;

/// Numbers of payloads to such identities begin here.
const WRONG: u32 = 1 << 20;

/// Changes one character of a node's address at a time, and tells to what is read as another identity.
pub async fn an_id_that_differs_in_one_character_reaches_no_node<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b, other] = testbed.nodes().await?;
    let real = b.addr()?;
    if real.peer_id().is_none() {
        return Err(Unmet::Waived("addresses name no identity".into()));
    }
    testbed.deliver(&a, &b, &numbered_payload(0, PLAIN)).await?;
    let (text, mut rng) = (real.to_string(), testbed.rng());
    let signs: BTreeSet<char> = text.chars().filter(char::is_ascii_alphanumeric).collect();
    let known: BTreeSet<_> = [&a, &b, &other]
        .iter()
        .flat_map(|node| node.local_addrs())
        .filter_map(|addr| addr.peer_id())
        .collect();
    let mut told = 0;
    for (at, sign) in text
        .char_indices()
        .filter(|(_, sign)| sign.is_ascii_alphanumeric())
    {
        // Some characters give no address, and a change of the place alone still names a known identity.
        let mut others: Vec<char> = signs.iter().copied().filter(|other| *other != sign).collect();
        others.shuffle(&mut rng);
        let altered = others.iter().find_map(|other| {
            let altered = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            let addr = a.parse_addr(&altered).ok()?;
            addr.peer_id()
                .is_some_and(|id| !known.contains(&id))
                .then_some(addr)
        });
        let Some(addr) = altered else {
            continue;
        };
        let packet = Packet::from(numbered_payload(WRONG + told, PLAIN));
        let _ = timeout(testbed.settle() / 4, a.tell(&addr, packet)).await;
        told += 1;
    }
    for node in [&b, &other] {
        let came = testbed.drain_numbers(node, usize::MAX).await?;
        let wrong = came.iter().filter(|number| **number >= WRONG).count();
        ensure!(
            wrong == 0,
            "of {told} messages to identities that differ from {real} in one character {wrong} arrived"
        );
    }
    testbed
        .deliver(&a, &b, &numbered_payload(1, PLAIN))
        .await
        .map(drop)
}
