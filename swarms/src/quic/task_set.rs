//! A set of tasks that waiting readers poll, and a background task while no reader waits (leader/followers).
//!
//! Each session has a task here that accepts its streams. A waiting reader polls woken tasks within its own
//! task, so a message for that reader costs no scheduler hop. Tasks that are woken while no reader waits are
//! polled by the background task.
//!
//! A reader whose call was polled once, and then is neither polled again nor dropped, may be the one that is
//! woken to poll. So while tasks are woken, the background task checks at intervals whether woken readers
//! poll, and otherwise wakes another reader or polls itself.
//!
//! Deliberately unresponsive: results. Tasks put items into inboxes, which readers check after polling.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use p2p::Result;
use tokio::time::{Instant, Sleep, sleep};

use self::tasks::{Task, Tasks};
use crate::inbox::{Inbox, Queued};

mod tasks;
#[cfg(test)]
mod tests;

/// Number of tasks that are polled in one go, before the polling reader checks its inbox.
const BUDGET: usize = 8;

/// How long a woken reader may take to poll. A reader that receives in a loop polls much sooner; the checks
/// cost it at most a hundred wake-ups a second.
const GRACE: Duration = Duration::from_millis(10);

#[derive(Default)]
pub(super) struct TaskSet {
    watch: Arc<Watch>,
    /// Locked only by the polling caller, and by `close`.
    tasks: Mutex<Tasks>,
}

/// Which tasks are to be polled, and which caller polls them.
#[derive(Default)]
struct Watch(Mutex<State>);

#[derive(Default)]
struct State {
    /// Indices of woken tasks.
    ready: VecDeque<usize>,
    new: Vec<Task>,
    /// Set while a caller is in [`TaskSet::drive`]; it will see tasks that become ready.
    driving: bool,
    /// The reader that polls, if it is one.
    driver: Option<u64>,
    /// The caller that was woken to poll and has not begun.
    woken: Option<Woken>,
    /// Number of polls begun.
    drives: u64,
    /// Whether the background task checks later if woken readers poll.
    watched: bool,
    closed: bool,
    /// In the order of their tickets.
    waiting: Vec<Waiting>,
    next_ticket: u64,
    background: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    Reader(u64),
    Background,
}

/// Wakers to call after the lock is released.
type Wakers = [Option<Waker>; 2];

struct Waiting {
    ticket: u64,
    kind: Kind,
    /// Set if it was woken to poll and did not: it is not woken again before it does.
    unresponsive: bool,
    /// Set if it was woken for an item in its inbox, and has not been polled since.
    notified: bool,
    waker: Waker,
}

/// What a reader waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Message,
    Ask,
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the task at this index was woken.
    fn mark_ready(&self, at: usize) {
        let mut state = self.lock();
        state.ready.push_back(at);
        let wakers = state.choose_wakers();
        drop(state);
        wake_all(wakers);
    }
}

impl State {
    /// Returns the wakers to call because tasks are ready: the last registered reader, or else the background
    /// task.
    #[must_use]
    fn choose_wakers(&mut self) -> Wakers {
        let idle = self.ready.is_empty() && self.new.is_empty();
        if self.driving || self.woken.is_some() || self.closed || idle {
            return Wakers::default();
        }
        let Some(reader) = self.waiting.iter().rfind(|waiting| !waiting.unresponsive) else {
            self.woken = Some(Woken::Background);
            return [self.background.clone(), None];
        };
        self.woken = Some(Woken::Reader(reader.ticket));
        let watched = std::mem::replace(&mut self.watched, true);
        let background = self.background.clone().filter(|_| !watched);
        [Some(reader.waker.clone()), background]
    }

    /// Returns the wakers to call after the background task has watched for a while.
    #[must_use]
    fn check_progress(&mut self, drives_before: u64) -> Wakers {
        if self.drives != drives_before {
            return Wakers::default();
        }
        let Some(Woken::Reader(ticket)) = self.woken else {
            self.watched = false;
            return Wakers::default();
        };
        let mut waiting = self.waiting.iter_mut();
        if let Some(reader) = waiting.find(|waiting| waiting.ticket == ticket) {
            reader.unresponsive = true;
        }
        self.woken = None;
        self.choose_wakers()
    }

