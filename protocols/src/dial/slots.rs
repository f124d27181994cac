//! The attempts in progress of all peers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::event::AttemptId;

/// The attempts in progress, each with its peer and the time from which it gives way to others.
#[derive(Debug)]
pub(super) struct Slots<P> {
    peers: BTreeMap<AttemptId, (P, Duration)>,
    slow: BTreeSet<(Duration, AttemptId)>,
}

impl<P> Slots<P> {
    pub(super) fn new() -> Self {
        Self {
            peers: BTreeMap::new(),
            slow: BTreeSet::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn insert(&mut self, attempt: AttemptId, peer: P, slow_at: Duration) {
        self.peers.insert(attempt, (peer, slow_at));
        self.slow.insert((slow_at, attempt));
    }

    pub(super) fn remove(&mut self, attempt: AttemptId) -> Option<P> {
        let (peer, slow_at) = self.peers.remove(&attempt)?;
        self.slow.remove(&(slow_at, attempt));
        Some(peer)
    }

    pub(super) fn peer(&self, attempt: AttemptId) -> Option<&P> {
        self.peers.get(&attempt).map(|(peer, _)| peer)
    }

    /// Returns the attempt that gives way first, and the time from which it does.
    pub(super) fn slowest(&self) -> Option<(Duration, AttemptId)> {
        self.slow.first().copied()
    }
}
