//! A node is created again with its former key.

use p2p::Addr;

use super::scene::Scene;
use crate::field::PLAIN;
use crate::report::Outcome;
use crate::testbed::Testbed;

/// Records the packets of three nodes, restarts one of them, then the other end of its sessions, and replays
/// all recorded packets each time: before the new node has received anything else, and when it has new
/// sessions.
pub async fn replay_after_a_restart_repeats_nothing<A: Addr>(bed: &Testbed<A>) -> Outcome {
    bed.can_restart()?;
    let mut scene = Scene::new::<3>(bed).await?;
    scene.wire.record();
    scene.reach(0, 1).await?;
    for _ in 0..bed.amount(40).max(4) {
        for (from, to) in [(0, 1), (1, 0), (2, 1)] {
            scene.tell(from, to, PLAIN).await;
        }
        scene.settle().await?;
    }
    if scene.asks() {
        for _ in 0..bed.amount(10).max(2) {
            for (from, to) in [(0, 1), (1, 0), (2, 1)] {
                scene.ask(from, to, PLAIN, bed.the_profile().ask_patience).await?;
            }
        }
    }
    scene.settle().await?;
    scene.at_most_once()?;
    let sent = scene.wire.recorded();
    for restarted in [1, 0] {
        scene.restart(restarted).await?;
        scene.inject(sent.clone()).await?;
        scene.at_most_once()?;
        // Other laws check whether and when its peers reach it again.
        for (from, to) in [(2, restarted), (restarted, 2)] {
            scene.tell(from, to, PLAIN).await;
        }
        scene.settle().await?;
        scene.inject(sent.iter().rev().cloned()).await?;
        scene.inject(sent.clone()).await?;
        scene.at_most_once()?;
    }
    Ok(())
}
