//! Sends that no caller awaits: each completes at once, or continues in a task of its own while it waits for
//! room.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Waker};

use p2p::DropReason;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Maximum number of sends that may wait for room at a time. Further sends are dropped; engines retransmit
/// what matters.
const WAITING: usize = 64;

/// The sends of one layer that wait for room.
#[derive(Debug, Default)]
pub struct BackgroundSends(Arc<Slots>);

#[derive(Debug, Default)]
struct Slots {
    taken: AtomicUsize,
    idle: Notify,
}

/// The slot of one send, released when the send ends, panics, or its task is dropped.
struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        if self.0.taken.fetch_sub(1, SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl BackgroundSends {
    /// Starts `sending`, and spawns a task for it if it does not complete at once.
    ///
    /// # Errors
    /// Returns the drop reason: [`DropReason::Refused`] outside of a runtime, [`DropReason::QueueFull`] if too many
    /// sends wait.
    pub fn send(&self, sending: impl Future<Output = ()> + Send + 'static) -> Result<(), DropReason> {
        // Layers below may set timers, which need a runtime.
        let runtime = Handle::try_current().map_err(|_| DropReason::Refused)?;
        let mut sending = Box::pin(sending);
        let mut noop = Context::from_waker(Waker::noop());
        if sending.as_mut().poll(&mut noop).is_ready() {
            return Ok(());
        }
        let taken = self.0.taken.fetch_add(1, SeqCst);
        let slot = Slot(self.0.clone());
        if taken >= WAITING {
            return Err(DropReason::QueueFull);
        }
        runtime.spawn(async move {
            sending.await;
            drop(slot);
        });
        Ok(())
    }

    /// Waits until no send waits for room.
    pub async fn idle(&self) {
        loop {
            let mut idle = pin!(self.0.idle.notified());
            // From here on no notification is missed.
            idle.as_mut().enable();
            if self.0.taken.load(SeqCst) == 0 {
                return;
            }
            idle.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::task::yield_now;

    #[tokio::test]
    async fn a_send_that_panics_releases_its_slot() {
        let sends = BackgroundSends::default();
        for _ in 0..2 * WAITING {
            let sending = async {
                yield_now().await;
                panic!("on purpose");
            };
            sends.send(sending).expect("a free slot");
            sends.idle().await;
        }
    }

    #[tokio::test]
    async fn the_number_of_waiting_sends_is_bounded() {
        let sends = BackgroundSends::default();
        for _ in 0..WAITING {
            sends.send(pending()).expect("a free slot");
        }
        assert_eq!(sends.send(pending()), Err(DropReason::QueueFull));
        assert_eq!(
            sends.send(async {}),
            Ok(()),
            "a send that completes at once needs no slot"
        );
    }
}
