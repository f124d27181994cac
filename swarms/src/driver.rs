//! One future that moves a layer, polled by whoever waits for something of that layer.
//!
//! A layer with an engine has work that never ends: pull from below, hand what came to the engine, keep its time. A task
//! for it would cost a hop for every message. So it is a future that belongs to nobody ([`Driver::start`]), and those who
//! wait ([`Driver::wait`]) poll it in their own tasks: of those who wait at the same time one is called when the work
//! can go on, and finds what it waits for, or leaves it where others find it and calls them. Nobody holds the work
//! between two polls, so a caller that is cancelled loses nothing, and one that nobody polls any more (a `receive` kept
//! aside by `select!` while another branch goes on) holds up nobody for long.
//!
//! A layer has readers of several kinds (of messages, of requests), and each is woken for its own. What nobody but one
//! caller waits for, such as the answer to its ask, wakes that caller by itself: there may be thousands of them, and the
//! line is short.
//!
//! While nobody waits, or whoever was called does not come, a background task takes over. It stands back as soon as
//! somebody comes, and while there is something to do it looks now and then whether they still do.
//!
//! Beside it stand what such work is made of: an engine's time ([`Alarm`]), and packets that nobody waits for
//! ([`Detached`]).
//!
//! Deliberately absent: what the work is, and its results. Both are the layer's.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use p2p::{Error, Result};
use tokio::runtime::Handle;
use tokio::task::coop::has_budget_remaining;
use tokio::time::sleep;

mod alarm;
mod detached;
#[cfg(test)]
mod tests;

pub(crate) use self::alarm::{Alarm, Clock, Sleeper};
pub(crate) use self::detached::Detached;

/// How long the work waits for somebody to come before the background does. Who receives in a loop comes much sooner, and
/// pays for the background with a hundred wake-ups a second at most.
const GRACE: Duration = Duration::from_millis(10);

/// Polls of the work in one go, before the task of who polls has its turn again.
const POLLS: usize = 8;

/// How long nothing is pulled from a swarm that failed.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants<K> {
    /// Items of a kind, so many at most: [`Driver::put`] wakes for them.
    Items(K, usize),
    /// What wakes the caller by itself. Who leaves it there need not do so if the work is
    /// [polled for](Driver::polled_for) it.
    Own(K),
}

/// The work of one layer, and those who wait for what comes of it: items of the kinds `K`, or something that wakes them
/// by itself.
pub(crate) struct Driver<K>(Arc<Desk<K>>);

impl<K: Kind> Driver<K> {
    /// A driver without work.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Desk {
            line: Mutex::new(Line::default()),
            work: Mutex::new(None),
            started: AtomicBool::new(false),
        }))
    }

    /// Begins `work`, which is polled until it ends or the driver is closed. Those who came before wait for it.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside of a tokio runtime.
    pub(crate) fn start(&self, work: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let runtime = Handle::try_current()
            .map_err(|_| Error::invalid("call", "this swarm needs a tokio runtime around it"))?;
        let work: Work = Box::pin(work);
        *self.0.work() = Some((work, self.0.clone().into()));
        let mut line = self.0.line();
        line.due = true;
        let closed = line.closed;
        drop(line);
        if closed {
            self.0.dismiss();
        } else {
            runtime.spawn(background(self.0.clone()));
        }
        Ok(())
    }

    /// Begins the work that `make` makes, unless it has begun. For layers that may be made outside of a runtime.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub(crate) fn start_once<W>(&self, make: impl FnOnce() -> W) -> Result<()>
    where
        W: Future<Output = ()> + Send + 'static,
    {
        if self.0.started.load(Relaxed) || self.0.started.swap(true, Relaxed) {
            return Ok(());
        }
        let started = self.start(make());
        if started.is_err() {
            self.0.started.store(false, Relaxed);
        }
        started
    }

    /// Waits until `take` has something, which is what the caller `wants`, and polls the work meanwhile.
    ///
    /// # Errors
    /// [`Error::Closed`] if the driver is closed and `take` has nothing.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing: others are called for the work and for items.
    pub(crate) async fn wait<T>(
        &self,
        wants: Wants<K>,
        mut take: impl FnMut(&mut Context<'_>) -> Poll<Result<T>>,
    ) -> Result<T> {
        let mut place = Place {
            desk: &self.0,
            wants,
            ticket: None,
            served: false,
        };
        poll_fn(|cx| place.poll(cx, &mut take)).await
    }

    /// Says that there are so many items more to be taken by those who want some of this kind.
    pub(crate) fn put(&self, kind: K, mut items: usize) {
        if items == 0 {
            return;
        }
        let mut line = self.0.line();
        // Who polls the work looks for items afterwards.
        if let Some(Wants::Items(polled_for, left)) = &mut line.polled_for
            && *polled_for == kind
        {
            let own = items.min(*left);
            (*left, items) = (*left - own, items - own);
        }
        let notified = line.notify(kind, items);
        drop(line);
        notified.into_iter().for_each(Waker::wake);
    }

    /// What the one who polls the work wants, if that is somebody who waits: it looks for it afterwards.
    pub(crate) fn polled_for(&self) -> Option<Wants<K>> {
        self.0.line().polled_for
    }

    /// Says that the work can go on.
    pub(crate) fn wake(&self) {
        self.0.wake_by_ref();
    }

    /// Drops the work, now or when the one who polls it is done, and wakes everybody.
    pub(crate) fn close(&self) {
        let mut line = self.0.line();
        line.closed = true;
        let waiting = [mem::take(&mut line.readers), mem::take(&mut line.others)];
        let background = line.background.take();
        let polling = line.polling;
        drop(line);
        if !polling {
            self.0.dismiss();
        }
        let waiting = waiting.into_iter().flatten().map(|waiting| waiting.waker);
        waiting.chain(background).for_each(Waker::wake);
    }
}

