//! The list of tasks that wait for one thing, in the order of their arrival.
//!
//! Each entry has a ticket, which its task keeps from poll to poll. Wakers are returned rather than called or
//! dropped, because both may run foreign code: the caller does so after it has released its lock.

use std::collections::VecDeque;
use std::mem;
use std::task::Waker;

/// Waiting tasks in the order of their arrival, each with a value.
#[derive(Debug)]
pub(crate) struct Waiters<T = ()> {
    /// In the order of their tickets.
    queue: VecDeque<Waiter<T>>,
    next_ticket: u64,
}

/// The entry of a waiting task.
#[derive(Debug)]
pub(crate) struct Waiter<T = ()> {
    ticket: u64,
    pub(crate) waker: Waker,
    pub(crate) value: T,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            next_ticket: 0,
        }
    }
}

impl<T> Waiters<T> {
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Waiter<T>> {
        self.queue.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Waiter<T>> {
        self.queue.iter_mut()
    }

    /// Registers a task with a value: at its entry, if it still has one, or else at the end, with a new ticket.
    /// Returns a replaced waker.
    #[must_use]
    pub(crate) fn register(&mut self, ticket: &mut Option<u64>, waker: &Waker, value: T) -> Option<Waker> {
        if let Some(known) = ticket.and_then(|ticket| self.find(ticket)) {
            known.value = value;
            let same = known.waker.will_wake(waker);
            return (!same).then(|| mem::replace(&mut known.waker, waker.clone()));
        }
        *ticket = Some(self.next_ticket);
        self.queue.push_back(Waiter {
            ticket: self.next_ticket,
            waker: waker.clone(),
            value,
        });
        self.next_ticket += 1;
        None
    }

    /// Returns the entry with a ticket.
    pub(crate) fn find(&mut self, ticket: u64) -> Option<&mut Waiter<T>> {
        let at = self.position(ticket)?;
        self.queue.get_mut(at)
    }

    /// Removes the entry with a ticket.
    #[must_use]
    pub(crate) fn remove(&mut self, ticket: u64) -> Option<Waiter<T>> {
        let at = self.position(ticket)?;
        self.queue.remove(at)
    }

    /// Removes the first entry and returns its waker.
    #[must_use]
    pub(crate) fn pop(&mut self) -> Option<Waker> {
        self.queue.pop_front().map(|waiter| waiter.waker)
    }

    /// Removes all entries and returns their wakers.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Waker> + use<T> {
        mem::take(&mut self.queue).into_iter().map(|waiter| waiter.waker)
    }

    fn position(&self, ticket: u64) -> Option<usize> {
        self.queue
            .binary_search_by_key(&ticket, |waiter| waiter.ticket)
            .ok()
    }
}

/// Wakes a task, if there is one.
pub(crate) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Wakes tasks.
pub(crate) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}
