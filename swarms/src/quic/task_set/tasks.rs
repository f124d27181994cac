//! The tasks of a set, each with an index and a waker of its own.
//!
//! `FuturesUnordered` polls as many tasks in one go as there are. A node may have hundreds of sessions, whose messages
//! would overflow the queue before the reader takes the first: here the reader's turn comes after a few tasks.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Wake, Waker};

use super::Queue;

pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Default)]
pub(super) struct Tasks {
    slots: Vec<Option<(Task, Arc<TaskWaker>)>>,
    free: Vec<usize>,
}

/// The waker of one task.
pub(super) struct TaskWaker {
    at: usize,
    /// Set while it is queued to be polled.
    queued: AtomicBool,
    queue: Arc<Queue>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, SeqCst) {
            self.queue.push(|state| state.ready.push_back(self.at));
        }
    }
}

impl Tasks {
    /// Adds a task and returns its index, which is to be polled next.
    pub(super) fn insert(&mut self, task: Task, queue: &Arc<Queue>) -> usize {
        let at = self.free.pop().unwrap_or(self.slots.len());
        let waker = Arc::new(TaskWaker {
            at,
            queued: AtomicBool::new(true),
            queue: queue.clone(),
        });
        let entry = Some((task, waker));
        match self.slots.get_mut(at) {
            Some(free) => *free = entry,
            None => self.slots.push(entry),
        }
        at
    }

    /// Polls the task at this index. A late wake-up of an earlier task at the same index is harmless.
    pub(super) fn poll(&mut self, at: usize) {
        let Some(entry) = self.slots.get_mut(at) else {
            return;
        };
        let Some((task, waker)) = entry else { return };
        waker.queued.store(false, SeqCst);
        let waker = Waker::from(waker.clone());
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            *entry = None;
            self.free.push(at);
        }
    }
}
