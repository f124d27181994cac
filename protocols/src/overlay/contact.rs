//! A node as others know it, the network that it is in, and whom something is charged to.

use std::net::IpAddr;

use p2p::{Addr, PeerId};

/// A node's id and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Contact<A> {
    /// Its id.
    pub id: PeerId,
    /// Its address.
    pub addr: A,
}

/// How many places of one private host, or one host's loopback, weigh as much as one place of a public network.
///
/// At home, in a laboratory and in tests many nodes share a host, and one owner has all of them anyway.
const LOCAL_SHARE: usize = 8;

/// A network whose addresses probably belong to one owner: an IPv4 /24, an IPv6 /48.
///
/// In a private network that is one host, and all of loopback is one: limits hold there, too, but are eight times as large
/// where they are about places among nodes ([`limit`](Self::limit)).
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
    /// The network of an address, if there is an IP address at its bottom.
    pub fn of<A: Addr>(addr: &A) -> Option<Self> {
        let ip = addr.socket_addr()?.ip().to_canonical();
        Some(match (ip, Scope::of_ip(ip)) {
            (_, Scope::Loopback) => Self::Loopback,
            (IpAddr::V4(ip), Scope::LinkLocal | Scope::Private) => Self::Private4(ip.octets()),
            (IpAddr::V6(ip), Scope::LinkLocal | Scope::Private) => Self::Private6(first(ip.octets())),
            (IpAddr::V4(ip), _) => Self::V4(first(ip.octets())),
            (IpAddr::V6(ip), _) => Self::V6(first(ip.octets())),
        })
    }

    /// How many places it may have where a public network has `places`.
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

/// How far an IP address reaches, the least far first.
///
/// An address that a peer names is dialled only if it reaches as far as the one at which that peer itself is reached, or
/// farther ([`may_name`](Self::may_name)). Otherwise a stranger could aim this node at hosts of its own network, or at
/// services on its own host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// An address that no single node has: unspecified, multicast or broadcast.
    Nowhere,
    /// This host.
    Loopback,
    /// This link: IPv4 169.254/16, IPv6 `fe80::/10`.
    LinkLocal,
    /// A private network: those of RFC 1918, 100.64/10 behind a carrier's translator, IPv6 `fc00::/7`.
    Private,
    /// Everywhere else.
    Global,
}

impl Scope {
    /// The scope of an address, if there is an IP address at its bottom.
    pub fn of<A: Addr>(addr: &A) -> Option<Self> {
        addr.socket_addr()
            .map(|socket| Self::of_ip(socket.ip().to_canonical()))
    }

    fn of_ip(ip: IpAddr) -> Self {
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

    /// Whether a peer that is reached at `by` is believed to know of a node at `named`.
    ///
    /// Addresses without an IP address at the bottom have no scope and are not restricted, nor is what such a peer names,
    /// but for addresses that no node has.
    pub fn may_name<A: Addr>(by: &A, named: &A) -> bool {
        let Some(named) = Self::of(named) else { return true };
        let by = Self::of(by).unwrap_or(Self::Loopback);
        named > Self::Nowhere && named >= by
    }
}

/// Whom something is charged to: a network if there is one, since ids cost nothing, and else an id.
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
