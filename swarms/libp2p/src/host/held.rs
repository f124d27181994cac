//! The handle of a host that a swarm of the host holds, and its end.

use std::sync::Arc;
use std::time::Duration;

use p2p::{Error, Result};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Host;
use super::shared::CLOSE_TIMEOUT;

/// A handle of a host, which keeps the host open until it is closed or dropped.
pub(crate) struct HeldHost {
    host: Mutex<Option<Host>>,
    is_closed: Arc<watch::Sender<bool>>,
}

/// Says that the handle is closed, however the task that closes it ends.
struct Closed(Arc<watch::Sender<bool>>);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

impl HeldHost {
    pub(crate) fn new(host: Host) -> Self {
        Self {
            host: Mutex::new(Some(host)),
            is_closed: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Returns another handle.
    ///
    /// # Errors
    /// [`Error::Closed`] after [`close`](Self::close).
    pub(crate) fn get(&self) -> Result<Host> {
        self.host.lock().clone().ok_or(Error::Closed)
    }

    /// Waits for `sent` for up to `linger`, and closes the host if this is its last handle. The addresses of the host are free
    /// when it returns.
    ///
    /// # Cancel safety
    /// A task does it from the first poll on, so a caller that gives up keeps no address. Further calls wait for it.
    pub(crate) async fn close(&self, linger: Duration, sent: impl Future<Output = ()> + Send + 'static) {
        if let Some(host) = self.host.lock().take() {
            let closed = Closed(self.is_closed.clone());
            host.core().clone().spawn_detached(async move {
                let _ = timeout(linger, sent).await;
                if let Some(last) = host.into_last() {
                    last.close().await;
                }
                drop(closed);
            });
        }
        let mut is_closed = self.is_closed.subscribe();
        // The runtime of the host may no longer be driven; that must not block the caller.
        let closed = is_closed.wait_for(|closed| *closed);
        let _ = timeout(linger + 3 * CLOSE_TIMEOUT, closed).await;
    }
}
