//! A swarm as the socket of a QUIC endpoint of another crate.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use p2p::{Addr, Counters, Error, Result, Swarm};
use quinn::AsyncUdpSocket;

use super::MIN_INNER_MTU;
use super::addr_mapping::{AddrMapping, Pinned};
use super::socket::SwarmSocket;
use super::transport::{MAX_DATAGRAM, runtime};

/// A swarm whose messages are the datagrams of a QUIC endpoint.
///
/// quinn knows socket addresses only, so each address of the swarm is mapped to a synthetic one, which an
/// [`AddrLease`] keeps.
///
/// # Limits
/// At most as many addresses are mapped as the caller permits. Those without a lease that were not used for
/// longest make room for new ones.
pub struct SwarmPort<A: Addr> {
    mapping: Arc<dyn AddrMapping<A>>,
    socket: Arc<dyn AsyncUdpSocket>,
    mtu: u16,
}

impl<A: Addr> SwarmPort<A> {
    /// Wraps a swarm; up to `max_addrs` of its addresses are mapped at the same time.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the MTU of the swarm is below [`MIN_INNER_MTU`], and outside of a tokio runtime.
    pub fn new(inner: impl Swarm<A>, max_addrs: usize) -> Result<Self> {
        let mtu = inner.mtu();
        if mtu < MIN_INNER_MTU {
            let reason =
                format!("QUIC needs an MTU of at least {MIN_INNER_MTU} bytes below, and it is {mtu}");
            return Err(Error::invalid("inner swarm", reason));
        }
        let socket = Arc::new(SwarmSocket::new(inner, max_addrs, runtime()?));
        Ok(Self {
            mapping: socket.clone(),
            socket,
            mtu: u16::try_from(mtu.min(MAX_DATAGRAM)).unwrap_or(u16::MAX),
        })
    }

    /// Returns the socket for [`quinn::Endpoint::new_with_abstract_socket`].
    pub fn socket(&self) -> Arc<dyn AsyncUdpSocket> {
        self.socket.clone()
    }

    /// Returns the length of a datagram in bytes, which never changes.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Returns the synthetic address of `addr`, for a dial.
    ///
    /// # Errors
    /// [`Error::Limit`] if all mapped addresses are leased.
    pub fn lease(&self, addr: &A) -> Result<AddrLease<A>> {
        Pinned::addr(&self.mapping, addr).map(AddrLease)
    }

    /// Returns the address that a synthetic one stands for, while it is mapped.
    pub fn lease_source(&self, at: SocketAddr) -> Option<(AddrLease<A>, A)> {
        let (lease, src, _) = Pinned::source(&self.mapping, at, None)?;
        Some((AddrLease(lease), src))
    }

    /// Returns the addresses of this node in the swarm.
    pub fn local_addrs(&self) -> Vec<A> {
        self.mapping.local_addrs()
    }

    /// Parses an address of the swarm.
    ///
    /// # Errors
    /// [`Error::InvalidAddr`], as the swarm does.
    pub fn parse_addr(&self, text: &str) -> Result<A> {
        self.mapping.parse_addr(text)
    }

    /// Calls `visit` with the counters of datagrams, and of the swarm below.
    pub fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        self.mapping.visit_counters(visit);
    }

    /// Closes the swarm.
    pub async fn close(&self) {
        self.mapping.close().await;
    }
}

impl<A: Addr> fmt::Debug for SwarmPort<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwarmPort")
            .field("mtu", &self.mtu)
            .finish_non_exhaustive()
    }
}

/// A mapped address in use. Dropping it permits another address to take its place.
pub struct AddrLease<A: Addr>(Pinned<A>);

impl<A: Addr> AddrLease<A> {
    /// Returns the synthetic address.
    pub fn at(&self) -> SocketAddr {
        self.0.at
    }
}

impl<A: Addr> fmt::Debug for AddrLease<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AddrLease").field(&self.0.at).finish()
    }
}
