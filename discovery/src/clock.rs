//! Wall-clock time, as several machines share it: the system's clock, advanced with tokio's.

use std::time::{Duration, Instant as StdInstant, SystemTime};

use tokio::time::Instant;

/// Milliseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

impl UnixTime {
    /// Creates the time this many milliseconds after the start of 1970.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since 1970.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns the system's time, advanced as far as tokio's clock was while it was paused.
    pub(crate) fn now() -> Self {
        // Both clocks are read together; they differ by what tokio's clock was advanced.
        let (tokio, real) = (Instant::now().into_std(), StdInstant::now());
        let system = SystemTime::now();
        let moved = match tokio.checked_duration_since(real) {
            Some(ahead) => system.checked_add(ahead),
            None => system.checked_sub(real.saturating_duration_since(tokio)),
        };
        let since = moved.unwrap_or(system).duration_since(SystemTime::UNIX_EPOCH);
        Self(millis(since.unwrap_or_default()))
    }

    /// Returns the time later by `by`, saturating at the maximum.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// Returns the time from `earlier` to this time, or zero if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
