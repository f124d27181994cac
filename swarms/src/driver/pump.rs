//! The loop of a layer's work.

use std::future::Future;

use p2p::{Error, Result};
use tokio::time::sleep;

use super::{Driver, Kind, PAUSE};

/// One step of a layer's work: waits for an event, such as messages from the swarm below or an expired timer,
/// and handles it.
pub trait Step: Send {
    /// Waits for the next event and handles it.
    ///
    /// # Errors
    /// Returns [`Error::Closed`] when the swarm below is closed, which ends the work, and other errors of the
    /// swarm below.
    fn step(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// Repeats a step until the swarm below is closed. Other errors are [reported](Driver::fail) to a caller that
/// waits for items, and the work continues after a pause. `layer` names the layer in traces.
pub async fn pump<K: Kind>(driver: &Driver<K>, layer: &'static str, mut work: impl Step) {
    loop {
        match work.step().await {
            Ok(()) => driver.yield_to_leader().await,
            Err(Error::Closed) => return,
            Err(error) => {
                tracing::debug!(layer, %error, "receiving failed");
                driver.fail(error);
                sleep(PAUSE).await;
            }
        }
    }
}
