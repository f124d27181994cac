//! The waker of a socket: forwards wake-ups to waiting tasks, and passes unused ones on.
//!
//! A tokio socket stores one waker for each direction. A [`SocketWaker`] is that waker: it forwards a wake-up to
//! one waiting task, or to all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Wake, Waker};

use parking_lot::{Mutex, MutexGuard};

use crate::waiters::{Waiters, wake, wake_all};

/// The tasks that wait for one direction of a socket.
#[derive(Debug, Default)]
pub(super) struct SocketWaker {
    waiters: Mutex<Waiters>,
    /// Number of waiting tasks, so that a caller need not lock if none waits.
    len: AtomicUsize,
}

impl SocketWaker {
    /// Calls `change` with the list.
    fn with<T>(&self, change: impl FnOnce(&mut Waiters) -> T) -> T {
        let mut waiters: MutexGuard<'_, Waiters> = self.waiters.lock();
        let changed = change(&mut waiters);
        self.len.store(waiters.len(), Relaxed);
        changed
    }

    /// Wakes the task that has waited longest.
    pub(super) fn wake_one(&self) {
        if self.len.load(Relaxed) > 0 {
            wake(self.with(Waiters::pop));
        }
    }

    /// Wakes all tasks.
    pub(super) fn wake_all(&self) {
        wake_all(self.with(Waiters::take));
    }
}

/// The waker that the socket calls: it wakes one task. A task that has been served wakes the next.
impl Wake for SocketWaker {
    fn wake(self: Arc<Self>) {
        self.wake_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_one();
    }
}

/// The wait of one call. Dropping it removes its entry and passes a received wake-up on.
#[derive(Debug)]
pub(super) struct SocketWait<'a> {
    socket: &'a SocketWaker,
    ticket: Option<u64>,
}

impl<'a> SocketWait<'a> {
    pub(super) fn new(socket: &'a SocketWaker) -> Self {
        Self { socket, ticket: None }
    }

    /// Registers `waker` at the existing entry, or at the end of the list.
    pub(super) fn register(&mut self, waker: &Waker) {
        let ticket = &mut self.ticket;
        drop(self.socket.with(|waiters| waiters.register(ticket, waker, ())));
    }
}

impl Drop for SocketWait<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        // The list is empty: this call was woken, and there is no other task to wake.
        if self.socket.len.load(Relaxed) == 0 {
            return;
        }
        drop(self.socket.with(|waiters| waiters.remove(ticket)));
        // Whether this call was served, or was woken and then cancelled: there may be more for the next task.
        self.socket.wake_one();
    }
}
