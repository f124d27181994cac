//! The tasks of a node's sessions, polled by the node's [`Driver`].
//!
//! Each session has a task here that accepts its streams. The set is the work of the driver: a waiting reader
//! polls woken tasks within its own task, so a message for that reader costs no scheduler hop.
//!
//! Deliberately absent: results. Tasks put items into mailboxes, which readers check after polling.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use p2p::Result;
use parking_lot::{Mutex, MutexGuard};

use self::tasks::{Task, Tasks};
use crate::driver::Driver;

mod tasks;
#[cfg(test)]
mod tests;

/// Number of tasks that are polled in one go, before the polling reader checks its mailbox.
const BUDGET: usize = 8;

/// What a reader waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Message,
    Ask,
}

pub(super) struct TaskSet {
    driver: Driver<Kind>,
    queue: Arc<Queue>,
}

/// The tasks to be polled.
#[derive(Default)]
struct Queue(Mutex<State>);

#[derive(Default)]
struct State {
    new: Vec<Task>,
    /// Indices of woken tasks.
    ready: VecDeque<usize>,
    /// The waker of the set as a whole.
    waker: Option<Waker>,
    closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Changes what is to be polled, and wakes the set.
    fn push(&self, push: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        push(&mut state);
        let waker = state.waker.clone();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Polls some woken tasks.
    fn poll(self: &Arc<Self>, tasks: &mut Tasks, cx: &Context<'_>) {
        for _ in 0..BUDGET {
            let mut state = self.lock();
            for task in std::mem::take(&mut state.new) {
                let at = tasks.insert(task, self);
                state.ready.push_back(at);
            }
            let Some(at) = state.ready.pop_front() else {
                let outdated = state.waker.replace(cx.waker().clone());
                drop(state);
                drop(outdated);
                return;
            };
            drop(state);
            tasks.poll(at);
        }
        // More may be ready. The reader checks its mailbox first.
        cx.waker().wake_by_ref();
    }
}

impl TaskSet {
    /// Creates an empty set, whose tasks run until they end or the set is closed.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`](p2p::Error::Invalid) outside of a tokio runtime.
    pub(super) fn start() -> Result<Self> {
        let set = Self {
            driver: Driver::new(),
            queue: Arc::default(),
        };
        let (queue, mut tasks) = (set.queue.clone(), Tasks::default());
        set.driver.start(poll_fn(move |cx| {
            queue.poll(&mut tasks, cx);
            Poll::Pending
        }))?;
        Ok(set)
    }

    /// Adds a task.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task: Task = Box::pin(task);
        let mut refused = None;
        self.queue.push(|state| {
            if state.closed {
                refused = Some(task);
            } else {
                state.new.push(task);
            }
        });
    }

    /// Returns the driver, which polls tasks while readers wait.
    pub(super) fn driver(&self) -> &Driver<Kind> {
        &self.driver
    }

    /// Drops every task, now or when the current poll ends, and wakes all readers.
    pub(super) fn close(&self) {
        let mut state = self.queue.lock();
        state.closed = true;
        let new = std::mem::take(&mut state.new);
        let waker = state.waker.take();
        drop(state);
        drop((new, waker));
        self.driver.close();
    }
}
