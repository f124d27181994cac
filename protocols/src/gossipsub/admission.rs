//! Admission of peers: limits per identity, per network and in total.
//!
//! Inbound peers connected to this node; anyone can create many of them. So inbound peers are counted per
//! identity and per network. At a limit, a network with few peers takes a place from the network with the
//! most. Idle peers are replaced now and then, so that no group keeps all places by being first.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use p2p::{Addr, Error, Result};
use rand::RngExt;

use super::engine::Engine;
use super::event::Event;
use super::peer::{Identity, Peer, PeerKey};
use crate::hash::HashMap;
use crate::overlay::Prefix;

/// Minimum number of heartbeats that an idle inbound peer stays, unless its network has more places than the
/// newcomer's.
const SETTLED: u32 = 10;
/// The fraction (1/64) of inbound places that may change in one heartbeat between networks with equally many
/// peers.
const REPLACED_PART: usize = 64;
/// Entries for identities that left beyond [`Config::max_peers`](super::Config); the identities of one entry
/// share their limits.
const CROWD: usize = 1024;
/// Greetings to one identity in one heartbeat, however often it reconnects: enough for a restart.
pub(super) const GREETINGS: u32 = 8;

/// A range of addresses that probably belongs to one operator: an IPv4 /24 or an IPv6 /48. Unlike [`Prefix`],
/// it also groups private networks, because it only decides which peer is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Network(u128);

impl Network {
    fn of<A: Addr>(addr: &A) -> Option<Self> {
        let network = match addr.socket_addr()?.ip().to_canonical() {
            IpAddr::V4(ip) => u128::from(ip.to_bits() >> 8),
            IpAddr::V6(ip) => ip.to_bits() >> 80 << 80,
        };
        Some(Self(network))
    }
}

/// The limits that a peer has used since the last heartbeat. Kept when the peer leaves, so that an identity
/// that reconnects continues with it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// RPCs with IHAVE.
    pub(super) ihaves: usize,
    /// Ids requested from the peer.
    pub(super) asked: usize,
    /// Ids in IDONTWANT.
    pub(super) idontwants: usize,
    /// Greetings sent to the peer.
    pub(super) greetings: u32,
}

impl Usage {
    /// The larger of two usages in each respect.
    fn max(self, other: Self) -> Self {
        Self {
            ihaves: self.ihaves.max(other.ihaves),
            asked: self.asked.max(other.asked),
            idontwants: self.idontwants.max(other.idontwants),
            greetings: self.greetings.max(other.greetings),
        }
    }
}

/// Limits of one heartbeat across peers.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// The usage of peers that left since the last heartbeat, by identity. Bounded by
    /// [`Config::max_peers`](super::Config).
    left: HashMap<u64, Usage>,
    /// The usage of identities that left beyond that bound, by a hash: empty, or [`CROWD`] entries. So no
    /// identity resets its limits by making others leave first.
    crowd: Vec<Usage>,
    /// Number of idle peers that were replaced since the last heartbeat.
    replaced: usize,
}

impl Admission {
    pub(super) fn heartbeat(&mut self) {
        self.left.clear();
        self.crowd.clear();
        self.replaced = 0;
    }

    pub(super) fn leave(&mut self, identity: u64, usage: Usage, max: usize) {
        if self.left.len() < max {
            self.left.insert(identity, usage);
            return;
        }
        self.crowd.resize(CROWD, Usage::default());
        if let Some(shared) = self.crowd.get_mut(entry(identity)) {
            *shared = shared.max(usage);
        }
    }

    pub(super) fn return_of(&mut self, identity: u64) -> Usage {
        let of_crowd = || self.crowd.get(entry(identity)).copied();
        let own = self.left.get(&identity).copied().or_else(of_crowd);
        self.left.remove(&identity);
        own.unwrap_or_default()
    }
}

/// Where an identity is among the entries of the crowd.
fn entry(identity: u64) -> usize {
    // The high bits: tables use the low ones.
    usize::try_from((identity >> 32) % CROWD as u64).unwrap_or(0)
}

impl<A: Addr> Engine<A> {
    /// Returns a number for an identity, for tables that need not store all of it.
    pub(super) fn number_of(&self, identity: &Identity<A>) -> u64 {
        use std::hash::BuildHasher as _;
        self.keys.hasher().hash_one(identity)
    }

