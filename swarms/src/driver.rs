//! Polls a layer's work from the task that is waiting for its result (leader/followers).
//!
//! A layer with an engine has background work: receive from the swarm below, feed the engine, fire timers. A
//! dedicated task would add a scheduler hop to every message. Instead, the work is a future that the
//! [`Driver`] owns ([`Driver::start`]), and callers in [`Driver::wait`] poll it:
//!
//! - One waiting caller, the leader, polls the work when it can make progress. It takes its own item, leaves
//!   items for other callers in the layer's queues, and wakes those callers ([`Driver::notify`]).
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
//! ([`Interest::Own`]), because thousands of callers may wait for results while few wait for items.
//!
//! A caller that finds its item ready does not register a waker: it takes the lock of the wait list twice and
//! leaves no state behind.
//!
//! Three layers that only pass messages on cost a round trip over UDP 0.95 of what they cost with a task for each
//! layer on one thread, and as much on two (`cargo bench -p p2p-swarms --bench layers -- three`).
//!
//! # Parts
//! A stateful layer is built of these, and its engine; the guide's chapter on layers builds one with a handshake and a
//! timer.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`Driver`] | polls the work, and wakes callers |
//! | [`pump`], [`Step`] | the loop of the work: wait for an event, handle it |
//! | [`Receiving`], [`HandleBatch`] | the step of most layers: a batch from below, or the timer |
//! | [`Timer`] | the engine's clock and timeout |
//! | [`Mailbox`] | the queue of one kind of items to their readers |
//! | [`BackgroundSends`] | sends that no caller awaits |
//! | [`finish_close`] | a close that continues if its caller gives up |
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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use p2p::{Error, Result};
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;

mod background;
mod background_sends;
mod finish;
mod mailbox;
mod pump;
#[cfg(test)]
mod tests;
mod timer;
mod wait_list;
mod waiter;
mod yield_to_woken;

#[cfg(test)]
pub(crate) use self::background::GRACE;
pub use self::background_sends::BackgroundSends;
pub use self::finish::finish_close;
pub use self::mailbox::Mailbox;
pub use self::pump::{HandleBatch, Receiving, Step, pump};
pub use self::timer::{Clock, Sleeper, Timer};
use self::wait_list::{WaitList, Wakers};
use self::waiter::Waiter;
pub(crate) use self::yield_to_woken::yield_to_woken;
use crate::waiters::wake_all;

/// Delay before the next receive after the swarm below returned an error.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// Maximum number of polls of the work in one go, before the polling task yields.
const POLLS: usize = 8;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest<K> {
    /// Up to this many items of a kind; [`Driver::notify`] wakes the caller.
    Items(K, usize),
    /// A result that wakes the caller directly. The code that stores the result need not wake the caller that
    /// [currently polls](Driver::polled_for) the work.
    Own(K),
}

/// The work of one layer, and the callers that wait for its results: items of the kinds `K`, or results that
/// wake their caller directly.
pub struct Driver<K>(Arc<Shared<K>>);

