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

/// A network whose addresses probably belong to one owner: an IPv4 /24, an IPv6 /48.
///
/// Addresses of loopback, private and link-local networks have none: nobody on the internet has one, and a
/// network at home or in a laboratory is all in one prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prefix {
    /// The first three bytes of an IPv4 address.
    V4([u8; 3]),
    /// The first six bytes of an IPv6 address.
    V6([u8; 6]),
}

impl Prefix {
    /// The network of an address, if there is an IP address at its bottom, and a public one.
    pub fn of<A: Addr>(addr: &A) -> Option<Self> {
        match addr.socket_addr()?.ip().to_canonical() {
            IpAddr::V4(ip) if ip.is_loopback() || ip.is_private() || ip.is_link_local() => None,
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Some(Self::V4([a, b, c]))
            }
            IpAddr::V6(ip) if ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() => None,
            IpAddr::V6(ip) => {
                let mut network = [0; 6];
                for (byte, of_address) in network.iter_mut().zip(ip.octets()) {
                    *byte = of_address;
                }
                Some(Self::V6(network))
            }
        }
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
