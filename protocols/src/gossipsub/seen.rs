//! Which messages there were lately: each is taken once.
//!
//! Entries last `seen_ttl` from when they came and are bounded in number; the oldest leave early, and then may come again.

use std::borrow::Borrow;
use std::hash::Hash;
use std::time::Duration;

use super::fifo::FifoMap;

/// Keys with values, each for the same time. See the [module](self).
#[derive(Debug)]
pub(super) struct Seen<K, V> {
    /// Each with its end. Since all last equally long, they end as they came.
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

    /// Adds an entry, unless there is one. Whether there was none, and how many left early for it.
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

    /// Whether there is an entry that is not over.
    pub(super) fn contains_at<Q: Eq + Hash + ?Sized>(&mut self, now: Duration, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.expire(now);
        self.entries.contains_key(key)
    }

    /// Takes an entry out before it ends.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    /// Forgets what is over.
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
    fn an_entry_lasts_from_when_it_first_came() {
        let second = Duration::from_secs;
        let mut seen = Seen::new(second(10), 100);
        assert_eq!(seen.insert(second(0), 1, ()), (true, 0));
        assert_eq!(seen.insert(second(9), 1, ()), (false, 0));
        assert_eq!(seen.insert(second(10), 1, ()), (true, 0));
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn what_is_taken_out_leaves_nothing_behind() {
        let mut seen = Seen::new(Duration::from_secs(10), 1000);
        seen.insert(Duration::ZERO, 0, ());
        for key in 1..10_000 {
            seen.insert(Duration::ZERO, key, ());
            assert_eq!(seen.remove(&key), Some(()));
        }
        assert!(seen.contains(&0) && seen.len() == 1 && seen.entries.places() <= 64);
    }

    proptest! {
        #[test]
        fn it_is_a_set_of_the_newest(keys in prop::collection::vec(0..20_u8, 0..100), max in 1..10_usize) {
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