    /// Makes room for a peer. If a limit is reached, removes the least useful inbound peer.
    ///
    /// # Errors
    /// [`Error::Limit`] if no peer may be removed for it.
    pub(super) fn make_room(&mut self, now: Duration, addr: &A, outbound: bool) -> Result<()> {
        let crowd = |what, limit| Err(Error::Limit { what, limit });
        let config = &self.config;
        let (max_peers, max_inbound) = (config.max_peers, config.max_inbound);
        let (per_identity, per_prefix) = (config.max_inbound_per_identity, config.max_inbound_per_prefix);
        let inbound = |peer: &Peer<A>| !peer.outbound && !peer.explicit && peer.addr != *addr;
        if !outbound {
            let identity = Identity::new(addr);
            let same = self
                .peers
                .iter()
                .filter(|(_, peer)| inbound(peer) && peer.identity == identity);
            let same: Vec<(Duration, PeerKey)> = same.map(|(key, peer)| (peer.heard, *key)).collect();
            if same.len() >= per_identity.max(1)
                && let Some((_, silent)) = same.iter().min()
            {
                // The identity moved, or exceeds its share.
                self.evict(now, *silent);
            }
            if let Some(prefix) = Prefix::of(addr) {
                let near = self.peers.values();
                let near = near.filter(|peer| inbound(peer) && Prefix::of(&peer.addr) == Some(prefix));
                if near.count() >= prefix.limit(per_prefix) && !self.replace(now, addr) {
                    return crowd("inbound peers of one IP prefix", prefix.limit(per_prefix));
                }
            }
        }
        let others = self.peers.values().filter(|peer| peer.addr != *addr).count();
        if others >= max_peers {
            return crowd("peers", max_peers);
        }
        let taken = self.peers.values().filter(|peer| inbound(peer)).count();
        if !outbound && taken >= max_inbound && !self.replace(now, addr) {
            return crowd("inbound peers", max_inbound);
        }
        Ok(())
    }

    /// Removes an inbound peer to make room for another one. Returns whether one was removed.
    fn replace(&mut self, now: Duration, addr: &A) -> bool {
        let own = Network::of(addr);
        let mut sizes: BTreeMap<Option<Network>, usize> = BTreeMap::new();
        let mut inbound: Vec<(PeerKey, Option<Network>)> = Vec::new();
        for (key, peer) in &self.peers {
            if !peer.outbound && !peer.explicit && peer.addr != *addr {
                let network = Network::of(&peer.addr);
                *sizes.entry(network).or_default() += 1;
                inbound.push((*key, network));
            }
        }
        let own_size = sizes.get(&own).copied().unwrap_or(0);
        let largest = sizes.iter().max_by_key(|(_, size)| **size);
        let Some((largest, size)) = largest.map(|(network, size)| (*network, *size)) else {
            return false;
        };
        // A network other than the newcomer's that keeps more places than the newcomer's will then have.
        let is_crowd = largest.is_some() && largest != own && size > own_size + 1;
        if is_crowd {
            inbound.retain(|(_, network)| *network == largest);
        } else {
            if self.admission.replaced >= (self.config.max_inbound / REPLACED_PART).max(1) {
                return false;
            }
            let settled = self.config.heartbeat_interval.saturating_mul(SETTLED);
            inbound.retain(|(key, network)| {
                let of = sizes.get(network).copied().unwrap_or(0);
                let peer = self.peers.get(key);
                let is_idle = peer.is_some_and(|peer| {
                    let in_mesh = |topic| {
                        self.topics
                            .get(topic)
                            .is_some_and(|state| state.mesh.contains(key))
                    };
                    now.saturating_sub(peer.since) >= settled && !peer.topics.iter().any(in_mesh)
                });
                of >= own_size && is_idle && self.scores.score(now, *key) <= 0.0
            });
        }
        let mut ranked: Vec<(f64, u32, PeerKey)> = Vec::with_capacity(inbound.len());
        for (key, _) in inbound {
            ranked.push((self.scores.score(now, key), self.rng.random(), key));
        }
        let least = ranked
            .into_iter()
            .min_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let Some((_, _, key)) = least else {
            return false;
        };
        self.admission.replaced += usize::from(!is_crowd);
        self.evict(now, key);
        true
    }

    /// Removes a peer to make room for another one.
    fn evict(&mut self, now: Duration, key: PeerKey) {
        let Some(peer) = self.peers.get(&key).map(|peer| peer.addr.clone()) else {
            return;
        };
        self.remove_peer(now, &peer);
        self.counts.peers_evicted += 1;
        self.events.push_back(Event::Left { peer });
    }
}
