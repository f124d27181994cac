//! A bounded map of keys by distance: at its limit it evicts from the bucket that is farthest from its locus.
//!
//! Follows the cache of go-p2p's `kademlia` package, without two of its faults: expired entries are never
//! returned, swept or not, and a sweep lowers the count. [`Cache::would_add`] predicts exactly what
//! [`Cache::put`] does.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use p2p::{Error, Result};

use super::distance::{compare, shared_bits};

/// A value with its creation and expiry times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<V> {
    /// The value.
    pub value: V,
    /// Creation time. Of entries in the same bucket, the newest is evicted first.
    pub created: Duration,
    /// Expiry time; `None` means never.
    pub expires: Option<Duration>,
}

impl<V> Entry<V> {
    fn is_live(&self, now: Duration) -> bool {
        self.expires.is_none_or(|at| now < at)
    }
}

/// The result of a [`Cache::put`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put<K, V> {
    /// Whether the key was added and kept.
    pub added: bool,
    /// The evicted entry, which can be the new one.
    pub evicted: Option<(K, Entry<V>)>,
}

/// A map of at most `max` entries. Bucket *n* holds the keys that share exactly *n* leading bits with the
/// locus.
#[derive(Clone, Debug)]
pub struct Cache<K, V> {
    locus: K,
    max: usize,
    min_per_bucket: usize,
    len: usize,
    buckets: Vec<BTreeMap<K, Entry<V>>>,
}

impl<K: AsRef<[u8]> + Ord + Clone, V> Cache<K, V> {
    /// Creates an empty cache. Buckets with `min_per_bucket` entries or fewer lose none.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `max` is too small for the minimum of every bucket.
    pub fn new(locus: K, max: usize, min_per_bucket: usize) -> Result<Self> {
        let least = min_per_bucket.saturating_mul(8 * locus.as_ref().len());
        if max < least {
            let reason =
                format!("a limit of {max} entries is below the {least} that the buckets keep at least");
            return Err(Error::invalid("cache", reason));
        }
        Ok(Self {
            min_per_bucket,
            ..Self::near(locus, max)
        })
    }

    /// Creates an empty cache without a minimum for buckets.
    pub fn near(locus: K, max: usize) -> Self {
        Self {
            locus,
            max,
            min_per_bucket: 0,
            len: 0,
            buckets: Vec::new(),
        }
    }

    /// Returns the number of entries, including expired entries that were not swept yet.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns whether another entry would cause an eviction.
    pub fn is_full(&self) -> bool {
        self.len >= self.max
    }

    fn bucket_of(&self, key: &K) -> usize {
        shared_bits(self.locus.as_ref(), key.as_ref())
    }

    fn find(&self, key: &K) -> Option<&Entry<V>> {
        self.buckets.get(self.bucket_of(key))?.get(key)
    }

    /// Returns the entry of a key, unless it has expired.
    pub fn get(&self, now: Duration, key: &K) -> Option<&Entry<V>> {
        self.find(key).filter(|entry| entry.is_live(now))
    }

    /// Returns the entry of a key for modification, unless it has expired. The caller must not change its
    /// creation time.
    pub fn get_mut(&mut self, now: Duration, key: &K) -> Option<&mut Entry<V>> {
        let bucket = self.bucket_of(key);
        let entry = self.buckets.get_mut(bucket)?.get_mut(key)?;
        entry.is_live(now).then_some(entry)
    }

    /// Returns whether [`put`](Self::put) would add and keep a key with this creation time.
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

    /// Inserts an entry. If the cache was full, evicts the newest entry of the farthest bucket that has more
    /// than its minimum. A cache with a `max` of 0 stores nothing.
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

    /// Evicts the entry that [`put`](Self::put) would evict at the limit.
    pub fn pop_farthest(&mut self) -> Option<(K, Entry<V>)> {
        let bucket = self.farthest_over()?;
        let key = self.first_to_leave(bucket)?.0.clone();
        let entry = self.remove(&key)?;
        Some((key, entry))
    }

    /// Returns the entry that [`pop_farthest`](Self::pop_farthest) would evict.
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

    /// Orders entries for eviction: newer is greater; then the farther, then the greater key.
    fn eviction_order(&self, a: &K, a_created: Duration, b: &K, b_created: Duration) -> Ordering {
        let by_distance = || compare(self.locus.as_ref(), a.as_ref(), b.as_ref());
        a_created
            .cmp(&b_created)
            .then_with(by_distance)
            .then_with(|| a.cmp(b))
    }

    /// Removes an entry, expired or not.
    pub fn remove(&mut self, key: &K) -> Option<Entry<V>> {
        let bucket = self.bucket_of(key);
        let entry = self.buckets.get_mut(bucket)?.remove(key)?;
        self.len -= 1;
        Some(entry)
    }

    /// Removes and returns all expired entries.
    pub fn expire(&mut self, now: Duration) -> Vec<(K, Entry<V>)> {
        let buckets = self.buckets.iter_mut();
        let expired: Vec<_> = buckets
            .flat_map(|entries| entries.extract_if(.., |_, entry| !entry.is_live(now)))
            .collect();
        self.len -= expired.len();
        expired
    }

    /// Returns the number of bits that a key must share with the locus to be certain of a place.
    pub fn accepting_prefix_len(&self) -> usize {
        if self.len + 1 < self.max {
            return 0;
        }
        self.farthest_over().map_or(self.buckets.len(), |at| at + 1)
    }

    /// Iterates over the entries that have not expired, in arbitrary order.
    pub fn iter(&self, now: Duration) -> impl Iterator<Item = (&K, &Entry<V>)> {
        let entries = self.buckets.iter().flatten();
        entries.filter(move |(_, entry)| entry.is_live(now))
    }

    /// Iterates over the entries that have not expired, by bucket: the bucket of `key` first, then buckets
    /// nearer to the locus, then buckets farther out; within a bucket the nearest to `key` first. This is the
    /// order of distance, except for the buckets between `key` and the locus, which are all about equally far
    /// from `key`.
    pub fn toward(&self, now: Duration, key: &K) -> impl Iterator<Item = (&K, &Entry<V>)> {
        let first = self.bucket_of(key).min(self.buckets.len());
        let order = (first..self.buckets.len()).chain((0..first).rev());
        order.flat_map(move |bucket| self.sorted(now, bucket, key))
    }

    /// As [`toward`](Self::toward), up to the first entry that is not nearer to `key` than the locus is.
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
