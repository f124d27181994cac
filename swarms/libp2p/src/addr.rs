//! The address of a host: a multiaddr that ends with the peer's id.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use multiaddr::{Multiaddr, PeerId, Protocol};
use p2p::{Addr, Error, Result};

use crate::key::identity;

/// Maximum length of an address in text, in bytes.
pub const MAX_ADDR_TEXT: usize = 1024;

/// The address of a libp2p host.
///
/// Its text is a multiaddr, `/ip4/192.0.2.1/udp/4001/quic-v1/p2p/12D3Koo…`, whose last part names the peer.
/// `/p2p/12D3Koo…` alone names a peer whose place is known otherwise, such as by a connection; the sources of
/// messages have this form. An address without `/p2p/` names a place, for any peer.
///
/// Two addresses that name a peer are equal if they name the same peer, whatever their places are. Two places
/// are equal if all their parts are.
#[derive(Clone)]
pub struct HostAddr {
    place: Multiaddr,
    peer: Option<Peer>,
}

#[derive(Clone, Copy)]
struct Peer {
    peer_id: PeerId,
    id: p2p::PeerId,
}

impl Peer {
    fn new(peer_id: PeerId) -> Self {
        let id = identity(&peer_id);
        Self { peer_id, id }
    }
}

/// A protocol and a place to reach it that this host can dial.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// QUIC version 1 over UDP.
    Quic(Target),
    /// TCP.
    Tcp(Target),
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A domain name, and the port. `ip6` selects the kind of address; `None` takes any.
    Dns {
        /// The domain name.
        name: String,
        /// The port.
        port: u16,
        /// Whether an IPv6 (`Some(true)`) or an IPv4 address is required.
        ip6: Option<bool>,
    },
    /// The text of an address in a swarm below; see [`HostBuilder::over`](crate::HostBuilder::over).
    Swarm(String),
}

impl HostAddr {
    /// Creates the address of a peer at a place; an empty place is none.
    pub fn new(peer_id: PeerId, place: Multiaddr) -> Self {
        let place = without_peer(place).0;
        let peer = Some(Peer::new(peer_id));
        Self { place, peer }
    }

    /// Creates the address of a peer at no place.
    pub fn of_peer(peer_id: PeerId) -> Self {
        Self::new(peer_id, Multiaddr::empty())
    }

    /// Splits a multiaddr into place and peer.
    pub fn from_multiaddr(addr: Multiaddr) -> Self {
        match without_peer(addr) {
            (place, Some(peer_id)) => Self {
                place,
                peer: Some(Peer::new(peer_id)),
            },
            (place, None) => Self { place, peer: None },
        }
    }

    /// Returns the place, without the peer.
    pub fn place(&self) -> &Multiaddr {
        &self.place
    }

    /// Returns the libp2p id of the peer, if the address names one.
    pub fn libp2p_id(&self) -> Option<PeerId> {
        self.peer.map(|peer| peer.peer_id)
    }

    /// Returns the address as one multiaddr.
    pub fn to_multiaddr(&self) -> Multiaddr {
        match self.peer {
            Some(peer) => self.place.clone().with(Protocol::P2p(peer.peer_id)),
            None => self.place.clone(),
        }
    }

    /// Returns the same peer at no place, or the same place where no peer is named.
    #[must_use]
    pub fn canonical(&self) -> Self {
        match self.peer {
            Some(_) => Self {
                place: Multiaddr::empty(),
                peer: self.peer,
            },
            None => self.clone(),
        }
    }

    /// Returns the transport of the place, if a host can dial or listen to it.
    pub fn transport(&self) -> Option<Place> {
        transport(&self.place)
    }
}

/// Returns the transport of a multiaddr, if a host can dial or listen to it.
pub(crate) fn transport(place: &Multiaddr) -> Option<Place> {
    let mut parts = place.iter();
    let host = parts.next()?;
    if let Protocol::Unix(text) = &host {
        let is_whole = parts.next() == Some(Protocol::QuicV1) && parts.next().is_none();
        return is_whole.then(|| Place::Quic(Target::Swarm(unescape(text))));
    }
    let (port, is_udp) = match parts.next()? {
        Protocol::Udp(port) => (port, true),
        Protocol::Tcp(port) => (port, false),
        _ => return None,
    };
    let dns = |name: &str, ip6| {
        let name = name.to_owned();
        Target::Dns { name, port, ip6 }
    };
    let target = match host {
        Protocol::Ip4(ip) => Target::Ip(SocketAddr::new(ip.into(), port)),
        Protocol::Ip6(ip) => Target::Ip(SocketAddr::new(ip.into(), port)),
        Protocol::Dns(name) => dns(&name, None),
        Protocol::Dns4(name) => dns(&name, Some(false)),
        Protocol::Dns6(name) => dns(&name, Some(true)),
        _ => return None,
    };
    match (is_udp, parts.next(), parts.next()) {
        (true, Some(Protocol::QuicV1), None) => Some(Place::Quic(target)),
        (false, None, _) => Some(Place::Tcp(target)),
        _ => None,
    }
}

