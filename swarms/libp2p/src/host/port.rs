//! What carries the datagrams of QUIC endpoints: UDP sockets and swarms.

use std::any::Any;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use p2p::{Addr, Counters, Result};
use p2p_swarms::quic::{Port, SwarmPort};
use quinn::AsyncUdpSocket;

use crate::Multiaddr;
use crate::addr::{quic_place, swarm_place};

/// Keeps the synthetic address of a connection over a swarm.
pub(crate) type Lease = Box<dyn Any + Send + Sync>;

/// The carrier of an endpoint's datagrams.
#[derive(Clone, Debug)]
pub(super) enum Carrier {
    Udp(Arc<Port>),
    Swarm(Arc<dyn SwarmCarrier>),
}

/// A [`SwarmPort`] with any type of address, which are texts here.
pub(super) trait SwarmCarrier: fmt::Debug + Send + Sync {
    fn socket(&self) -> Arc<dyn AsyncUdpSocket>;
    fn mtu(&self) -> u16;
    fn local_addrs(&self) -> Vec<String>;
    fn lease(&self, text: &str) -> Result<(SocketAddr, Lease)>;
    fn lease_source(&self, at: SocketAddr) -> Option<(String, Lease)>;
    fn ip_of(&self, at: SocketAddr) -> Option<IpAddr>;
    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters));
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

impl<A: Addr> SwarmCarrier for SwarmPort<A> {
    fn socket(&self) -> Arc<dyn AsyncUdpSocket> {
        SwarmPort::socket(self)
    }

    fn mtu(&self) -> u16 {
        SwarmPort::mtu(self)
    }

    fn local_addrs(&self) -> Vec<String> {
        SwarmPort::local_addrs(self).iter().map(A::to_string).collect()
    }

    fn lease(&self, text: &str) -> Result<(SocketAddr, Lease)> {
        let lease = SwarmPort::lease(self, &self.parse_addr(text)?)?;
        Ok((lease.at(), Box::new(lease)))
    }

    fn lease_source(&self, at: SocketAddr) -> Option<(String, Lease)> {
        let (lease, src) = SwarmPort::lease_source(self, at)?;
        Some((src.to_string(), Box::new(lease)))
    }

    fn ip_of(&self, at: SocketAddr) -> Option<IpAddr> {
        let (_, src) = SwarmPort::lease_source(self, at)?;
        Some(src.socket_addr()?.ip())
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        SwarmPort::visit_counters(self, visit);
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(SwarmPort::close(self))
    }
}

impl Carrier {
    /// Returns the place of a peer, and what keeps its address. A swarm may have forgotten it.
    pub(super) fn place_of(&self, peer: SocketAddr) -> Option<(Multiaddr, Option<Lease>)> {
        match self {
            Self::Udp(_) => Some((quic_place(peer), None)),
            Self::Swarm(swarm) => {
                let (text, lease) = swarm.lease_source(peer)?;
                Some((swarm_place(&text), Some(lease)))
            }
        }
    }

    /// Returns the IP address of a peer, if it has one: over a swarm, if its address there has one.
    pub(super) fn ip_of(&self, peer: SocketAddr) -> Option<IpAddr> {
        match self {
            Self::Udp(_) => Some(peer.ip()),
            Self::Swarm(swarm) => swarm.ip_of(peer),
        }
    }

    /// Frees the address.
    pub(super) async fn release(&self) {
        match self {
            Self::Udp(port) => port.close(),
            Self::Swarm(swarm) => swarm.close().await,
        }
    }
}
