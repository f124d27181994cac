//! The loop of a layer's work.

use std::future::Future;

use p2p::{Addr, Error, Message, Result, Swarm};
use tokio::time::sleep;

use super::{Driver, Kind, PAUSE, Sleeper, Timer};

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

/// Handles what a layer receives from the swarm below, a batch at a time.
pub trait HandleBatch<A: Addr>: Send {
    /// Handles the messages of one batch, which may be empty, and expired timers. Leaves `pulled` empty.
    fn handle_batch(&mut self, pulled: &mut Vec<Message<A>>) -> impl Future<Output = ()> + Send;
}

/// The step of a layer that waits for a batch from the swarm below, or for its timer, and handles either.
#[derive(Debug)]
pub struct Receiving<'a, A: Addr, S, H> {
    inner: &'a S,
    timer: &'a Timer,
    max: usize,
    handler: H,
    /// Empty between two steps.
    pulled: Vec<Message<A>>,
    sleeper: Sleeper,
}

impl<'a, A: Addr, S: Swarm<A>, H: HandleBatch<A>> Receiving<'a, A, S, H> {
    /// Creates a step that receives up to `max` messages at a time from `inner`.
    pub fn new(inner: &'a S, timer: &'a Timer, max: usize, handler: H) -> Self {
        Self {
            inner,
            timer,
            max,
            handler,
            pulled: Vec::new(),
            sleeper: Sleeper::default(),
        }
    }
}

impl<A: Addr, S: Swarm<A>, H: HandleBatch<A>> Step for Receiving<'_, A, S, H> {
    async fn step(&mut self) -> Result<()> {
        let receiving = self
            .timer
            .or_receive(self.inner, &mut self.pulled, self.max, &mut self.sleeper);
        receiving.await?;
        self.handler.handle_batch(&mut self.pulled).await;
        Ok(())
    }
}
