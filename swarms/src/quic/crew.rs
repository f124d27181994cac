//! Futures that whoever waits drives, and a background task only while nobody does.
//!
//! Each session has a future here that takes its streams. A reader that waits polls those that were woken, in its own
//! task, so a message that comes for it costs no hop. What was woken while no reader waits is the background's.
//!
//! A reader whose call was polled, and then is neither polled again nor dropped, may be the one who is called to drive:
//! then nothing moves. So it is with every lock that is waited for in order.
//!
//! Deliberately absent: results. Members put what they have into inboxes, which readers look into after driving.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use p2p::Result;

use self::members::{Member, Members};
use crate::inbox::{Inbox, Queued};

mod members;
#[cfg(test)]
mod tests;

/// Members that are polled in one go, before the one who drives looks for what came for itself.
const BUDGET: usize = 8;

#[derive(Default)]
pub(super) struct Crew {
    watch: Arc<Watch>,
    /// Locked only by the one who drives, and by whoever closes.
    members: Mutex<Members>,
}

/// Who is to be polled, and by whom.
#[derive(Default)]
struct Watch(Mutex<State>);

#[derive(Default)]
struct State {
    /// Places of members that were woken.
    ready: VecDeque<usize>,
    joining: Vec<Member>,
    /// Somebody is in [`Crew::drive`] and will see what becomes ready.
    driving: bool,
    /// The reader who drives, if it is one.
    driver: Option<u64>,
    /// Somebody was woken to drive and has not begun.
    called: bool,
    closed: bool,
    /// In the order of their tickets.
    waiting: Vec<Waiting>,
    next_ticket: u64,
    background: Option<Waker>,
}

struct Waiting {
    ticket: u64,
    kind: Kind,
    /// Woken for something in its inbox, and not polled since.
    notified: bool,
    waker: Waker,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Message,
    Ask,
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the member at this place was woken.
    fn stir(&self, at: usize) {
        let mut state = self.lock();
        state.ready.push_back(at);
        let driver = state.call();
        drop(state);
        wake(driver);
    }
}

impl State {
    /// Whom to wake because there is something to drive: the reader that came last, or else the background.
    fn call(&mut self) -> Option<Waker> {
        let idle = self.ready.is_empty() && self.joining.is_empty();
        if self.driving || self.called || self.closed || idle {
            return None;
        }
        self.called = true;
        let reader = self.waiting.last().map(|waiting| &waiting.waker);
        reader.or(self.background.as_ref()).cloned()
    }

    /// Whom to wake because there is something in the inbox of this kind: the reader that came first, but for the one
    /// who drives, who looks there anyway.
    fn notify(&mut self, kind: Kind) -> Option<Waker> {
        let driver = self.driver;
        let mut waiting = self.waiting.iter_mut();
        let first = waiting.find(|waiting| waiting.kind == kind && Some(waiting.ticket) != driver)?;
        if std::mem::replace(&mut first.notified, true) {
            return None;
        }
        Some(first.waker.clone())
    }

    /// Takes or keeps a place among those who wait. What is returned besides is to be dropped without the lock: dropping
    /// a waker may run somebody's code.
    fn register(&mut self, ticket: Option<u64>, kind: Kind, waker: &Waker) -> (u64, Option<Waker>) {
        let known =
            ticket.and_then(|ticket| self.waiting.iter_mut().find(|waiting| waiting.ticket == ticket));
        if let Some(waiting) = known {
            waiting.notified = false;
            return (waiting.ticket, renew(&mut waiting.waker, waker));
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.push(Waiting {
            ticket,
            kind,
            notified: false,
            waker: waker.clone(),
        });
        (ticket, None)
    }

    fn leave(&mut self, ticket: u64) -> Option<Waiting> {
        let at = self.waiting.iter().position(|waiting| waiting.ticket == ticket)?;
        Some(self.waiting.remove(at))
    }

    /// Whether the caller drives now.
    fn begin(&mut self, driver: Option<u64>) -> bool {
        self.called = false;
        if self.driving || self.closed {
            return false;
        }
        self.driving = true;
        self.driver = driver;
        true
    }

    fn end(&mut self) {
        self.driving = false;
        self.driver = None;
    }
}

/// Replaces a waker by one of another task, and returns what it replaced.
fn renew(known: &mut Waker, waker: &Waker) -> Option<Waker> {
    (!known.will_wake(waker)).then(|| std::mem::replace(known, waker.clone()))
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Crew {
    /// Adds a future, which is polled until it ends or the crew is closed.
    pub(super) fn join(&self, member: impl Future<Output = ()> + Send + 'static) {
        let member = Box::pin(member);
        let mut state = self.watch.lock();
        if state.closed {
            return;
        }
        state.joining.push(member);
        let driver = state.call();
        drop(state);
        wake(driver);
    }

    /// Says that something is in the inbox of this kind. Whoever puts something in calls it.
    pub(super) fn notify(&self, kind: Kind) {
        let reader = self.watch.lock().notify(kind);
        wake(reader);
    }

    /// Waits until `take` has something from `inbox`, and drives meanwhile.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing: somebody else drives, and what `take` would take is still there.
    pub(super) async fn wait<I: Queued, T>(
        &self,
        kind: Kind,
        inbox: &Inbox<I>,
        mut take: impl FnMut(&Inbox<I>) -> Result<Option<T>>,
    ) -> Result<T> {
        let mut reader = Reader {
            crew: self,
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
                self.call();
            }
            Poll::Pending
        })
        .await
    }

