//! How much a node passes on for others in a second, in total and for each neighbour.

use std::hash::Hash;
use std::time::Duration;

use crate::hash::HashMap;

/// Seconds are counted one by one: what was not used in one is not saved up for the next.
const WINDOW: Duration = Duration::from_secs(1);

/// Neighbours that are told apart in one second. Further ones get nothing before the next one.
const NEIGHBOURS: usize = 1024;

/// Bytes that may be passed on.
#[derive(Debug)]
pub struct Budget<A> {
    total: u64,
    each: u64,
    since: Duration,
    spent: u64,
    by: HashMap<A, u64>,
}

impl<A: Hash + Eq + Clone> Budget<A> {
    /// So many bytes a second in total, and so many of them for each neighbour at most.
    pub fn new(total: u64, each: u64) -> Self {
        Self {
            total,
            each,
            since: Duration::ZERO,
            spent: 0,
            by: HashMap::default(),
        }
    }

    /// Spends `bytes` for a neighbour, or says that there is not so much left.
    pub fn spend(&mut self, now: Duration, neighbour: &A, bytes: usize) -> bool {
        if now.saturating_sub(self.since) >= WINDOW {
            self.since = now;
            self.spent = 0;
            self.by.clear();
        }
        let bytes = bytes as u64;
        let total = self.spent.saturating_add(bytes);
        let own = self.by.get(neighbour).copied().unwrap_or(0).saturating_add(bytes);
        let known = self.by.len() < NEIGHBOURS || self.by.contains_key(neighbour);
        if total > self.total || own > self.each || !known {
            return false;
        }
        self.spent = total;
        self.by.insert(neighbour.clone(), own);
        true
    }
}
