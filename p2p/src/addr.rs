//! The address of a node.

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::net::SocketAddr;

use crate::PeerId;

/// The address of a node in one swarm.
///
/// [`Swarm::parse_addr`](crate::Swarm::parse_addr) parses the text that its `Display` writes.
pub trait Addr: Clone + Eq + Ord + Hash + Debug + Display + Send + Sync + 'static {
    /// Returns the identity that this address names, in this layer or in one below, if it names any.
    fn peer_id(&self) -> Option<PeerId> {
        None
    }

    /// Returns the IP address and port of the base, if it has one.
    fn socket_addr(&self) -> Option<SocketAddr> {
        None
    }
}

impl Addr for SocketAddr {
    fn socket_addr(&self) -> Option<SocketAddr> {
        Some(*self)
    }
}

impl Addr for PeerId {
    fn peer_id(&self) -> Option<PeerId> {
        Some(*self)
    }
}
