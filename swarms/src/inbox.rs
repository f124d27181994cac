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
use std::collections::hash_map::RandomState;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::task::{Context, Poll};

use p2p::{Addr, DropReason, Error, Headroom, Message, Packet, Request, Result};
use parking_lot::{Mutex, MutexGuard};
use tokio::task::coop::cooperative;

use self::shares::Shares;
pub use self::shares::Source;
use crate::waiters::{Waiters, wake, wake_all};

#[cfg(test)]
mod floods;
mod shares;
#[cfg(test)]
mod tests;

/// Bounds of an [`Inbox`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Items that wait at most; beyond them, one of the source with the most is dropped. At 0 nothing gets in.
    pub items: usize,
    /// Bytes that waiting items hold at most, their bookkeeping included; beyond them, items of the source with the most
    /// are dropped. An item that exceeds them alone is refused.
    pub bytes: usize,
    /// A payload shorter than this many bytes is copied into a buffer of its own when it must wait, so that
    /// it does not keep the large receive buffer that it arrived in. Behind 64 waiting items, payloads of up
    /// to 16 KiB are copied: the memory held is then hardly more than what is charged. 0 disables copying,
    /// for packets that are known to own their buffers.
    pub copy_below: usize,
}

impl Default for Limits {
    /// Returns 1024 items, 4 MiB, and copying of payloads under 256 bytes.
    fn default() -> Self {
        Self {
            items: 1024,
            bytes: 4 << 20,
            copy_below: 256,
        }
    }
}

impl Limits {
    /// Copies a small payload, about to wait behind the given number of items, out of its receive buffer. A
    /// reader that keeps up takes a batch before that many wait, and no large payload is copied.
    pub(crate) fn copy_out(&self, packet: &mut Packet, behind: usize) {
        let below = match self.copy_below {
            0 => 0,
            below if behind < UNCOPIED => below,
            below => below.max(LARGE),
        };
        if packet.len() < below {
            let room = packet.room();
            packet.reallocate(Headroom::new(
                room.front.min(KEPT_ROOM.front),
                room.back.min(KEPT_ROOM.back),
            ));
        }
    }
}

/// An item of an [`Inbox`].
pub trait Queued {
    /// Returns the packet that the item carries.
    fn payload(&self) -> &Packet;
    /// Returns the packet mutably, so that it can be copied out of a larger buffer.
    fn payload_mut(&mut self) -> &mut Packet;
    /// The source that a place in a full inbox is charged to. By default all items have one source, so a full inbox
    /// refuses new ones.
    fn source(&self, hasher: &RandomState) -> Source {
        let _ = hasher;
        Source::default()
    }
}

impl Queued for Packet {
    fn payload(&self) -> &Packet {
        self
    }
    fn payload_mut(&mut self) -> &mut Packet {
        self
    }
}

impl<A: Addr> Queued for Message<A> {
    fn payload(&self) -> &Packet {
        &self.payload
    }
    fn payload_mut(&mut self) -> &mut Packet {
        &mut self.payload
    }
    fn source(&self, hasher: &RandomState) -> Source {
        Source::of(&self.src, hasher)
    }
}

impl<A: Addr> Queued for Request<A> {
    fn payload(&self) -> &Packet {
        &self.message.payload
    }
    fn payload_mut(&mut self) -> &mut Packet {
        &mut self.message.payload
    }
    fn source(&self, hasher: &RandomState) -> Source {
        Source::of(&self.message.src, hasher)
    }
}

/// An item with a note of the layer, such as its deadline.
impl<N, T: Queued> Queued for (N, T) {
    fn payload(&self) -> &Packet {
        self.1.payload()
    }
    fn payload_mut(&mut self) -> &mut Packet {
        self.1.payload_mut()
    }
    fn source(&self, hasher: &RandomState) -> Source {
        self.1.source(hasher)
    }
}

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

/// Returns the cost of an item: the memory of its packet, and its slot in the queue.
fn charge<T: Queued>(item: &T) -> usize {
    item.payload().capacity() + size_of::<T>()
}

/// Maximum number of items with larger payloads that wait in the buffers that they arrived in. UDP reads into
/// buffers of 64 KiB, so these hold at most 4 MiB beyond what they are charged.
const UNCOPIED: usize = 64;

/// A payload of this length occupies a quarter of such a buffer, and is not copied.
const LARGE: usize = 16 << 10;

/// Maximum headroom of a copied packet: headers and tags of a few layers.
const KEPT_ROOM: Headroom = Headroom::new(64, 32);

#[derive(Debug)]
struct State<T> {
    queue: VecDeque<T>,
    bytes: usize,
    /// What waits by source, from when the inbox was full until half of it was read.
    shares: Option<Box<Shares>>,
    closed: bool,
    /// Waiting readers, first come, first served. A push wakes the first reader. A reader that leaves items
    /// behind wakes the next one, and so does a reader that was woken and then cancelled. So while items and
    /// readers both wait, one reader has been woken, and a batch costs one wake-up.
    waiting: Waiters,
}

impl<T> State<T> {
    fn refusal(&self) -> DropReason {
        if self.closed {
            DropReason::Closed
        } else {
            DropReason::QueueFull
        }
    }
}

impl<T: Queued> State<T> {
    /// Pushes an item, beyond the limits if it is `wanted`.
    fn push_for(&mut self, wanted: &mut usize, item: T, limits: &Limits) -> Result<(), T> {
        if *wanted == 0 || self.closed {
            return self.push(item, limits);
        }
        *wanted -= 1;
        self.bytes += charge(&item);
        self.append(item, limits);
        Ok(())
    }

    /// Puts an item in, or gives it back where there is no room.
    fn push(&mut self, mut item: T, limits: &Limits) -> Result<(), T> {
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
    fn push_full(&mut self, mut item: T, limits: &Limits, refused: &mut Vec<T>) {
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

    fn pop(&mut self) -> Option<T> {
        let item = self.queue.pop_front()?;
        self.bytes -= charge(&item);
        self.popped(1);
        Some(item)
    }

    fn pop_batch(&mut self, out: &mut Vec<T>, max: usize) -> Option<usize> {
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
