//! A map that also keeps its entries in insertion order.
//!
//! The hash table stores 32-bit numbers only, and the entries are in one queue. With a hundred thousand
//! entries, looking up an absent key, adding it and removing the oldest entry stays within the processor's
//! nearer caches.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

/// Number of vacant places in the queue that need no compaction.
const FEW: usize = 64;

#[derive(Debug)]
struct Entry<K, V> {
    hash: u64,
    key: K,
    /// `None` if the entry was removed.
    value: Option<V>,
}

/// See the [module](self). The user must bound it to at most 2^32 entries.
#[derive(Debug)]
pub(super) struct FifoMap<K, V> {
    /// The number of each entry: the count of entries before it, modulo 2^32.
    table: HashTable<u32>,
    line: VecDeque<Entry<K, V>>,
    /// The number of the first entry in the queue.
    first: u32,
    hasher: RandomState,
}

impl<K, V> Default for FifoMap<K, V> {
    fn default() -> Self {
        Self {
            table: HashTable::new(),
            line: VecDeque::new(),
            first: 0,
            hasher: RandomState::default(),
        }
    }
}

impl<K: Eq + Hash, V> FifoMap<K, V> {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    fn place<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        let is_it = |number: &u32| {
            let entry = self.line.get(number.wrapping_sub(self.first) as usize);
            entry.is_some_and(|entry| entry.key.borrow() == key)
        };
        let number = self.table.find(self.hasher.hash_one(key), is_it)?;
        Some(number.wrapping_sub(self.first) as usize)
    }

    pub(super) fn contains_key<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.place(key).is_some()
    }

    pub(super) fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let place = self.place(key)?;
        self.line.get_mut(place)?.value.as_mut()
    }

    /// Appends an entry, unless the key exists. Returns whether it was appended.
    pub(super) fn push(&mut self, key: K, value: V) -> bool {
        let (hash, number) = (
            self.hasher.hash_one(&key),
            self.first.wrapping_add(self.line.len() as u32),
        );
        let entry = |number: &u32| self.line.get(number.wrapping_sub(self.first) as usize);
        let is_it = |number: &u32| entry(number).is_some_and(|entry| entry.key == key);
        let hash_of = |number: &u32| entry(number).map_or(0, |entry| entry.hash);
        let Slot::Vacant(vacant) = self.table.entry(hash, is_it, hash_of) else {
            return false;
        };
        vacant.insert(number);
        let value = Some(value);
        self.line.push_back(Entry { hash, key, value });
        true
    }

    /// Returns the oldest entry.
    pub(super) fn first(&mut self) -> Option<(&K, &V)> {
        while let Some(Entry { value: None, .. }) = self.line.front() {
            self.line.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        let entry = self.line.front()?;
        Some((&entry.key, entry.value.as_ref()?))
    }

    /// Removes and returns the oldest entry.
    pub(super) fn pop_first(&mut self) -> Option<(K, V)> {
        self.first()?;
        let (entry, number) = (self.line.pop_front()?, self.first);
        self.first = number.wrapping_add(1);
        if let Ok(found) = self.table.find_entry(entry.hash, |other| *other == number) {
            found.remove();
        }
        Some((entry.key, entry.value?))
    }

    /// Removes an entry.
    pub(super) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let place = self.place(key)?;
        let number = self.first.wrapping_add(place as u32);
        let entry = self.line.get_mut(place)?;
        let value = entry.value.take();
        if let Ok(found) = self.table.find_entry(entry.hash, |other| *other == number) {
            found.remove();
        }
        // Vacant places are compacted now and then, at a low amortised cost.
        if self.line.len() >= self.table.len().saturating_mul(2).max(FEW) {
            self.close_ranks();
        }
        value
    }

    fn close_ranks(&mut self) {
        self.line.retain(|entry| entry.value.is_some());
        self.table.clear();
        for (place, entry) in self.line.iter().enumerate() {
            let number = self.first.wrapping_add(place as u32);
            let (line, first) = (&self.line, self.first);
            self.table.insert_unique(entry.hash, number, |number| {
                let entry = line.get(number.wrapping_sub(first) as usize);
                entry.map_or(0, |entry| entry.hash)
            });
        }
    }

    /// Iterates over all entries in insertion order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let entries = self.line.iter();
        entries.filter_map(|entry| Some((&entry.key, entry.value.as_ref()?)))
    }

    /// Returns the entry at a place in the queue, or `None` if the place is vacant.
    pub(super) fn at(&self, place: usize) -> Option<(&K, &V)> {
        let entry = self.line.get(place)?;
        Some((&entry.key, entry.value.as_ref()?))
    }

    /// Returns the number of places in the queue, including vacant ones.
    pub(super) fn places(&self) -> usize {
        self.line.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Push(u8, u16),
        Pop,
        Remove(u8),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            4 => (0..100_u8, any::<u16>()).prop_map(|(key, value)| Op::Push(key, value)),
            1 => Just(Op::Pop),
            2 => (0..100_u8).prop_map(Op::Remove),
        ];
        prop::collection::vec(op, 0..1000)
    }

    #[test]
    fn removed_entries_use_no_memory() {
        let mut map = FifoMap::default();
        map.push(0, ());
        for key in 1..10_000 {
            map.push(key, ());
            assert_eq!(map.remove(&key), Some(()));
        }
        assert!(map.contains_key(&0) && map.len() == 1 && map.places() <= FEW);
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_list_of_pairs(ops in ops(), start in any::<u32>()) {
            // Numbers may wrap around at any point.
            let mut map = FifoMap { first: start, ..FifoMap::default() };
            let mut model: Vec<(u8, u16)> = Vec::new();
            for op in ops {
                match op {
                    Op::Push(key, value) => {
                        let is_new = model.iter().all(|(other, _)| *other != key);
                        prop_assert_eq!(map.push(key, value), is_new);
                        if is_new {
                            model.push((key, value));
                        }
                    }
                    Op::Pop => {
                        let first = (!model.is_empty()).then(|| model.remove(0));
                        prop_assert_eq!(map.pop_first(), first);
                    }
                    Op::Remove(key) => {
                        let at = model.iter().position(|(other, _)| *other == key);
                        prop_assert_eq!(map.remove(&key), at.map(|at| model.remove(at).1));
                    }
                }
                prop_assert_eq!(map.len(), model.len());
                prop_assert!(map.places() < FEW.max(2 * map.len() + 1));
                prop_assert!(map.iter().map(|(key, value)| (*key, *value)).eq(model.iter().copied()));
                prop_assert_eq!(map.first().map(|(key, value)| (*key, *value)), model.first().copied());
                for key in 0..100 {
                    let value = model.iter().find(|(other, _)| *other == key).map(|(_, value)| *value);
                    prop_assert_eq!(map.contains_key(&key), value.is_some());
                    prop_assert_eq!(map.get_mut(&key).copied(), value);
                }
            }
        }
    }
}