    /// Returns the waker to call because of an item in the inbox of this kind: the first registered reader,
    /// except the polling one, which checks anyway.
    fn notify(&mut self, kind: Kind) -> Option<Waker> {
        let driver = self.driver;
        let mut waiting = self.waiting.iter_mut();
        let first = waiting.find(|waiting| waiting.kind == kind && Some(waiting.ticket) != driver)?;
        if std::mem::replace(&mut first.notified, true) {
            return None;
        }
        Some(first.waker.clone())
    }

    /// Registers a reader or updates its entry. The second value must be dropped without the lock: dropping a
    /// waker may run foreign code.
    fn register(&mut self, ticket: Option<u64>, kind: Kind, waker: &Waker) -> (u64, Option<Waker>) {
        let known =
            ticket.and_then(|ticket| self.waiting.iter_mut().find(|waiting| waiting.ticket == ticket));
        if let Some(waiting) = known {
            (waiting.notified, waiting.unresponsive) = (false, false);
            return (waiting.ticket, replace_waker(&mut waiting.waker, waker));
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.push(Waiting {
            ticket,
            kind,
            unresponsive: false,
            notified: false,
            waker: waker.clone(),
        });
        (ticket, None)
    }

    fn leave(&mut self, ticket: u64) -> Option<Waiting> {
        let at = self.waiting.iter().position(|waiting| waiting.ticket == ticket)?;
        Some(self.waiting.remove(at))
    }

    /// Returns whether the caller may poll now: a reader, or the background task if no reader was woken.
    fn begin(&mut self, driver: Option<u64>) -> bool {
        if driver.is_none() && matches!(self.woken, Some(Woken::Reader(_))) {
            return false;
        }
        self.woken = None;
        if self.driving || self.closed {
            return false;
        }
        self.driving = true;
        self.drives += 1;
        self.driver = driver;
        true
    }

    fn end(&mut self) {
        self.driving = false;
        self.driver = None;
    }
}

/// Replaces a waker of another task, and returns the replaced one.
fn replace_waker(known: &mut Waker, waker: &Waker) -> Option<Waker> {
    (!known.will_wake(waker)).then(|| std::mem::replace(known, waker.clone()))
}

fn wake_all(wakers: Wakers) {
    wakers.into_iter().flatten().for_each(Waker::wake);
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl TaskSet {
    /// Adds a task, which is polled until it ends or the set is closed.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = Box::pin(task);
        let mut state = self.watch.lock();
        if state.closed {
            return;
        }
        state.new.push(task);
        let wakers = state.choose_wakers();
        drop(state);
        wake_all(wakers);
    }

    /// Announces an item in the inbox of this kind. Woken after each push.
    pub(super) fn notify(&self, kind: Kind) {
        let reader = self.watch.lock().notify(kind);
        wake(reader);
    }

    /// Waits until `take` returns an item from `inbox`, and polls tasks meanwhile.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing: another caller polls, and the item stays in the inbox.
    pub(super) async fn wait<I: Queued, T>(
        &self,
        kind: Kind,
        inbox: &Inbox<I>,
        mut take: impl FnMut(&Inbox<I>) -> Result<Option<T>>,
    ) -> Result<T> {
        let mut reader = Reader {
            set: self,
            kind,
            inbox,
            ticket: None,
        };
        poll_fn(|cx| {
            if let Some(item) = take(inbox)? {
                return Poll::Ready(Ok(item));
            }
            let mut state = self.watch.lock();
            let (ticket, _outdated) = state.register(reader.ticket, kind, cx.waker());
            reader.ticket = Some(ticket);
            let drives = state.begin(reader.ticket);
            drop(state);
            let more = drives && self.drive();
            if let Some(item) = take(inbox)? {
                return Poll::Ready(Ok(item));
            }
            if more {
                self.wake_next();
            }
            Poll::Pending
        })
        .await
    }

    /// Polls tasks while no reader waits, and watches waiting readers. Ends when the set is closed.
    pub(super) async fn background(&self) {
        let mut sleep = pin!(sleep(GRACE));
        let mut drives_before = None;
        poll_fn(|cx| {
            let mut state = self.watch.lock();
            if state.closed {
                return Poll::Ready(());
            }
            let outdated = state.background.replace(cx.waker().clone());
            drop(state);
            drop(outdated);
            self.watch_readers(cx, sleep.as_mut(), &mut drives_before);
            let drives = self.watch.lock().begin(None);
            if drives && self.drive() {
                self.wake_next();
            }
            Poll::Pending
        })
        .await;
    }

    /// Checks whether woken readers poll; `drives_before` is the poll count of the last check.
    fn watch_readers(
        &self,
        cx: &mut Context<'_>,
        mut sleep: Pin<&mut Sleep>,
        drives_before: &mut Option<u64>,
    ) {
        loop {
            let mut state = self.watch.lock();
            if !state.watched {
                return;
            }
            let Some(before) = *drives_before else {
                *drives_before = Some(state.drives);
                drop(state);
                sleep.as_mut().reset(Instant::now() + GRACE);
                continue;
            };
            drop(state);
            if sleep.as_mut().poll(cx).is_pending() {
                return;
            }
            *drives_before = None;
            state = self.watch.lock();
            let wakers = state.check_progress(before);
            drop(state);
            wake_all(wakers);
        }
    }

    /// Drops every task, now or when the current poll ends, and wakes all readers.
    pub(super) fn close(&self) {
        let mut state = self.watch.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        let background = state.background.take();
        let new = std::mem::take(&mut state.new);
        let driving = state.driving;
        drop(state);
        drop(new);
        if !driving {
            drop(self.take_tasks());
        }
        for waiting in waiting {
            waiting.waker.wake();
        }
        wake(background);
    }

    fn wake_next(&self) {
        let wakers = self.watch.lock().choose_wakers();
        wake_all(wakers);
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns every task, to be dropped without the lock.
    fn take_tasks(&self) -> Tasks {
        std::mem::take(&mut self.tasks())
    }

    /// Polls woken tasks; returns whether more may be left. The caller has woken [`State::begin`].
    fn drive(&self) -> bool {
        let mut guard = PollGuard(Some(self));
        let mut tasks = self.tasks();
        for _ in 0..BUDGET {
            let mut state = self.watch.lock();
            for task in std::mem::take(&mut state.new) {
                let at = tasks.insert(task, &self.watch);
                state.ready.push_back(at);
            }
            match state.ready.pop_front() {
                Some(at) if !state.closed => {
                    drop(state);
                    tasks.poll(at);
                }
                _ => {
                    drop(tasks);
                    guard.end(state);
                    return false;
                }
            }
        }
        true
    }
}

/// Marks that a caller polls. The mark is removed on drop, also if a task panics.
struct PollGuard<'a>(Option<&'a TaskSet>);

impl PollGuard<'_> {
    fn end(&mut self, mut state: MutexGuard<'_, State>) {
        state.end();
        let closed = state.closed;
        drop(state);
        if let Some(set) = self.0.take()
            && closed
        {
            drop(set.take_tasks());
        }
    }
}

impl Drop for PollGuard<'_> {
    fn drop(&mut self) {
        if let Some(set) = self.0 {
            self.end(set.watch.lock());
        }
    }
}

/// The entry of one waiting reader; dropping it passes pending wake-ups on.
struct Reader<'a, I: Queued> {
    set: &'a TaskSet,
    kind: Kind,
    inbox: &'a Inbox<I>,
    ticket: Option<u64>,
}

impl<I: Queued> Drop for Reader<'_, I> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let more = !self.inbox.is_empty();
        let mut state = self.set.watch.lock();
        let _left = state.leave(ticket);
        // The wake-up passes to the next reader, and so do items left in the inbox.
        if state.woken == Some(Woken::Reader(ticket)) {
            state.woken = None;
        }
        let wakers = state.choose_wakers();
        let reader = if more { state.notify(self.kind) } else { None };
        drop(state);
        wake_all(wakers);
        wake(reader);
    }
}
