//! Polls a layer's work from the task that is waiting for its result (leader/followers).
//!
//! A layer with an engine has background work: receive from the swarm below, feed the engine, fire timers. A
//! dedicated task would add a scheduler hop to every message. Instead, the work is a future that the
//! [`Driver`] owns ([`Driver::start`]), and callers in [`Driver::wait`] poll it:
//!
//! - One waiting caller, the leader, polls the work when it can make progress. It takes its own item, leaves
//!   items for other callers in the layer's queues, and wakes those callers ([`Driver::put`]).
//! - If the leader is cancelled, or its task stops polling it (a `receive` that `select!` keeps but does not
//!   poll), another waiting caller becomes the leader after at most a few milliseconds. No caller holds the
//!   work between two polls, so no item is lost.
//! - While no caller waits, or the woken caller does not poll, a background task polls the work, so that
//!   handshakes and timers make progress. It backs off as soon as a reader calls, since readers usually call
//!   again, and checks at intervals whether they still do. A caller that waits for one result, such as an
//!   ask, is not expected to call again: before it returns, it polls the work once more, so that the work is
//!   left pending on its next event.
//!
//! A layer has several kinds of items (messages, requests), and each waiting caller is woken for its own kind
//! only. A result that concerns one caller, such as the response to its ask, wakes that caller directly
//! ([`Wants::Own`]), because thousands of callers may wait for results while few wait for items.
//!
//! A caller that finds its item ready does not register a waker: it takes the lock of the wait list twice and
//! leaves no state behind.
//!
//! The module also holds an engine's timer ([`Alarm`]) and sends that no caller awaits ([`Detached`]).
//!
//! Deliberately absent: the work itself and its results. Both belong to the layer.
//!
//! # Cancel safety
//! [`Driver::wait`] is cancel safe: cancelling it loses no item and passes pending wake-ups to another
//! caller.

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
mod finish;
mod line;
mod place;
#[cfg(test)]
mod tests;

pub(crate) use self::alarm::{Alarm, Clock, Sleeper};
pub(crate) use self::aside::step_aside;
pub(crate) use self::detached::Detached;
pub(crate) use self::finish::finish_close;
use self::line::{Calls, Line};
use self::place::Place;

/// Delay before the next receive after the swarm below returned an error.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// Maximum number of polls of the work in one go, before the polling task yields.
const POLLS: usize = 8;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants<K> {
    /// Up to this many items of a kind; [`Driver::put`] wakes the caller.
    Items(K, usize),
    /// A result that wakes the caller directly. The code that stores the result need not wake the caller that
    /// [currently polls](Driver::polled_for) the work.
    Own(K),
}

/// The work of one layer, and the callers that wait for its results: items of the kinds `K`, or results that
/// wake their caller directly.
pub(crate) struct Driver<K>(Arc<Desk<K>>);

