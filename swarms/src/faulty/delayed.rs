//! Messages in flight: held until they are due, then passed to the swarm below.
//!
//! Each message is counted in [`InFlight`], and occupies room of its link and of the node, until it was sent
//! on or dropped.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::mem;
use std::sync::atomic::{self, AtomicBool};
use std::sync::{Arc, Weak};
use std::time::Duration;

use p2p::{Addr, Counters, DropReason, Packet, Swarm};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::faults::{FaultyConfig, InFlight};
use crate::inbox::Limits;

/// The messages of one node that are in flight, and the counters of all of its messages.
pub(super) struct Delayed<A> {
    limits: Limits,
    link_limits: Limits,
    linger: Duration,
    medium: Arc<InFlight>,
    state: Mutex<State<A>>,
    /// The same value as in the state, for calls that do not lock.
    closed: AtomicBool,
    /// Notifies the task that its next deadline may have changed.
    changed: Notify,
    /// Notifies waiters that nothing is in flight.
    idle: Notify,
    pub(super) counters: Counters,
}

struct State<A> {
    held: BinaryHeap<Held<A>>,
    /// The messages that are held, and those that the task has taken but not yet counted.
    total: Load,
    /// The same by destination; only links with messages in flight.
    links: HashMap<A, Load>,
    next: u64,
    /// The time at which all messages are sent on, due or not; set by closing.
    deadline: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    items: usize,
    bytes: usize,
}

struct Held<A> {
    at: Instant,
    /// Breaks ties: of messages due at the same time the first sent comes first.
    order: u64,
    dst: A,
    packet: Packet,
}

/// The node was closed before these messages could be held; nothing was counted.
pub(super) struct TooLate {
    pub(super) messages: usize,
}

impl<A: Addr> Delayed<A> {
    pub(super) fn new(config: &FaultyConfig, medium: Arc<InFlight>) -> Self {
        Self {
            limits: config.delayed,
            link_limits: config.link_delayed,
            linger: config.linger,
            medium,
            state: Mutex::new(State {
                held: BinaryHeap::new(),
                total: Load::default(),
                links: HashMap::new(),
                next: 0,
                deadline: None,
            }),
            closed: AtomicBool::new(false),
            changed: Notify::new(),
            idle: Notify::new(),
            counters: Counters::new("faulty"),
        }
    }

