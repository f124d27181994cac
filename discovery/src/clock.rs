//! What time it is for whoever must agree with other machines: the system's clock, moved along with tokio's.

use std::time::{Duration, Instant as StdInstant, SystemTime};

use tokio::time::Instant;

/// Milliseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

impl UnixTime {
    /// This many milliseconds since 1970.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The system's time. Where tokio's clock is paused, or was, it moves as that does.
    pub(crate) fn now() -> Self {
        // Both are read at once; they differ by what tokio's clock was advanced.
        let (tokio, real) = (Instant::now().into_std(), StdInstant::now());
        let system = SystemTime::now();
        let moved = match tokio.checked_duration_since(real) {
            Some(ahead) => system.checked_add(ahead),
            None => system.checked_sub(real.saturating_duration_since(tokio)),
        };
        let since = moved.unwrap_or(system).duration_since(SystemTime::UNIX_EPOCH);
        Self(millis(since.unwrap_or_default()))
    }

    /// So much later, or at the end of all time.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// How long it is from `earlier` until this; nothing if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
