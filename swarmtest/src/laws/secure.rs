//! Laws of keys and of addresses that name an identity.

use std::collections::BTreeSet;

use p2p::{Addr, Packet, SecureSwarm as _, Swarm as _};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::{PLAIN, broken, ensure, in_time, number, numbered_payload};
use crate::kind::Node;
use crate::report::Outcome;
use crate::testbed::{Testbed, chain};

mod altered;
mod wrong;

pub use altered::an_id_that_differs_in_one_character_reaches_no_node;
pub use wrong::{
    a_flooded_node_proves_its_key, a_wrong_id_makes_no_node_unreachable,
    a_wrong_id_reaches_no_node_beside_the_true_one,
};

/// Tells a third node from two nodes alternately, and compares the sources.
pub async fn src_is_who_it_says<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, c, reader] = testbed.nodes().await?;
    let (dst, senders) = (reader.addr()?, [&a, &c]);
    // The result for a source is permanent: one lookup for each is enough.
    let mut proven: [Vec<A>; 2] = Default::default();
    let together = testbed.window().min(4) as u32;
    for round in 0..testbed.amount(60) as u32 {
        let told = together * round..together * (round + 1);
        let mut missing: BTreeSet<u32> = told.clone().collect();
        let mut again = testbed.again(PLAIN);
        while !missing.is_empty() {
            ensure!(
                again.next(),
                "of {together} messages of two nodes, told {} times, {} never arrived",
                again.times,
                missing.len()
            );
            for number in told.clone() {
                testbed
                    .tell_each(senders[number as usize % 2], &dst, [number])
                    .await?;
            }
            while let Ok(message) = timeout(testbed.settle(), reader.receive()).await {
                let message = message?;
                let Some(number) = number(&message.payload) else {
                    continue;
                };
                let sender = number as usize % 2;
                if !proven[sender].contains(&message.src) {
                    is_from(testbed, &reader, &message.src, senders[sender]).await?;
                    proven[sender].push(message.src);
                }
                missing.remove(&number);
                if missing.is_empty() {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Compares identities; for addresses without an identity, keys.
async fn is_from<A: Addr>(testbed: &Testbed<A>, reader: &Node<A>, src: &A, sender: &Node<A>) -> Outcome {
    if let (Some(named), Some(sent)) = (src.peer_id(), sender.addr()?.peer_id()) {
        ensure!(named == sent, "a message of {sent} names {named} as its source");
        return Ok(());
    }
    let found = lookup(testbed, reader, src).await?;
    let sent = sender.secure_side()?.public_key();
    ensure!(
        found == sent,
        "the source {src} of a message has a key that is not its sender's"
    );
    Ok(())
}

/// Returns the public key at `addr`; on a lossy medium this may take some attempts.
async fn lookup<A: Addr>(testbed: &Testbed<A>, node: &Node<A>, addr: &A) -> Outcome<p2p::BoxKey> {
    let keys = node.secure_side()?;
    let mut again = testbed.again_round_trip(PLAIN);
    let mut why = String::new();
    while again.next() {
        let limit = testbed.the_profile().ask_patience;
        match in_time("a lookup", limit, keys.lookup_public_key(addr)).await? {
            Ok(key) => return Ok(key),
            Err(error) => why = chain(&error),
        }
        tokio::time::sleep(testbed.settle()).await;
    }
    broken!(
        "the public key of {addr} was not found in {} attempts: {why}",
        again.times
    )
}

/// Compares the public keys of eight nodes.
pub async fn nodes_have_keys_of_their_own<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let nodes: [_; 8] = testbed.nodes().await?;
    let mut keys = BTreeSet::new();
    for node in &nodes {
        let key = node.secure_side()?.public_key().as_ref().to_vec();
        ensure!(keys.insert(key), "two nodes have the same public key");
    }
    Ok(())
}

/// Looks up keys in both directions, repeatedly.
pub async fn lookup_gives_the_other_nodes_key<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b, c] = testbed.nodes().await?;
    let pairs = [(&a, &b), (&b, &a), (&c, &b), (&a, &c)];
    for (from, to) in pairs.into_iter().cycle().take(4 * testbed.amount(20)) {
        let found = lookup(testbed, from, &to.addr()?).await?;
        let own = to.secure_side()?.public_key();
        ensure!(
            found == own,
            "the lookup of {} returned {found:?}, its own key is {own:?}",
            to.addr()?
        );
    }
    Ok(())
}

/// Tells the identity of one node at the place of another, alone and in batches.
pub async fn a_wrong_id_reaches_no_node<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    /// Concurrent tells.
    const TOGETHER: u32 = 10;
    let [a, named, other] = testbed.nodes().await?;
    let forged = testbed.forged(&named.addr()?, &other.addr()?)?;
    let packet = |number: u32| Packet::from(numbered_payload(number, PLAIN).as_slice());
    let mut reached = 0;
    for round in 0..testbed
        .amount(8)
        .max(testbed.again(PLAIN).least().div_ceil(TOGETHER as usize)) as u32
    {
        let mut tells = JoinSet::new();
        for number in 0..TOGETHER {
            let (a, forged, limit) = (a.clone(), forged.clone(), testbed.settle());
            let packet = packet(round * TOGETHER + number);
            // It may wait for a handshake that never completes.
            tells.spawn(async move { drop(timeout(limit, a.tell(&forged, packet)).await) });
        }
        while tells.join_next().await.is_some() {}
        let mut batch = (0..TOGETHER)
            .map(|number| (forged.clone(), packet(number)))
            .collect();
        let _ = timeout(testbed.settle(), a.tell_batch(&mut batch)).await;
        reached += testbed.drain_numbers(&other, 64).await?.len();
    }
    ensure!(
        reached == 0,
        "{reached} messages to {forged} reached another identity"
    );
    Ok(())
}

/// Looks up the identity of one node at the place of another.
pub async fn a_wrong_id_has_no_key<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, named, other] = testbed.nodes().await?;
    let forged = testbed.forged(&named.addr()?, &other.addr()?)?;
    let (keys, wrong) = (a.secure_side()?, other.secure_side()?.public_key());
    let least = testbed.again(PLAIN).least().max(testbed.amount(60));
    let mut looked = 0;
    while looked < least {
        let mut lookups = JoinSet::new();
        for _ in 0..8 {
            let (keys, forged, limit) = (keys.clone(), forged.clone(), testbed.settle());
            // It may wait for a handshake that never completes.
            lookups.spawn(async move { timeout(limit, keys.lookup_public_key(&forged)).await });
        }
        looked += lookups.len();
        while let Some(found) = lookups.join_next().await {
            ensure!(
                !matches!(found, Ok(Ok(Ok(found))) if found == wrong),
                "the lookup of {forged} returned the key of another identity"
            );
        }
    }
    Ok(())
}
