//! A node is created again with its former key.

use p2p::Addr;

use super::harness::WireHarness;
use crate::harness::PLAIN;
use crate::report::Outcome;
use crate::testbed::Testbed;

/// Records the packets of three nodes, restarts one of them, then the other end of its sessions, and replays
/// all recorded packets each time: before the new node has received anything else, and when it has new
/// sessions.
pub async fn replay_after_a_restart_repeats_nothing<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    testbed.can_restart()?;
    let mut harness = WireHarness::new::<3>(testbed).await?;
    harness.wire.record();
    harness.reach(0, 1).await?;
    for _ in 0..testbed.amount(40).max(4) {
        for (from, to) in [(0, 1), (1, 0), (2, 1)] {
            harness.tell(from, to, PLAIN).await;
        }
        harness.settle().await?;
    }
    if harness.asks() {
        for _ in 0..testbed.amount(10).max(2) {
            for (from, to) in [(0, 1), (1, 0), (2, 1)] {
                harness
                    .ask(from, to, PLAIN, testbed.the_profile().ask_patience)
                    .await?;
            }
        }
    }
    harness.settle().await?;
    harness.at_most_once()?;
    let sent = harness.wire.recorded();
    for restarted in [1, 0] {
        harness.restart(restarted).await?;
        harness.inject(sent.clone()).await?;
        harness.at_most_once()?;
        // Other laws check whether and when its peers reach it again.
        for (from, to) in [(2, restarted), (restarted, 2)] {
            harness.tell(from, to, PLAIN).await;
        }
        harness.settle().await?;
        harness.inject(sent.iter().rev().cloned()).await?;
        harness.inject(sent.clone()).await?;
        harness.at_most_once()?;
    }
    Ok(())
}
