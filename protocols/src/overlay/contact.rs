//! Contacts, networks, and the sources that limits are charged to.

use std::net::IpAddr;

use p2p::{Addr, PeerId};

/// The id and the address of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Contact<A> {
    /// The id.
    pub id: PeerId,
    /// The address.
    pub addr: A,
}

/// Number of places of a private host, or of loopback, that count as one place of a public network.
///
/// At home, in a laboratory and in tests, many nodes share a host, and have one owner anyway.
const LOCAL_SHARE: usize = 8;

/// A network with addresses that probably have one owner: an IPv4 /24 or an IPv6 /48.
///
/// In a private network it is one host, and all of loopback is one: limits apply there as well, but limits on
/// places among nodes are eight times as high ([`limit`](Self::limit)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prefix {
    /// The first three bytes of a public IPv4 address.
    V4([u8; 3]),
    /// The first six bytes of a public IPv6 address.
    V6([u8; 6]),
    /// An IPv4 address of a private or link-local network.
    Private4([u8; 4]),
    /// The first eight bytes of an IPv6 address of a private or link-local network.
    Private6([u8; 8]),
    /// Any loopback address.
    Loopback,
}

impl Prefix {
    /// Returns the network of an address, if its base address is an IP address.
    pub fn of<A: Addr>(addr: &A) -> Option<Self> {
        addr.socket_addr().map(|socket| Self::of_ip(socket.ip()))
    }

    /// Returns the network of an IP address.
    pub fn of_ip(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        match (ip, Scope::of_ip(ip)) {
            (_, Scope::Loopback) => Self::Loopback,
            (IpAddr::V4(ip), Scope::LinkLocal | Scope::Private) => Self::Private4(ip.octets()),
            (IpAddr::V6(ip), Scope::LinkLocal | Scope::Private) => Self::Private6(first(ip.octets())),
            (IpAddr::V4(ip), _) => Self::V4(first(ip.octets())),
            (IpAddr::V6(ip), _) => Self::V6(first(ip.octets())),
        }
    }

    /// Returns the limit of this network, if that of a public network is `places`.
    #[must_use]
    pub fn limit(&self, places: usize) -> usize {
        match self {
            Self::V4(_) | Self::V6(_) => places,
            Self::Private4(_) | Self::Private6(_) | Self::Loopback => places.saturating_mul(LOCAL_SHARE),
        }
    }
}

fn first<const ALL: usize, const N: usize>(bytes: [u8; ALL]) -> [u8; N] {
    let mut first = [0; N];
    for (to, byte) in first.iter_mut().zip(bytes) {
        *to = byte;
    }
    first
}

/// The scope of an IP address, the narrowest first.
///
/// An address that a peer names is used only if its scope is at least that of the peer's own address
/// ([`may_name`](Self::may_name)). Otherwise a remote attacker could direct this node to hosts of its own
/// network, or to services on its own host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// An address that no single node has: unspecified, multicast or broadcast.
    Nowhere,
    /// This host.
    Loopback,
    /// This link: IPv4 169.254/16, IPv6 `fe80::/10`.
    LinkLocal,
    /// A private network: RFC 1918, 100.64/10 of carrier-grade NAT, IPv6 `fc00::/7`.
    Private,
    /// All other addresses.
    Global,
}

impl Scope {
    /// Returns the scope of an address, if its base address is an IP address.
    pub fn of<A: Addr>(addr: &A) -> Option<Self> {
        addr.socket_addr().map(|socket| Self::of_ip(socket.ip()))
    }

    /// Returns the scope of an IP address.
    pub fn of_ip(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        let (is_link_local, is_private) = match ip {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                let shared = a == 100 && (64..128).contains(&b);
                (ip.is_link_local(), ip.is_private() || shared)
            }
            IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.is_unique_local()),
        };
        let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        match ip {
            _ if ip.is_unspecified() || ip.is_multicast() || is_broadcast => Self::Nowhere,
            _ if ip.is_loopback() => Self::Loopback,
            _ if is_link_local => Self::LinkLocal,
            _ if is_private => Self::Private,
            _ => Self::Global,
        }
    }

    /// Returns whether a peer at `by` may name a node at `named`.
    ///
    /// Addresses without an IP address have no scope and are not restricted; neither are addresses that such
    /// a peer names, except addresses that no node can have.
    pub fn may_name<A: Addr>(by: &A, named: &A) -> bool {
        let Some(named) = Self::of(named) else { return true };
        let by = Self::of(by).unwrap_or(Self::Loopback);
        named > Self::Nowhere && named >= by
    }
}

/// The source that a limit is charged to: a network if there is one, because ids cost nothing, or else an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Source {
    Network(Prefix),
    Node(PeerId),
}

impl Source {
    pub(crate) fn of<A: Addr>(contact: &Contact<A>) -> Self {
        Prefix::of(&contact.addr).map_or(Self::Node(contact.id), Self::Network)
    }
}
