//! Tasks that wait for a socket: each has a place of its own, and a wake-up that nobody takes is passed on.
//!
//! A tokio socket remembers one task for each direction. A [`Waiters`] is that task: it hands the wake-up on
//! to one of those who wait, or to all of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// Those who wait for one direction of a socket.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    line: Mutex<Line>,
    /// Length of the line, so that a caller who finds nobody waiting need not lock.
    len: AtomicUsize,
}

#[derive(Debug, Default)]
struct Line {
    next: u64,
    wakers: VecDeque<(u64, Waker)>,
}

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the one who has waited longest.
    pub(super) fn wake_one(&self) {
        if self.len.load(Relaxed) == 0 {
            return;
        }
        let woken = {
            let mut line = self.lock();
            let woken = line.wakers.pop_front();
            self.len.store(line.wakers.len(), Relaxed);
            woken
        };
        if let Some((_, waker)) = woken {
            waker.wake();
        }
    }

    /// Wakes everyone.
    pub(super) fn wake_all(&self) {
        let woken = {
            let mut line = self.lock();
            self.len.store(0, Relaxed);
            std::mem::take(&mut line.wakers)
        };
        for (_, waker) in woken {
            waker.wake();
        }
    }
}

/// What the socket wakes: one of the waiters. Whoever is served wakes the next.
impl Wake for Waiters {
    fn wake(self: Arc<Self>) {
        self.wake_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_one();
    }
}

/// One call's place in the line. Dropping it leaves the line; a wake-up that it had got goes to the next.
#[derive(Debug)]
pub(super) struct Waiter<'a> {
    waiters: &'a Waiters,
    place: Option<u64>,
}

impl<'a> Waiter<'a> {
    pub(super) fn new(waiters: &'a Waiters) -> Self {
        Self { waiters, place: None }
    }

    /// Waits to be woken through `waker`, at the place that it has already, or at the end of the line.
    pub(super) fn wait(&mut self, waker: &Waker) {
        let mut line = self.waiters.lock();
        let known = self.place;
        if let Some((_, held)) = line.wakers.iter_mut().find(|(place, _)| Some(*place) == known) {
            held.clone_from(waker);
            return;
        }
        let place = line.next;
        line.next += 1;
        line.wakers.push_back((place, waker.clone()));
        self.waiters.len.store(line.wakers.len(), Relaxed);
        self.place = Some(place);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        // Nobody is in the line: not this call, which was woken, and nobody whom it would have to wake.
        if self.waiters.len.load(Relaxed) == 0 {
            return;
        }
        let mut line = self.waiters.lock();
        line.wakers.retain(|(other, _)| *other != place);
        self.waiters.len.store(line.wakers.len(), Relaxed);
        drop(line);
        // Whether this call was served, or was woken and then cancelled: there may be more for the next.
        self.waiters.wake_one();
    }
}
