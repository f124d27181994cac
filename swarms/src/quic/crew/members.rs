//! The tasks of a set, each with an index and a waker of its own.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Wake, Waker};

use super::Watch;

pub(super) type Member = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Default)]
pub(super) struct Members {
    seats: Vec<Option<(Member, Arc<Seat>)>>,
    free: Vec<usize>,
}

/// The waker of one task.
pub(super) struct Seat {
    at: usize,
    /// Set while it is queued to be polled.
    queued: AtomicBool,
    watch: Arc<Watch>,
}

impl Wake for Seat {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, SeqCst) {
            self.watch.stir(self.at);
        }
    }
}

impl Members {
    /// Adds a task and returns its index, which is to be polled next.
    pub(super) fn seat(&mut self, member: Member, watch: &Arc<Watch>) -> usize {
        let at = self.free.pop().unwrap_or(self.seats.len());
        let seat = Arc::new(Seat {
            at,
            queued: AtomicBool::new(true),
            watch: watch.clone(),
        });
        let entry = Some((member, seat));
        match self.seats.get_mut(at) {
            Some(free) => *free = entry,
            None => self.seats.push(entry),
        }
        at
    }

    /// Polls the task at this index. A late wake-up of an earlier task at the same index is harmless.
    pub(super) fn poll(&mut self, at: usize) {
        let Some(entry) = self.seats.get_mut(at) else {
            return;
        };
        let Some((member, seat)) = entry else { return };
        seat.queued.store(false, SeqCst);
        let waker = Waker::from(seat.clone());
        if member.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            *entry = None;
            self.free.push(at);
        }
    }
}
