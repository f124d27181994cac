//! The items of one kind between a layer's work and its readers.

use std::collections::VecDeque;

use p2p::{Counters, Result};
use tokio::task::coop::consume_budget;

use super::{Driver, Interest, Kind, found};
use crate::inbox::{Extended, Inbox, Limits, Queued};

/// The [`Inbox`] of one kind of items, whose readers poll the work of a [`Driver`].
#[derive(Debug)]
pub struct Mailbox<T>(Inbox<T>);

impl<T> Mailbox<T> {
    /// Creates an empty mailbox.
    pub fn new(limits: Limits) -> Self {
        Self(Inbox::new(limits))
    }

    /// Returns the number of items that wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses all further items and drops the waiting ones. Returns the number of dropped items, for the layer to
    /// count.
    pub fn close(&self) -> usize {
        self.0.close()
    }
}

impl<T: Queued> Mailbox<T> {
    /// Delivers items and wakes as many readers. Returns the items that found no place, for the layer to count.
    ///
    /// Only the work may call this: the reader that polls the work takes its items after the poll, and if nothing
    /// else waits, it gets the batch as it is, beyond the limits and without copies. Other code calls
    /// [`extend`](Self::extend).
    pub fn deliver<K: Kind>(&self, driver: &Driver<K>, kind: K, items: &mut VecDeque<T>) -> Extended<T> {
        let wanted = match driver.polled_for() {
            Some(Interest::Items(polled_for, wanted)) if polled_for == kind => wanted,
            _ => 0,
        };
        let put = self.0.deliver(wanted, items);
        driver.notify(kind, put.accepted.saturating_sub(wanted));
        put
    }

    /// Delivers items as [`deliver`](Self::deliver) does, of a batch that goes to several mailboxes.
    ///
    /// `polled_for` is what [`Driver::polled_for`] returned before the batch; what the polling caller gets is
    /// subtracted from it. `items` is advanced under a lock: it must neither block nor use this mailbox.
    pub fn deliver_part<K: Kind>(
        &self,
        driver: &Driver<K>,
        kind: K,
        polled_for: &mut Option<Interest<K>>,
        items: impl IntoIterator<Item = T>,
    ) -> Extended<T> {
        let mut none = 0;
        let wanted = match polled_for {
            Some(Interest::Items(polled_for, wanted)) if *polled_for == kind => wanted,
            _ => &mut none,
        };
        let put = self.0.extend_for(*wanted, items);
        driver.notify(kind, put.accepted.saturating_sub(*wanted));
        *wanted = wanted.saturating_sub(put.accepted);
        put
    }

    /// Adds items and wakes as many readers. Returns the items that found no place, for the layer to count.
    ///
    /// `items` is advanced under a lock: it must neither block nor use this mailbox.
    pub fn extend<K: Kind>(
        &self,
        driver: &Driver<K>,
        kind: K,
        items: impl IntoIterator<Item = T>,
    ) -> Extended<T> {
        let put = self.0.extend(items);
        driver.notify(kind, put.accepted);
        put
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
        let interest = Interest::Items(kind, 1);
        driver.wait(interest, |_| found(self.0.try_pop())).await
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
            let count = self.0.try_pop_batch(out, max)?;
            Ok((count > 0).then_some(count))
        };
        let interest = Interest::Items(kind, max);
        let count = driver.wait(interest, |_| found(take())).await?;
        counters.add_delivered(count);
        Ok(count)
    }
}
