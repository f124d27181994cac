//! A bounded map that keeps what is near a locus: at its limit the newest of the farthest entries leaves.
//!
//! That is the cache of go-p2p's `kademlia` package, but for two faults of it. What has expired is never given out
//! here, swept or not, and sweeping lowers the count. And [`Cache::would_add`] foretells exactly what
//! [`Cache::put`] does.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use p2p::{Error, Result};

use super::distance::{compare, shared_bits};

/// A value, with when it came and when it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<V> {
    /// The value.
    pub value: V,
    /// When it came. Of entries that are equally far, the newest leaves first.
    pub created: Duration,
    /// From when on it is gone; `None` is never.
    pub expires: Option<Duration>,
}

impl<V> Entry<V> {
    fn is_live(&self, now: Duration) -> bool {
        self.expires.is_none_or(|at| now < at)
    }
}

/// What became of a [`Cache::put`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put<K, V> {
    /// Whether there is now a key that was not there before: the one that was put.
    pub added: bool,
    /// What left. It may be what was just put.
    pub evicted: Option<(K, Entry<V>)>,
}

/// At most `max` entries near a locus. Bucket *n* holds the keys that share exactly *n* bits with the locus.
#[derive(Clone, Debug)]
pub struct Cache<K, V> {
    locus: K,
    max: usize,
    min_per_bucket: usize,
    len: usize,
    buckets: Vec<BTreeMap<K, Entry<V>>>,
}

impl<K: AsRef<[u8]> + Ord + Clone, V> Cache<K, V> {
    /// An empty cache. Buckets with `min_per_bucket` entries or fewer lose none.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `max` is too few for each bucket to have its minimum.
    pub fn new(locus: K, max: usize, min_per_bucket: usize) -> Result<Self> {
        let least = min_per_bucket.saturating_mul(8 * locus.as_ref().len());
        if max < least {
            let reason = format!("{max} entries are fewer than the {least} that the buckets keep at least");
            return Err(Error::invalid("cache", reason));
        }
        Ok(Self {
            min_per_bucket,
            ..Self::near(locus, max)
        })
    }

    /// An empty cache without a minimum for each bucket.
    pub fn near(locus: K, max: usize) -> Self {
        Self {
            locus,
            max,
            min_per_bucket: 0,
            len: 0,
            buckets: Vec::new(),
        }
    }

    /// Entries, with those that have expired and were not swept yet.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether one entry more makes one leave.
    pub fn is_full(&self) -> bool {
        self.len >= self.max
    }

    fn bucket_of(&self, key: &K) -> usize {
        shared_bits(self.locus.as_ref(), key.as_ref())
    }

    fn find(&self, key: &K) -> Option<&Entry<V>> {
        self.buckets.get(self.bucket_of(key))?.get(key)
    }

    /// The entry with this key, unless it has expired.
    pub fn get(&self, now: Duration, key: &K) -> Option<&Entry<V>> {
        self.find(key).filter(|entry| entry.is_live(now))
    }

    /// As [`get`](Self::get), to change. When it was created must stay.
    pub fn get_mut(&mut self, now: Duration, key: &K) -> Option<&mut Entry<V>> {
        let bucket = self.bucket_of(key);
        let entry = self.buckets.get_mut(bucket)?.get_mut(key)?;
        entry.is_live(now).then_some(entry)
    }

    /// Whether [`put`](Self::put) of this key with this time of creation would add it, and it would stay.
    pub fn would_add(&self, key: &K, created: Duration) -> bool {
        if self.find(key).is_some() || self.max == 0 {
            return false;
        }
        if self.len < self.max {
            return true;
        }
        let own = self.bucket_of(key);
        let over = |at: usize| {
            let held = self.buckets.get(at).map_or(0, BTreeMap::len);
            held + usize::from(at == own) > self.min_per_bucket
        };
        match (0..self.buckets.len().max(own + 1)).find(|at| over(*at)) {
            Some(at) if at == own => self
                .first_to_leave(own)
                .is_some_and(|(other, entry)| self.leaves_before(other, entry.created, key, created)),
            _ => true,
        }
    }

    /// Puts an entry in, and one out if that is one too many: the newest in the farthest bucket that has more
    /// than its minimum. With a maximum of 0 nothing goes in.
    pub fn put(&mut self, key: K, entry: Entry<V>) -> Put<K, V> {
        if self.max == 0 {
            return Put {
                added: false,
                evicted: None,
            };
        }
        let bucket = self.bucket_of(&key);
        if self.buckets.len() <= bucket {
            self.buckets.resize_with(bucket + 1, BTreeMap::new);
        }
        let own = key.clone();
        let is_new = self
            .buckets
            .get_mut(bucket)
            .is_some_and(|entries| entries.insert(key, entry).is_none());
        self.len += usize::from(is_new);
        let evicted = if self.len > self.max {
            self.pop_farthest()
        } else {
            None
        };
        let stayed = evicted.as_ref().is_none_or(|(evicted, _)| *evicted != own);
        Put {
            added: is_new && stayed,
            evicted,
        }
    }

