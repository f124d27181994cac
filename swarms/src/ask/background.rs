//! Pulls from below while nobody else does, as long as askers may still want their responses again.

use std::sync::Weak;
use std::time::Duration;

use p2p::{Addr, Swarm};
use tokio::time::sleep;

use super::shared::{Shared, Want};

/// How long nobody must have waited before the background does. A node that serves in a loop, or asks one thing
/// after another, waits again much sooner, and pays nothing for this task.
const GRACE: Duration = Duration::from_millis(100);

/// Runs until nothing is remembered, the swarm is closed, or it is gone.
pub(super) async fn run<A: Addr, S: Swarm<A>>(shared: Weak<Shared<A, S>>) {
    let mut pulls = 0;
    loop {
        sleep(GRACE).await;
        let Some(shared) = shared.upgrade() else { return };
        let Some(now) = shared.still_needed() else { return };
        if std::mem::replace(&mut pulls, now) != now {
            continue;
        }
        let Some(mut driving) = shared.turn.try_drive() else {
            continue;
        };
        let _driven = shared.drive_in_background();
        // Whoever waits again, or asks something, nudges, and gets the turn.
        while let Ok(nudged) = shared.pull(&mut driving).await {
            shared.land(&mut driving, Want::Nothing);
            if nudged || shared.still_needed().is_none() {
                break;
            }
        }
    }
}
