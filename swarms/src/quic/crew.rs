//! Futures that whoever waits drives, and a background task only while nobody does.
//!
//! Each session has a future here that takes its streams. A reader that waits polls those that were woken, in its own
//! task, so a message that comes for it costs no hop. What was woken while no reader waits is the background's.
//!
//! A reader whose call was polled, and then is neither polled again nor dropped, may be the one who is called to drive.
//! So while something moves the background looks now and then whether those who are called come, and calls another one,
//! or drives itself, if they do not.
//!
//! Deliberately absent: results. Members put what they have into inboxes, which readers look into after driving.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use p2p::Result;
use tokio::time::{Instant, Sleep, sleep};

use self::members::{Member, Members};
use crate::inbox::{Inbox, Queued};

mod members;
#[cfg(test)]
mod tests;

/// Members that are polled in one go, before the one who drives looks for what came for itself.
const BUDGET: usize = 8;

/// How long those who were called are waited for. Who receives in a loop comes much sooner, and pays for the watch with
/// a hundred wake-ups a second at most.
const GRACE: Duration = Duration::from_millis(10);

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
    /// Who was woken to drive and has not begun.
    called: Option<Called>,
    /// How often somebody began to drive.
    drives: u64,
    /// The background looks after some time whether those who were called came.
    watched: bool,
    closed: bool,
    /// In the order of their tickets.
    waiting: Vec<Waiting>,
    next_ticket: u64,
    background: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Called {
    Reader(u64),
    Background,
}

/// Whom to wake once the lock is given back.
type Calls = [Option<Waker>; 2];

struct Waiting {
    ticket: u64,
    kind: Kind,
    /// Called to drive, and did not come: it is not called again before it does.
    absent: bool,
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
        let calls = state.call();
        drop(state);
        make(calls);
    }
}

impl State {
    /// Whom to wake because there is something to drive: the reader that came last, or else the background.
    #[must_use]
    fn call(&mut self) -> Calls {
        let idle = self.ready.is_empty() && self.joining.is_empty();
        if self.driving || self.called.is_some() || self.closed || idle {
            return Calls::default();
        }
        let Some(reader) = self.waiting.iter().rfind(|waiting| !waiting.absent) else {
            self.called = Some(Called::Background);
            return [self.background.clone(), None];
        };
        self.called = Some(Called::Reader(reader.ticket));
        let watched = std::mem::replace(&mut self.watched, true);
        let background = self.background.clone().filter(|_| !watched);
        [Some(reader.waker.clone()), background]
    }

    /// What the background makes of what it sees after it has watched for a while.
    #[must_use]
    fn look(&mut self, drives_before: u64) -> Calls {
        if self.drives != drives_before {
            return Calls::default();
        }
        let Some(Called::Reader(ticket)) = self.called else {
            self.watched = false;
            return Calls::default();
        };
        let mut waiting = self.waiting.iter_mut();
        if let Some(reader) = waiting.find(|waiting| waiting.ticket == ticket) {
            reader.absent = true;
        }
        self.called = None;
        self.call()
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
            (waiting.notified, waiting.absent) = (false, false);
            return (waiting.ticket, renew(&mut waiting.waker, waker));
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.push(Waiting {
            ticket,
            kind,
            absent: false,
            notified: false,
            waker: waker.clone(),
        });
        (ticket, None)
    }

    fn leave(&mut self, ticket: u64) -> Option<Waiting> {
        let at = self.waiting.iter().position(|waiting| waiting.ticket == ticket)?;
        Some(self.waiting.remove(at))
    }

    /// Whether the caller drives now: a reader, or the background if no reader was called.
    fn begin(&mut self, driver: Option<u64>) -> bool {
        if driver.is_none() && matches!(self.called, Some(Called::Reader(_))) {
            return false;
        }
        self.called = None;
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

/// Replaces a waker by one of another task, and returns what it replaced.
fn renew(known: &mut Waker, waker: &Waker) -> Option<Waker> {
    (!known.will_wake(waker)).then(|| std::mem::replace(known, waker.clone()))
}

fn make(calls: Calls) {
    calls.into_iter().flatten().for_each(Waker::wake);
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
        let calls = state.call();
        drop(state);
        make(calls);
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

    /// Drives while no reader waits, and watches those who do. Ends when the crew is closed.
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
            self.keep_watch(cx, sleep.as_mut(), &mut drives_before);
            let drives = self.watch.lock().begin(None);
            if drives && self.drive() {
                self.call();
            }
            Poll::Pending
        })
        .await;
    }

    /// Looks whether those who are called to drive come; `drives_before` is how often somebody did when it last looked.
    fn keep_watch(&self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>, drives_before: &mut Option<u64>) {
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
            let calls = state.look(before);
            drop(state);
            make(calls);
        }
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
        let calls = self.watch.lock().call();
        make(calls);
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
        if state.called == Some(Called::Reader(ticket)) {
            state.called = None;
        }
        let calls = state.call();
        let reader = if more { state.notify(self.kind) } else { None };
        drop(state);
        make(calls);
        wake(reader);
    }
}
