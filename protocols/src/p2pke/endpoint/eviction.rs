//! Eviction of channels at a limit: the least valuable channels of peers and, for this node's own new
//! channels, also silent channels that it opened.
//!
//! A scan visits all channels, so it removes many at a time, and scans have a minimum interval: a scan of
//! 16,384 channels takes about half a millisecond, whatever other nodes send.

use std::cmp::Reverse;
use std::hash::Hash;
use std::time::Duration;

use super::super::channel::{Event, Idleness};
use super::super::channel_counts::Owner;
use super::Endpoint;

/// Minimum interval between two scans for channels of peers, and the time for which a result is reused.
const SCAN_INTERVAL: Duration = Duration::from_millis(20);
const SCAN_VALIDITY: Duration = Duration::from_millis(100);

/// The fraction (1/64) of channels that one scan removes.
const SHARE: usize = 64;

/// The results of the last scans.
#[derive(Debug, Default)]
pub(super) struct Eviction {
    /// The time before which no scan for a peer's channel starts.
    next_scan: Duration,
    /// Whether a channel could be removed, and until when this result is used.
    found: Option<(Duration, bool)>,
}

/// The order of removal, the lowest first. Of equally idle channels, one of the peer or network with the most
/// is removed first.
type Rank = (Idleness, Reverse<usize>, Duration);

/// The channels that a scan considers.
#[derive(Clone, Copy)]
enum Scope<'a> {
    /// All, including those that this node opened: for a new one of this node.
    All,
    Inbound,
    Peer(&'a Owner),
    Prefix(&'a Owner),
}

impl<A: Clone + Ord + Hash> Endpoint<A> {
    /// Returns the number of channels that are not half-open.
    pub(super) fn confirmed(&self) -> usize {
        self.channels.len().saturating_sub(self.half_open.len())
    }

    /// Returns whether peers have opened the maximum number of channels.
    pub(super) fn inbound_is_full(&self) -> bool {
        self.is_full_beside(0)
    }

    /// Returns the same while `uncounted` channels are neither half-open nor counted.
    fn is_full_beside(&self, uncounted: usize) -> bool {
        let config = &self.local.config;
        let reserved = config
            .channels
            .saturating_mul(config.outbound_percent.min(100).into())
            / 100;
        let outbound = self.confirmed().saturating_sub(self.counts.total() + uncounted);
        self.counts.total().saturating_add(outbound.max(reserved)) >= config.channels
    }

    /// Returns whether a channel could be removed for a peer's new one.
    pub(super) fn can_evict(&mut self, now: Duration) -> bool {
        if let Some((until, found)) = self.eviction.found
            && now < until
        {
            return found;
        }
        let found = self.candidates(now, Scope::Inbound).next().is_some();
        self.eviction.found = Some((now.saturating_add(SCAN_VALIDITY), found));
        found
    }

    /// Makes room for a new channel of this node. Returns whether there is room.
    pub(super) fn make_room(&mut self, now: Duration) -> bool {
        self.evict(now, Scope::All, self.local.config.channels / SHARE)
    }

    /// Returns whether the limits admit a channel that a peer has just confirmed; evicts others if possible. A
    /// channel that only changes its peer (`was_counted`) does not count again in total.
    pub(super) fn admit(&mut self, now: Duration, addr: &A, owner: &Owner, was_counted: bool) -> bool {
        let config = &self.local.config;
        let (per_peer, per_prefix) = (config.channels_per_peer.max(1), config.channels_per_prefix.max(1));
        let share = config.channels / SHARE;
        // At this moment, the channel is neither half-open nor counted.
        if let Some(slot) = self.channels.get_mut(addr)
            && let Some(arrival) = slot.half_open.take()
        {
            self.half_open.remove(&(arrival.get(), addr.clone()));
        }
        (self.counts.of_peer(owner) < per_peer
            || self.evict_at_intervals(now, Scope::Peer(owner), per_peer / 4))
            && (self.counts.of_prefix(owner) < per_prefix
                || self.evict_at_intervals(now, Scope::Prefix(owner), per_prefix / SHARE))
            && (was_counted || !self.is_full_beside(1) || self.evict_at_intervals(now, Scope::Inbound, share))
    }

    /// Does the same as [`evict`](Self::evict), with a minimum interval between scans.
    fn evict_at_intervals(&mut self, now: Duration, scope: Scope<'_>, count: usize) -> bool {
        if now < self.eviction.next_scan {
            return false;
        }
        self.eviction.next_scan = now.saturating_add(SCAN_INTERVAL);
        self.eviction.found = None;
        self.evict(now, scope, count)
    }

    /// Removes the least valuable channels of a scope, at least one and at most `count`. Returns whether
    /// there was one.
    fn evict(&mut self, now: Duration, scope: Scope<'_>, count: usize) -> bool {
        let mut candidates: Vec<_> = self
            .candidates(now, scope)
            .map(|(rank, addr)| (rank, addr.clone()))
            .collect();
        let count = count.clamp(1, candidates.len().max(1));
        if count < candidates.len() {
            candidates.select_nth_unstable(count);
            candidates.truncate(count);
        }
        for (_, addr) in &candidates {
            self.remove(addr);
            self.events.push_back((addr.clone(), Event::Expired));
        }
        !candidates.is_empty()
    }

    /// Iterates over the removable channels of a scope with their rank: the lowest is removed first.
    fn candidates<'a>(&'a self, now: Duration, scope: Scope<'a>) -> impl Iterator<Item = (Rank, &'a A)> {
        self.channels.iter().filter_map(move |(addr, slot)| {
            let Some(peer) = slot.peer else {
                let (idleness, heard) = slot.channel.idleness(now)?;
                return matches!(scope, Scope::All).then_some(((idleness, Reverse(0), heard), addr));
            };
            let owner = self.owner(addr, peer);
            let (idleness, heard) = slot.channel.idleness(now)?;
            let most = self.counts.of_peer(&owner).max(self.counts.of_prefix(&owner));
            let goes = match scope {
                Scope::All | Scope::Inbound => idleness != Idleness::Pausing || most > 1,
                Scope::Peer(of) => of.peer == owner.peer,
                Scope::Prefix(of) => of.prefix == owner.prefix,
            };
            goes.then_some(((idleness, Reverse(most), heard), addr))
        })
    }
}
