//! What is below QUIC: a socket of the system's own, or any swarm.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use p2p::{Addr, Counters, Result};

use super::port::Port;
use crate::udp;

/// How addresses of the swarm below and socket addresses belong together.
pub(super) trait Medium<A>: Send + Sync {
    /// The socket address of `addr`, pinned until [`unpin`](Self::unpin).
    fn pin(&self, addr: &A) -> Result<SocketAddr>;
    /// Whose socket address `at` is, and which of our addresses they sent to; pinned, too.
    fn pin_source(&self, at: SocketAddr, local: Option<std::net::IpAddr>) -> Option<(A, A)>;
    fn unpin(&self, at: SocketAddr);
    fn local_addrs(&self) -> Vec<A>;
    fn parse_addr(&self, text: &str) -> Result<A>;
    /// Frees a socket of QUIC's own, if that is what is below. A swarm below may have other owners.
    fn release(&self);
    /// Frees what is below.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters));
}

/// UDP on quinn's own socket, whose addresses stand for themselves.
pub(super) struct Udp {
    pub(super) port: Arc<Port>,
    pub(super) local: udp::Local,
    pub(super) reach: udp::Reach,
}

impl Medium<SocketAddr> for Udp {
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

/// A socket address that is in use, and the two ends that it stands for. Dropping it gives it back.
pub(super) struct Pinned<A: Addr> {
    medium: Arc<dyn Medium<A>>,
    pub(super) at: SocketAddr,
}

impl<A: Addr> Pinned<A> {
    pub(super) fn addr(medium: &Arc<dyn Medium<A>>, addr: &A) -> Result<Self> {
        let at = medium.pin(addr)?;
        let medium = medium.clone();
        Ok(Self { medium, at })
    }

    pub(super) fn source(
        medium: &Arc<dyn Medium<A>>,
        at: SocketAddr,
        local: Option<std::net::IpAddr>,
    ) -> Option<(Self, A, A)> {
        let (src, dst) = medium.pin_source(at, local)?;
        let medium = medium.clone();
        Some((Self { medium, at }, src, dst))
    }
}

impl<A: Addr> Drop for Pinned<A> {
    fn drop(&mut self) {
        self.medium.unpin(self.at);
    }
}
