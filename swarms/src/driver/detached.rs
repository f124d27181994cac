//! Packets that nobody waits for: they leave at once, or in a task of their own if there is no room at the moment.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Waker};

use p2p::Reason;
use tokio::runtime::Handle;

/// Sends that may wait for room at a time. Further ones are dropped; engines send again what matters.
const WAITING: usize = 64;

/// The sends of one layer that wait for room.
#[derive(Debug, Default)]
pub(crate) struct Detached(Arc<AtomicUsize>);

impl Detached {
    /// Begins `sending`, and sees to it that it goes on.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn send(&self, sending: impl Future<Output = ()> + Send + 'static) -> Result<(), Reason> {
        // Layers below may set timers.
        let runtime = Handle::try_current().map_err(|_| Reason::Refused)?;
        let mut sending = Box::pin(sending);
        let mut nobody = Context::from_waker(Waker::noop());
        if sending.as_mut().poll(&mut nobody).is_ready() {
            return Ok(());
        }
        if self.0.fetch_add(1, Relaxed) >= WAITING {
            self.0.fetch_sub(1, Relaxed);
            return Err(Reason::QueueFull);
        }
        let waiting = self.0.clone();
        runtime.spawn(async move {
            sending.await;
            waiting.fetch_sub(1, Relaxed);
        });
        Ok(())
    }
}
