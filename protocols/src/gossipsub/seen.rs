//! A set of recent keys, which detects duplicates.
//!
//! An entry lives for `seen_ttl` after its insertion. The number of entries is bounded; beyond it, the oldest
//! are forgotten, and their keys count as new again.

use std::borrow::Borrow;
use std::hash::Hash;
use std::time::Duration;

use super::fifo::FifoMap;

/// Keys with values, all with the same lifetime. See the [module](self).
#[derive(Debug)]
pub(super) struct Seen<K, V> {
    /// Each entry with its expiry. All have the same lifetime, so they expire in insertion order.
    entries: FifoMap<K, (Duration, V)>,
    ttl: Duration,
    max: usize,
}

impl<K: Eq + Hash, V> Seen<K, V> {
    pub(super) fn new(ttl: Duration, max: usize) -> Self {
        Self {
            entries: FifoMap::default(),
            ttl,
            max: max.max(1),
        }
    }

    /// Adds an entry, unless the key exists. Returns whether it was added, and how many entries were evicted.
    pub(super) fn insert(&mut self, now: Duration, key: K, value: V) -> (bool, usize) {
        self.expire(now);
        let is_new = self.entries.push(key, (now.saturating_add(self.ttl), value));
        let mut early = 0;
        while self.entries.len() > self.max && self.entries.pop_first().is_some() {
            early += 1;
        }
        (is_new, early)
    }

    pub(super) fn contains<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.entries.contains_key(key)
    }

    /// Returns whether the key has an entry that has not expired.
    pub(super) fn contains_at<Q: Eq + Hash + ?Sized>(&mut self, now: Duration, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.expire(now);
        self.entries.contains_key(key)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    /// Removes expired entries.
    pub(super) fn expire(&mut self, now: Duration) {
        while self.entries.first().is_some_and(|(_, (end, _))| *end <= now) {
            self.entries.pop_first();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &K> {
        self.entries.iter().map(|(key, _)| key)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_duplicate_does_not_extend_an_entry() {
        let second = Duration::from_secs;
        let mut seen = Seen::new(second(10), 100);
        assert_eq!(seen.insert(second(0), 1, ()), (true, 0));
        assert_eq!(seen.insert(second(9), 1, ()), (false, 0));
        assert_eq!(seen.insert(second(10), 1, ()), (true, 0));
        assert_eq!(seen.len(), 1);
    }

    proptest! {
        #[test]
        fn it_keeps_the_newest_keys(keys in prop::collection::vec(0..20_u8, 0..100), max in 1..10_usize) {
            let mut seen = Seen::new(Duration::MAX, max);
            let mut model: Vec<u8> = Vec::new();
            for key in keys {
                let is_new = !model.contains(&key);
                prop_assert_eq!(seen.insert(Duration::ZERO, key, ()).0, is_new);
                if is_new {
                    model.push(key);
                    model = model.split_off(model.len().saturating_sub(max));
                }
                prop_assert_eq!(seen.len(), model.len());
                prop_assert!(model.iter().all(|key| seen.contains(key)));
            }
        }
    }
}
