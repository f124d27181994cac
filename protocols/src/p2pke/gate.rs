//! How many packets of strangers are worth an answer: rates over all sources, for each network, and for each source.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::{Config, Error};
use crate::overlay::Prefix;

/// Sources share this many buckets by hash.
const BUCKETS: usize = 4096;

/// Networks share this many, and so do sources of data that belongs to no session.
const FEW_BUCKETS: usize = 1024;

/// How often a second one source is told that there is no session, at most.
const HINTS_PER_SOURCE: u32 = 10;

const SECOND: u64 = 1_000_000_000;

/// Rates over all sources, for each network and for each source, in fixed memory (at most 48 KiB), whatever comes.
///
/// A bucket is one number, the moment up to which its rate is spent (the generic cell rate algorithm, ITU-T
/// I.371): a packet moves it on by one interval, and is refused while it is more than a second ahead of now.
pub struct Gate {
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
    /// Nanoseconds between two packets; none pass if there is none.
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

/// Buckets by hash, made when the first is charged.
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

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

/// What the buckets of a hello would be after it.
struct Charge {
    all: u64,
    source: (u64, u64),
    prefix: Option<(u64, u64)>,
}

impl Gate {
    /// A gate with the configuration's rates. The seed keeps attackers from choosing whose bucket they share.
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

    /// Says whether [`admit`](Self::admit) would let a hello of this source pass. Charges nothing.
    pub fn check(&self, now: Duration, source: &impl Hash) -> Result<(), Error> {
        self.check_from(now, source, None)
    }

    /// The same for a source in a network.
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

    /// Lets one hello of this source pass.
    ///
    /// # Errors
    /// [`Error::RateLimited`], and it costs the source nothing.
    pub fn admit(&mut self, now: Duration, source: &impl Hash) -> Result<(), Error> {
        self.admit_from(now, source, None)
    }

    /// The same for a source in a network.
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

    /// Whether a source of data that belongs to no session is told so.
    pub(super) fn admit_hint(&mut self, now: Duration, source: &impl Hash) -> bool {
        let (now, source) = (nanos(now), self.hash(source));
        let (Some(all), Some(spent)) = (self.hints.next(now), self.hints_of_source.next(source, now)) else {
            return false;
        };
        self.hints.spent = all;
        self.hints_of_source.set(source, spent);
        true
    }

    /// Whether a peer's word that it has no session is looked at.
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
