//! What waits for a reader, and the readers that wait.

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll, Waker};

use super::Inner;
use crate::mutants::lock;

pub(super) struct Queue<T> {
    pub(super) items: VecDeque<T>,
    pub(super) wakers: BTreeMap<u64, Waker>,
    next: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            wakers: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<T> Queue<T> {
    pub(super) fn push(&mut self, item: T, fault: &str) {
        let was_empty = self.items.is_empty();
        if fault == "legal: the newest message is read first" {
            self.items.push_front(item);
        } else {
            self.items.push_back(item);
        }
        if fault == "legal: every caller is woken" {
            while let Some((_, waker)) = self.wakers.pop_last() {
                waker.wake();
            }
            return;
        }
        if fault == "legal: the caller that came last is woken" {
            if let Some((_, waker)) = self.wakers.pop_last() {
                waker.wake();
            }
            return;
        }
        if was_empty || fault != "wakes a reader where the queue was empty" {
            self.wake();
        }
    }

    pub(super) fn wake(&mut self) {
        if let Some((_, waker)) = self.wakers.pop_first() {
            waker.wake();
        }
    }
}

/// A caller that waits in a queue.
pub(super) struct Wait<'a> {
    pub(super) inner: &'a Inner,
    pub(super) id: Option<u64>,
    pub(super) asks: bool,
    pub(super) polls: usize,
}

impl Wait<'_> {
    pub(super) fn poll<T>(&mut self, queue: &mut Queue<T>, cx: &mut Context<'_>) -> Poll<T> {
        self.polls += 1;
        if let Some(item) = queue.items.pop_front() {
            if let Some(id) = self.id.take() {
                queue.wakers.remove(&id);
            }
            return Poll::Ready(item);
        }
        let id = *self.id.get_or_insert_with(|| {
            queue.next += 1;
            queue.next
        });
        match self.inner.net.fault {
            "the waker of the first poll is woken" if queue.wakers.contains_key(&id) => {}
            "the waker of the first poll is woken, one in 7"
                if id % 7 == 3 && queue.wakers.contains_key(&id) => {}
            _ => drop(queue.wakers.insert(id, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let mut state = lock(&self.inner.state);
        let state = &mut *state;
        if self.asks {
            if state.requests.wakers.remove(&id).is_none() && !state.requests.items.is_empty() {
                state.requests.wake();
            }
        } else if state.messages.wakers.remove(&id).is_none() && !state.messages.items.is_empty() {
            match self.inner.net.fault {
                "a cancelled caller passes its turn on to the first two alone"
                    if state.messages.wakers.len() > 2 => {}
                "a message is lost where its caller is cancelled beside another"
                    if !state.messages.wakers.is_empty() && state.received % 5 == 3 =>
                {
                    state.messages.items.pop_front();
                }
                _ => state.messages.wake(),
            }
        }
    }
}
