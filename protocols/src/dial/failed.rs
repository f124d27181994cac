//! The addresses that failed a short time ago.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::config::Config;

#[derive(Clone, Copy, Debug)]
struct FailedAddr {
    /// The number of failures before the last one.
    before: u32,
    /// The time until which the address comes after others.
    until: Duration,
    /// The time at which it is forgotten.
    end: Duration,
}

/// Addresses that failed, bounded: at the limit, the one that is forgotten first goes.
#[derive(Debug)]
pub(super) struct FailedAddrs<P, A> {
    addrs: BTreeMap<(P, A), FailedAddr>,
    ends: BTreeSet<(Duration, P, A)>,
}

impl<P: Clone + Ord, A: Clone + Ord> FailedAddrs<P, A> {
    pub(super) fn new() -> Self {
        Self {
            addrs: BTreeMap::new(),
            ends: BTreeSet::new(),
        }
    }

    /// Returns whether an address failed a short time ago.
    pub(super) fn contains(&self, now: Duration, peer: &P, addr: &A) -> bool {
        let failed = self.addrs.get(&(peer.clone(), addr.clone()));
        failed.is_some_and(|failed| failed.until > now)
    }

    /// Records a failure. `chance` is between -1 and 1.
    pub(super) fn record(&mut self, now: Duration, config: &Config, peer: &P, addr: &A, chance: f64) {
        self.expire(now);
        let key = (peer.clone(), addr.clone());
        let before = match self.addrs.get(&key) {
            Some(old) => old.before.saturating_add(1),
            None => 0,
        };
        self.forget(&key);
        if self.addrs.len() >= config.failed_addrs
            && let Some((_, peer, addr)) = self.ends.pop_first()
        {
            self.addrs.remove(&(peer, addr));
        }
        if config.failed_addrs == 0 {
            return;
        }
        let until = now.saturating_add(config.backoff(before, chance));
        let end = until.saturating_add(config.backoff_max);
        self.ends.insert((end, key.0.clone(), key.1.clone()));
        self.addrs.insert(key, FailedAddr { before, until, end });
    }

    /// Forgets the failures of an address.
    pub(super) fn forget(&mut self, key: &(P, A)) {
        if let Some(old) = self.addrs.remove(key) {
            self.ends.remove(&(old.end, key.0.clone(), key.1.clone()));
        }
    }

    fn expire(&mut self, now: Duration) {
        while self.ends.first().is_some_and(|(end, ..)| *end <= now)
            && let Some((_, peer, addr)) = self.ends.pop_first()
        {
            self.addrs.remove(&(peer, addr));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.addrs.len()
    }
}
