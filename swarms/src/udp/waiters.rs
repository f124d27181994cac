//! Queues tasks that wait for a socket, and passes unused wake-ups on.
//!
//! A tokio socket stores one waker for each direction. A [`Waiters`] is that waker: it forwards a wake-up to
//! one waiting task, or to all of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// The tasks that wait for one direction of a socket.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    queue: Mutex<Queue>,
    /// Length of the queue, so that a caller need not lock if no task waits.
    len: AtomicUsize,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    wakers: VecDeque<(u64, Waker)>,
}

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the task that has waited longest.
    pub(super) fn wake_one(&self) {
        if self.len.load(Relaxed) == 0 {
            return;
        }
        let woken = {
            let mut queue = self.lock();
            let woken = queue.wakers.pop_front();
            self.len.store(queue.wakers.len(), Relaxed);
            woken
        };
        if let Some((_, waker)) = woken {
            waker.wake();
        }
    }

    /// Wakes all tasks.
    pub(super) fn wake_all(&self) {
        let woken = {
            let mut queue = self.lock();
            self.len.store(0, Relaxed);
            std::mem::take(&mut queue.wakers)
        };
        for (_, waker) in woken {
            waker.wake();
        }
    }
}

/// The waker that the socket calls: it wakes one task. A task that has been served wakes the next.
impl Wake for Waiters {
    fn wake(self: Arc<Self>) {
        self.wake_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_one();
    }
}

/// The queue entry of one call. Dropping it removes the entry and passes a received wake-up on.
#[derive(Debug)]
pub(super) struct Waiter<'a> {
    waiters: &'a Waiters,
    ticket: Option<u64>,
}

impl<'a> Waiter<'a> {
    pub(super) fn new(waiters: &'a Waiters) -> Self {
        Self {
            waiters,
            ticket: None,
        }
    }

    /// Registers `waker` at the existing entry, or at the end of the queue.
    pub(super) fn wait(&mut self, waker: &Waker) {
        let mut queue = self.waiters.lock();
        let known = self.ticket;
        if let Some((_, held)) = queue.wakers.iter_mut().find(|(ticket, _)| Some(*ticket) == known) {
            held.clone_from(waker);
            return;
        }
        let ticket = queue.next;
        queue.next += 1;
        queue.wakers.push_back((ticket, waker.clone()));
        self.waiters.len.store(queue.wakers.len(), Relaxed);
        self.ticket = Some(ticket);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        // The queue is empty: this call was woken, and there is no other task to wake.
        if self.waiters.len.load(Relaxed) == 0 {
            return;
        }
        let mut queue = self.waiters.lock();
        queue.wakers.retain(|(other, _)| *other != ticket);
        self.waiters.len.store(queue.wakers.len(), Relaxed);
        drop(queue);
        // Whether this call was served, or was woken and then cancelled: there may be more for the next task.
        self.waiters.wake_one();
    }
}
