//! Whoever waits drives: of all callers that wait for messages, one at a time pulls from below for everybody.
//!
//! A layer that hands messages to several readers needs somebody to pull them out of the swarm below. A task
//! of its own would cost a hop for every message; so the readers do it. Each waits for its own item or for
//! the [`Turn`], whichever comes first ([`Turn::drive_or_pop`]). The one that drives delivers to the others' inboxes,
//! which wakes them, and gives the turn back when it has something for itself or is cancelled: dropping
//! [`Driving`] wakes the next. While nobody waits, nobody drives, and messages wait in the swarm below.
//!
//! The turn carries a value of the layer's, such as the buffer that batches are pulled into: only the one who
//! drives has it.
//!
//! A reader whose call was polled, and then is neither polled again nor dropped, keeps the turn, and with it everybody
//! who waits. So this is for layers with one kind of reader, such as fragments. Where others would be stalled (asks beside
//! messages, channels beside one another), or something must move while nobody waits, the work belongs to nobody: see
//! `driver.rs`.
//!
//! Deliberately absent: a background task, and timers.

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

/// The right to drive, and the value that goes with it.
pub struct Turn<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    /// Here while nobody drives.
    value: Option<T>,
    /// Those who would drive, in the order of their tickets.
    waiting: VecDeque<(u64, Waker)>,
    next_ticket: u64,
}

/// What a call of [`Turn::drive_or_pop`] ended with.
#[derive(Debug)]
pub enum Wait<'a, T: Default, I> {
    /// An item came to the inbox.
    Item(I),
    /// It is the caller's turn, and nothing is in the inbox.
    Drive(Driving<'a, T>),
}

impl<T: Default> Turn<T> {
    /// A turn that nobody has.
    pub fn new(value: T) -> Self {
        Self {
            state: Mutex::new(State {
                value: Some(value),
                waiting: VecDeque::new(),
                next_ticket: 0,
            }),
        }
    }

    /// Takes the turn if nobody has it.
    pub fn try_drive(&self) -> Option<Driving<'_, T>> {
        let value = self.lock().value.take()?;
        Some(Driving { turn: self, value })
    }

    /// Waits for an item in `inbox`, or for the turn, whichever comes first; an item goes before.
    ///
    /// Only who drives may put items into `inbox`. So while the caller drives none come but by its own doing;
    /// it may be closed, though, and who drives for long watches for that (see [`first`]).
    ///
    /// # Errors
    /// [`Error::Closed`](p2p::Error::Closed) if `inbox` is closed.
    ///
    /// # Cancel safety
    /// Cancelling loses neither an item, nor the turn, nor a wake-up: all go to the next who waits.
    pub async fn drive_or_pop<I: Queued>(&self, inbox: &Inbox<I>) -> Result<Wait<'_, T, I>> {
        // The inbox is looked at after the turn was taken: whoever had it before may have delivered last.
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

    /// Whom to wake because nobody drives.
    fn next(&mut self) -> Option<Waker> {
        self.value.as_ref()?;
        self.waiting.pop_front().map(|(_, waker)| waker)
    }
}

/// A place among those who wait for the turn.
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
        // Kept until the lock is given back: dropping a waker may run somebody's code.
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
        // Whoever was woken for the turn and does not take it passes the wake-up on.
        let next = if own.is_none() { state.next() } else { None };
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

/// The turn, while it is the caller's. Dropping it wakes the next who waits for it.
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
    /// The first one; it goes before if both are.
    Left(L),
    /// The second one.
    Right(R),
}

/// Waits for the first of two futures and drops the other.
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
