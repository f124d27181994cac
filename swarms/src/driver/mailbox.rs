//! The items of one kind between a layer's work and its readers.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use p2p::DropReason;

use super::{Driver, Interest, Kind, found};
use crate::inbox::{Extended, Inbox, Limits, Queued, Refused};

/// Items of one kind that wait for readers: in an [`Inbox`], or, if a reader polls the work itself, in a batch
/// that is passed to that reader as it is.
#[derive(Debug)]
pub struct Mailbox<T> {
    inbox: Inbox<T>,
    /// Items that a reader received, for itself and for later readers: at most one batch, because no reader polls
    /// the work while there are items.
    fresh: Mutex<VecDeque<T>>,
}

impl<T: Queued> Mailbox<T> {
    /// Creates an empty mailbox with these limits on what waits beside the batch.
    pub fn new(limits: Limits) -> Self {
        Self {
            inbox: Inbox::new(limits),
            fresh: Mutex::default(),
        }
    }

    fn fresh(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers a batch and wakes as many readers as it has items for. Returns the items that found no place, for
    /// the layer to count. Only the work may call this.
    pub fn deliver<K: Kind>(&self, driver: &Driver<K>, kind: K, items: &mut VecDeque<T>) -> Extended<T> {
        if let Some(Interest::Items(polled_for, wanted @ 1..)) = driver.polled_for()
            && polled_for == kind
        {
            let mut fresh = self.fresh();
            if fresh.is_empty() {
                let (accepted, others) = (items.len(), items.len().saturating_sub(wanted));
                mem::swap(&mut *fresh, items);
                drop(fresh);
                driver.notify(kind, others);
                return Extended {
                    accepted,
                    refused: Vec::new(),
                    reason: DropReason::QueueFull,
                };
            }
        }
        let put = self.inbox.extend(items.drain(..));
        driver.notify(kind, put.accepted);
        put
    }

    /// Adds an item that does not come from the work, such as a message of this node to itself, and wakes a
    /// reader.
    ///
    /// # Errors
    /// Returns the items that found no place.
    pub fn push<K: Kind>(&self, driver: &Driver<K>, kind: K, item: T) -> Result<(), Refused<T>> {
        self.inbox.push(item)?;
        driver.notify(kind, 1);
        Ok(())
    }

    /// Waits for the next item, and polls the work meanwhile.
    ///
    /// # Errors
    /// Returns the errors of [`Driver::wait`].
    ///
    /// # Cancel safety
    /// Cancelling loses nothing.
    pub async fn pop<K: Kind>(&self, driver: &Driver<K>, kind: K) -> p2p::Result<T> {
        let take = || match self.inbox.try_pop()? {
            Some(item) => Ok(Some(item)),
            None => Ok(self.fresh().pop_front()),
        };
        driver.wait(Interest::Items(kind, 1), |_| found(take())).await
    }

    /// Waits for at least one item, and polls the work meanwhile. Appends up to `max` items, which is not 0, to
    /// `out`, and returns their number.
    ///
    /// # Errors
    /// Returns the errors of [`Driver::wait`].
    ///
    /// # Cancel safety
    /// Cancelling loses nothing: `out` is unchanged until the call returns.
    pub async fn pop_batch<K: Kind>(
        &self,
        driver: &Driver<K>,
        kind: K,
        out: &mut Vec<T>,
        max: usize,
    ) -> p2p::Result<usize> {
        let mut take = || {
            let mut count = self.inbox.try_pop_batch(out, max)?;
            if count == 0 {
                let mut fresh = self.fresh();
                count = fresh.len().min(max);
                out.extend(fresh.drain(..count));
            }
            Ok((count > 0).then_some(count))
        };
        driver.wait(Interest::Items(kind, max), |_| found(take())).await
    }

    /// Refuses all further items and drops the waiting ones. Returns the number of dropped items.
    pub fn close(&self) -> usize {
        let fresh = mem::take(&mut *self.fresh());
        self.inbox.close() + fresh.len()
    }
}
