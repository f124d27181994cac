//! Limits on relayed traffic per second: in total, for each neighbour, and for each network.

use std::hash::Hash;
use std::time::Duration;

use super::Prefix;
use crate::hash::HashMap;

/// The counting interval; unused budget is not carried over to the next.
const WINDOW: Duration = Duration::from_secs(1);

/// Maximum number of sources in one second. Further ones get nothing until the next second, unless they were
/// served in the previous one.
const SOURCES: usize = 1024;

/// The source that bytes are charged to: all neighbours of one network together, because ids and ports cost
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source<A> {
    Network(Prefix),
    Neighbour(A),
}

/// A budget of bytes for relaying.
///
/// Half of the total is divided evenly among the networks that send something in this second or the previous
/// one; a neighbour without an IP address is a network of its own. The other half goes to those that need
/// more, in order of arrival. So neither a neighbour nor many neighbours in one network can take the whole
/// budget.
#[derive(Debug)]
pub struct Budget<A> {
    total: u64,
    each: u64,
    since: Duration,
    spent: u64,
    /// The bytes used beyond the even shares.
    extra: u64,
    by: HashMap<A, u64>,
    sources: HashMap<Source<A>, u64>,
    /// The sources of the previous second.
    before: HashMap<Source<A>, u64>,
}

impl<A: Hash + Eq + Clone> Budget<A> {
    /// Creates a budget of `total` bytes per second, with at most `each` for one neighbour.
    pub fn new(total: u64, each: u64) -> Self {
        Self {
            total,
            each,
            since: Duration::ZERO,
            spent: 0,
            extra: 0,
            by: HashMap::default(),
            sources: HashMap::default(),
            before: HashMap::default(),
        }
    }

    /// Spends `bytes` for a neighbour without an IP address. Returns `false` if the budget does not suffice.
    pub fn spend(&mut self, now: Duration, neighbour: &A, bytes: usize) -> bool {
        self.spend_in(now, neighbour, None, bytes)
    }

    /// Spends `bytes` for a neighbour in this network. Returns `false` if the budget does not suffice.
    pub fn spend_in(&mut self, now: Duration, neighbour: &A, prefix: Option<Prefix>, bytes: usize) -> bool {
        let elapsed = now.saturating_sub(self.since);
        if elapsed >= WINDOW {
            self.since = now;
            (self.spent, self.extra) = (0, 0);
            self.by.clear();
            std::mem::swap(&mut self.sources, &mut self.before);
            self.sources.clear();
            if elapsed >= 2 * WINDOW {
                self.before.clear();
            }
        }
        let bytes = bytes as u64;
        let source = prefix.map_or_else(|| Source::Neighbour(neighbour.clone()), Source::Network);
        let known = self.sources.get(&source).copied();
        let is_served = self.before.contains_key(&source);
        let count = self.sources.len() + usize::from(known.is_none());
        // At the limit of neighbours, a further one is counted by its network only.
        let own = match self.by.get(neighbour) {
            Some(own) => *own,
            None if self.by.len() < SOURCES => 0,
            None => known.unwrap_or(0),
        };
        let has_place = count <= SOURCES || (is_served && count <= 2 * SOURCES);
        if !has_place {
            return false;
        }
        // A source that gets nothing now has a share in the next second.
        let of_source = self.sources.entry(source).or_default();
        let half = self.total / 2;
        let share = half / (count.max(self.before.len()) as u64).max(1);
        let within = share.saturating_sub(*of_source).min(bytes);
        let (total, own) = (self.spent.saturating_add(bytes), own.saturating_add(bytes));
        let extra = self.extra.saturating_add(bytes - within);
        if total > self.total || own > self.each || extra > self.total - half {
            return false;
        }
        *of_source += bytes;
        self.extra = extra;
        self.spent = total;
        if self.by.len() < SOURCES || self.by.contains_key(neighbour) {
            self.by.insert(neighbour.clone(), own);
        }
        true
    }
}
