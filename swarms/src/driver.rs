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
//! While nobody waits, or whoever was called does not come, a background task takes over. Readers mostly come again: it
//! stands back as soon as one comes, and while there is something to do it looks now and then whether they still do. Who
//! came for an answer is not expected again, and leaves the work waiting for what comes next.
//!
//! Who comes while the work can go on takes no place among those who wait: where what it waits for is there already, a
//! call takes the lock of the line twice and leaves no trace.
//!
//! Beside it stand what such work is made of: an engine's time ([`Alarm`]), and packets that nobody waits for
//! ([`Detached`]).
//!
//! Deliberately absent: what the work is, and its results. Both are the layer's.

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

mod alarm;
mod aside;
mod background;
mod detached;
mod line;
mod place;
#[cfg(test)]
mod tests;

pub(crate) use self::alarm::{Alarm, Clock, Sleeper};
pub(crate) use self::aside::step_aside;
pub(crate) use self::detached::Detached;
use self::line::{Calls, Line};
use self::place::Place;

/// How long nothing is pulled from a swarm that failed.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// Polls of the work in one go, before the task of who polls has its turn again.
const POLLS: usize = 8;

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
            paused: AtomicBool::new(false),
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
            runtime.spawn(background::run(self.0.clone()));
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
    /// [`Error::Closed`] if the driver is closed and `take` has nothing; for items also what the work
    /// [failed](Self::fail) with.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing: others are called for the work and for items.
    pub(crate) async fn wait<T>(
        &self,
        wants: Wants<K>,
        mut take: impl FnMut(&mut Context<'_>) -> Poll<Result<T>>,
    ) -> Result<T> {
        let mut place = Place::new(&self.0, wants);
        poll_fn(|cx| place.poll(cx, &mut take)).await
    }

    /// What the one who polls the work wants, if that is somebody who waits: it looks for it afterwards.
    pub(crate) fn polled_for(&self) -> Option<Wants<K>> {
        self.0.line().polled_for
    }

    /// Says that there are so many items more to be taken by those who want some of this kind. What the work left for the
    /// one who polls it, who looks for it afterwards, need not be counted.
    pub(crate) fn put(&self, kind: K, items: usize) {
        if items == 0 {
            return;
        }
        let notified = self.0.line().notify(kind, items);
        wake_all(notified);
    }

    /// Leaves an error for the next one who wants items and finds none. It replaces one that nobody has taken.
    pub(crate) fn fail(&self, error: Error) {
        let mut line = self.0.line();
        line.failure = Some(error);
        let notified = line.notify_every_kind();
        drop(line);
        wake_all(notified);
    }

    /// Lets whoever polls the work look whether it was for them before there is more of it. For the work alone.
    pub(crate) async fn pause(&self) {
        let mut paused = false;
        poll_fn(|_| {
            if mem::replace(&mut paused, true) {
                return Poll::Ready(());
            }
            // Cheaper than to wake it.
            self.0.paused.store(true, Relaxed);
            Poll::Pending
        })
        .await;
    }

    /// Says that the work can go on.
    pub(crate) fn wake(&self) {
        self.0.wake_by_ref();
    }

    /// Drops the work, now or when the one who polls it is done, and wakes everybody.
    pub(crate) fn close(&self) {
        let mut line = self.0.line();
        line.closed = true;
        let waiting = line.take_everybody();
        let polling = line.polling;
        drop(line);
        if !polling {
            self.0.dismiss();
        }
        wake_all(waiting);
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
    /// The work can go on although nobody woke it: it [paused](Driver::pause).
    paused: AtomicBool,
    /// Whether [`Driver::start_once`] has begun the work.
    started: AtomicBool,
}

impl<K: Kind> Desk<K> {
    fn line(&self) -> MutexGuard<'_, Line<K>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) -> MutexGuard<'_, Option<(Work, Waker)>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls the work once. The caller has [begun](Line::begin) to.
    fn poll_work(&self) {
        let mut work = self.work();
        let ended = work
            .as_mut()
            .is_some_and(|(work, waker)| work.as_mut().poll(&mut Context::from_waker(waker)).is_ready());
        let ended = if ended { work.take() } else { None };
        drop(work);
        drop(ended);
    }

    /// The line after the work was polled, which knows whether it paused.
    fn line_after_poll(&self) -> MutexGuard<'_, Line<K>> {
        let mut line = self.line();
        if self.paused.load(Relaxed) {
            self.paused.store(false, Relaxed);
            line.due = true;
        }
        line
    }

    fn dismiss(&self) {
        let work = self.work().take();
        drop(work);
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

/// The time in which somebody polls the work; it ends also where the work panics.
struct Shift<'a, K: Kind>(Option<&'a Desk<K>>);

impl<'a, K: Kind> Shift<'a, K> {
    fn new(desk: &'a Desk<K>) -> Self {
        Self(Some(desk))
    }

    /// Ends it, and calls others for what is left if the one who polled goes away.
    fn end(mut self, line: MutexGuard<'_, Line<K>>, goes: bool) {
        if let Some(desk) = self.0.take() {
            Self::leave(desk, line, goes);
        }
    }

    fn leave(desk: &Desk<K>, mut line: MutexGuard<'_, Line<K>>, goes: bool) {
        (line.polling, line.polled_for) = (false, None);
        let calls = if goes { line.call() } else { Calls::default() };
        let closed = line.closed;
        drop(line);
        if closed {
            desk.dismiss();
        }
        make(calls);
    }
}

impl<K: Kind> Drop for Shift<'_, K> {
    fn drop(&mut self) {
        if let Some(desk) = self.0 {
            Self::leave(desk, desk.line_after_poll(), true);
        }
    }
}

/// What looking for something that may not be there yet comes to.
pub(crate) fn found<T>(taken: Result<Option<T>>) -> Poll<Result<T>> {
    taken.transpose().map_or(Poll::Pending, Poll::Ready)
}

/// Wakes those who are called to poll the work.
fn make(calls: Calls) {
    let [called, background] = calls;
    if let Some(called) = called {
        called.wake();
    }
    if let Some(background) = background {
        background.wake();
    }
}

fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

impl<K: Kind> fmt::Debug for Driver<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.0.line();
        f.debug_struct("Driver")
            .field("waiting", &line.waiting())
            .field("closed", &line.closed)
            .finish_non_exhaustive()
    }
}
