//! Which channels go when there are as many as there may be: the least useful of those that peers opened, and for
//! this node's own ones also silent ones that it opened.
//!
//! All channels are looked at, so many go at a time, and no look follows another at once: a look at 16,384 channels takes
//! about half a millisecond, whatever strangers do.

use std::cmp::Reverse;
use std::hash::Hash;
use std::time::Duration;

use super::super::channel::{Event, Idleness};
use super::super::places::Owner;
use super::Endpoint;

/// The least time between two looks that strangers cause, and for how long their result is good.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
const LOOK_IS_GOOD: Duration = Duration::from_millis(100);

/// One in so many channels goes at a time.
const SHARE: usize = 64;

/// What the last looks found.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// No look for strangers before.
    next_look: Duration,
    /// Whether a channel could go, and until when that is taken for true.
    found: Option<(Duration, bool)>,
}

/// Which channel goes first: the lowest. Of those that are equally idle, one of the peer or network with the most.
type Rank = (Idleness, Reverse<usize>, Duration);

/// Whose channels are looked at.
#[derive(Clone, Copy)]
enum Scope<'a> {
    /// Those that this node opened, too: for one more of them.
    All,
    Inbound,
    Peer(&'a Owner),
    Prefix(&'a Owner),
}

impl<A: Clone + Ord + Hash> Endpoint<A> {
    /// Channels that are not half open.
    pub(super) fn confirmed(&self) -> usize {
        self.channels.len().saturating_sub(self.half_open.len())
    }

    /// Whether peers have opened as many channels as they may.
    pub(super) fn inbound_is_full(&self) -> bool {
        self.is_full_beside(0)
    }

    /// The same while so many channels are neither half open nor counted.
    fn is_full_beside(&self, uncounted: usize) -> bool {
        let config = &self.local.config;
        let reserved = config
            .channels
            .saturating_mul(config.outbound_percent.min(100).into())
            / 100;
        let outbound = self.confirmed().saturating_sub(self.places.total() + uncounted);
        self.places.total().saturating_add(outbound.max(reserved)) >= config.channels
    }

    /// Whether a channel would go for a stranger's.
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

    /// Makes room for a channel of this node itself.
    pub(super) fn make_room(&mut self, now: Duration) -> bool {
        self.evict(now, Scope::All, self.local.config.channels / SHARE)
    }

    /// Whether there is a place for a channel that a peer has just confirmed; makes one where that is possible. A channel
    /// that only changes its owner needs no further place in total.
    pub(super) fn admit(&mut self, now: Duration, addr: &A, owner: &Owner, had_place: bool) -> bool {
        let config = &self.local.config;
        let (per_peer, per_prefix) = (config.channels_per_peer.max(1), config.channels_per_prefix.max(1));
        let share = config.channels / SHARE;
        // It is neither half open nor counted at the moment, and takes the place that it is given.
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

    /// As [`evict`](Self::evict), but not twice within a short time.
    fn look(&mut self, now: Duration, scope: Scope<'_>, count: usize) -> bool {
        if now < self.room.next_look {
            return false;
        }
        self.room.next_look = now.saturating_add(BETWEEN_LOOKS);
        self.room.found = None;
        self.evict(now, scope, count)
    }

    /// Removes the least useful channels of a scope, at least one and so many at most; says whether there was one.
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

    /// The channels of a scope that may go, each with its rank: the lowest goes first.
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
