//! An engine's time: what its clock says, and when it wants to be asked again.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use p2p::{Addr, Message, Result, Swarm};
use tokio::time::{Instant, Sleep, sleep_until};

/// A clock that only moves on, by tokio's, which tests may pause.
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

    /// The same clock, always so much further.
    pub(crate) fn ahead(&self, by: Duration) -> Self {
        Self {
            at_anchor: self.at_anchor.saturating_add(by),
            ..*self
        }
    }

    pub(crate) fn now(&self) -> Duration {
        let now = Instant::now();
        match now.checked_duration_since(self.anchor) {
            Some(after) => self.at_anchor.saturating_add(after),
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

/// No time is set.
const NEVER: u64 = u64::MAX;

/// The moment at which an engine has something to do. Set and asked under the engine's lock, waited for without it.
#[derive(Debug)]
pub(crate) struct Alarm {
    clock: Clock,
    /// In nanoseconds of the clock.
    at: AtomicU64,
}

/// What waits for an [`Alarm`].
#[derive(Default)]
pub(crate) struct Sleeper(Option<(u64, Pin<Box<Sleep>>)>);

impl Alarm {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            at: AtomicU64::new(NEVER),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Sets the alarm to what the engine wants. Says whether that is sooner than before, so that whoever sleeps must be
    /// woken to see it.
    pub(crate) fn set(&self, at: Option<Duration>) -> bool {
        let at = at.map_or(NEVER, nanos);
        self.at.swap(at, Relaxed) > at
    }

    /// Sets the alarm to what the engine wants if that is sooner than before, and says so: for engines that need not be
    /// asked at the very moment, so that it is not set anew for each thing that has a deadline.
    pub(crate) fn set_sooner(&self, at: Option<Duration>) -> bool {
        let at = at.map_or(NEVER, nanos);
        self.at.fetch_min(at, Relaxed) > at
    }

    /// Whether the moment has come.
    pub(crate) fn rings(&self, now: Duration) -> bool {
        self.at.load(Relaxed) <= nanos(now)
    }

    /// Waits for the moment, whichever is set now.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, sleeper: &mut Sleeper) -> Poll<()> {
        let at = self.at.load(Relaxed);
        let until = self
            .clock
            .instant(Duration::from_nanos(at))
            .filter(|_| at != NEVER);
        match (&mut sleeper.0, until) {
            (Some((set, _)), Some(_)) if *set == at => {}
            (Some((set, sleep)), Some(until)) => {
                *set = at;
                sleep.as_mut().reset(until);
            }
            (sleeping, until) => *sleeping = until.map(|until| (at, Box::pin(sleep_until(until)))),
        }
        match &mut sleeper.0 {
            Some((_, sleep)) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// Waits for messages from below, so many at most, or for the moment, whichever comes first.
    ///
    /// # Errors
    /// As [`Swarm::receive_batch`].
    ///
    /// # Cancel safety
    /// Cancelling loses nothing.
    pub(crate) async fn or_receive<A: Addr>(
        &self,
        inner: &impl Swarm<A>,
        pulled: &mut Vec<Message<A>>,
        max: usize,
        sleeper: &mut Sleeper,
    ) -> Result<()> {
        let mut receiving = pin!(inner.receive_batch(pulled, max));
        poll_fn(|cx| {
            if let Poll::Ready(received) = receiving.as_mut().poll(cx) {
                return Poll::Ready(received.map(drop));
            }
            self.poll(cx, sleeper).map(Ok)
        })
        .await
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER)
}