/// What tells kinds of items apart.
pub(crate) trait Kind: Copy + PartialEq + Send + 'static {}

impl<K: Copy + PartialEq + Send + 'static> Kind for K {}

struct Desk<K> {
    line: Mutex<Line<K>>,
    /// Locked while it is polled, by whoever set [`Line::polling`], and when it comes and goes. With its waker, which is
    /// this desk: both go when the driver is closed.
    work: Mutex<Option<(Work, Waker)>>,
    /// Whether [`Driver::start_once`] has begun the work.
    started: AtomicBool,
}

struct Line<K> {
    /// The work can go on.
    due: bool,
    /// Somebody polls the work, and will see whether it can go on.
    polling: bool,
    /// What whoever polls the work takes itself.
    polled_for: Option<Wants<K>>,
    /// How often the work was polled.
    polls: u64,
    /// Those who want items, in the order of their tickets.
    readers: VecDeque<Waiting<K>>,
    /// Those who want something else, in the order of their tickets.
    others: VecDeque<Waiting<K>>,
    next_ticket: u64,
    duty: Duty,
    background: Option<Waker>,
    closed: bool,
}

impl<K> Default for Line<K> {
    fn default() -> Self {
        Self {
            due: false,
            polling: false,
            polled_for: None,
            polls: 0,
            readers: VecDeque::new(),
            others: VecDeque::new(),
            next_ticket: 0,
            duty: Duty::Work,
            background: None,
            closed: false,
        }
    }
}

struct Waiting<K> {
    ticket: u64,
    kind: K,
    /// Woken to poll the work, and not polled since.
    called: bool,
    /// Woken to take an item, and not polled since.
    notified: bool,
    waker: Waker,
}

/// What the background does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    /// Polls the work whenever nobody else can be called.
    Work,
    /// Looks, after some time, whether somebody else polls the work.
    Watch,
    /// Nothing: somebody else polled the work, and there was nothing to do since.
    Rest,
}

/// Whom to wake once the lock is given back.
type Calls = [Option<Waker>; 2];

fn make(calls: Calls) {
    calls.into_iter().flatten().for_each(Waker::wake);
}

