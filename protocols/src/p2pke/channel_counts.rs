//! The number of channels that peers have opened: in total, by peer and by network.

use std::num::NonZeroU64;

use p2p::PeerId;

use super::hello_rate_limiter::HelloRateLimiter;
use crate::hash::HashMap;
use crate::overlay::Prefix;

/// The peer and the network that a channel is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// A keyed hash of the peer's id: 8 bytes for each channel instead of 32.
    pub(super) peer: NonZeroU64,
    pub(super) prefix: Option<Prefix>,
}

impl Owner {
    /// Returns the hash of a peer's id. Two peers with the same hash share their allowance.
    pub(super) fn hash(rate_limiter: &HelloRateLimiter, peer: &PeerId) -> NonZeroU64 {
        NonZeroU64::new(rate_limiter.hash(peer)).unwrap_or(NonZeroU64::MIN)
    }
}

/// Counts of the channels that peers opened and confirmed.
#[derive(Debug, Default)]
pub(super) struct ChannelCounts {
    total: usize,
    by_peer: HashMap<NonZeroU64, u32>,
    by_prefix: HashMap<Prefix, u32>,
}

impl ChannelCounts {
    pub(super) fn total(&self) -> usize {
        self.total
    }

    pub(super) fn of_peer(&self, owner: &Owner) -> usize {
        self.by_peer.get(&owner.peer).map_or(0, |count| *count as usize)
    }

    pub(super) fn of_prefix(&self, owner: &Owner) -> usize {
        let count = owner.prefix.and_then(|prefix| self.by_prefix.get(&prefix));
        count.map_or(0, |count| *count as usize)
    }

    pub(super) fn add(&mut self, owner: &Owner) {
        self.total += 1;
        *self.by_peer.entry(owner.peer).or_default() += 1;
        if let Some(prefix) = owner.prefix {
            *self.by_prefix.entry(prefix).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, owner: &Owner) {
        self.total = self.total.saturating_sub(1);
        take_one(&mut self.by_peer, &owner.peer);
        if let Some(prefix) = owner.prefix {
            take_one(&mut self.by_prefix, &prefix);
        }
    }
}

fn take_one<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