/// Returns the multiaddr of QUIC at a socket address.
pub(crate) fn quic_place(addr: SocketAddr) -> Multiaddr {
    ip(addr.ip())
        .with(Protocol::Udp(addr.port()))
        .with(Protocol::QuicV1)
}

/// Returns the multiaddr of QUIC at an address of a swarm below, whose text becomes one part.
pub(crate) fn swarm_place(text: &str) -> Multiaddr {
    let escaped = text.replace('%', "%25").replace('/', "%2F");
    Multiaddr::empty()
        .with(Protocol::Unix(escaped.into()))
        .with(Protocol::QuicV1)
}

fn unescape(text: &str) -> String {
    text.replace("%2F", "/").replace("%25", "%")
}

/// Returns the multiaddr of TCP at a socket address.
pub(crate) fn tcp_place(addr: SocketAddr) -> Multiaddr {
    ip(addr.ip()).with(Protocol::Tcp(addr.port()))
}

fn ip(ip: IpAddr) -> Multiaddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => Multiaddr::from(ip),
        IpAddr::V6(ip) => Multiaddr::from(ip),
    }
}

fn without_peer(mut addr: Multiaddr) -> (Multiaddr, Option<PeerId>) {
    match addr.pop() {
        Some(Protocol::P2p(peer)) => (addr, Some(peer)),
        Some(other) => (addr.with(other.acquire()), None),
        None => (addr, None),
    }
}

impl Addr for HostAddr {
    fn peer_id(&self) -> Option<p2p::PeerId> {
        self.peer.map(|peer| peer.id)
    }

    fn socket_addr(&self) -> Option<SocketAddr> {
        match self.transport()? {
            Place::Quic(Target::Ip(addr)) | Place::Tcp(Target::Ip(addr)) => Some(addr),
            _ => None,
        }
    }
}

impl FromStr for HostAddr {
    type Err = Error;

    /// Parses a multiaddr. `/ipfs/ID` is `/p2p/ID`, and an id may be base58 or a CID.
    fn from_str(text: &str) -> Result<Self> {
        if text.len() > MAX_ADDR_TEXT {
            let reason = format!("an address has at most {MAX_ADDR_TEXT} bytes");
            return Err(Error::addr(text, MAX_ADDR_TEXT, reason));
        }
        if !text.starts_with('/') {
            return Err(Error::addr(text, 0, "a multiaddr begins with '/'"));
        }
        let addr = base58_ids(text).parse();
        let addr: Multiaddr = addr
            .map_err(|error: multiaddr::Error| Error::addr(text, first_invalid(text), error.to_string()))?;
        let addr = Self::from_multiaddr(addr);
        if addr.place.is_empty() && addr.peer.is_none() {
            return Err(Error::addr(text, text.len(), "the address is empty"));
        }
        Ok(addr)
    }
}

/// Replaces peer ids that are CIDs by their base58 form, the only one that the parser of multiaddrs knows. What is
/// neither is left to that parser.
fn base58_ids(text: &str) -> String {
    let mut is_id = false;
    let parts = text.split('/').map(|part| {
        let id = is_id.then(|| id_of_cid(part)).flatten();
        is_id = matches!(part, "p2p" | "ipfs");
        id.map_or_else(|| part.to_owned(), |id| id.to_string())
    });
    parts.collect::<Vec<_>>().join("/")
}

/// Parses a CID of version 1 with the codec `libp2p-key`.
fn id_of_cid(text: &str) -> Option<PeerId> {
    if text.starts_with('1') || text.starts_with("Qm") {
        return None;
    }
    let (_, cid) = multibase::decode(text).ok()?;
    PeerId::from_bytes(cid.strip_prefix(&[0x01, 0x72])?).ok()
}

/// Returns the offset of the part of a multiaddr after the longest prefix that is valid.
fn first_invalid(text: &str) -> usize {
    let is_valid = |at: &usize| {
        let head = text.get(..*at).map(base58_ids);
        head.is_some_and(|head| head.parse::<Multiaddr>().is_ok())
    };
    let mut ends = text.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| at);
    ends.rfind(is_valid).unwrap_or(0)
}

impl fmt::Display for HostAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_multiaddr().to_string())
    }
}

impl fmt::Debug for HostAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostAddr({})", self.to_multiaddr())
    }
}

impl PartialEq for HostAddr {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for HostAddr {}

impl PartialOrd for HostAddr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for HostAddr {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.peer, &other.peer) {
            (Some(ours), Some(theirs)) => ours.id.cmp(&theirs.id),
            (None, None) => self.place.as_ref().cmp(other.place.as_ref()),
            (ours, theirs) => ours.is_some().cmp(&theirs.is_some()),
        }
    }
}

impl Hash for HostAddr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.peer {
            Some(peer) => peer.id.hash(state),
            None => self.place.as_ref().hash(state),
        }
    }
}
