//! Rate limits for hellos and no-session notices: in total, per network, and per source.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::{Config, Error};
use crate::overlay::Prefix;

/// Number of buckets that sources share by hash.
const BUCKETS: usize = 4096;

/// Number of buckets that networks share, and that sources of data without a session share.
const FEW_BUCKETS: usize = 1024;

/// Maximum number of no-session notices to one source per second.
const HINTS_PER_SOURCE: u32 = 10;

const SECOND: u64 = 1_000_000_000;

/// Rate limits in total, per network and per source, in fixed memory (at most 48 KiB) for any input.
///
/// A bucket is one number, the time up to which its rate is used (the generic cell rate algorithm, ITU-T
/// I.371): a packet advances it by one interval, and is refused while it is more than a second ahead of now.
pub struct HelloRateLimiter {
    seed: u64,
    hellos: Rate,
    hellos_of_source: Rates,
    hellos_of_prefix: Rates,
    hints: Rate,
    hints_of_source: Rates,
    hints_taken: Rate,
}

/// One bucket.
struct Rate {
    /// Nanoseconds between two packets; `None` admits none.
    interval: Option<u64>,
    spent: u64,
}

impl Rate {
    fn new(per_second: u32) -> Self {
        Self {
            interval: SECOND.checked_div(per_second.into()),
            spent: 0,
        }
    }

    fn next(&self, now: u64) -> Option<u64> {
        after_one_more(self.interval, self.spent, now)
    }

    fn admit(&mut self, now: u64) -> Option<()> {
        self.spent = self.next(now)?;
        Some(())
    }
}

fn after_one_more(interval: Option<u64>, spent: u64, now: u64) -> Option<u64> {
    let spent = now.max(spent).saturating_add(interval?);
    (spent <= now.saturating_add(SECOND)).then_some(spent)
}

/// Buckets by hash, allocated with the first packet.
struct Rates {
    interval: Option<u64>,
    buckets: usize,
    spent: Box<[u64]>,
}

impl Rates {
    fn new(per_second: u32, buckets: usize) -> Self {
        Self {
            interval: SECOND.checked_div(per_second.into()),
            buckets,
            spent: Box::default(),
        }
    }

    fn place(&self, hash: u64) -> usize {
        hash as usize % self.buckets
    }

    fn next(&self, hash: u64, now: u64) -> Option<u64> {
        let spent = self.spent.get(self.place(hash)).copied().unwrap_or_default();
        after_one_more(self.interval, spent, now)
    }

    fn set(&mut self, hash: u64, to: u64) {
        if self.spent.is_empty() {
            self.spent = vec![0; self.buckets].into();
        }
        let place = self.place(hash);
        if let Some(spent) = self.spent.get_mut(place) {
            *spent = to;
        }
    }
}

impl fmt::Debug for HelloRateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

/// The values of a hello's buckets after admitting it.
struct Charge {
    all: u64,
    source: (u64, u64),
    prefix: Option<(u64, u64)>,
}

impl HelloRateLimiter {
    /// Creates a rate limiter with the configured rates. The seed prevents an attacker from choosing sources
    /// that share a bucket.
    pub fn new(config: &Config, seed: u64) -> Self {
        Self {
            seed,
            hellos: Rate::new(config.hello_rate.max(1)),
            hellos_of_source: Rates::new(config.hello_rate_per_source.max(1), BUCKETS),
            hellos_of_prefix: Rates::new(config.hello_rate_per_prefix.max(1), FEW_BUCKETS),
            hints: Rate::new(config.hint_rate),
            hints_of_source: Rates::new(config.hint_rate.min(HINTS_PER_SOURCE), FEW_BUCKETS),
            hints_taken: Rate::new(config.hint_rate),
        }
    }

    /// Returns whether [`admit`](Self::admit) would admit a hello of this source. Charges nothing.
    ///
    /// # Errors
    /// [`Error::RateLimited`].
    pub fn check(&self, now: Duration, source: &impl Hash) -> Result<(), Error> {
        self.check_from(now, source, None)
    }

    /// Does the same for a source in a network.
    pub(super) fn check_from(
        &self,
        now: Duration,
        source: &impl Hash,
        prefix: Option<Prefix>,
    ) -> Result<(), Error> {
        self.charge(nanos(now), source, prefix)
            .map(drop)
            .ok_or(Error::RateLimited)
    }

    /// Admits one hello of this source.
    ///
    /// # Errors
    /// [`Error::RateLimited`]; the source is then not charged.
    pub fn admit(&mut self, now: Duration, source: &impl Hash) -> Result<(), Error> {
        self.admit_from(now, source, None)
    }

    /// Does the same for a source in a network.
    pub(super) fn admit_from(
        &mut self,
        now: Duration,
        source: &impl Hash,
        prefix: Option<Prefix>,
    ) -> Result<(), Error> {
        let charge = self
            .charge(nanos(now), source, prefix)
            .ok_or(Error::RateLimited)?;
        self.hellos.spent = charge.all;
        self.hellos_of_source.set(charge.source.0, charge.source.1);
        if let Some((hash, spent)) = charge.prefix {
            self.hellos_of_prefix.set(hash, spent);
        }
        Ok(())
    }

    fn charge(&self, now: u64, source: &impl Hash, prefix: Option<Prefix>) -> Option<Charge> {
        let all = self.hellos.next(now)?;
        let source = self.hash(source);
        let of_source = self.hellos_of_source.next(source, now)?;
        let prefix = match prefix.map(|prefix| self.hash(&prefix)) {
            Some(prefix) => Some((prefix, self.hellos_of_prefix.next(prefix, now)?)),
            None => None,
        };
        Some(Charge {
            all,
            source: (source, of_source),
            prefix,
        })
    }

    /// Returns whether a source of data without a session gets a no-session notice.
    pub(super) fn admit_hint(&mut self, now: Duration, source: &impl Hash) -> bool {
        let (now, source) = (nanos(now), self.hash(source));
        let (Some(all), Some(spent)) = (self.hints.next(now), self.hints_of_source.next(source, now)) else {
            return false;
        };
        self.hints.spent = all;
        self.hints_of_source.set(source, spent);
        true
    }

    /// Admits a received no-session notice.
    pub(super) fn take_hint(&mut self, now: Duration) -> Result<(), Error> {
        self.hints_taken.admit(nanos(now)).ok_or(Error::RateLimited)
    }

    pub(super) fn hash(&self, value: &impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.seed.hash(&mut hasher);
        value.hash(&mut hasher);
        hasher.finish()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