    /// Drives while no reader waits. Ends when the crew is closed.
    pub(super) async fn background(&self) {
        poll_fn(|cx| {
            let mut state = self.watch.lock();
            if state.closed {
                return Poll::Ready(());
            }
            let _outdated = state.background.replace(cx.waker().clone());
            let drives = state.begin(None);
            drop(state);
            if drives && self.drive() {
                self.call();
            }
            Poll::Pending
        })
        .await;
    }

    /// Drops every member, now or when the one who drives is done, and wakes everybody.
    pub(super) fn close(&self) {
        let mut state = self.watch.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        let background = state.background.take();
        let joining = std::mem::take(&mut state.joining);
        let driving = state.driving;
        drop(state);
        drop(joining);
        if !driving {
            drop(self.dismiss());
        }
        for waiting in waiting {
            waiting.waker.wake();
        }
        wake(background);
    }

    fn call(&self) {
        let driver = self.watch.lock().call();
        wake(driver);
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every member, to be dropped without the lock.
    fn dismiss(&self) -> Members {
        std::mem::take(&mut self.members())
    }

    /// Polls members that were woken; says whether more of them may be left. The caller has
    /// [begun](State::begin) to drive.
    fn drive(&self) -> bool {
        let mut shift = Shift(Some(self));
        let mut members = self.members();
        for _ in 0..BUDGET {
            let mut state = self.watch.lock();
            for member in std::mem::take(&mut state.joining) {
                let at = members.seat(member, &self.watch);
                state.ready.push_back(at);
            }
            match state.ready.pop_front() {
                Some(at) if !state.closed => {
                    drop(state);
                    members.poll(at);
                }
                _ => {
                    drop(members);
                    shift.end(state);
                    return false;
                }
            }
        }
        true
    }
}

/// The time in which somebody drives; it ends also where a member panics.
struct Shift<'a>(Option<&'a Crew>);

impl Shift<'_> {
    fn end(&mut self, mut state: MutexGuard<'_, State>) {
        state.end();
        let closed = state.closed;
        drop(state);
        if let Some(crew) = self.0.take()
            && closed
        {
            drop(crew.dismiss());
        }
    }
}

impl Drop for Shift<'_> {
    fn drop(&mut self) {
        if let Some(crew) = self.0 {
            self.end(crew.watch.lock());
        }
    }
}

/// A place among those who wait; leaving it hands on what there is to do.
struct Reader<'a, I: Queued> {
    crew: &'a Crew,
    kind: Kind,
    inbox: &'a Inbox<I>,
    ticket: Option<u64>,
}

impl<I: Queued> Drop for Reader<'_, I> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let more = !self.inbox.is_empty();
        let mut state = self.crew.watch.lock();
        let _left = state.leave(ticket);
        // A call that went to this reader goes to the next, and so does what it leaves in its inbox.
        state.called = false;
        let driver = state.call();
        let reader = if more { state.notify(self.kind) } else { None };
        drop(state);
        wake(driver);
        wake(reader);
    }
}