impl<K: Kind> Line<K> {
    /// Whom to wake because the work can go on.
    #[must_use]
    fn call(&mut self) -> Calls {
        if !self.due || self.polling || self.closed {
            return Calls::default();
        }
        // Who wants items finds them in the same poll.
        let mut waiting = self.readers.iter_mut().chain(&mut self.others);
        let called = waiting.find(|waiting| !waiting.called);
        let called = called.map(|waiting| {
            waiting.called = true;
            waiting.waker.clone()
        });
        let background = match self.duty {
            Duty::Work if called.is_none() => self.background.clone(),
            Duty::Watch => None,
            Duty::Work | Duty::Rest => {
                self.duty = Duty::Watch;
                self.background.clone()
            }
        };
        [called, background]
    }

    /// Whom to wake because there are so many items more of this kind to be taken.
    #[must_use]
    fn notify(&mut self, kind: K, items: usize) -> Vec<Waker> {
        let unaware = |waiting: &&mut Waiting<K>| !waiting.notified && waiting.kind == kind;
        let readers = self.readers.iter_mut().filter(unaware).take(items);
        let notified = readers.map(|waiting| {
            waiting.notified = true;
            waiting.waker.clone()
        });
        notified.collect()
    }

    /// Those among whom one with these wants waits.
    fn queue(&mut self, wants: Wants<K>) -> &mut VecDeque<Waiting<K>> {
        match wants {
            Wants::Items(..) => &mut self.readers,
            Wants::Own(_) => &mut self.others,
        }
    }
}

impl<K> Wants<K> {
    fn kind(self) -> K {
        match self {
            Wants::Items(kind, _) | Wants::Own(kind) => kind,
        }
    }
}

fn position<K>(queue: &VecDeque<Waiting<K>>, ticket: u64) -> Option<usize> {
    queue.binary_search_by_key(&ticket, |waiting| waiting.ticket).ok()
}

impl<K: Kind> Desk<K> {
    fn line(&self) -> MutexGuard<'_, Line<K>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) -> MutexGuard<'_, Option<(Work, Waker)>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls the work once, if it can go on and nobody else polls it. Says whether it did.
    fn step(&self, mut line: MutexGuard<'_, Line<K>>, wants: Option<Wants<K>>) -> bool {
        if !line.due || line.polling || line.closed {
            return false;
        }
        (line.due, line.polling, line.polled_for) = (false, true, wants);
        line.polls += 1;
        drop(line);
        let shift = Shift(self);
        let mut work = self.work();
        let ended = work
            .as_mut()
            .is_some_and(|(work, waker)| work.as_mut().poll(&mut Context::from_waker(waker)).is_ready());
        let ended = if ended { work.take() } else { None };
        drop(work);
        drop(shift);
        drop(ended);
        true
    }

    fn dismiss(&self) {
        let work = self.work().take();
        drop(work);
    }
}

/// The time in which somebody polls the work; it ends also where the work panics.
struct Shift<'a, K: Kind>(&'a Desk<K>);

impl<K: Kind> Drop for Shift<'_, K> {
    fn drop(&mut self) {
        let mut line = self.0.line();
        (line.polling, line.polled_for) = (false, None);
        let closed = line.closed;
        drop(line);
        if closed {
            self.0.dismiss();
        }
    }
}

/// The work's waker.
impl<K: Kind> Wake for Desk<K> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut line = self.line();
        line.due = true;
        let calls = line.call();
        drop(line);
        make(calls);
    }
}

/// A place among those who wait. Leaving it hands on what its owner was called for.
struct Place<'a, K: Kind> {
    desk: &'a Desk<K>,
    wants: Wants<K>,
    ticket: Option<u64>,
    /// It got what it waited for.
    served: bool,
}