    /// Takes out what [`put`](Self::put) would take out at the limit.
    pub fn pop_farthest(&mut self) -> Option<(K, Entry<V>)> {
        let bucket = self.farthest_over()?;
        let key = self.first_to_leave(bucket)?.0.clone();
        let entry = self.remove(&key)?;
        Some((key, entry))
    }

    /// What [`pop_farthest`](Self::pop_farthest) would take out.
    pub fn next_to_leave(&self) -> Option<(&K, &Entry<V>)> {
        self.first_to_leave(self.farthest_over()?)
    }

    fn farthest_over(&self) -> Option<usize> {
        self.buckets
            .iter()
            .position(|entries| entries.len() > self.min_per_bucket)
    }

    fn first_to_leave(&self, bucket: usize) -> Option<(&K, &Entry<V>)> {
        let entries = self.buckets.get(bucket)?.iter();
        entries.max_by(|(a, one), (b, two)| self.eviction_order(a, one.created, b, two.created))
    }

    fn leaves_before(&self, a: &K, a_created: Duration, b: &K, b_created: Duration) -> bool {
        self.eviction_order(a, a_created, b, b_created) == Ordering::Greater
    }

    /// The newer is the greater; of two that came at the same time, the farther, then the one that sorts last.
    fn eviction_order(&self, a: &K, a_created: Duration, b: &K, b_created: Duration) -> Ordering {
        let by_distance = || compare(self.locus.as_ref(), a.as_ref(), b.as_ref());
        a_created
            .cmp(&b_created)
            .then_with(by_distance)
            .then_with(|| a.cmp(b))
    }

    /// Takes an entry out, expired or not.
    pub fn remove(&mut self, key: &K) -> Option<Entry<V>> {
        let bucket = self.bucket_of(key);
        let entry = self.buckets.get_mut(bucket)?.remove(key)?;
        self.len -= 1;
        Some(entry)
    }

    /// Takes out all that has expired.
    pub fn expire(&mut self, now: Duration) -> Vec<(K, Entry<V>)> {
        let buckets = self.buckets.iter_mut();
        let expired: Vec<_> = buckets
            .flat_map(|entries| entries.extract_if(.., |_, entry| !entry.is_live(now)))
            .collect();
        self.len -= expired.len();
        expired
    }

    /// With how many bits in common with the locus a key is sure to be accepted.
    pub fn accepting_prefix_len(&self) -> usize {
        if self.len + 1 < self.max {
            return 0;
        }
        self.farthest_over().map_or(self.buckets.len(), |at| at + 1)
    }

    /// Entries that have not expired, in no order that means anything.
    pub fn iter(&self, now: Duration) -> impl Iterator<Item = (&K, &Entry<V>)> {
        let entries = self.buckets.iter().flatten();
        entries.filter(move |(_, entry)| entry.is_live(now))
    }

    /// Entries that have not expired, by bucket: first the bucket that `key` would be in and those nearer to the
    /// locus, then outwards; nearest to `key` first within each. That is by distance but for the buckets between
    /// `key` and the locus, whose entries are all about as far from `key`.
    pub fn toward(&self, now: Duration, key: &K) -> impl Iterator<Item = (&K, &Entry<V>)> {
        let first = self.bucket_of(key).min(self.buckets.len());
        let order = (first..self.buckets.len()).chain((0..first).rev());
        order.flat_map(move |bucket| self.sorted(now, bucket, key))
    }

    /// The same, up to the first that is no nearer to `key` than the locus is.
    pub fn closer(&self, now: Duration, key: &K) -> impl Iterator<Item = (&K, &Entry<V>)> {
        let locus = self.locus.as_ref();
        self.toward(now, key)
            .take_while(move |(other, _)| compare(key.as_ref(), other.as_ref(), locus) == Ordering::Less)
    }

    fn sorted(&self, now: Duration, bucket: usize, key: &K) -> Vec<(&K, &Entry<V>)> {
        let entries = self.buckets.get(bucket).into_iter().flatten();
        let mut entries: Vec<_> = entries.filter(|(_, entry)| entry.is_live(now)).collect();
        entries.sort_by(|(a, _), (b, _)| compare(key.as_ref(), a.as_ref(), b.as_ref()));
        entries
    }
}
