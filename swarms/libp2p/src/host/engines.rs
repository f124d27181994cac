//! The engines of a host, with what the driver keeps for them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use multiaddr::{Multiaddr, PeerId};
use p2p::{Error, Result};
use p2p_protocols::connections::{ConnId, Connections};
use p2p_protocols::dial::{AttemptId, DialAddr, DialId, Dialer, Failure, Transport};
use p2p_protocols::peers::{PeerStore, Source};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::addr::{HostAddr, Place, Target, transport};
use crate::config::HostConfig;
use crate::connection::Connection;

/// What a dial wants to reach.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum DialKey {
    /// This peer.
    Peer(PeerId),
    /// Any peer at this place.
    Place(Multiaddr),
}

/// A peer in the peer store, which is saved by the bytes of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub(super) struct KnownPeer(pub(super) PeerId);

impl From<KnownPeer> for Vec<u8> {
    fn from(peer: KnownPeer) -> Self {
        peer.0.to_bytes()
    }
}

impl TryFrom<Vec<u8>> for KnownPeer {
    type Error = String;

    fn try_from(bytes: Vec<u8>) -> std::result::Result<Self, String> {
        let peer = PeerId::from_bytes(&bytes);
        peer.map(Self).map_err(|error| error.to_string())
    }
}

/// A connection that was admitted, before its handshake.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admitted {
    pub(super) id: ConnId,
    /// The attempt of this host that it is, or `None` if the peer dialled.
    pub(super) attempt: Option<AttemptId>,
}

/// What an attempt dials.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) place: Multiaddr,
    /// The peer that must answer; any if `None`.
    pub(super) expected: Option<PeerId>,
    /// Whether the program chose the place.
    pub(super) is_chosen: bool,
}

/// An attempt in progress. Dropping it ends its task.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) id: ConnId,
    pub(super) key: DialKey,
    pub(super) place: Multiaddr,
    pub(super) _end: oneshot::Sender<()>,
}

/// A call that waits for a dial.
#[derive(Debug)]
pub(super) struct Caller {
    /// The address that the call names.
    pub(super) addr: HostAddr,
    pub(super) reply: oneshot::Sender<Result<Arc<Connection>>>,
    /// Whether a connection that was open before is of no use.
    pub(super) wants_new: bool,
}

/// The reason for which an attempt failed, for the dialer and for the caller.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) failure: Failure,
    pub(super) error: Error,
}

/// The engines that decide for a host, behind one lock. The driver calls them by
/// [`Shared::drive`](super::Shared::drive) only.
#[derive(Debug)]
pub(super) struct Engines {
    pub(super) connections: Connections<PeerId>,
    pub(super) dialer: Dialer<DialKey, Multiaddr>,
    pub(super) peers: PeerStore<KnownPeer, Multiaddr>,
    pub(super) open: HashMap<ConnId, Arc<Connection>>,
    /// Inbound handshakes. Dropping a sender ends the handshake.
    pub(super) handshakes: HashMap<ConnId, oneshot::Sender<()>>,
    pub(super) attempts: HashMap<AttemptId, Attempt>,
    pub(super) callers: HashMap<DialId, Caller>,
    /// The errors of the dials in progress, which say more than the dialer needs.
    pub(super) errors: HashMap<DialKey, Vec<(Multiaddr, Error)>>,
    /// Attempts that succeeded since the last events of the dialer.
    pub(super) succeeded: Vec<(AttemptId, ConnId)>,
    /// The time at which the timer is due.
    pub(super) armed: Option<Duration>,
    pub(super) is_closed: bool,
}

impl Engines {
    pub(super) fn new(config: &HostConfig) -> Self {
        Self {
            connections: Connections::new(config.connections()),
            dialer: Dialer::new(config.dials(), rand::random()),
            peers: PeerStore::new(config.peers(), Multiaddr::len),
            open: HashMap::new(),
            handshakes: HashMap::new(),
            attempts: HashMap::new(),
            callers: HashMap::new(),
            errors: HashMap::new(),
            succeeded: Vec::new(),
            armed: None,
            is_closed: false,
        }
    }

    /// Returns the connection with a peer that should be used: the oldest one.
    pub(super) fn best(&self, peer: &PeerId) -> Option<Arc<Connection>> {
        self.open.get(&self.connections.best(peer)?).cloned()
    }

