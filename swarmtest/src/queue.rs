//! Queues of this crate's own swarms, and waking of waiting callers on close.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use p2p::{Error, Result};
use tokio::sync::Notify;

pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Items that wait for a reader.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    waiting: Mutex<VecDeque<T>>,
    filled: Notify,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            filled: Notify::new(),
        }
    }
}

impl<T> Queue<T> {
    pub(crate) fn len(&self) -> usize {
        lock(&self.waiting).len()
    }

    /// Adds an item, `ahead` places before the end; returns it if the queue is full.
    pub(crate) fn push(&self, item: T, ahead: usize, most: usize) -> Result<(), T> {
        let mut waiting = lock(&self.waiting);
        if waiting.len() >= most {
            return Err(item);
        }
        let at = waiting.len().saturating_sub(ahead);
        waiting.insert(at, item);
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    pub(crate) async fn pop(&self) -> T {
        loop {
            if let Some(item) = self.try_pop() {
                return item;
            }
            // `notify_one` stores a permit if no caller waits, and a cancelled waiter passes its permit on.
            self.filled.notified().await;
        }
    }

    pub(crate) fn try_pop(&self) -> Option<T> {
        let mut waiting = lock(&self.waiting);
        let item = waiting.pop_front();
        if !waiting.is_empty() {
            self.filled.notify_one();
        }
        item
    }
}

/// A gate that is open until it is closed, which wakes every waiting caller.
#[derive(Debug)]
pub(crate) struct Gate {
    closed: AtomicBool,
    closing: Notify,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            closed: AtomicBool::new(false),
            closing: Notify::new(),
        }
    }
}

impl Gate {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed() {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// Closes the gate; returns whether it was open.
    pub(crate) fn close(&self) -> bool {
        let was_open = !self.closed.swap(true, SeqCst);
        self.closing.notify_waiters();
        was_open
    }

    /// Waits for `future`, or until the gate is closed.
    pub(crate) async fn unless_closed<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let mut closing = std::pin::pin!(self.closing.notified());
        closing.as_mut().enable();
        self.check_open()?;
        tokio::select! {
            biased;
            () = closing => Err(Error::Closed),
            result = future => result,
        }
    }
}
