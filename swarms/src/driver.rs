//! What layers with an engine share: whoever waits pulls from below, and keeps the engine's time; while nobody
//! waits, a background task does.
//!
//! A layer owns a [`Driver`]. Its callers wait for an item of their own or for the turn ([`Turn::drive_or_pop`]); who
//! has the turn calls [`Driver::pull`] and hands what came to the engine, over and over, until the engine has
//! something for it. Engines give timers ([`Driver::arm`]) and packets that nobody waits for
//! ([`Driver::send_detached`]). A layer that must move while nobody waits starts a [`Background`].
//!
//! Deliberately absent: the engine, its lock, and any decision on what came.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, fence};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use p2p::{Addr, Counters, Error, Message, Packet, Reason, Result, Swarm};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::turn::{First, Turn, first};

/// Sends that may wait for room at a time although nobody waits for them. Further ones are dropped; engines send
/// again what matters.
const DETACHED: usize = 64;

/// How long nobody must have waited before the background does. A node that receives in a loop, or asks one thing
/// after another, waits again much sooner, and pays some wake-ups a second for the background at most.
const GRACE: Duration = Duration::from_millis(20);

/// No timer is set.
const NEVER: u64 = u64::MAX;

/// An engine's time, and what it is on tokio's clock, which tests may pause.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    anchor: Instant,
    at_anchor: Duration,
}

impl Clock {
    /// A clock that says `at_anchor` at the moment `anchor`.
    pub(crate) fn new(anchor: Instant, at_anchor: Duration) -> Self {
        Self { anchor, at_anchor }
    }

    pub(crate) fn now(&self) -> Duration {
        let now = Instant::now();
        match now.checked_duration_since(self.anchor) {
            Some(since) => self.at_anchor.saturating_add(since),
            // A paused clock may stand before the anchor.
            None => self.at_anchor.saturating_sub(self.anchor.duration_since(now)),
        }
    }

    fn instant(&self, at: Duration) -> Option<Instant> {
        match at.checked_sub(self.at_anchor) {
            Some(after) => self.anchor.checked_add(after),
            None => self.anchor.checked_sub(self.at_anchor.saturating_sub(at)),
        }
    }
}

/// What the callers of a layer and its background share.
pub(crate) struct Driver<A, S> {
    pub(crate) inner: S,
    pub(crate) turn: Turn<Pulled<A>>,
    clock: Clock,
    /// When the engine's timers are looked at, in nanoseconds of the clock.
    armed: AtomicU64,
    nudged: AtomicBool,
    /// Whoever drives.
    waker: AtomicWaker,
    /// How often somebody pulled.
    pulls: AtomicU64,
    detached: Arc<AtomicUsize>,
    closed: AtomicBool,
    background: Background,
}

/// What only the one who drives has.
pub(crate) struct Pulled<A> {
    /// What came. Empty but between [`Driver::pull`] and the engine.
    pub(crate) messages: Vec<Message<A>>,
    timer: Option<(u64, Pin<Box<Sleep>>)>,
}

/// A layer that also moves while nobody waits.
pub(crate) trait Driven<A: Addr>: Send + Sync + 'static {
    /// The swarm below.
    type Inner: Swarm<A>;

    fn driver(&self) -> &Driver<A, Self::Inner>;

    /// Where drops of what was [sent detached](Driver::send_detached) are counted.
    fn counters(&self) -> &Counters;

    /// Messages that are pulled from below at a time.
    fn batch(&self) -> usize;

    /// Gives the engine what was pulled, and looks at its timers, for nobody who waits.
    fn land(self: &Arc<Self>, pulled: &mut Pulled<A>);
}

impl<A: Addr, S: Swarm<A>> Driver<A, S> {
    pub(crate) fn new(inner: S, clock: Clock) -> Self {
        Self {
            inner,
            turn: Turn::new(Pulled::default()),
            clock,
            armed: AtomicU64::new(NEVER),
            nudged: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            pulls: AtomicU64::new(0),
            detached: Arc::default(),
            closed: AtomicBool::new(false),
            background: Background::default(),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Waits for messages, the timer or a [`nudge`](Self::nudge); the engine must be given what came before the caller
    /// waits for anything else.
    ///
    /// # Errors
    /// Those of the swarm below, and [`Error::Closed`] after [`close`](Self::close).
    pub(crate) async fn pull(&self, pulled: &mut Pulled<A>, batch: usize) -> Result<()> {
        pulled.set_timer(self.armed.load(Relaxed), &self.clock);
        let Pulled { messages, timer } = pulled;
        let mut receiving = pin!(self.inner.receive_batch(messages, batch));
        let pulled = poll_fn(|cx| {
            if let Poll::Ready(received) = receiving.as_mut().poll(cx) {
                return Poll::Ready(received.map(drop));
            }
            if let Some((_, sleep)) = timer
                && sleep.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Ok(()));
            }
            self.waker.register(cx.waker());
            if self.nudged.swap(false, AcqRel) {
                return Poll::Ready(Ok(()));
            }
            Poll::Pending
        })
        .await;
        self.pulls.fetch_add(1, Relaxed);
        pulled.and_then(|()| self.check_open())
    }

    /// Whoever drives stops waiting, and looks at the timer again.
    pub(crate) fn nudge(&self) {
        self.nudged.store(true, Release);
        self.waker.wake();
    }

    /// Sets the timer to what the engine wants. Says whether that is sooner than before, so that somebody else who
    /// drives must be [nudged](Self::nudge). Called under the engine's lock.
    pub(crate) fn arm(&self, timeout: Option<Duration>) -> bool {
        let timeout = timeout.map_or(NEVER, nanos);
        self.armed.swap(timeout, Relaxed) > timeout
    }