impl<K: Kind> Default for Driver<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Kind> Driver<K> {
    /// Creates a driver without work.
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            list: Mutex::new(WaitList::default()),
            work: Mutex::new(None),
            yielded: AtomicBool::new(false),
            started: AtomicBool::new(false),
        }))
    }

    /// Starts `work`, which is polled until it ends or the driver is closed. Callers that are already waiting
    /// start to poll it.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] outside of a tokio runtime.
    pub fn start(&self, work: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let runtime = Handle::try_current()
            .map_err(|_| Error::invalid("call", "this swarm needs a tokio runtime around it"))?;
        let work: Work = Box::pin(work);
        *self.0.work() = Some((work, self.0.clone().into()));
        let mut list = self.0.list();
        list.due = true;
        let closed = list.closed;
        drop(list);
        if closed {
            self.0.drop_work();
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
    pub fn ensure_started<W>(&self, make: impl FnOnce() -> W) -> Result<()>
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

    /// Waits until `take` returns a result, and polls the work meanwhile. `interest` says what the
    /// caller waits for.
    ///
    /// # Errors
    /// Returns [`Error::Closed`] if the driver is closed and `take` returns nothing. A caller that waits for
    /// items also receives the error that the work [reported](Self::fail).
    ///
    /// # Cancel safety
    /// Cancelling loses nothing: the work and any pending wake-up pass to other callers.
    pub async fn wait<T>(
        &self,
        interest: Interest<K>,
        mut take: impl FnMut(&mut Context<'_>) -> Poll<Result<T>>,
    ) -> Result<T> {
        let mut waiter = Waiter::new(&self.0, interest);
        poll_fn(|cx| waiter.poll(cx, &mut take)).await
    }

    /// Returns the interest of the caller that polls the work, or `None` if the background polls it. That
    /// caller calls `take` after the poll.
    pub fn polled_for(&self) -> Option<Interest<K>> {
        self.0.list().polled_for
    }

    /// Announces `items` new items of this kind and wakes as many waiting callers. Items for the caller that
    /// polls the work need not be counted: it calls `take` after the poll.
    pub fn notify(&self, kind: K, items: usize) {
        if items == 0 {
            return;
        }
        let notified = self.0.list().notify(kind, items);
        wake_all(notified);
    }

    /// Stores an error for the next caller that wants items and finds none. It replaces an earlier error that
    /// no caller has taken.
    pub fn fail(&self, error: Error) {
        let mut list = self.0.list();
        list.failure = Some(error);
        let notified = list.notify_every_kind();
        drop(list);
        wake_all(notified);
    }

    /// Sets whether the work must make progress while no caller polls it, which is so by default.
    ///
    /// Otherwise what arrives stays in the swarm below until the next call, as long as at most one caller waits. That
    /// spares a runtime without other timers the one that watches whether callers poll: about a third of the cost of
    /// a driven layer.
    pub fn set_needs_background(&self, needs: bool) {
        self.0.list().needs_background = needs;
    }

    /// Yields to the polling caller, which checks for its item before the work continues. Only the work may
    /// call this.
    pub async fn yield_to_leader(&self) {
        let mut yielded = false;
        poll_fn(|_| {
            if mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            // Cheaper than waking the work.
            self.0.yielded.store(true, Relaxed);
            Poll::Pending
        })
        .await;
    }

    /// Marks the work as able to make progress and wakes a caller to poll it.
    pub fn wake(&self) {
        self.0.wake_by_ref();
    }

    /// Drops the work, after the current poll if one is running, and wakes all waiting callers.
    pub fn close(&self) {
        let mut list = self.0.list();
        list.closed = true;
        let waiting = list.take_all();
        let polling = list.polling;
        drop(list);
        if !polling {
            self.0.drop_work();
        }
        wake_all(waiting);
    }
}

/// Distinguishes kinds of items.
pub trait Kind: Copy + PartialEq + Send + 'static {}

impl<K: Copy + PartialEq + Send + 'static> Kind for K {}

struct Shared<K> {
    list: Mutex<WaitList<K>>,
    /// Locked while it is polled, by the caller that set [`WaitList::polling`], and when it is started or
    /// dropped. Stored with its waker, which refers to this struct: both are dropped when the driver is
    /// closed.
    work: Mutex<Option<(Work, Waker)>>,
    /// Set if the work [yielded](Driver::yield_to_leader): it can make progress although its waker was not
    /// called.
    yielded: AtomicBool,
    /// Set once [`Driver::ensure_started`] has started the work.
    started: AtomicBool,
}

impl<K: Kind> Shared<K> {
    fn list(&self) -> MutexGuard<'_, WaitList<K>> {
        self.list.lock()
    }

    fn work(&self) -> MutexGuard<'_, Option<(Work, Waker)>> {
        self.work.lock()
    }

    /// Polls the work once. The caller has already called [`WaitList::begin`].
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
    fn list_after_poll(&self) -> MutexGuard<'_, WaitList<K>> {
        let mut list = self.list();
        if self.yielded.load(Relaxed) {
            self.yielded.store(false, Relaxed);
            list.due = true;
        }
        list
    }

    fn drop_work(&self) {
        let work = self.work().take();
        drop(work);
    }
}

/// The waker of the work.
impl<K: Kind> Wake for Shared<K> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut list = self.list();
        list.due = true;
        let wakers = list.choose_wakers();
        drop(list);
        wake_all(wakers.into_iter().flatten());
    }
}

/// Marks that a caller polls the work. The mark is removed on drop, also if the work panics.
struct PollGuard<'a, K: Kind>(Option<&'a Shared<K>>);

impl<'a, K: Kind> PollGuard<'a, K> {
    fn new(shared: &'a Shared<K>) -> Self {
        Self(Some(shared))
    }

    /// Removes the mark. If the polling caller leaves (`goes`), wakes another caller for remaining work.
    fn end(mut self, list: MutexGuard<'_, WaitList<K>>, goes: bool) {
        if let Some(shared) = self.0.take() {
            Self::leave(shared, list, goes);
        }
    }

    fn leave(shared: &Shared<K>, mut list: MutexGuard<'_, WaitList<K>>, goes: bool) {
        (list.polling, list.polled_for) = (false, None);
        let wakers = if goes {
            list.choose_wakers()
        } else {
            Wakers::default()
        };
        let closed = list.closed;
        drop(list);
        if closed {
            shared.drop_work();
        }
        wake_all(wakers.into_iter().flatten());
    }
}

impl<K: Kind> Drop for PollGuard<'_, K> {
    fn drop(&mut self) {
        if let Some(shared) = self.0 {
            Self::leave(shared, shared.list_after_poll(), true);
        }
    }
}

/// Converts a lookup into a poll: an absent item is pending.
pub fn found<T>(taken: Result<Option<T>>) -> Poll<Result<T>> {
    taken.transpose().map_or(Poll::Pending, Poll::Ready)
}

impl<K: Kind> fmt::Debug for Driver<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = self.0.list();
        f.debug_struct("Driver")
            .field("waiting", &list.waiting())
            .field("closed", &list.closed)
            .finish_non_exhaustive()
    }
}
