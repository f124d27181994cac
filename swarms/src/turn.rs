//! One of the waiting callers receives from below for all of them (leader/followers without a background
//! task).
//!
//! A layer that delivers messages to several readers must receive them from the swarm below. A dedicated task
//! would add a scheduler hop to every message, so the readers do it: each waits for its own item or for the
//! [`Turn`], whichever comes first ([`Turn::drive_or_pop`]). The reader that holds the turn delivers to the
//! inboxes of the others, which wakes them, and releases the turn when it has an item of its own or is
//! cancelled: dropping [`Driving`] wakes the next reader. While no reader waits, messages wait in the swarm
//! below.
//!
//! The turn carries a value of the layer, such as the buffer that batches are received into. Only its holder
//! can access the value.
//!
//! # Limits
//! A reader whose call was polled once, and then is neither polled again nor dropped, keeps the turn and
//! blocks all other readers. Use this only for layers with one kind of reader, such as fragmenting. Layers
//! that have asks beside messages, several channels, or work that must progress while no caller waits use the
//! crate's private `driver` module.
//!
//! Deliberately absent: a background task, and timers.
//!
//! # Cancel safety
//! [`Turn::drive_or_pop`] is cancel safe.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use p2p::Result;

use crate::inbox::{Inbox, Queued};

/// The right to receive from below, and the value that goes with it.
pub struct Turn<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    /// Present while no reader holds the turn.
    value: Option<T>,
    /// Readers that wait for the turn, in the order of their tickets.
    waiting: VecDeque<(u64, Waker)>,
    next_ticket: u64,
}

/// The result of [`Turn::drive_or_pop`].
#[derive(Debug)]
pub enum Wait<'a, T: Default, I> {
    /// An item arrived in the inbox.
    Item(I),
    /// The caller holds the turn, and the inbox is empty.
    Drive(Driving<'a, T>),
}

impl<T: Default> Turn<T> {
    /// Creates a turn that no reader holds.
    pub fn new(value: T) -> Self {
        Self {
            state: Mutex::new(State {
                value: Some(value),
                waiting: VecDeque::new(),
                next_ticket: 0,
            }),
        }
    }

    /// Takes the turn if no reader holds it.
    pub fn try_drive(&self) -> Option<Driving<'_, T>> {
        let value = self.lock().value.take()?;
        Some(Driving { turn: self, value })
    }

    /// Waits for an item in `inbox`, or for the turn, whichever comes first; an item takes precedence.
    ///
    /// Only the holder of the turn may put items into `inbox`. While the caller holds the turn, no item
    /// arrives except those that it puts there itself. The inbox may be closed meanwhile; a caller that holds
    /// the turn for long watches for that (see [`first`]).
    ///
    /// # Errors
    /// Returns [`Error::Closed`](p2p::Error::Closed) if `inbox` is closed.
    ///
    /// # Cancel safety
    /// Cancelling loses neither an item, nor the turn, nor a wake-up: all pass to the next waiting reader.
    pub async fn drive_or_pop<I: Queued>(&self, inbox: &Inbox<I>) -> Result<Wait<'_, T, I>> {
        // The inbox is checked after the turn was taken, because the previous holder may have delivered just
        // before.
        let driving = self.try_drive();
        if let Some(item) = inbox.try_pop()? {
            return Ok(Wait::Item(item));
        }
        if let Some(driving) = driving {
            return Ok(Wait::Drive(driving));
        }
        let place = Place {
            turn: self,
            ticket: None,
        };
        match first(inbox.pop(), place).await {
            First::Left(item) => Ok(Wait::Item(item?)),
            First::Right(driving) => Ok(match inbox.try_pop()? {
                Some(item) => Wait::Item(item),
                None => Wait::Drive(driving),
            }),
        }
    }
}

impl<T> Turn<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn position(&self, ticket: u64) -> Option<usize> {
        self.waiting
            .binary_search_by_key(&ticket, |(ticket, _)| *ticket)
            .ok()
    }

    fn leave(&mut self, ticket: u64) -> Option<Waker> {
        let at = self.position(ticket)?;
        self.waiting.remove(at).map(|(_, waker)| waker)
    }

    /// Returns the waker of the next reader if no reader holds the turn.
    fn next(&mut self) -> Option<Waker> {
        self.value.as_ref()?;
        self.waiting.pop_front().map(|(_, waker)| waker)
    }
}

/// An entry among the readers that wait for the turn.
struct Place<'a, T> {
    turn: &'a Turn<T>,
    ticket: Option<u64>,
}

impl<'a, T: Default> Future for Place<'a, T> {
    type Output = Driving<'a, T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Driving<'a, T>> {
        let turn = self.turn;
        let mut state = turn.lock();
        if let Some(value) = state.value.take() {
            let ticket = self.ticket.take();
            let _own = ticket.and_then(|ticket| state.leave(ticket));
            drop(state);
            return Poll::Ready(Driving { turn, value });
        }
        let known = self.ticket.and_then(|ticket| state.position(ticket));
        // Kept until the lock is released: dropping a waker may run foreign code.
        let _outdated = match known.and_then(|at| state.waiting.get_mut(at)) {
            Some((_, waker)) if waker.will_wake(cx.waker()) => None,
            Some((_, waker)) => Some(mem::replace(waker, cx.waker().clone())),
            None => {
                let ticket = state.next_ticket;
                state.next_ticket += 1;
                state.waiting.push_back((ticket, cx.waker().clone()));
                self.ticket = Some(ticket);
                None
            }
        };
        drop(state);
        Poll::Pending
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.turn.lock();
        let own = state.leave(ticket);
        // A reader that was woken for the turn and does not take it passes the wake-up on.
        let next = if own.is_none() { state.next() } else { None };
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

/// The turn, held by the caller. Dropping it wakes the next waiting reader.
#[derive(Debug)]
pub struct Driving<'a, T: Default> {
    turn: &'a Turn<T>,
    value: T,
}

impl<T: Default> Deref for Driving<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Default> DerefMut for Driving<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Default> Drop for Driving<'_, T> {
    fn drop(&mut self) {
        let value = mem::take(&mut self.value);
        let mut state = self.turn.lock();
        state.value = Some(value);
        let next = state.next();
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

/// Which of two futures was ready first.
#[derive(Debug)]
pub enum First<L, R> {
    /// The first future; it takes precedence if both are ready.
    Left(L),
    /// The second future.
    Right(R),
}

/// Waits for the first of two futures to complete and drops the other.
pub async fn first<L, R>(left: impl Future<Output = L>, right: impl Future<Output = R>) -> First<L, R> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    poll_fn(|cx| {
        if let Poll::Ready(left) = left.as_mut().poll(cx) {
            return Poll::Ready(First::Left(left));
        }
        right.as_mut().poll(cx).map(First::Right)
    })
    .await
}

impl<T> fmt::Debug for Turn<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Turn")
            .field("driven", &state.value.is_none())
            .field("waiting", &state.waiting.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