    /// Whether the timer rings. Called under the engine's lock.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.armed.load(Relaxed) <= nanos(now)
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Acquire) {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// Ends the background, and every [`pull`](Self::pull) now and later. Says whether this call was the first.
    pub(crate) fn close(&self) -> bool {
        let first = !self.closed.swap(true, AcqRel);
        self.background.stop();
        self.nudge();
        first
    }

    /// Has a task drive while nobody else does. Further calls do nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside of a tokio runtime.
    pub(crate) fn start_background<L: Driven<A, Inner = S>>(layer: &Arc<L>) -> Result<()> {
        let runtime = Handle::try_current()
            .map_err(|_| Error::invalid("call", "this swarm needs a tokio runtime around it"))?;
        let background = &layer.driver().background;
        background.start(&runtime, || Box::pin(drive(layer.clone())));
        Ok(())
    }

    /// Sends what nobody waits for: at once, or in a task of its own if there is no room at the moment. What cannot be
    /// sent is lost as on the medium, and counted.
    pub(crate) fn send_detached<L: Driven<A, Inner = S>>(layer: &Arc<L>, mut packets: Vec<(A, Packet)>) {
        if packets.is_empty() {
            return;
        }
        let count = packets.len();
        let Ok(runtime) = Handle::try_current() else {
            // Layers below may set timers.
            return layer.counters().dropped_many(Reason::Refused, count);
        };
        let sender = layer.clone();
        let mut sending = Box::pin(async move {
            if let Err(error) = sender.driver().inner.tell_batch(&mut packets).await {
                sender.counters().dropped_many(Reason::Refused, error.refused);
            }
        });
        let mut nobody = Context::from_waker(Waker::noop());
        if sending.as_mut().poll(&mut nobody).is_ready() {
            return;
        }
        let detached = layer.driver().detached.clone();
        if detached.fetch_add(1, Relaxed) >= DETACHED {
            detached.fetch_sub(1, Relaxed);
            return layer.counters().dropped_many(Reason::QueueFull, count);
        }
        runtime.spawn(async move {
            sending.await;
            detached.fetch_sub(1, Relaxed);
        });
    }
}

/// Drives while nobody else does.
async fn drive<A: Addr, L: Driven<A>>(layer: Arc<L>) {
    let driver = layer.driver();
    loop {
        if let Some(mut driving) = driver.turn.try_drive() {
            // A swarm below that fails is asked again after a while, one that is closed never.
            let landing = keep_landing(&layer, &mut driving);
            if let First::Right(Err(Error::Closed)) = first(driver.turn.wanted(), landing).await {
                return;
            }
        }
        loop {
            driver.turn.idle().await;
            let pulls = driver.pulls.load(Relaxed);
            sleep(GRACE).await;
            if driver.pulls.load(Relaxed) == pulls && driver.turn.is_idle() {
                break;
            }
        }
    }
}

async fn keep_landing<A: Addr, L: Driven<A>>(layer: &Arc<L>, pulled: &mut Pulled<A>) -> Result<()> {
    loop {
        layer.driver().pull(pulled, layer.batch()).await?;
        layer.land(pulled);
    }
}

impl<A> Pulled<A> {
    fn set_timer(&mut self, armed: u64, clock: &Clock) {
        let deadline = || {
            clock
                .instant(Duration::from_nanos(armed))
                .filter(|_| armed != NEVER)
        };
        match &mut self.timer {
            Some((set, _)) if *set == armed => {}
            timer => match (deadline(), timer) {
                (Some(deadline), Some((set, sleep))) => {
                    *set = armed;
                    sleep.as_mut().reset(deadline);
                }
                (deadline, timer) => {
                    *timer = deadline.map(|deadline| (armed, Box::pin(sleep_until(deadline))));
                }
            },
        }
    }
}

impl<A> Default for Pulled<A> {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            timer: None,
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER)
}

impl<A, S> fmt::Debug for Driver<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("turn", &self.turn)
            .finish_non_exhaustive()
    }
}

impl<A> fmt::Debug for Pulled<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pulled")
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A task that is dropped where and when it is stopped, and not some time later by the runtime: what it holds is free
/// then.
#[derive(Default)]
struct Background {
    started: AtomicBool,
    slot: Arc<Slot>,
}

#[derive(Default)]
struct Slot {
    task: Mutex<Option<Task>>,
    stopped: AtomicBool,
}

impl Background {
    fn start(&self, runtime: &Handle, task: impl FnOnce() -> Task) {
        if self.started.swap(true, Relaxed) {
            return;
        }
        *self.slot.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task());
        let slot = self.slot.clone();
        runtime.spawn(poll_fn(move |cx| slot.poll(cx)));
    }

    fn stop(&self) {
        self.slot.stopped.store(true, SeqCst);
        self.slot.tidy();
    }
}

impl Slot {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let polled = {
            let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
            task.as_mut()
                .map_or(Poll::Ready(()), |task| task.as_mut().poll(cx))
        };
        if polled.is_ready() {
            self.stopped.store(true, SeqCst);
        }
        self.tidy();
        polled
    }

    /// Drops the task if it is stopped. If it is being polled, perhaps by the caller's callers, who polls it does.
    fn tidy(&self) {
        fence(SeqCst);
        if !self.stopped.load(SeqCst) {
            return;
        }
        let task = match self.task.try_lock() {
            Ok(mut task) => task.take(),
            Err(TryLockError::Poisoned(task)) => task.into_inner().take(),
            Err(TryLockError::WouldBlock) => None,
        };
        // Behind the lock: it may hold the last handle on this slot.
        drop(task);
    }
}
