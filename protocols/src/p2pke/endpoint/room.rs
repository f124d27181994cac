//! Eviction of channels at a limit: the least valuable channels of peers and, for this node's own new
//! channels, also silent channels that it opened.
//!
//! A scan visits all channels, so it removes many at a time, and scans have a minimum interval: a scan of
//! 16,384 channels takes about half a millisecond, whatever other nodes send.

use std::cmp::Reverse;
use std::hash::Hash;
use std::time::Duration;

use super::super::channel::{Event, Idleness};
use super::super::places::Owner;
use super::Endpoint;

/// Minimum interval between two scans for channels of peers, and the time for which a result is reused.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
const LOOK_IS_GOOD: Duration = Duration::from_millis(100);

/// The fraction (1/64) of channels that one scan removes.
const SHARE: usize = 64;

/// The results of the last scans.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// The time before which no scan for a peer's channel starts.
    next_look: Duration,
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
        let outbound = self.confirmed().saturating_sub(self.places.total() + uncounted);
        self.places.total().saturating_add(outbound.max(reserved)) >= config.channels
    }

    /// Returns whether a channel could be removed for a peer's new one.
    pub(super) fn has_room(&mut self, now: Duration) -> bool {
        if let Some((until, found)) = self.room.found
            && now < until
        {
            return found;
        }
        let found = self.candidates(now, Scope::Inbound).next().is_some();
        self.room.found = Some((now.saturating_add(LOOK_IS_GOOD), found));
        found
    }

    /// Makes room for a new channel of this node. Returns whether there is room.
    pub(super) fn make_room(&mut self, now: Duration) -> bool {
        self.evict(now, Scope::All, self.local.config.channels / SHARE)
    }

    /// Returns whether there is a place for a channel that a peer has just confirmed; makes one if possible.
    /// A channel that only changes its peer needs no additional place in total.
    pub(super) fn admit(&mut self, now: Duration, addr: &A, owner: &Owner, had_place: bool) -> bool {
        let config = &self.local.config;
        let (per_peer, per_prefix) = (config.channels_per_peer.max(1), config.channels_per_prefix.max(1));
        let share = config.channels / SHARE;
        // At this moment, the channel is neither half-open nor counted; it takes the place that it gets.
        if let Some(slot) = self.channels.get_mut(addr)
            && let Some(arrival) = slot.half_open.take()
        {
            self.half_open.remove(&(arrival.get(), addr.clone()));
        }
        (self.places.of_peer(owner) < per_peer || self.look(now, Scope::Peer(owner), per_peer / 4))
            && (self.places.of_prefix(owner) < per_prefix
                || self.look(now, Scope::Prefix(owner), per_prefix / SHARE))
            && (had_place || !self.is_full_beside(1) || self.look(now, Scope::Inbound, share))
    }

    /// Does the same as [`evict`](Self::evict), with a minimum interval between scans.
    fn look(&mut self, now: Duration, scope: Scope<'_>, count: usize) -> bool {
        if now < self.room.next_look {
            return false;
        }
        self.room.next_look = now.saturating_add(BETWEEN_LOOKS);
        self.room.found = None;
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
            let most = self.places.of_peer(&owner).max(self.places.of_prefix(&owner));
            let goes = match scope {
                Scope::All | Scope::Inbound => idleness != Idleness::Pausing || most > 1,
                Scope::Peer(of) => of.peer == owner.peer,
                Scope::Prefix(of) => of.prefix == owner.prefix,
            };
            goes.then_some(((idleness, Reverse(most), heard), addr))
        })
    }
}
