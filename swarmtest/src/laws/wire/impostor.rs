//! Another node at the address of a known one.

use p2p::{Addr, SecureSwarm as _};
use tokio::time::{Instant, sleep_until, timeout};

use super::scene::Scene;
use crate::field::{PLAIN, ensure};
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
async fn acquainted<A: Addr>(bed: &Testbed<A>) -> Outcome<Scene<'_, A>> {
    let mut scene = Scene::new::<4>(bed).await?;
    scene.names_ids()?;
    for known in [VICTIM, OTHER] {
        scene.reach(FRIEND, known).await?;
        scene.reach(known, FRIEND).await?;
    }
    Ok(scene)
}

/// The end times of the attempts.
fn attempts<A: Addr>(bed: &Testbed<A>) -> impl Iterator<Item = Instant> + use<A> {
    let (start, all) = (Instant::now(), bed.patience());
    (1..=ATTEMPTS).map(move |attempt| start + all * attempt / ATTEMPTS)
}

/// Puts an impostor at the address of a node, and tells the node.
pub async fn an_impostor_gets_no_message<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let mut scene = acquainted(bed).await?;
    scene.usurp(VICTIM).await?;
    for end in attempts(bed) {
        scene.tell(FRIEND, VICTIM, PLAIN).await;
        scene.tell(STRANGER, VICTIM, PLAIN).await;
        scene.settle().await?;
        sleep_until(end).await;
    }
    scene.settle().await
}

/// Puts an impostor at the address of a node, and asks the node.
pub async fn an_impostor_gets_no_ask<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let mut scene = acquainted(bed).await?;
    scene.usurp(VICTIM).await?;
    let mut pending = Vec::new();
    for end in attempts(bed) {
        for asker in [FRIEND, STRANGER] {
            pending.push(scene.asking(asker, VICTIM, PLAIN)?);
        }
        scene.settle().await?;
        sleep_until(end).await;
    }
    scene.settle().await?;
    for asking in pending {
        let answered = scene.answered(asking, bed.the_profile().ask_patience).await?;
        ensure!(!answered, "an ask of a closed node was answered");
    }
    scene.settle().await
}

/// Puts an impostor at the address of a node, which tells and asks a node that knew the closed one.
pub async fn an_impostor_has_no_say<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let mut scene = acquainted(bed).await?;
    let impostor = scene.usurp(VICTIM).await?;
    let mut pending = Vec::new();
    for end in attempts(bed) {
        scene.tell(impostor, FRIEND, PLAIN).await;
        if scene.asks() {
            pending.push(scene.asking(impostor, FRIEND, PLAIN)?);
        }
        scene.settle().await?;
        sleep_until(end).await;
    }
    scene.settle().await
}

/// Puts an impostor at the address of a node, lets it send, and looks the node up.
pub async fn an_impostor_has_no_key<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let mut scene = acquainted(bed).await?;
    let impostor = scene.usurp(VICTIM).await?;
    // The previous law checks the source that the message names.
    scene.strict = false;
    let wrong = scene.nodes[impostor].secure_side()?.public_key();
    for end in attempts(bed) {
        scene.tell(impostor, FRIEND, PLAIN).await;
        for asker in [FRIEND, STRANGER] {
            let keys = scene.nodes[asker].secure_side()?;
            // It may wait for a handshake that never completes.
            let found = timeout(bed.settle(), keys.lookup_public_key(&scene.addrs[VICTIM])).await;
            ensure!(
                !matches!(found, Ok(Ok(found)) if found == wrong),
                "the lookup of a closed node returned the key of another at its address"
            );
        }
        scene.settle().await?;
        sleep_until(end).await;
    }
    Ok(())
}

/// Diverts packets of one node to another, first in one direction, then in both.
pub async fn diverted_packets_bring_nothing<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let mut scene = acquainted(bed).await?;
    divert(&mut scene).await
}

/// Diverts packets for as long, and stops.
pub async fn messages_arrive_again_after_diversion<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let mut scene = acquainted(bed).await?;
    scene.strict = false;
    divert(&mut scene).await?;
    for sender in [FRIEND, STRANGER] {
        scene.reach(sender, VICTIM).await?;
        scene.reach(VICTIM, sender).await?;
    }
    if scene.asks() {
        scene.is_answered(FRIEND, VICTIM).await?;
    }
    Ok(())
}

async fn divert<A: Addr>(scene: &mut Scene<'_, A>) -> Outcome {
    let (victim, other) = (scene.ports[VICTIM], scene.ports[OTHER]);
    let mut pending = Vec::new();
    for (attempt, end) in attempts(scene.bed).enumerate() {
        let and_back = 2 * attempt >= ATTEMPTS as usize;
        scene.wire.attack(move |sent| {
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
            scene.tell(sender, VICTIM, PLAIN).await;
            if scene.asks() {
                pending.push(scene.asking(sender, VICTIM, PLAIN)?);
            }
        }
        scene.settle().await?;
        sleep_until(end).await;
    }
    scene.wire.calm();
    scene.settle().await
}
