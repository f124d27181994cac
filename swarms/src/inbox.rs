//! A bounded queue between the code that produces messages and the tasks that read them.
//!
//! Putting never waits: what finds no place is given back, and the caller counts it as
//! [`DropReason::QueueFull`]. A batch goes in and comes out under one lock and with one wake-up. Bounded in
//! items and in bytes, where an item is charged the memory that it really holds.
//!
//! A full inbox drops a message of the source with the most waiting messages (`inbox/shares.rs`), so a source that floods does
//! not keep others' messages out. Where no source has more than that of the new message, the new message is dropped.
//!
//! Deliberately absent: priorities, and making room by dropping what is old.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::task::{Context, Poll};

use p2p::{DropReason, Error, Result};
use parking_lot::{Mutex, MutexGuard};
use tokio::task::coop::cooperative;

pub use self::limits::Limits;
pub use self::queued::Queued;
use self::queued::charge;
pub use self::shares::Source;
use self::state::State;
use crate::waiters::{Waiters, wake, wake_all};

#[cfg(test)]
mod floods;
mod limits;
mod queued;
mod shares;
mod state;
#[cfg(test)]
mod tests;

/// A bounded queue with any number of writers and readers.
///
/// Each item goes to exactly one reader. Waiting readers are served first come, first served.
pub struct Inbox<T> {
    limits: Limits,
    /// False while the inbox is open and empty, so that a lookup in vain takes no lock. Written under the lock.
    filled: AtomicBool,
    state: Mutex<State<T>>,
}

/// Items that found no place.
#[derive(Debug)]
pub struct Refused<T> {
    /// The new item, or those that waited and made room for it.
    pub items: Vec<T>,
    /// [`DropReason::QueueFull`] or [`DropReason::Closed`].
    pub reason: DropReason,
}

/// The result of pushing a batch.
#[derive(Debug)]
pub struct Extended<T> {
    /// How many more items wait than before.
    pub accepted: usize,
    /// The items that found no place: new ones, or ones that waited and made room for new ones of other sources.
    pub refused: Vec<T>,
    /// Why they found none: [`DropReason::QueueFull`] or [`DropReason::Closed`].
    pub reason: DropReason,
}

impl<T> Inbox<T> {
    /// Creates an empty inbox.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            filled: AtomicBool::new(false),
            state: Mutex::new(State {
                queue: VecDeque::new(),
                bytes: 0,
                shares: None,
                closed: false,
                waiting: Waiters::default(),
            }),
        }
    }

    /// Returns the number of waiting items.
    pub fn len(&self) -> usize {
        self.lock().queue.len()
    }

    /// Returns whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of bytes that the waiting items are charged.
    pub fn held(&self) -> usize {
        self.lock().bytes
    }

    /// Returns whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Refuses all further items, drops the waiting ones and wakes every reader with [`Error::Closed`].
    ///
    /// Returns the number of dropped items, for the caller to count. Idempotent: a second call returns 0.
    pub fn close(&self) -> usize {
        let mut state = self.lock();
        state.closed = true;
        self.filled.store(true, Release);
        state.bytes = 0;
        state.shares = None;
        let dropped = mem::take(&mut state.queue);
        let waiting = state.waiting.take();
        drop(state);
        wake_all(waiting);
        dropped.len()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock()
    }
}

impl<T: Queued> Inbox<T> {
    /// Pushes one item. Never waits.
    ///
    /// # Errors
    /// The items that found no place, if the inbox is full or closed.
    pub fn push(&self, item: T) -> Result<(), Refused<T>> {
        let mut state = self.lock();
        if let Err(item) = state.push(item, &self.limits) {
            let reason = state.refusal();
            let mut items = Vec::new();
            state.push_full(item, &self.limits, &mut items);
            self.filled.store(true, Release);
            return Err(Refused { items, reason });
        }
        self.filled.store(true, Release);
        let reader = state.waiting.pop();
        drop(state);
        wake(reader);
        Ok(())
    }

    /// Pushes a batch with one lock and one wake-up. Never waits.
    ///
    /// A refused item does not block smaller ones behind it. `items` is advanced under the lock: it must
    /// neither block nor use this inbox.
    pub fn extend(&self, items: impl IntoIterator<Item = T>) -> Extended<T> {
        self.extend_for(0, items)
    }

    /// Pushes a batch, as [`extend`](Self::extend) does, of which the caller takes `wanted` items out
    /// immediately: those do not count against the limits and are not copied.
    pub(crate) fn extend_for(&self, mut wanted: usize, items: impl IntoIterator<Item = T>) -> Extended<T> {
        let mut state = self.lock();
        let before = state.queue.len();
        let mut refused = Vec::new();
        for item in items {
            if let Err(item) = state.push_for(&mut wanted, item, &self.limits) {
                state.push_full(item, &self.limits, &mut refused);
            }
        }
        let accepted = state.queue.len().saturating_sub(before);
        self.filled.store(true, Release);
        let reason = state.refusal();
        let reader = if accepted > 0 { state.waiting.pop() } else { None };
        drop(state);
        wake(reader);
        Extended {
            accepted,
            refused,
            reason,
        }
    }

