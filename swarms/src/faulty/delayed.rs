//! Messages under way: held until their time comes, then handed to the swarm below.
//!
//! Each is counted in [`UnderWay`] from when it is held to when it was handed on or dropped.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use p2p::{Addr, Counters, Packet, Reason, Swarm};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::faults::UnderWay;
use crate::inbox::Limits;

/// Messages of one node that are under way, and what became of all of its messages.
pub(super) struct Delayed<A> {
    limits: Limits,
    medium: Arc<UnderWay>,
    state: Mutex<State<A>>,
    /// The task has something new to look at.
    changed: Notify,
    pub(super) counters: Counters,
}

struct State<A> {
    held: BinaryHeap<Held<A>>,
    bytes: usize,
    /// Messages that the task has taken out and not yet counted.
    leaving: usize,
    next: u64,
    closed: bool,
}

struct Held<A> {
    at: Instant,
    /// Breaks ties: of what arrives at the same time the first sent is the first.
    order: u64,
    dst: A,
    packet: Packet,
}

impl<A> Delayed<A> {
    pub(super) fn new(limits: Limits, medium: Arc<UnderWay>) -> Self {
        Self {
            limits,
            medium,
            state: Mutex::new(State {
                held: BinaryHeap::new(),
                bytes: 0,
                leaving: 0,
                next: 0,
                closed: false,
            }),
            changed: Notify::new(),
            counters: Counters::new("faulty"),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// How many messages are under way.
    pub(super) fn len(&self) -> usize {
        let state = self.lock();
        state.held.len() + state.leaving
    }

    /// Holds messages until their time; counts those for which there is no room.
    pub(super) fn hold(&self, messages: impl IntoIterator<Item = (Instant, A, Packet)>) {
        let mut refused = 0;
        let mut held_now = 0;
        let mut state = self.lock();
        let reason = if state.closed {
            Reason::Closed
        } else {
            Reason::QueueFull
        };
        let first = state.held.peek().map(|held| held.at);
        for (at, dst, mut packet) in messages {
            self.limits.copy_out(&mut packet);
            let order = state.next;
            state.next += 1;
            let held = Held {
                at,
                order,
                dst,
                packet,
            };
            let bytes = state.bytes + held.charge();
            if state.closed || state.held.len() >= self.limits.items || bytes > self.limits.bytes {
                refused += 1;
                continue;
            }
            state.bytes = bytes;
            state.held.push(held);
            held_now += 1;
        }
        // Under the lock, so that none is handed on before it is counted.
        self.medium.begin(held_now);
        let sooner = state.held.peek().map(|held| held.at) != first;
        drop(state);
        if refused > 0 {
            self.counters.dropped_many(reason, refused);
        }
        if sooner {
            self.changed.notify_one();
        }
    }

    /// Drops what is under way, counts it, and ends the task. Idempotent.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.bytes = 0;
        let held = mem::take(&mut state.held);
        drop(state);
        self.counters.dropped_many(Reason::Closed, held.len());
        self.medium.end(held.len());
        self.changed.notify_one();
    }

    /// Moves what is due into `batch`; says when the next message is.
    fn take_due(&self, now: Instant, batch: &mut Vec<(A, Packet)>) -> Next {
        let mut state = self.lock();
        while state.held.peek().is_some_and(|held| held.at <= now) {
            let Some(held) = state.held.pop() else { break };
            state.bytes -= held.charge();
            batch.push((held.dst, held.packet));
        }
        state.leaving = batch.len();
        match state.held.peek() {
            _ if state.closed => Next::Never,
            Some(held) => Next::At(held.at),
            None => Next::Unknown,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Next {
    At(Instant),
    Unknown,
    Never,
}

/// Hands messages to `inner` when they are due, until closed.
///
/// It holds on to `inner` only while it sends, so that dropping the swarm frees what is below at once.
pub(super) async fn deliver<A: Addr, S: Swarm<A>>(delayed: Arc<Delayed<A>>, inner: Weak<S>) {
    let mut batch = Vec::new();
    loop {
        let next = delayed.take_due(Instant::now(), &mut batch);
        if !batch.is_empty() {
            let count = batch.len();
            let _leaving = Leaving {
                medium: &delayed.medium,
                count,
            };
            let Some(inner) = inner.upgrade() else {
                delayed.counters.dropped_many(Reason::Closed, count);
                batch.clear();
                continue;
            };
            let result = inner.tell_batch(&mut batch).await;
            drop(inner);
            let refused = result.map_or_else(|error| error.refused, |()| 0);
            if refused > 0 {
                delayed.counters.dropped_many(Reason::Refused, refused);
            }
            delayed.lock().leaving = 0;
            continue;
        }
        match next {
            Next::Never => return,
            Next::Unknown => delayed.changed.notified().await,
            Next::At(at) => tokio::select! {
                () = sleep_until(at) => {}
                () = delayed.changed.notified() => {}
            },
        }
    }
}

/// Messages that were taken out; dropped when they were handed on, or never will be.
struct Leaving<'a> {
    medium: &'a UnderWay,
    count: usize,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.medium.end(self.count);
    }
}

impl<A> Held<A> {
    fn charge(&self) -> usize {
        self.packet.held() + size_of::<Self>()
    }

    fn key(&self) -> (Instant, u64) {
        (self.at, self.order)
    }
}

impl<A> Ord for Held<A> {
    /// The heap's greatest is the earliest.
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
