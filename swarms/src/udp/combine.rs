//! Combines concurrent tells into one segmented send.
//!
//! A tell that combines joins the queue and yields once. The first task that is polled afterwards sends the
//! whole queue, and each task finds its own result when it is polled again. No tell depends on another one
//! being polled: each can send for all. If a tell finds no others to combine with, the next tells are sent
//! directly, and only at intervals does one try again.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use p2p::{Error, Result};
use parking_lot::{Mutex, MutexGuard};

use super::outbound::Outgoing;

/// Number of tells that are sent directly after one found no others: initial and maximum value; doubled each
/// time.
const ALONE: (u32, u32) = (64, 1024);

#[derive(Debug)]
pub(super) struct Combine {
    /// Number of tells to send directly before the next attempt to combine. Races make it inexact, which is
    /// harmless.
    direct: AtomicU32,
    queue: Mutex<Queue>,
}

/// Tells that wait to be sent together, and the results of earlier ones.
///
/// Tickets count up. Those below `done` have a result, those in `tickets` wait, and the rest are being sent.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Vec<Outgoing>,
    tickets: Vec<u64>,
    next: u64,
    done: u64,
    sending: bool,
    failed: Vec<(u64, Error)>,
    /// Tells that were cancelled while they were being sent: their results are discarded.
    cancelled: Vec<u64>,
    alone: u32,
    /// Emptied vectors of the last flush, reused by the next.
    buffers: (Vec<Outgoing>, Vec<u64>),
}

/// The state of a tell.
#[derive(Debug)]
pub(super) enum Standing {
    Waiting,
    Sending,
    Done(Result<()>),
}

/// A queue that was taken to be sent.
#[derive(Debug)]
pub(super) struct Flush {
    pub(super) batch: Vec<Outgoing>,
    tickets: Vec<u64>,
}

impl Combine {
    pub(super) fn new() -> Self {
        let queue = Queue {
            waiting: Vec::new(),
            tickets: Vec::new(),
            next: 0,
            done: 0,
            sending: false,
            failed: Vec::new(),
            cancelled: Vec::new(),
            alone: ALONE.0,
            buffers: (Vec::new(), Vec::new()),
        };
        Self {
            direct: AtomicU32::new(0),
            queue: Mutex::new(queue),
        }
    }

    /// Returns whether the calling tell is to be sent directly.
    pub(super) fn goes_alone(&self) -> bool {
        let left = self.direct.load(Relaxed);
        if left > 0 {
            self.direct.store(left - 1, Relaxed);
        }
        left > 0
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    /// Completes a flush: the first `sent` messages have results, of which `failed` are errors (by position);
    /// the others return to the queue.
    pub(super) fn finish(&self, mut flush: Flush, sent: usize, failed: Vec<(usize, Error)>) {
        let mut queue = self.lock();
        if flush.batch.len() == 1 && queue.waiting.is_empty() {
            self.direct.store(queue.alone, Relaxed);
            queue.alone = (queue.alone * 2).min(ALONE.1);
        } else {
            queue.alone = ALONE.0;
        }
        queue.sending = false;
        let failed = failed
            .into_iter()
            .filter_map(|(at, error)| Some((*flush.tickets.get(at)?, error)));
        queue.failed.extend(failed);
        queue.done = match flush.tickets.get(sent) {
            Some(unsent) => *unsent,
            None => flush.tickets.last().map_or(queue.done, |last| last + 1),
        };
        flush.batch.drain(..sent);
        flush.tickets.drain(..sent);
        if !flush.batch.is_empty() {
            flush.batch.append(&mut queue.waiting);
            flush.tickets.append(&mut queue.tickets);
            std::mem::swap(&mut flush.batch, &mut queue.waiting);
            std::mem::swap(&mut flush.tickets, &mut queue.tickets);
        }
        queue.buffers = (flush.batch, flush.tickets);
        for ticket in std::mem::take(&mut queue.cancelled) {
            queue.forget(ticket);
        }
    }
}

impl Queue {
    /// Returns the number of tells that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a message to the queue; returns its ticket.
    pub(super) fn join(&mut self, message: Outgoing) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.waiting.push(message);
        self.tickets.push(ticket);
        ticket
    }

    /// Returns the state of the tell with `ticket`. A result is returned once.
    pub(super) fn standing(&mut self, ticket: u64) -> Standing {
        if ticket < self.done {
            if self.failed.is_empty() {
                return Standing::Done(Ok(()));
            }
            let at = self.failed.iter().position(|(failed, _)| *failed == ticket);
            return Standing::Done(at.map_or(Ok(()), |at| Err(self.failed.swap_remove(at).1)));
        }
        // Tickets that are being sent are lower than those that wait.
        match self.tickets.first() {
            Some(first) if *first <= ticket => Standing::Waiting,
            _ => Standing::Sending,
        }
    }

    /// Takes all waiting messages for the caller to send, unless another caller is sending.
    pub(super) fn flush(&mut self) -> Option<Flush> {
        if self.sending {
            return None;
        }
        self.sending = true;
        let (batch, tickets) = std::mem::take(&mut self.buffers);
        Some(Flush {
            batch: std::mem::replace(&mut self.waiting, batch),
            tickets: std::mem::replace(&mut self.tickets, tickets),
        })
    }

    /// Removes a cancelled tell; if it still waits, it is never sent.
    pub(super) fn forget(&mut self, ticket: u64) {
        if ticket < self.done {
            self.failed.retain(|(failed, _)| *failed != ticket);
        } else if let Ok(at) = self.tickets.binary_search(&ticket) {
            self.tickets.remove(at);
            self.waiting.remove(at);
        } else {
            self.cancelled.push(ticket);
        }
    }
}