    /// Holds messages until they are due. Messages without room are dropped and counted.
    pub(super) fn hold(
        &self,
        messages: impl ExactSizeIterator<Item = (Instant, A, Packet)>,
    ) -> Result<(), TooLate> {
        let mut refused = 0;
        let mut held_now = 0;
        let mut state = self.lock();
        if state.deadline.is_some() {
            let messages = messages.len();
            return Err(TooLate { messages });
        }
        let first = state.held.peek().map(|held| held.at);
        for (at, dst, mut packet) in messages {
            self.limits.copy_out(&mut packet, state.held.len());
            let order = state.next;
            state.next += 1;
            let held = Held {
                at,
                order,
                dst,
                packet,
            };
            if state.make_room(&held, &self.limits, &self.link_limits) {
                state.held.push(held);
                held_now += 1;
            } else {
                refused += 1;
            }
        }
        // Under the lock, so that no message is sent on before it is counted.
        self.medium.begin(held_now);
        let sooner = state.held.peek().map(|held| held.at) != first;
        drop(state);
        if refused > 0 {
            self.counters.add_dropped_many(DropReason::QueueFull, refused);
        }
        if sooner {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Waits until nothing is in flight.
    pub(super) async fn emptied(&self) {
        loop {
            let idle = self.idle.notified();
            if self.len() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Moves due messages into `batch`, and the room that they occupy into `leaving`; returns when the next
    /// message is due.
    fn take_due(&self, now: Instant, batch: &mut Vec<(A, Packet)>, leaving: &mut Vec<(A, usize)>) -> Next {
        let mut state = self.lock();
        let all = state.deadline.is_some_and(|deadline| deadline <= now);
        while state.held.peek().is_some_and(|held| all || held.at <= now) {
            let Some(held) = state.held.pop() else { break };
            leaving.push((held.dst.clone(), held.charge()));
            batch.push((held.dst, held.packet));
        }
        match (state.held.peek(), state.deadline) {
            (Some(held), None) => Next::At(held.at),
            (Some(held), Some(deadline)) => Next::At(held.at.min(deadline)),
            (None, None) => Next::Unknown,
            (None, Some(_)) => Next::Never,
        }
    }
}

impl<A> Delayed<A> {
    /// Refuses further messages. Messages in flight are sent on when they are due, and the remaining ones
    /// after the linger time. Idempotent. Returns whether messages are in flight.
    pub(super) fn close(&self) -> bool {
        let mut state = self.lock();
        if state.deadline.is_none() {
            state.deadline = Some(Instant::now() + self.linger);
            self.closed.store(true, atomic::Ordering::Release);
        }
        let busy = state.total.items > 0;
        drop(state);
        self.changed.notify_one();
        busy
    }

    /// Closes, drops the held messages, and counts them. Idempotent.
    pub(super) fn abandon(&self) {
        self.close();
        let mut state = self.lock();
        let held = mem::take(&mut state.held);
        for held in &held {
            state.total = state.total.without(held.charge());
        }
        // No message occupies room any more.
        state.links.clear();
        drop(state);
        self.counters.add_dropped_many(DropReason::Closed, held.len());
        self.medium.end(held.len());
        self.idle.notify_waiters();
        self.changed.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(atomic::Ordering::Acquire)
    }

    /// Returns the number of messages in flight.
    pub(super) fn len(&self) -> usize {
        self.lock().total.items
    }

    fn lock(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock()
    }
}

impl<A: Addr> State<A> {
    /// Reserves room for a message on its link and in the node, if there is any.
    fn make_room(&mut self, held: &Held<A>, limits: &Limits, link_limits: &Limits) -> bool {
        let charge = held.charge();
        let Some(total) = self.total.with(charge, limits) else {
            return false;
        };
        if let Some(link) = self.links.get_mut(&held.dst) {
            let Some(more) = link.with(charge, link_limits) else {
                return false;
            };
            *link = more;
        } else {
            let Some(first) = Load::default().with(charge, link_limits) else {
                return false;
            };
            self.links.insert(held.dst.clone(), first);
        }
        self.total = total;
        true
    }

    fn free(&mut self, dst: &A, charge: usize) {
        self.total = self.total.without(charge);
        if let Some(link) = self.links.get_mut(dst) {
            *link = link.without(charge);
            if link.items == 0 {
                self.links.remove(dst);
            }
        }
    }
}

impl Load {
    /// Returns the load with one more item of this many bytes, unless that exceeds the limits.
    fn with(self, charge: usize, limits: &Limits) -> Option<Self> {
        let more = Self {
            items: self.items + 1,
            bytes: self.bytes.saturating_add(charge),
        };
        (more.items <= limits.items && more.bytes <= limits.bytes).then_some(more)
    }

    fn without(self, charge: usize) -> Self {
        Self {
            items: self.items.saturating_sub(1),
            bytes: self.bytes.saturating_sub(charge),
        }
    }
}

enum Next {
    At(Instant),
    Unknown,
    Never,
}

/// Passes messages to `inner` when they are due, until closed and empty.
///
/// It holds `inner` only while it sends, so that dropping the swarm frees the swarm below at once.
pub(super) async fn deliver<A: Addr, S: Swarm<A>>(end: End<A>, inner: Weak<S>) {
    let delayed = &*end.0;
    let (mut batch, mut leaving) = (Vec::new(), Vec::new());
    loop {
        let next = delayed.take_due(Instant::now(), &mut batch, &mut leaving);
        if !batch.is_empty() {
            let mut leaving = Leaving {
                delayed,
                messages: &mut leaving,
                dropped: Some(DropReason::Closed),
            };
            let Some(inner) = inner.upgrade() else {
                batch.clear();
                continue;
            };
            let result = inner.tell_batch(&mut batch).await;
            drop(inner);
            leaving.dropped = None;
            let refused = result.map_or_else(|error| error.refused, |()| 0);
            if refused > 0 {
                delayed.counters.add_dropped_many(DropReason::Refused, refused);
            }
            continue;
        }
        match next {
            Next::Never => break,
            Next::Unknown => delayed.changed.notified().await,
            Next::At(at) => tokio::select! {
                biased;
                () = sleep_until(at) => {}
                () = delayed.changed.notified() => {}
            },
        }
    }
}

/// Drops the remaining messages if the task ends early or never starts: no other code would send them on, and
/// `close` waits for that.
pub(super) struct End<A>(pub(super) Arc<Delayed<A>>);

impl<A> Drop for End<A> {
    fn drop(&mut self) {
        if self.0.is_closed() {
            self.0.abandon();
        }
    }
}

/// Messages that were taken out; dropped when they were sent on or never will be.
struct Leaving<'a, A: Addr> {
    delayed: &'a Delayed<A>,
    messages: &'a mut Vec<(A, usize)>,
    /// The drop reason, unless the messages were sent on.
    dropped: Option<DropReason>,
}

impl<A: Addr> Drop for Leaving<'_, A> {
    fn drop(&mut self) {
        let count = self.messages.len();
        if let Some(reason) = self.dropped {
            self.delayed.counters.add_dropped_many(reason, count);
        }
        let mut state = self.delayed.lock();
        for (dst, charge) in self.messages.drain(..) {
            state.free(&dst, charge);
        }
        drop(state);
        self.delayed.medium.end(count);
        self.delayed.idle.notify_waiters();
    }
}

impl<A> Held<A> {
    fn charge(&self) -> usize {
        self.packet.capacity() + size_of::<Self>()
    }

    fn key(&self) -> (Instant, u64) {
        (self.at, self.order)
    }
}

impl<A> Ord for Held<A> {
    /// Reversed, so that the greatest element of the heap is the earliest message.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl<A> PartialOrd for Held<A> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<A> PartialEq for Held<A> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<A> Eq for Held<A> {}

impl<A> fmt::Debug for Delayed<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delayed")
            .field("messages", &self.len())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