impl<K: Kind> Place<'_, K> {
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut impl FnMut(&mut Context<'_>) -> Poll<Result<T>>,
    ) -> Poll<Result<T>> {
        for polls in 0.. {
            if let Poll::Ready(taken) = take(cx) {
                self.served = true;
                return Poll::Ready(taken);
            }
            let mut line = self.desk.line();
            if line.closed {
                return Poll::Ready(Err(Error::Closed));
            }
            let outdated = self.stand(&mut line, cx.waker());
            let goes_on = polls < POLLS && has_budget_remaining();
            let stepped = if goes_on {
                line.duty.stand_back();
                self.desk.step(line, Some(self.wants))
            } else {
                drop(line);
                false
            };
            drop(outdated);
            if stepped {
                continue;
            }
            // Something may have been put there before this place was taken.
            if let Poll::Ready(taken) = take(cx) {
                self.served = true;
                return Poll::Ready(taken);
            }
            if !goes_on && self.desk.is_due() {
                // The work goes on when this task has its turn again.
                cx.waker().wake_by_ref();
            }
            break;
        }
        Poll::Pending
    }

    /// Takes a place in the line, or says that its owner came; returns a waker that is not needed any more.
    fn stand(&mut self, line: &mut Line<K>, waker: &Waker) -> Option<Waker> {
        let next_ticket = line.next_ticket;
        let queue = line.queue(self.wants);
        let known = self.ticket.and_then(|ticket| position(queue, ticket));
        if let Some(waiting) = known.and_then(|at| queue.get_mut(at)) {
            (waiting.called, waiting.notified) = (false, false);
            if waiting.waker.will_wake(waker) {
                return None;
            }
            return Some(mem::replace(&mut waiting.waker, waker.clone()));
        }
        self.ticket = Some(next_ticket);
        queue.push_back(Waiting {
            ticket: next_ticket,
            kind: self.wants.kind(),
            called: false,
            notified: false,
            waker: waker.clone(),
        });
        line.next_ticket += 1;
        None
    }
}

impl<K: Kind> Drop for Place<'_, K> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut line = self.desk.line();
        let queue = line.queue(self.wants);
        let left = position(queue, ticket).and_then(|at| queue.remove(at));
        let calls = line.call();
        let passed_on = left.as_ref().is_some_and(|left| left.notified) && !self.served;
        let notified = line.notify(self.wants.kind(), usize::from(passed_on));
        drop(line);
        make(calls);
        notified.into_iter().for_each(Waker::wake);
    }
}

/// Polls the work while nobody else does, until the driver is closed.
async fn background<K: Kind>(desk: Arc<Desk<K>>) {
    while poll_fn(|cx| desk.stand_by(cx)).await {
        loop {
            let before = desk.line().polls;
            sleep(GRACE).await;
            if desk.look(before) != Duty::Watch {
                break;
            }
        }
    }
}

impl Duty {
    /// Somebody else polls the work.
    fn stand_back(&mut self) {
        if *self == Duty::Work {
            *self = Duty::Rest;
        }
    }
}

impl<K: Kind> Desk<K> {
    /// Does the background's duty until that is to watch. Says whether the driver is open.
    fn stand_by(&self, cx: &mut Context<'_>) -> Poll<bool> {
        for polls in 0.. {
            let mut line = self.line();
            if line.closed || line.duty == Duty::Watch {
                return Poll::Ready(!line.closed);
            }
            let outdated = line.background.replace(cx.waker().clone());
            let goes_on = polls < POLLS && has_budget_remaining();
            let stepped = if goes_on && line.duty == Duty::Work {
                self.step(line, None)
            } else {
                drop(line);
                false
            };
            drop(outdated);
            if stepped {
                continue;
            }
            if !goes_on && self.is_due() {
                cx.waker().wake_by_ref();
            } else {
                // Somebody may have come in the midst of it, and what is left is theirs. Nobody called them: whoever
                // polls the work sees to what is left.
                let calls = self.line().call();
                make(calls);
            }
            break;
        }
        Poll::Pending
    }

    /// What the background does now that it has watched for a while.
    fn look(&self, polls_before: u64) -> Duty {
        let mut line = self.line();
        let mut waiting = line.readers.iter().chain(&line.others);
        let somebody_waits = waiting.any(|waiting| !waiting.called);
        line.duty = if line.polls != polls_before {
            Duty::Watch
        } else if line.due || !somebody_waits {
            Duty::Work
        } else {
            Duty::Rest
        };
        line.duty
    }

    /// Whether the work can go on, and nobody is at it.
    fn is_due(&self) -> bool {
        let line = self.line();
        line.due && !line.polling
    }
}

/// Lets whoever polls the work look whether it was for them before there is more of it.
pub(crate) async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl<K: Kind> fmt::Debug for Driver<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.0.line();
        f.debug_struct("Driver")
            .field("waiting", &(line.readers.len() + line.others.len()))
            .field("closed", &line.closed)
            .finish_non_exhaustive()
    }
}