    /// Returns the addresses at which a peer can be dialled, those of the caller included.
    pub(super) fn places(
        &self,
        now: Duration,
        key: &DialKey,
        named: Option<&Multiaddr>,
    ) -> Vec<DialAddr<Multiaddr>> {
        let known = match key {
            DialKey::Peer(peer) => self.peers.addrs(now, &KnownPeer(*peer)),
            DialKey::Place(_) => Vec::new(),
        };
        let known = known.into_iter().map(|(place, _)| place);
        let mut places: Vec<Multiaddr> = named.cloned().into_iter().collect();
        places.extend(known.filter(|place| Some(place) != named));
        places.into_iter().filter_map(dial_addr).collect()
    }

    /// Returns whether the program chose a place, and not only the peer: then a name in it may stand for an address in a
    /// network of this host.
    pub(super) fn is_chosen(&self, now: Duration, key: &DialKey, place: &Multiaddr) -> bool {
        let DialKey::Peer(peer) = key else { return true };
        let mut callers = self.callers.values();
        let is_named =
            |caller: &Caller| caller.addr.libp2p_id() == Some(*peer) && caller.addr.place() == place;
        callers.any(is_named) || self.peers.source(now, &KnownPeer(*peer), place) == Some(Source::Configured)
    }

    /// Records that an attempt failed.
    pub(super) fn fail(&mut self, now: Duration, attempt: AttemptId, failed: Failed) {
        let Some(Attempt { id, key, place, .. }) = self.attempts.remove(&attempt) else {
            return;
        };
        self.connections.handle_failed(id);
        // The address belongs to another peer.
        if let (Failure::WrongPeer, DialKey::Peer(peer)) = (failed.failure, &key) {
            self.peers.remove_addr(now, &KnownPeer(*peer), &place);
        }
        self.errors.entry(key).or_default().push((place, failed.error));
        self.dialer.handle_failed(now, attempt, failed.failure);
    }

    /// Ends an attempt that the dialer gave up.
    pub(super) fn abort(&mut self, attempt: AttemptId) {
        if let Some(attempt) = self.attempts.remove(&attempt) {
            self.connections.handle_failed(attempt.id);
        }
    }

    /// Ends everything; later actions of the engines are not carried out. Returns the open connections.
    pub(super) fn close(&mut self, now: Duration) -> Vec<Arc<Connection>> {
        self.is_closed = true;
        // For the file of the peer store, in which the addresses of connected peers are kept from now on.
        for connection in self.open.values() {
            self.peers
                .handle_disconnected(now, &KnownPeer(connection.key.peer_id()));
        }
        self.handshakes.clear();
        self.attempts.clear();
        self.callers.clear();
        self.open.drain().map(|(_, connection)| connection).collect()
    }

    pub(super) fn next_timeout(&self) -> Option<Duration> {
        let timers = [
            self.connections.poll_timeout(),
            self.dialer.poll_timeout(),
            self.peers.poll_timeout(),
        ];
        timers.into_iter().flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, now: Duration) {
        // The dialer ends its attempts itself, before the time for a handshake has passed.
        self.dialer.handle_timeout(now);
        self.connections.handle_timeout(now);
        self.peers.handle_timeout(now);
    }
}

/// Returns what the order of dials depends on, if this host can dial the place.
fn dial_addr(place: Multiaddr) -> Option<DialAddr<Multiaddr>> {
    let (transport, target) = match transport(&place)? {
        Place::Quic(target) => (Transport::Quic, target),
        Place::Tcp(target) => (Transport::Tcp, target),
    };
    let (ip, port) = match target {
        Target::Ip(addr) => (Some(addr.ip()), addr.port()),
        Target::Dns { port, .. } => (None, port),
        Target::Swarm(_) => (None, 0),
    };
    Some(DialAddr {
        addr: place,
        transport,
        ip,
        port,
        is_relayed: false,
    })
}

/// Returns the IP address of a place, if it has one.
pub(super) fn ip_of(place: &Multiaddr) -> Option<IpAddr> {
    dial_addr(place.clone()).and_then(|addr| addr.ip)
}

impl Failed {
    pub(super) fn new(failure: Failure, error: Error) -> Self {
        Self { failure, error }
    }
}

impl From<Error> for Failed {
    /// Of errors that say nothing about the address.
    fn from(error: Error) -> Self {
        Self::new(Failure::Denied, error)
    }
}
