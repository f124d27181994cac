//! What a host knows of its peers.

use std::sync::Arc;
use std::time::Duration;

use multiaddr::{Multiaddr, PeerId};
use p2p_protocols::peers::Source;

use super::Host;
use super::engines::{DialKey, KnownPeer, ip_of};
use super::identifying::may_be_named;
use super::shared::Shared;
use crate::addr::{HostAddr, transport};
use crate::envelope::PeerRecord;
use crate::key::PublicKey;

/// What a host knows of a peer.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// The peer.
    pub peer: PeerId,
    /// The places at which it may be reached, the best first, each with the time for which it is kept. `None` means
    /// without end: while the peer is connected, or because the program named the place.
    pub addrs: Vec<(Multiaddr, Option<Duration>)>,
    /// Its public key, if a connection proved it.
    pub key: Option<PublicKey>,
    /// The protocols that it accepts, as it says.
    pub protocols: Vec<String>,
    /// Its agent, as it says.
    pub agent: Option<String>,
    /// The sequence number of its signed record, if it sent one.
    pub record_seq: Option<u64>,
    /// Number of connections with it.
    pub connections: usize,
    /// The sum of its tags.
    pub value: i64,
    /// Whether it is protected.
    pub is_protected: bool,
    /// Whether the host dials it at present.
    pub is_dialled: bool,
}

impl Host {
    /// Returns what is known of a peer, or `None` if nothing is: peers with a connection, those that had one in the last
    /// 15 minutes, and those of which an address is kept.
    pub fn peer(&self, peer: &PeerId) -> Option<PeerInfo> {
        self.core().drive(|engines, now| {
            let known = KnownPeer(*peer);
            let entry = engines.peers.get(&known)?;
            Some(PeerInfo {
                peer: *peer,
                key: entry.key.and_then(|key| PublicKey::decode(key).ok()),
                protocols: entry.protocols.to_vec(),
                agent: entry.agent.map(str::to_owned),
                record_seq: entry.record.map(|record| record.seq),
                addrs: engines.peers.addrs(now, &known),
                connections: engines.connections.of_peer(peer).len(),
                value: engines.connections.value(peer),
                is_protected: engines.connections.is_protected(peer),
                is_dialled: engines.dialer.is_dialling(&DialKey::Peer(*peer)),
            })
        })
    }

    /// Returns the peers of which something is known.
    pub fn peers(&self) -> Vec<PeerId> {
        let core = self.core();
        core.drive(|engines, _| engines.peers.peers().map(|known| known.0).collect())
    }

    /// Remembers places of a peer without end, which dials of `/p2p/ID` use. Returns the number of places that are
    /// known now.
    pub fn add_addrs(&self, peer: PeerId, places: impl IntoIterator<Item = Multiaddr>) -> usize {
        self.add_addrs_from(peer, places, Source::Configured)
    }

    /// Remembers places of a peer for a time that depends on where they come from: an hour if another peer or a
    /// discovery service named them, two minutes if they are temporary. Returns the number of places that are known now.
    ///
    /// # Limits
    /// 100 places of one peer, the best of them; [`HostConfig::max_known_peers`](crate::HostConfig::max_known_peers).
    pub fn add_addrs_from(
        &self,
        peer: PeerId,
        places: impl IntoIterator<Item = Multiaddr>,
        source: Source,
    ) -> usize {
        let places: Vec<_> = places
            .into_iter()
            .filter_map(|addr| place_for(&peer, addr))
            .collect();
        let core = self.core();
        core.drive(|engines, now| {
            engines
                .peers
                .add_addrs(now, &KnownPeer(peer), places, source)
                .added
        })
    }
}

impl Shared {
    /// Returns the address of a peer where the connection with it leads: a place that it listens at if one with the same
    /// IP address is known, or else the place from which it dialled. Without a connection, `None`.
    pub(crate) fn addr_of(&self, peer: &PeerId) -> Option<HostAddr> {
        let engines = self.engines.lock();
        let remote = engines.best(peer)?.info.remote.clone();
        let ip = ip_of(&remote);
        let known = engines.peers.addrs(self.now(), &KnownPeer(*peer));
        let mut listening = known.into_iter().map(|(place, _)| place);
        let place = listening.find(|place| transport(place).is_some() && ip_of(place) == ip);
        Some(HostAddr::new(*peer, place.unwrap_or(remote)))
    }

    /// Returns up to `most` places of a peer that a connection with it confirmed, or the program, the best first; and
    /// whether it is connected.
    pub(crate) fn confirmed_places(&self, peer: &PeerId, most: usize) -> (Vec<Multiaddr>, bool) {
        let (engines, now, known) = (self.engines.lock(), self.now(), KnownPeer(*peer));
        let places = engines
            .peers
            .addrs(now, &known)
            .into_iter()
            .map(|(place, _)| place);
        let is_confirmed =
            |place: &Multiaddr| engines.peers.source(now, &known, place) >= Some(Source::Recent);
        let places = places.filter(is_confirmed).take(most).collect();
        (places, engines.connections.best(peer).is_some())
    }

    /// Remembers places of peers that another peer named.
    pub(crate) fn remember_named(
        self: &Arc<Self>,
        named: impl IntoIterator<Item = (PeerId, Vec<Multiaddr>)>,
        source: Source,
    ) {
        self.drive(|engines, now| {
            for (peer, places) in named {
                engines.peers.add_addrs(now, &KnownPeer(peer), places, source);
            }
        });
    }

    /// Remembers the places of a verified record of another peer that the connected peer `by` passed on.
    pub(crate) fn learn(self: &Arc<Self>, by: &PeerId, record: &PeerRecord) {
        self.drive(|engines, now| {
            let Some(connection) = engines.best(by) else {
                return;
            };
            let by = HostAddr::from_multiaddr(connection.info.remote.clone());
            let places = may_be_named(&record.peer_id, &by, &record.addrs);
            let known = KnownPeer(record.peer_id);
            engines.peers.add_addrs(now, &known, places, Source::Learnt);
        });
    }
}

/// Returns the place of an address, unless it is empty or names another peer.
pub(super) fn place_for(peer: &PeerId, addr: Multiaddr) -> Option<Multiaddr> {
    let named = HostAddr::from_multiaddr(addr);
    let is_theirs = named.libp2p_id().is_none_or(|id| id == *peer);
    (is_theirs && !named.place().is_empty()).then(|| named.place().clone())
}
