//! A map that forgets the least recently inserted entries.

use std::hash::Hash;

use crate::hash::HashMap;

/// At most `limit` entries. When half of them are new, the other half is forgotten.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    newer: HashMap<K, V>,
    older: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            newer: HashMap::default(),
            older: HashMap::default(),
            half: (limit / 2).max(1),
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        if self.newer.is_empty() {
            return None;
        }
        self.newer.get(key).or_else(|| self.older.get(key))
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.newer.len() >= self.half && !self.newer.contains_key(&key) {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(key, value);
    }
}
