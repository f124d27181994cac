//! What a swarm sends to.

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::net::SocketAddr;

use crate::PeerId;

/// An address of a node in one swarm.
///
/// Its `Display` is the text that [`Swarm::parse_addr`](crate::Swarm::parse_addr) takes back.
pub trait Addr: Clone + Eq + Ord + Hash + Debug + Display + Send + Sync + 'static {
    /// The identity that this address names, here or in a layer below, if it names one.
    fn peer_id(&self) -> Option<PeerId> {
        None
    }

    /// The IP address and port at the bottom, if that is what is there.
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
