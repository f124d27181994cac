//! Another node at the address of a known one.

use p2p::{Addr, SecureSwarm as _};
use tokio::time::{Instant, sleep_until, timeout};

use super::harness::WireHarness;
use crate::harness::{PLAIN, ensure};
use crate::report::Outcome;
use crate::testbed::Testbed;
use crate::wire::Datagram;

/// Number of attempts, spread over the time within which sessions are rekeyed.
const ATTEMPTS: u32 = 24;

/// A node that knows the victim.
const FRIEND: usize = 0;
const VICTIM: usize = 1;
/// Another node that the friend knows.
const OTHER: usize = 2;
/// A node that knows no other.
const STRANGER: usize = 3;

/// Four nodes, of which the first has exchanged messages with the second and the third.
async fn acquainted<A: Addr>(testbed: &Testbed<A>) -> Outcome<WireHarness<'_, A>> {
    let mut harness = WireHarness::new::<4>(testbed).await?;
    harness.names_ids()?;
    for known in [VICTIM, OTHER] {
        harness.reach(FRIEND, known).await?;
        harness.reach(known, FRIEND).await?;
    }
    Ok(harness)
}

/// The end times of the attempts.
fn attempts<A: Addr>(testbed: &Testbed<A>) -> impl Iterator<Item = Instant> + use<A> {
    let (start, all) = (Instant::now(), testbed.patience());
    (1..=ATTEMPTS).map(move |attempt| start + all * attempt / ATTEMPTS)
}

/// Puts an impostor at the address of a node, and tells the node.
pub async fn an_impostor_gets_no_message<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let mut harness = acquainted(testbed).await?;
    harness.usurp(VICTIM).await?;
    for end in attempts(testbed) {
        harness.tell(FRIEND, VICTIM, PLAIN).await;
        harness.tell(STRANGER, VICTIM, PLAIN).await;
        harness.settle().await?;
        sleep_until(end).await;
    }
    harness.settle().await
}

/// Puts an impostor at the address of a node, and asks the node.
pub async fn an_impostor_gets_no_ask<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let mut harness = acquainted(testbed).await?;
    harness.usurp(VICTIM).await?;
    let mut pending = Vec::new();
    for end in attempts(testbed) {
        for asker in [FRIEND, STRANGER] {
            pending.push(harness.asking(asker, VICTIM, PLAIN)?);
        }
        harness.settle().await?;
        sleep_until(end).await;
    }
    harness.settle().await?;
    for asking in pending {
        let answered = harness
            .answered(asking, testbed.the_profile().ask_patience)
            .await?;
        ensure!(!answered, "an ask of a closed node was answered");
    }
    harness.settle().await
}

/// Puts an impostor at the address of a node, which tells and asks a node that knew the closed one.
pub async fn an_impostor_has_no_say<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let mut harness = acquainted(testbed).await?;
    let impostor = harness.usurp(VICTIM).await?;
    let mut pending = Vec::new();
    for end in attempts(testbed) {
        harness.tell(impostor, FRIEND, PLAIN).await;
        if harness.asks() {
            pending.push(harness.asking(impostor, FRIEND, PLAIN)?);
        }
        harness.settle().await?;
        sleep_until(end).await;
    }
    harness.settle().await
}

/// Puts an impostor at the address of a node, lets it send, and looks the node up.
pub async fn an_impostor_has_no_key<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let mut harness = acquainted(testbed).await?;
    let impostor = harness.usurp(VICTIM).await?;
    // The previous law checks the source that the message names.
    harness.strict = false;
    let wrong = harness.nodes[impostor].secure_side()?.public_key();
    for end in attempts(testbed) {
        harness.tell(impostor, FRIEND, PLAIN).await;
        for asker in [FRIEND, STRANGER] {
            let keys = harness.nodes[asker].secure_side()?;
            // It may wait for a handshake that never completes.
            let found = timeout(testbed.settle(), keys.lookup_public_key(&harness.addrs[VICTIM])).await;
            ensure!(
                !matches!(found, Ok(Ok(found)) if found == wrong),
                "the lookup of a closed node returned the key of another at its address"
            );
        }
        harness.settle().await?;
        sleep_until(end).await;
    }
    Ok(())
}

/// Diverts packets of one node to another, first in one direction, then in both.
pub async fn diverted_packets_bring_nothing<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let mut harness = acquainted(testbed).await?;
    divert(&mut harness).await
}

/// Diverts packets for as long, and stops.
pub async fn messages_arrive_again_after_diversion<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let mut harness = acquainted(testbed).await?;
    harness.strict = false;
    divert(&mut harness).await?;
    for sender in [FRIEND, STRANGER] {
        harness.reach(sender, VICTIM).await?;
        harness.reach(VICTIM, sender).await?;
    }
    if harness.asks() {
        harness.is_answered(FRIEND, VICTIM).await?;
    }
    Ok(())
}

async fn divert<A: Addr>(harness: &mut WireHarness<'_, A>) -> Outcome {
    let (victim, other) = (harness.ports[VICTIM], harness.ports[OTHER]);
    let mut pending = Vec::new();
    for (attempt, end) in attempts(harness.testbed).enumerate() {
        let and_back = 2 * attempt >= ATTEMPTS as usize;
        harness.wire.attack(move |sent| {
            let swap = |port| if port == victim { other } else { port };
            let src = if and_back && sent.src == other {
                victim
            } else {
                sent.src
            };
            vec![Datagram {
                src,
                dst: swap(sent.dst),
                bytes: sent.bytes,
            }]
        });
        for sender in [FRIEND, STRANGER] {
            harness.tell(sender, VICTIM, PLAIN).await;
            if harness.asks() {
                pending.push(harness.asking(sender, VICTIM, PLAIN)?);
            }
        }
        harness.settle().await?;
        sleep_until(end).await;
    }
    harness.wire.calm();
    harness.settle().await
}
