//! Futures that whoever waits drives, and a background task only while nobody does.
//!
//! Each session has a future here that takes its streams. A reader that waits polls those that were woken, in its own
//! task, so a message that comes for it costs no hop. What was woken while no reader waits is the background's.
//!
//! Deliberately absent: results. Members put what they have into inboxes, which readers look into after driving.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use p2p::Result;

type Member = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Members that are polled in one go, before the one who drives looks for what came for itself.
const BUDGET: usize = 8;

#[derive(Default)]
pub(super) struct Crew {
    watch: Arc<Watch>,
    /// Locked only by the one who drives.
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    seats: Vec<Option<(Member, Arc<Seat>)>>,
    free: Vec<usize>,
}

/// Who is to be polled, and by whom.
#[derive(Default)]
struct Watch {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
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

/// The waker of one member.
struct Seat {
    at: usize,
    queued: AtomicBool,
    watch: Arc<Watch>,
}

impl Wake for Seat {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, SeqCst) {
            return;
        }
        let mut state = self.watch.lock();
        state.ready.push_back(self.at);
        let driver = state.call();
        drop(state);
        wake(driver);
    }
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Crew {
    /// Adds a future, which is polled until it ends or the crew is closed.
    pub(super) fn join(&self, member: impl Future<Output = ()> + Send + 'static) {
        let mut state = self.watch.lock();
        if state.closed {
            return;
        }
        state.joining.push(Box::pin(member));
        let driver = state.call();
        drop(state);
        wake(driver);
    }

    /// Says that something is in the inbox of this kind. Whoever puts something in calls it.
    pub(super) fn notify(&self, kind: Kind) {
        let mut state = self.watch.lock();
        let reader = state.notify(kind);
        drop(state);
        wake(reader);
    }

    /// Waits until `take` has something, and drives meanwhile; `more` tells whether it would have something for another
    /// reader.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing: somebody else drives, and what `take` would take is still there.
    pub(super) async fn wait<T>(
        &self,
        kind: Kind,
        mut take: impl FnMut() -> Result<Option<T>>,
        more: impl Fn() -> bool,
    ) -> Result<T> {
        let mut reader = Reader {
            crew: self,
            kind,
            ticket: None,
            more,
        };
        poll_fn(|cx| {
            if let Some(item) = take()? {
                return Poll::Ready(Ok(item));
            }
            reader.register(cx.waker());
            self.drive(reader.ticket);
            if let Some(item) = take()? {
                return Poll::Ready(Ok(item));
            }
            // Where the budget ended before the work did.
            let driver = self.watch.lock().call();
            wake(driver);
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
            if !state
                .background
                .as_ref()
                .is_some_and(|known| known.will_wake(cx.waker()))
            {
                state.background = Some(cx.waker().clone());
            }
            drop(state);
            self.drive(None);
            let driver = self.watch.lock().call();
            wake(driver);
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

    fn dismiss(&self) -> Vec<Option<(Member, Arc<Seat>)>> {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.free.clear();
        std::mem::take(&mut members.seats)
    }

    /// Polls members that were woken, unless somebody else does.
    fn drive(&self, driver: Option<u64>) {
        let mut state = self.watch.lock();
        state.called = false;
        if state.driving || state.closed {
            return;
        }
        state.driving = true;
        state.driver = driver;
        drop(state);
        let shift = Shift(self);
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..BUDGET {
            let mut state = self.watch.lock();
            let joining = std::mem::take(&mut state.joining);
            let at = if joining.is_empty() {
                state.ready.pop_front()
            } else {
                None
            };
            let closed = state.closed;
            drop(state);
            if closed {
                break;
            }
            if !joining.is_empty() {
                for member in joining {
                    members.seat(member, &self.watch);
                }
                continue;
            }
            let Some(at) = at else { break };
            members.poll(at);
        }
        drop(members);
        drop(shift);
    }
}

/// The time in which somebody drives; it ends also where a member panics.
struct Shift<'a>(&'a Crew);

impl Drop for Shift<'_> {
    fn drop(&mut self) {
        let mut state = self.0.watch.lock();
        state.driving = false;
        state.driver = None;
        let closed = state.closed;
        drop(state);
        if closed {
            drop(self.0.dismiss());
        }
    }
}

impl Members {
    fn seat(&mut self, member: Member, watch: &Arc<Watch>) {
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
        watch.lock().ready.push_back(at);
    }

    fn poll(&mut self, at: usize) {
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

/// A place among those who wait; leaving it hands on what there is to do.
struct Reader<'a, M: Fn() -> bool> {
    crew: &'a Crew,
    kind: Kind,
    ticket: Option<u64>,
    /// Whether there is something for another reader of this kind.
    more: M,
}

impl<M: Fn() -> bool> Reader<'_, M> {
    fn register(&mut self, waker: &Waker) {
        let mut state = self.crew.watch.lock();
        let known = self.ticket.and_then(|ticket| {
            let mut waiting = state.waiting.iter_mut();
            waiting.find(|waiting| waiting.ticket == ticket)
        });
        if let Some(waiting) = known {
            waiting.notified = false;
            if !waiting.waker.will_wake(waker) {
                waiting.waker.clone_from(waker);
            }
            return;
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        self.ticket = Some(ticket);
        state.waiting.push(Waiting {
            ticket,
            kind: self.kind,
            notified: false,
            waker: waker.clone(),
        });
    }
}

impl<M: Fn() -> bool> Drop for Reader<'_, M> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let more = (self.more)();
        let mut state = self.crew.watch.lock();
        state.waiting.retain(|waiting| waiting.ticket != ticket);
        // A call that went to this reader goes to the next, and so does what it leaves in its inbox.
        state.called = false;
        let driver = state.call();
        let reader = if more { state.notify(self.kind) } else { None };
        drop(state);
        wake(driver);
        wake(reader);
    }
}
