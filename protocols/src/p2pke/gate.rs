//! How many hellos are worth a verification: a rate over all sources, and one for each.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::{Config, Error};

/// Sources share this many buckets by hash.
const BUCKETS: usize = 4096;

/// A rate for all sources and one for each, in fixed memory (32 KiB), whatever comes.
///
/// A bucket is one number, the moment up to which its rate is spent (the generic cell rate algorithm, ITU-T
/// I.371): a hello moves it on by one interval, and is refused while it is more than a second ahead of now.
pub struct Gate {
    seed: u64,
    interval: u64,
    interval_per_source: u64,
    spent: u64,
    spent_per_source: Box<[u64]>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

const SECOND: u64 = 1_000_000_000;

impl Gate {
    /// A gate with the configuration's rates. The seed keeps attackers from choosing whose bucket they share.
    pub fn new(config: &Config, seed: u64) -> Self {
        Self {
            seed,
            interval: SECOND / u64::from(config.hello_rate.max(1)),
            interval_per_source: SECOND / u64::from(config.hello_rate_per_source.max(1)),
            spent: 0,
            spent_per_source: vec![0; BUCKETS].into(),
        }
    }

    /// Says whether [`admit`](Self::admit) would let a hello of this source pass. Charges nothing.
    pub fn check(&self, now: Duration, source: &impl Hash) -> Result<(), Error> {
        self.charge(now, self.bucket(source)).map(|_| ())
    }

    /// Lets one hello of this source pass.
    ///
    /// # Errors
    /// [`Error::RateLimited`], and it costs the source nothing.
    pub fn admit(&mut self, now: Duration, source: &impl Hash) -> Result<(), Error> {
        let bucket = self.bucket(source);
        let (of_source, of_all) = self.charge(now, bucket)?;
        if let Some(spent) = self.spent_per_source.get_mut(bucket) {
            *spent = of_source;
        }
        self.spent = of_all;
        Ok(())
    }

    fn bucket(&self, source: &impl Hash) -> usize {
        let mut hasher = DefaultHasher::new();
        self.seed.hash(&mut hasher);
        source.hash(&mut hasher);
        hasher.finish() as usize % BUCKETS
    }

    /// What a source's bucket and that of all would be after one more hello.
    fn charge(&self, now: Duration, bucket: usize) -> Result<(u64, u64), Error> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let spent = self.spent_per_source.get(bucket).ok_or(Error::RateLimited)?;
        let of_source = now.max(*spent).saturating_add(self.interval_per_source);
        let of_all = now.max(self.spent).saturating_add(self.interval);
        if of_source.max(of_all) > now.saturating_add(SECOND) {
            return Err(Error::RateLimited);
        }
        Ok((of_source, of_all))
    }
}
