//! Limits and times.

use std::time::Duration;

/// Limits and times of a [`Dialer`](super::Dialer).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Addresses of one peer that a dial tries; those that rank last are ignored. Default: 25.
    pub addrs: usize,
    /// Attempts at once for one peer; others wait. At least one. Default: 8.
    pub parallel: usize,
    /// Attempts at once in total; peers that wait take turns, and the slowest attempts are given up for them.
    /// At least one. Default: 160.
    pub attempts: usize,
    /// Peers that are dialled at once; a dial of a further peer is an error. Default: 1024.
    pub peers: usize,
    /// Callers of all dials; a further one is an error. Default: 4096.
    pub callers: usize,
    /// Peers that are reconnected; a further one is an error. Default: 256.
    pub maintained: usize,
    /// Addresses that are remembered because they failed; the one that is forgotten first goes. Default: 4096.
    pub failed_addrs: usize,

    /// Delay between addresses of the public group, and the head start of QUIC there. Default: 250 ms.
    pub public_delay: Duration,
    /// Delay between addresses of the private group, and the head start of QUIC there. Default: 30 ms.
    pub private_delay: Duration,
    /// Delay of relayed addresses after public ones. Default: 500 ms.
    pub relay_delay: Duration,
    /// Time after which an attempt at a private address fails. Default: 5 s.
    pub private_timeout: Duration,
    /// Time after which an attempt at any other address fails. Default: 15 s.
    pub public_timeout: Duration,
    /// Time after which a dial fails, whatever is left to try. Default: 60 s.
    pub dial_timeout: Duration,

    /// Time for which an address that failed comes after others, and before the first reconnection; it
    /// doubles with each further failure. Default: 5 s.
    pub backoff_first: Duration,
    /// Maximum of this time. Default: 5 min.
    pub backoff_max: Duration,
    /// Relative jitter of this time. Default: 0.2 (5 s becomes 4 s to 6 s).
    pub backoff_jitter: f32,
    /// Duration of a connection after which the next reconnection is a first one again. Default: 1 min.
    pub stable_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addrs: 25,
            parallel: 8,
            attempts: 160,
            peers: 1024,
            callers: 4096,
            maintained: 256,
            failed_addrs: 4096,
            public_delay: Duration::from_millis(250),
            private_delay: Duration::from_millis(30),
            relay_delay: Duration::from_millis(500),
            private_timeout: Duration::from_secs(5),
            public_timeout: Duration::from_secs(15),
            dial_timeout: Duration::from_mins(1),
            backoff_first: Duration::from_secs(5),
            backoff_max: Duration::from_mins(5),
            backoff_jitter: 0.2,
            stable_after: Duration::from_mins(1),
        }
    }
}

impl Config {
    /// Returns the backoff after this number of failures before the last one. `chance` is between -1 and 1.
    pub(super) fn backoff(&self, failures: u32, chance: f64) -> Duration {
        let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
        let time = self.backoff_first.saturating_mul(factor).min(self.backoff_max);
        let jitter = f64::from(self.backoff_jitter.clamp(0.0, 1.0)) * chance;
        // A factor of at most 2: a longer time than a duration can have stays as it is.
        Duration::try_from_secs_f64(time.as_secs_f64() * (1.0 + jitter)).unwrap_or(time)
    }
}