impl<K: Kind> Driver<K> {
    /// Creates a driver without work.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Desk {
            line: Mutex::new(Line::default()),
            work: Mutex::new(None),
            paused: AtomicBool::new(false),
            started: AtomicBool::new(false),
        }))
    }

    /// Starts `work`, which is polled until it ends or the driver is closed. Callers that are already waiting
    /// start to poll it.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] outside of a tokio runtime.
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

    /// Starts the work that `make` returns, unless it has been started. For layers that may be created
    /// outside of a runtime.
    ///
    /// # Errors
    /// Returns the errors of [`start`](Self::start).
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

    /// Waits until `take` returns a result, and polls the work meanwhile. `wants` says what the caller waits
    /// for.
    ///
    /// # Errors
    /// Returns [`Error::Closed`] if the driver is closed and `take` returns nothing. A caller that waits for
    /// items also receives the error that the work [reported](Self::fail).
    ///
    /// # Cancel safety
    /// Cancelling loses nothing: the work and any pending wake-up pass to other callers.
    pub(crate) async fn wait<T>(
        &self,
        wants: Wants<K>,
        mut take: impl FnMut(&mut Context<'_>) -> Poll<Result<T>>,
    ) -> Result<T> {
        let mut place = Place::new(&self.0, wants);
        poll_fn(|cx| place.poll(cx, &mut take)).await
    }

    /// Returns what the caller that polls the work wants, or `None` if the background polls it. That caller
    /// calls `take` after the poll.
    pub(crate) fn polled_for(&self) -> Option<Wants<K>> {
        self.0.line().polled_for
    }

    /// Announces `items` new items of this kind and wakes as many waiting callers. Items for the caller that
    /// polls the work need not be counted: it calls `take` after the poll.
    pub(crate) fn put(&self, kind: K, items: usize) {
        if items == 0 {
            return;
        }
        let notified = self.0.line().notify(kind, items);
        wake_all(notified);
    }

    /// Stores an error for the next caller that wants items and finds none. It replaces an earlier error that
    /// no caller has taken.
    pub(crate) fn fail(&self, error: Error) {
        let mut line = self.0.line();
        line.failure = Some(error);
        let notified = line.notify_every_kind();
        drop(line);
        wake_all(notified);
    }

    /// Yields to the polling caller, which checks for its item before the work continues. Only the work may
    /// call this.
    pub(crate) async fn pause(&self) {
        let mut paused = false;
        poll_fn(|_| {
            if mem::replace(&mut paused, true) {
                return Poll::Ready(());
            }
            // Cheaper than waking the work.
            self.0.paused.store(true, Relaxed);
            Poll::Pending
        })
        .await;
    }

    /// Marks the work as able to make progress and wakes a caller to poll it.
    pub(crate) fn wake(&self) {
        self.0.wake_by_ref();
    }

    /// Drops the work, after the current poll if one is running, and wakes all waiting callers.
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

/// Distinguishes kinds of items.
pub(crate) trait Kind: Copy + PartialEq + Send + 'static {}

impl<K: Copy + PartialEq + Send + 'static> Kind for K {}

struct Desk<K> {
    line: Mutex<Line<K>>,
    /// Locked while it is polled, by the caller that set [`Line::polling`], and when it is started or
    /// dropped. Stored with its waker, which refers to this struct: both are dropped when the driver is
    /// closed.
    work: Mutex<Option<(Work, Waker)>>,
    /// Set if the work [yielded](Driver::pause): it can make progress although its waker was not called.
    paused: AtomicBool,
    /// Set once [`Driver::start_once`] has started the work.
    started: AtomicBool,
}

impl<K: Kind> Desk<K> {
    fn line(&self) -> MutexGuard<'_, Line<K>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) -> MutexGuard<'_, Option<(Work, Waker)>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls the work once. The caller has already called [`Line::begin`].
    fn poll_work(&self) {
        let mut work = self.work();
        let ended = work
            .as_mut()
            .is_some_and(|(work, waker)| work.as_mut().poll(&mut Context::from_waker(waker)).is_ready());
        let ended = if ended { work.take() } else { None };
        drop(work);
        drop(ended);
    }

    /// Returns the wait list after a poll, with `due` set if the work yielded.
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

/// The waker of the work.
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

/// Marks that a caller polls the work. The mark is removed on drop, also if the work panics.
struct Shift<'a, K: Kind>(Option<&'a Desk<K>>);

impl<'a, K: Kind> Shift<'a, K> {
    fn new(desk: &'a Desk<K>) -> Self {
        Self(Some(desk))
    }

    /// Removes the mark. If the polling caller leaves (`goes`), wakes another caller for remaining work.
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

/// Converts a lookup into a poll: an absent item is pending.
pub(crate) fn found<T>(taken: Result<Option<T>>) -> Poll<Result<T>> {
    taken.transpose().map_or(Poll::Pending, Poll::Ready)
}

/// Wakes the caller and the background task that were chosen to poll the work.
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
