//! QUIC over any swarm: long messages, asks, and authenticated peers.
//!
//! A tell is one unidirectional stream, and an ask one bidirectional stream, of a session that is dialled
//! when it is first needed. On UDP, QUIC uses a socket of its own ([`QuicSwarm::bind_udp`]). Over any other
//! swarm ([`QuicSwarm::new`]) that swarm carries its datagrams, and each address is mapped to a synthetic
//! socket address. The wire format is that of the Go library: ALPN `p2p`, a self-signed certificate on each
//! side, [`PeerId`] by SHA3-256.
//!
//! Deliberately absent: streams, ordering between messages, connection migration, 0-RTT data, and resumption.
//!
//! # Security
//! - Required of the caller: an address with the right id, and a private key that no other node has.
//! - Provided: the source of a message has proved the key of its [`PeerId`]; a message to `ID@addr` reaches
//!   ID or no node; a dialling node shows its certificate to no other peer; confidentiality, integrity and
//!   forward secrecy of TLS 1.3, against quantum computers as well where both ends support X25519MLKEM768;
//!   at-most-once delivery.
//! - Not provided: anonymity (a node that dials this one learns its id, and eavesdroppers see addresses,
//!   lengths and times), and free refusal of inbound dials: handshakes are bounded, but each costs work.
//!
//! # Limits
//! All limits are in [`QuicConfig`]. A message that does not fit into the receiver's queue is dropped there
//! and counted; the sender does not wait for readers. The counters `quic` and `quic-ask` count messages and
//! asks, `quic-handshake` inbound dials and datagrams without a session, and `quic-socket` datagrams of the
//! swarm below, where there is one. An ask counts as `sent` once its response arrives.
//!
//! # Cancel safety
//! Cancelling a receive loses nothing. A cancelled tell resets its stream: the peer receives the whole
//! message or nothing. The peer may have acted on the request of a cancelled ask.

mod addr_mapping;
pub mod budget;
mod closing;
mod config;
mod datagram;
mod dials;
mod handshake;
mod mapped_addrs;
mod mtu;
mod node;
pub mod peer_tls;
mod port;
mod quotas;
mod send;
mod sent;
mod serve;
mod session;
mod sessions;
mod socket;
mod stream;
mod swarm_port;
mod task_set;
#[cfg(test)]
mod tests;
mod tls;
mod transport;
mod waiting;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use p2p::{
    Addr, AskSwarm, BatchError, Counters, Headroom, Message, Packet, PeerId, Request, Result, SecureSwarm,
    Swarm,
};
use p2p_formats::x509::{PrivateKey, PublicKey};

pub use self::config::QuicConfig;
pub use self::mtu::{MAX_UDP_DATAGRAM, mtu_discovery, set_mtu};
use self::node::{Node, with_peer};
pub use self::port::Port;
use self::stream::LENGTH;
pub use self::swarm_port::{AddrLease, SwarmPort};
use self::task_set::Kind;
use self::tls::Identity;
use self::transport::Transport;
use crate::KeyAddr;
pub use crate::allowed_peers::Allow;
use crate::allowed_peers::Permits as _;

/// Minimum MTU of the swarm below in bytes (RFC 9000, section 14).
pub const MIN_INNER_MTU: usize = 1200;

/// How long closing a node waits for peers to learn of it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A node on QUIC; see the [module](self).
///
/// Dropping it closes it: its calls end at once, and a task of the runtime does the rest of
/// [`close`](Swarm::close). The address is in use until then, for at most [`QuicConfig::linger`] and a
/// second.
///
/// ```
/// use p2p::{Addr, Swarm};
/// use p2p_formats::x509::PrivateKey;
/// use p2p_swarms::QuicSwarm;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// let node = |seed: u8| {
///     let key = PrivateKey::ed25519(&[seed; 32]);
///     QuicSwarm::bind_udp(([127, 0, 0, 1], 0).into(), &key)
/// };
/// let (alice, bob) = (node(1)?, node(2)?);
/// let to = bob.local_addrs()[0].clone(); // ID@127.0.0.1:PORT
/// let (told, message) = tokio::join!(alice.tell(&to, alice.packet(&[7; 40_000])), bob.receive());
/// told?;
/// let message = message?;
/// assert_eq!((message.src.peer_id(), message.payload.len()), (alice.local_addrs()[0].peer_id(), 40_000));
/// # Ok(())
/// # }
/// ```
pub struct QuicSwarm<A: Addr> {
    node: Arc<Node<A>>,
}

impl<A: Addr> QuicSwarm<A> {
    /// Creates a node over `inner`, with the default limits.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`](p2p::Error::Invalid) if the MTU of `inner` is below [`MIN_INNER_MTU`], for
    /// a key that is not Ed25519, and outside of a tokio runtime.
    pub fn new(inner: impl Swarm<A>, key: &PrivateKey) -> Result<Self> {
        Self::with_config(inner, key, QuicConfig::default())
    }

    /// Creates a node over `inner`, with the limits of `config`.
    ///
    /// # Errors
    /// Returns the errors of [`new`](Self::new), and [`Error::Invalid`](p2p::Error::Invalid) for limits that
    /// cannot work.
    pub fn with_config(inner: impl Swarm<A>, key: &PrivateKey, config: QuicConfig) -> Result<Self> {
        let transport = Transport::swarm(inner, &config)?;
        Self::start(&transport, key, config)
    }

    fn start(transport: &Transport<A>, key: &PrivateKey, config: QuicConfig) -> Result<Self> {
        let identity = Identity::new(key, &config)?;
        let node = Node::start(transport, identity, config, tls::crypto())?;
        Ok(Self { node })
    }

