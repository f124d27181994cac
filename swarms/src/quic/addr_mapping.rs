//! Addresses of the transport below QUIC, a UDP socket or any swarm, and the socket addresses that quinn uses
//! for them.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use p2p::{Addr, Counters, Result};

use super::port::Port;
use crate::udp;

/// Maps between addresses of the transport below and socket addresses.
pub(super) trait AddrMapping<A>: Send + Sync {
    /// Returns the socket address of `addr`, pinned until [`unpin`](Self::unpin).
    fn pin(&self, addr: &A) -> Result<SocketAddr>;
    /// Returns the address that `at` stands for, and the local address that it sent to; pinned as well.
    fn pin_source(&self, at: SocketAddr, local: Option<std::net::IpAddr>) -> Option<(A, A)>;
    fn unpin(&self, at: SocketAddr);
    fn local_addrs(&self) -> Vec<A>;
    fn parse_addr(&self, text: &str) -> Result<A>;
    /// Frees QUIC's own socket, if there is one. A swarm below may have other users.
    fn release(&self);
    /// Closes the transport below.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters));
}

/// UDP on a socket of QUIC's own, whose addresses need no mapping.
pub(super) struct Udp {
    pub(super) port: Arc<Port>,
    pub(super) local: udp::Local,
    pub(super) reach: udp::Reach,
}

impl AddrMapping<SocketAddr> for Udp {
    fn pin(&self, addr: &SocketAddr) -> Result<SocketAddr> {
        self.reach.check(addr)
    }
    fn pin_source(
        &self,
        at: SocketAddr,
        local: Option<std::net::IpAddr>,
    ) -> Option<(SocketAddr, SocketAddr)> {
        Some((udp::canonical(at), self.local.dst(local)))
    }
    fn unpin(&self, _: SocketAddr) {}
    fn local_addrs(&self) -> Vec<SocketAddr> {
        self.local.addrs()
    }
    fn parse_addr(&self, text: &str) -> Result<SocketAddr> {
        udp::parse_addr(text)
    }
    fn release(&self) {
        self.port.close();
    }
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.release();
        Box::pin(async {})
    }
    fn visit_counters(&self, _: &mut dyn FnMut(&Counters)) {}
}

/// A socket address in use. Dropping it unpins the address.
pub(super) struct Pinned<A: Addr> {
    mapping: Arc<dyn AddrMapping<A>>,
    pub(super) at: SocketAddr,
}

impl<A: Addr> Pinned<A> {
    pub(super) fn addr(mapping: &Arc<dyn AddrMapping<A>>, addr: &A) -> Result<Self> {
        let at = mapping.pin(addr)?;
        let mapping = mapping.clone();
        Ok(Self { mapping, at })
    }

    pub(super) fn source(
        mapping: &Arc<dyn AddrMapping<A>>,
        at: SocketAddr,
        local: Option<std::net::IpAddr>,
    ) -> Option<(Self, A, A)> {
        let (src, dst) = mapping.pin_source(at, local)?;
        let mapping = mapping.clone();
        Some((Self { mapping, at }, src, dst))
    }
}

impl<A: Addr> Drop for Pinned<A> {
    fn drop(&mut self) {
        self.mapping.unpin(self.at);
    }
}