    /// Pushes a batch that the work of a layer delivers while a reader, which wants `wanted` items, polls it. If
    /// nothing waits, the batch becomes the queue as it is: without copies, and beyond the limits by one batch.
    pub(crate) fn deliver(&self, wanted: usize, items: &mut VecDeque<T>) -> Extended<T> {
        let mut state = self.lock();
        if wanted == 0 || state.closed || !state.queue.is_empty() {
            drop(state);
            return self.extend_for(wanted, items.drain(..));
        }
        state.bytes = items.iter().map(charge).sum();
        state.shares = None;
        mem::swap(&mut state.queue, items);
        self.filled.store(true, Release);
        Extended {
            accepted: state.queue.len(),
            refused: Vec::new(),
            reason: DropReason::QueueFull,
        }
    }

    /// Pops the next item, if there is one.
    ///
    /// # Errors
    /// Returns [`Error::Closed`] after [`close`](Self::close).
    pub fn try_pop(&self) -> Result<Option<T>> {
        if !self.filled.load(Acquire) {
            return Ok(None);
        }
        let mut state = self.lock();
        let item = state.pop();
        self.note_empty(&state);
        match item {
            None if state.closed => Err(Error::Closed),
            item => Ok(item),
        }
    }

    /// Appends up to `max` waiting items to `out`; returns their number.
    ///
    /// # Errors
    /// Returns [`Error::Closed`] after [`close`](Self::close).
    pub fn try_pop_batch(&self, out: &mut Vec<T>, max: usize) -> Result<usize> {
        if !self.filled.load(Acquire) {
            return Ok(0);
        }
        let mut state = self.lock();
        let count = state.pop_batch(out, max);
        self.note_empty(&state);
        match count {
            None if state.closed => Err(Error::Closed),
            count => Ok(count.unwrap_or(0)),
        }
    }

    fn note_empty(&self, state: &State<T>) {
        if state.queue.is_empty() && !state.closed {
            self.filled.store(false, Release);
        }
    }

    /// Waits for the next item.
    ///
    /// # Errors
    /// Returns [`Error::Closed`] after [`close`](Self::close).
    ///
    /// # Cancel safety
    /// Cancelling loses neither an item nor a wake-up: both pass to the next reader.
    pub async fn pop(&self) -> Result<T> {
        let mut reader = Reader::new(self);
        cooperative(poll_fn(|cx| reader.poll(cx, State::pop))).await
    }

    /// Waits for at least one item, then appends up to `max` items to `out`; returns their number. With a
    /// `max` of 0 it returns 0 at once.
    ///
    /// # Errors
    /// Returns [`Error::Closed`] after [`close`](Self::close).
    ///
    /// # Cancel safety
    /// Cancel safe as [`pop`](Self::pop) is: `out` is unchanged until the call returns.
    pub async fn pop_batch(&self, out: &mut Vec<T>, max: usize) -> Result<usize> {
        if max == 0 {
            return Ok(0);
        }
        let mut reader = Reader::new(self);
        cooperative(poll_fn(|cx| reader.poll(cx, |state| state.pop_batch(out, max)))).await
    }

    /// Removes and returns the items for which `unwanted` returns true.
    ///
    /// `unwanted` is called under the lock: it must neither block nor use this inbox.
    pub fn remove(&self, mut unwanted: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut state = self.lock();
        let mut removed = Vec::new();
        state.shares = None;
        for _ in 0..state.queue.len() {
            let Some(item) = state.queue.pop_front() else {
                break;
            };
            if unwanted(&item) {
                state.bytes -= charge(&item);
                removed.push(item);
            } else {
                state.queue.push_back(item);
            }
        }
        removed
    }
}

impl<T> fmt::Debug for Inbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Inbox")
            .field("limits", &self.limits)
            .field("items", &state.queue.len())
            .field("bytes", &state.bytes)
            .field("closed", &state.closed)
            .finish_non_exhaustive()
    }
}

/// The wait of one reader.
struct Reader<'a, T> {
    inbox: &'a Inbox<T>,
    ticket: Option<u64>,
}

impl<'a, T> Reader<'a, T> {
    fn new(inbox: &'a Inbox<T>) -> Self {
        Self { inbox, ticket: None }
    }

    fn poll<R>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut State<T>) -> Option<R>,
    ) -> Poll<Result<R>> {
        let mut state = self.inbox.lock();
        if state.queue.is_empty() && !state.closed {
            let outdated = state.waiting.register(&mut self.ticket, cx.waker(), ());
            drop(state);
            drop(outdated);
            return Poll::Pending;
        }
        let _unused = self.ticket.take().and_then(|ticket| state.waiting.remove(ticket));
        let taken = take(&mut state);
        let next = if state.queue.is_empty() {
            None
        } else {
            state.waiting.pop()
        };
        drop(state);
        wake(next);
        Poll::Ready(taken.ok_or(Error::Closed))
    }
}

impl<T> Drop for Reader<'_, T> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.inbox.lock();
        let own = state.waiting.remove(ticket);
        let next = if own.is_none() && !state.queue.is_empty() {
            state.waiting.pop()
        } else {
            None
        };
        drop(state);
        wake(next);
    }
}