    /// Returns this node's identity.
    pub fn id(&self) -> PeerId {
        self.node.identity.id
    }

    /// Returns the number of sessions.
    pub fn sessions(&self) -> usize {
        self.node.sessions().len()
    }

    /// Closes every session with `peer`, and returns their number. The next message to or from it establishes
    /// a new one, unless [`QuicConfig::allow`] forbids it.
    pub fn disconnect(&self, peer: &PeerId) -> usize {
        self.node.end_sessions(with_peer(peer))
    }

    /// Closes every session with a peer that [`QuicConfig::allow`] currently forbids, and returns their
    /// number.
    pub fn disconnect_forbidden(&self) -> usize {
        self.node
            .end_sessions(|session| !self.node.config.allow.permits(&session.peer.id))
    }
}

impl QuicSwarm<SocketAddr> {
    /// Binds a UDP socket for QUIC, with the default limits. Addresses are those of
    /// [`UdpSwarm::bind`](crate::UdpSwarm::bind).
    ///
    /// # Errors
    /// Returns [`Error::Io`](p2p::Error::Io) if the operating system refuses, and the errors of
    /// [`new`](Self::new).
    pub fn bind_udp(addr: SocketAddr, key: &PrivateKey) -> Result<Self> {
        Self::bind_udp_with(addr, key, QuicConfig::default())
    }

    /// Binds a UDP socket for QUIC, with the limits of `config`.
    ///
    /// # Errors
    /// Returns the errors of [`bind_udp`](Self::bind_udp), and [`Error::Invalid`](p2p::Error::Invalid) for
    /// limits that cannot work.
    pub fn bind_udp_with(addr: SocketAddr, key: &PrivateKey, config: QuicConfig) -> Result<Self> {
        Self::start(&Transport::udp(addr)?, key, config)
    }
}

impl<A: Addr> Swarm<KeyAddr<A>> for QuicSwarm<A> {
    async fn tell(&self, dst: &KeyAddr<A>, packet: Packet) -> Result<()> {
        self.node.tell(dst, packet).await
    }

    async fn tell_batch(&self, batch: &mut Vec<(KeyAddr<A>, Packet)>) -> Result<(), BatchError> {
        self.node.tell_batch(batch).await
    }

    async fn receive(&self) -> Result<Message<KeyAddr<A>>> {
        let Node {
            tasks,
            messages,
            tells,
            ..
        } = &*self.node;
        messages.receive(tasks.driver(), Kind::Message, tells).await
    }

    async fn receive_batch(&self, out: &mut Vec<Message<KeyAddr<A>>>, max: usize) -> Result<usize> {
        let Node {
            tasks,
            messages,
            tells,
            ..
        } = &*self.node;
        messages
            .receive_batch(tasks.driver(), Kind::Message, tells, out, max)
            .await
    }

    fn mtu(&self) -> usize {
        self.node.config.mtu
    }

    fn local_addrs(&self) -> Vec<KeyAddr<A>> {
        let addrs = self.node.mapping.local_addrs().into_iter();
        addrs.map(|addr| KeyAddr::new(self.id(), addr)).collect()
    }

    fn parse_addr(&self, text: &str) -> Result<KeyAddr<A>> {
        KeyAddr::parse(text, |inner| self.node.mapping.parse_addr(inner))
    }

    /// Closes the node; see [`Swarm::close`]. Waits for acknowledgement of sent messages and responses for up
    /// to [`QuicConfig::linger`], and up to a further second for peers to learn of the end.
    async fn close(&self) {
        self.node.closes_below.store(true, SeqCst);
        self.node.close();
        // The node's runtime may no longer be driven; that must not block the caller.
        let limit = self.node.config.linger.saturating_add(2 * CLOSE_TIMEOUT);
        let _ = tokio::time::timeout(limit, self.node.ended()).await;
        self.node.mapping.close().await;
    }

    fn headroom(&self) -> Headroom {
        Headroom::new(LENGTH, 0)
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.node.tells);
        visit(&self.node.asks);
        visit(&self.node.handshakes);
        self.node.mapping.visit_counters(visit);
    }
}

impl<A: Addr> AskSwarm<KeyAddr<A>> for QuicSwarm<A> {
    async fn ask(&self, dst: &KeyAddr<A>, request: Packet) -> Result<Packet> {
        self.node.ask(dst, request).await
    }

    async fn receive_ask(&self) -> Result<Request<KeyAddr<A>>> {
        let Node {
            tasks,
            requests,
            asks,
            ..
        } = &*self.node;
        requests.receive(tasks.driver(), Kind::Ask, asks).await
    }
}

impl<A: Addr> SecureSwarm<KeyAddr<A>> for QuicSwarm<A> {
    type PublicKey = PublicKey;

    fn public_key(&self) -> PublicKey {
        self.node.identity.key.clone()
    }

    async fn lookup_public_key(&self, addr: &KeyAddr<A>) -> Result<PublicKey> {
        if addr.id == self.id() {
            self.node.check_open()?;
            return Ok(self.public_key());
        }
        let session = self.node.unless_closed(self.node.session(addr)).await?;
        Ok(session.key.clone())
    }
}

impl<A: Addr> Drop for QuicSwarm<A> {
    fn drop(&mut self) {
        self.node.close();
    }
}

impl<A: Addr> fmt::Debug for QuicSwarm<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicSwarm")
            .field("id", &self.id())
            .field("sessions", &self.sessions())
            .finish_non_exhaustive()
    }
}
