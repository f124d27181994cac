//! What an inbox holds, under its lock.

use std::collections::VecDeque;

use p2p::{DropReason, Result};

use super::queued::charge;
use super::shares::Shares;
use super::{Limits, Queued};
use crate::waiters::Waiters;

#[derive(Debug)]
pub(super) struct State<T> {
    pub(super) queue: VecDeque<T>,
    pub(super) bytes: usize,
    /// What waits by source, from when the inbox was full until half of it was read.
    pub(super) shares: Option<Box<Shares>>,
    pub(super) closed: bool,
    /// Waiting readers, first come, first served. A push wakes the first reader. A reader that leaves items
    /// behind wakes the next one, and so does a reader that was woken and then cancelled. So while items and
    /// readers both wait, one reader has been woken, and a batch costs one wake-up.
    pub(super) waiting: Waiters,
}

impl<T> State<T> {
    pub(super) fn refusal(&self) -> DropReason {
        if self.closed {
            DropReason::Closed
        } else {
            DropReason::QueueFull
        }
    }
}

impl<T: Queued> State<T> {
    /// Pushes an item, beyond the limits if it is `wanted`.
    pub(super) fn push_for(&mut self, wanted: &mut usize, item: T, limits: &Limits) -> Result<(), T> {
        if *wanted == 0 || self.closed {
            return self.push(item, limits);
        }
        *wanted -= 1;
        self.bytes += charge(&item);
        self.append(item, limits);
        Ok(())
    }

    /// Puts an item in, or gives it back where there is no room.
    pub(super) fn push(&mut self, mut item: T, limits: &Limits) -> Result<(), T> {
        if self.closed || self.queue.len() >= limits.items {
            return Err(item);
        }
        // An item goes directly to a waiting reader; behind another item it must wait.
        let must_wait = self.waiting.is_empty() || !self.queue.is_empty();
        if must_wait {
            limits.copy_out(item.payload_mut(), self.queue.len());
        }
        let bytes = self.bytes + charge(&item);
        if bytes > limits.bytes {
            return Err(item);
        }
        self.bytes = bytes;
        self.append(item, limits);
        Ok(())
    }

    /// Makes room for an item by dropping items of the source with the most, or refuses it.
    #[cold]
    #[inline(never)]
    pub(super) fn push_full(&mut self, mut item: T, limits: &Limits, refused: &mut Vec<T>) {
        if self.closed || limits.items == 0 || charge(&item) > limits.bytes {
            refused.push(item);
            return;
        }
        if self.shares.as_ref().is_some_and(|shares| shares.is_over()) {
            self.shares = None;
        }
        while !self.queue.is_empty() {
            let queue = &mut self.queue;
            let shares = self.shares.get_or_insert_with(|| Shares::new(queue, limits));
            let Some(place) = shares.victim(&item, limits) else {
                refused.push(item);
                return;
            };
            limits.copy_out(item.payload_mut(), queue.len());
            let without = self.bytes - queue.get(place).map_or(0, charge);
            let bytes = without + charge(&item);
            // What is wanted at once may have exceeded the limit already.
            if bytes <= limits.bytes.max(self.bytes) {
                self.bytes = bytes;
                refused.extend(shares.replace(queue, place, item, limits));
                return;
            }
            self.bytes = without;
            shares.remove(place);
            refused.extend(queue.remove(place));
        }
        self.bytes = charge(&item);
        self.append(item, limits);
    }

    fn append(&mut self, item: T, limits: &Limits) {
        if self.shares.is_some() {
            self.count(&item, limits);
        }
        self.queue.push_back(item);
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let item = self.queue.pop_front()?;
        self.bytes -= charge(&item);
        self.popped(1);
        Some(item)
    }

    pub(super) fn pop_batch(&mut self, out: &mut Vec<T>, max: usize) -> Option<usize> {
        let count = self.queue.len().min(max);
        if count == 0 {
            return None;
        }
        self.bytes -= if count == self.queue.len() {
            self.bytes
        } else {
            self.queue.iter().take(count).map(charge).sum()
        };
        out.extend(self.queue.drain(..count));
        self.popped(count);
        Some(count)
    }

    #[cold]
    fn count(&mut self, item: &T, limits: &Limits) {
        if let Some(shares) = &mut self.shares {
            shares.push(item, limits);
        }
    }

    fn popped(&mut self, count: usize) {
        if self.shares.is_some() {
            self.uncount(count);
        }
    }

    #[cold]
    fn uncount(&mut self, count: usize) {
        if let Some(shares) = &mut self.shares {
            shares.pop(count);
            if shares.is_over() {
                self.shares = None;
            }
        }
    }
}
