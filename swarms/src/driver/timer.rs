//! An engine's clock and its timeout.

use std::fmt;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use p2p::{Addr, Message, Result, Swarm};
use tokio::time::{Instant, Sleep, sleep_until};

/// A monotonic clock on tokio's time, which tests may pause.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    anchor: Instant,
    at_anchor: Duration,
}

impl Clock {
    /// Creates a clock that reads `at_anchor` at the instant `anchor`.
    pub fn new(anchor: Instant, at_anchor: Duration) -> Self {
        Self { anchor, at_anchor }
    }

    /// Returns the same clock, always ahead by the given duration.
    #[must_use]
    pub fn ahead(&self, by: Duration) -> Self {
        Self {
            at_anchor: self.at_anchor.saturating_add(by),
            ..*self
        }
    }

    /// Returns the time on this clock.
    pub fn now(&self) -> Duration {
        let now = Instant::now();
        match now.checked_duration_since(self.anchor) {
            Some(after) => self.at_anchor.saturating_add(after),
            // A paused clock may be before the anchor.
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

/// Value for "no timeout set".
const NEVER: u64 = u64::MAX;

/// The next timeout of an engine. Set and read under the engine's lock, awaited without it.
#[derive(Debug)]
pub struct Timer {
    clock: Clock,
    /// In nanoseconds of the clock.
    at: AtomicU64,
}

/// The state of a task that waits for a [`Timer`].
#[derive(Default)]
pub struct Sleeper(Option<(u64, Pin<Box<Sleep>>)>);

impl fmt::Debug for Sleeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleeper").finish_non_exhaustive()
    }
}

impl Default for Timer {
    /// Creates a timer without a timeout, on a clock that starts at zero.
    fn default() -> Self {
        Self::new(Clock::new(Instant::now(), Duration::ZERO))
    }
}

impl Timer {
    /// Creates a timer without a timeout.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            at: AtomicU64::new(NEVER),
        }
    }

    /// Returns the time on the timer's clock.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Sets the timeout. Returns whether it is earlier than before, in which case a sleeping task must be
    /// woken to see it.
    pub fn set(&self, at: Option<Duration>) -> bool {
        let at = at.map_or(NEVER, nanos);
        self.at.swap(at, Relaxed) > at
    }

    /// Sets the timeout only if it is earlier than the current one, and returns whether it is. For engines
    /// that tolerate early timeouts, so that the timer is not reset for each item that has a deadline.
    pub fn set_sooner(&self, at: Option<Duration>) -> bool {
        let at = at.map_or(NEVER, nanos);
        self.at.fetch_min(at, Relaxed) > at
    }

    /// Returns whether a timeout is set.
    pub fn is_set(&self) -> bool {
        self.at.load(Relaxed) != NEVER
    }

    /// Returns whether the timeout has expired.
    pub fn is_expired(&self, now: Duration) -> bool {
        self.at.load(Relaxed) <= nanos(now)
    }

    /// Waits for the timeout that is currently set.
    pub fn poll(&self, cx: &mut Context<'_>, sleeper: &mut Sleeper) -> Poll<()> {
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

    /// Waits for up to `max` messages from below, or for the timeout, whichever comes first.
    ///
    /// # Errors
    /// Returns the errors of [`Swarm::receive_batch`].
    ///
    /// # Cancel safety
    /// Cancelling loses nothing.
    pub async fn or_receive<A: Addr>(
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
