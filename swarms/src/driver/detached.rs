//! Packets that nobody waits for: they leave at once, or in a task of their own if there is no room at the moment.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Waker};

use p2p::Reason;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Sends that may wait for room at a time. Further ones are dropped; engines send again what matters.
const WAITING: usize = 64;

/// The sends of one layer that wait for room.
#[derive(Debug, Default)]
pub(crate) struct Detached(Arc<Places>);

#[derive(Debug, Default)]
struct Places {
    taken: AtomicUsize,
    idle: Notify,
}

/// The place of one send, given back when it is over: also if it panics, or its task is dropped.
struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        if self.0.taken.fetch_sub(1, SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

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
        let taken = self.0.taken.fetch_add(1, SeqCst);
        let place = Place(self.0.clone());
        if taken >= WAITING {
            return Err(Reason::QueueFull);
        }
        runtime.spawn(async move {
            sending.await;
            drop(place);
        });
        Ok(())
    }

    /// Waits until no send waits for room.
    pub(crate) async fn idle(&self) {
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
    async fn sends_that_panic_give_their_places_back() {
        let sends = Detached::default();
        for _ in 0..2 * WAITING {
            let sending = async {
                yield_now().await;
                panic!("on purpose");
            };
            sends.send(sending).expect("a place");
            sends.idle().await;
        }
    }

    #[tokio::test]
    async fn no_more_sends_wait_than_have_places() {
        let sends = Detached::default();
        for _ in 0..WAITING {
            sends.send(pending()).expect("a place");
        }
        assert_eq!(sends.send(pending()), Err(Reason::QueueFull));
        assert_eq!(sends.send(async {}), Ok(()), "what leaves at once needs no place");
    }
}
