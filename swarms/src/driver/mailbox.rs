//! The items of one kind between a layer's work and its readers.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};

use p2p::{Counters, DropReason, Result};
use parking_lot::Mutex;
use tokio::task::coop::consume_budget;

use super::{Driver, Interest, Kind, found};
use crate::inbox::{Extended, Inbox, Limits, Queued};

/// Items of one kind that wait for readers: in an [`Inbox`], or, if a reader polls the work itself, in a batch
/// that is passed to that reader as it is.
#[derive(Debug)]
pub struct Mailbox<T> {
    state: Mutex<State<T>>,
    /// Set while items may wait, so that a reader need not lock before it polls the work. It is set before
    /// readers are notified, and a reader looks again once it is registered.
    filled: AtomicBool,
}

#[derive(Debug)]
struct State<T> {
    inbox: Inbox<T>,
    /// The items of the last reader that polled the work, for that reader and later ones.
    batch: VecDeque<T>,
    closed: bool,
}

impl<T: Queued> Mailbox<T> {
    /// Creates an empty mailbox with these limits on what waits beside the one batch.
    pub fn new(limits: Limits) -> Self {
        Self {
            state: Mutex::new(State {
                inbox: Inbox::new(limits),
                batch: VecDeque::new(),
                closed: false,
            }),
            filled: AtomicBool::new(false),
        }
    }

    /// Returns the number of items that wait.
    pub fn len(&self) -> usize {
        let state = self.state.lock();
        state.batch.len() + state.inbox.len()
    }

    /// Returns whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Delivers items and wakes as many readers. Returns the items that found no place, for the layer to count.
    ///
    /// Only the work may call this: the reader that polls the work takes the items after the poll. Other code
    /// calls [`extend`](Self::extend).
    pub fn deliver<K: Kind>(&self, driver: &Driver<K>, kind: K, items: &mut VecDeque<T>) -> Extended<T> {
        if let Some(Interest::Items(polled_for, wanted @ 1..)) = driver.polled_for()
            && polled_for == kind
        {
            let mut state = self.state.lock();
            if state.batch.is_empty() && !state.closed {
                let (accepted, others) = (items.len(), items.len().saturating_sub(wanted));
                mem::swap(&mut state.batch, items);
                self.filled.store(true, Release);
                drop(state);
                driver.notify(kind, others);
                return Extended {
                    accepted,
                    refused: Vec::new(),
                    reason: DropReason::QueueFull,
                };
            }
        }
        self.extend(driver, kind, items.drain(..))
    }

    /// Adds items and wakes as many readers. Returns the items that found no place, for the layer to count.
    ///
    /// `items` is advanced under the lock: it must neither block nor use this mailbox.
    pub fn extend<K: Kind>(
        &self,
        driver: &Driver<K>,
        kind: K,
        items: impl IntoIterator<Item = T>,
    ) -> Extended<T> {
        let state = self.state.lock();
        let put = state.inbox.extend(items);
        self.filled.store(true, Release);
        drop(state);
        driver.notify(kind, put.accepted);
        put
    }

    /// Takes items by `take`, from the batch and the inbox, if any may wait.
    fn take<R>(&self, take: impl FnOnce(&mut State<T>) -> Result<Option<R>>) -> Result<Option<R>> {
        if !self.filled.load(Acquire) {
            return Ok(None);
        }
        let mut state = self.state.lock();
        let taken = take(&mut state);
        if let Ok(None) = taken {
            self.filled.store(false, Release);
        }
        taken
    }

    /// Waits for the next item, polls the work meanwhile, and counts the item as delivered.
    ///
    /// # Errors
    /// Returns the errors of [`Driver::wait`].
    ///
    /// # Cancel safety
    /// Cancelling loses nothing.
    pub async fn receive<K: Kind>(&self, driver: &Driver<K>, kind: K, counters: &Counters) -> Result<T> {
        let item = self.pop(driver, kind).await?;
        counters.add_delivered(1);
        Ok(item)
    }

    /// Waits for the next item, and polls the work meanwhile. For items that the layer may still drop.
    ///
    /// # Errors
    /// Returns the errors of [`Driver::wait`].
    ///
    /// # Cancel safety
    /// Cancelling loses nothing.
    pub async fn pop<K: Kind>(&self, driver: &Driver<K>, kind: K) -> Result<T> {
        consume_budget().await;
        let take = || {
            self.take(|state| match state.batch.pop_front() {
                Some(item) => Ok(Some(item)),
                None => state.inbox.try_pop(),
            })
        };
        driver.wait(Interest::Items(kind, 1), |_| found(take())).await
    }

    /// Waits for at least one item, polls the work meanwhile, appends up to `max` items to `out`, and counts them
    /// as delivered. Returns their number; with a `max` of 0 it returns 0 at once.
    ///
    /// # Errors
    /// Returns the errors of [`Driver::wait`].
    ///
    /// # Cancel safety
    /// Cancelling loses nothing: `out` is unchanged until the call returns.
    pub async fn receive_batch<K: Kind>(
        &self,
        driver: &Driver<K>,
        kind: K,
        counters: &Counters,
        out: &mut Vec<T>,
        max: usize,
    ) -> Result<usize> {
        if max == 0 {
            return Ok(0);
        }
        consume_budget().await;
        let mut take = || {
            self.take(|state| {
                let mut count = state.batch.len().min(max);
                out.extend(state.batch.drain(..count));
                if count == 0 {
                    count = state.inbox.try_pop_batch(out, max)?;
                }
                Ok((count > 0).then_some(count))
            })
        };
        let count = driver.wait(Interest::Items(kind, max), |_| found(take())).await?;
        counters.add_delivered(count);
        Ok(count)
    }

    /// Refuses all further items and drops the waiting ones. Returns the number of dropped items, for the layer to
    /// count.
    pub fn close(&self) -> usize {
        let mut state = self.state.lock();
        state.closed = true;
        let batch = mem::take(&mut state.batch);
        let waiting = state.inbox.close_and_take();
        self.filled.store(true, Release);
        // Dropping a request rejects it, which may use this mailbox.
        drop(state);
        batch.len() + waiting.len()
    }
}
