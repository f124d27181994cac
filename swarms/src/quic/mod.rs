//! QUIC over any swarm: large messages, asks, and peers that prove who they are.
//!
//! A tell is one unidirectional stream and an ask one bidirectional stream of a session that is dialled when it is first
//! needed. On UDP QUIC has its own socket ([`QuicSwarm::bind_udp`]); over any other swarm ([`QuicSwarm::new`]) that
//! swarm is its socket, and addresses are leased made-up socket addresses. The bytes are those of the Go library: ALPN
//! `p2p`, a self-signed certificate on each side, [`PeerId`] by SHA3-256.
//!
//! # Security
//! - Required of the caller: an address with the right id, and a key that nobody else has.
//! - Provided: whoever a message comes from proved the key of its [`PeerId`]; a message to `ID@addr` reaches ID or
//!   nobody, who dials shows no certificate to anybody else; secrecy, integrity and forward secrecy of TLS 1.3, against
//!   quantum computers, too, where both ends have X25519MLKEM768; each message at most once.
//! - Not provided: anonymity (whoever dials a node learns its id, eavesdroppers see addresses, sizes and times), and any
//!   promise that a node which dials costs nothing: handshakes are bounded, not free.
//!
//! # Limits
//! All are in [`QuicConfig`]. A message whose reader has no room is dropped here and counted; the sender does not wait for
//! readers. The counters `quic` and `quic-ask` count messages and asks, `quic-handshake` those who dial, and `quic-socket`
//! datagrams of the swarm below, where there is one. A response that comes back makes an ask `sent`.
//!
//! Deliberately absent: streams, order between messages, migration of sessions to other addresses, data before the
//! handshake is done, and resumption.

mod ask;
mod config;
mod crew;
mod leases;
mod medium;
mod node;
mod session;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use p2p::{
    Addr, AskSwarm, BatchError, BatchOutcome, Counters, Error, Headroom, Message, Packet, PeerId, Request,
    Result, SecureSwarm, Swarm,
};
use p2p_formats::x509::{PrivateKey, PublicKey};
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, TokioRuntime,
    TransportConfig, VarInt,
};
use rustls::crypto::CryptoProvider;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Handle;
use tokio::task::coop::consume_budget;

pub use self::config::{Allow, QuicConfig};
use self::crew::Kind;
use self::medium::{Medium, Udp};
use self::node::{Node, take_batch, with_peer};
use self::socket::SwarmSocket;
use self::stream::{Budget, LENGTH};
use self::tls::{Check, Identity};
use crate::inbox::Inbox;
use crate::{KeyAddr, udp};

/// Bytes that a datagram of the swarm below must carry at least (RFC 9000, section 14).
pub const MIN_INNER_MTU: usize = 1200;

/// Bytes of the largest datagram that QUIC makes here: quinn panics where the length of a packet in a handshake exceeds
/// what two bytes of a varint say.
const MAX_DATAGRAM: usize = (1 << 14) - 1;
/// How long `close` waits for peers to learn of it.
const FAREWELL: Duration = Duration::from_secs(1);

/// A node on QUIC; see the [module](self). Dropping it closes it.
pub struct QuicSwarm<A: Addr> {
    node: Arc<Node<A>>,
}

/// What an endpoint stands on.
struct Base<A> {
    medium: Arc<dyn Medium<A>>,
    socket: Arc<dyn quinn::AsyncUdpSocket>,
    /// Bytes of a datagram, where that is known and never changes.
    mtu: Option<u16>,
}

impl<A: Addr> QuicSwarm<A> {
    /// Runs QUIC over `inner`, with the default limits.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an `inner` whose MTU is below [`MIN_INNER_MTU`], for a key that is not of Ed25519, and
    /// outside of a tokio runtime.
    pub fn new(inner: impl Swarm<A>, key: &PrivateKey) -> Result<Self> {
        Self::with_config(inner, key, QuicConfig::default())
    }

    /// Runs QUIC over `inner`, with the limits of `config`.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Invalid`] for limits that cannot work.
    pub fn with_config(inner: impl Swarm<A>, key: &PrivateKey, config: QuicConfig) -> Result<Self> {
        let runtime = runtime()?;
        let mtu = inner.mtu();
        if mtu < MIN_INNER_MTU {
            let reason = format!("QUIC needs an MTU of {MIN_INNER_MTU} bytes below, and there are {mtu}");
            return Err(Error::invalid("inner swarm", reason));
        }
        let socket = Arc::new(SwarmSocket::new(inner, config.max_addrs, runtime));
        let base = Base {
            medium: socket.clone(),
            socket,
            mtu: u16::try_from(mtu.min(MAX_DATAGRAM)).ok(),
        };
        Self::start(base, key, config, tls::crypto())
    }

    fn start(base: Base<A>, key: &PrivateKey, config: QuicConfig, crypto: CryptoProvider) -> Result<Self> {
        config.check()?;
        let identity = Identity::new(key, &config)?;
        let (config, crypto) = (Arc::new(config), Arc::new(crypto));
        let transport = Arc::new(transport(&config, base.mtu)?);
        let handshakes = Arc::new(Counters::new("quic-handshake"));
        let check = Check {
            config: config.clone(),
            expected: None,
            counters: handshakes.clone(),
            refusal: Arc::default(),
        };
        let server = tls::server(&identity, check, crypto.clone())?;
        let server = server_config(server, &config, transport.clone());
        let mut endpoint_config = EndpointConfig::new(Arc::new(identity.reset.clone()));
        endpoint_config.cid_generator(|| Box::new(RandomIds));
        if let Some(mtu) = base.mtu {
            endpoint_config
                .max_udp_payload_size(mtu)
                .map_err(|error| Error::invalid("QUIC configuration", error.to_string()))?;
        }
        let tokio = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new_with_abstract_socket(endpoint_config, Some(server), base.socket, tokio)
            .map_err(Error::io("starting QUIC"))?;
        let node = Arc::new(Node {
            identity,
            crypto,
            transport,
            medium: base.medium,
            endpoint: Mutex::new(Some(endpoint.clone())),
            sessions: Mutex::default(),
            crew: Arc::default(),
            messages: Inbox::new(config.messages),
            requests: Inbox::new(config.asks),
            budget: Arc::new(Budget::new(config.reassembly, None)),
            tells: Arc::new(Counters::new("quic")),
            asks: Arc::new(Counters::new("quic-ask")),
            handshakes,
            accepting: Arc::new(AtomicUsize::new(0)),
            closed: AtomicBool::new(false),
            config,
        });
        let crew = node.crew.clone();
        tokio::spawn(async move { crew.background().await });
        tokio::spawn(node.clone().listen(endpoint));
        Ok(Self { node })
    }

    /// This node's identity.
    pub fn id(&self) -> PeerId {
        self.node.identity.id
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.node.sessions().len()
    }

    /// Ends every session with `peer`, and returns how many there were. Unless [`QuicConfig::allow`] forbids it, the next
    /// message to or from it makes a new one.
    pub fn disconnect(&self, peer: &PeerId) -> usize {
        self.node.end_sessions(with_peer(peer))
    }

    /// Ends every session with a peer that [`QuicConfig::allow`] forbids by now, and returns how many there were.
    pub fn disconnect_forbidden(&self) -> usize {
        self.node
            .end_sessions(|session| !self.node.config.allows(&session.peer.id))
    }
}

impl QuicSwarm<SocketAddr> {
    /// Binds a UDP socket of QUIC's own, with the default limits. Addresses are those of
    /// [`UdpSwarm::bind`](crate::UdpSwarm::bind).
    ///
    /// # Errors
    /// [`Error::Io`] if the system refuses, and as [`new`](Self::new).
    pub fn bind_udp(addr: SocketAddr, key: &PrivateKey) -> Result<Self> {
        Self::bind_udp_with(addr, key, QuicConfig::default())
    }

    /// Binds a UDP socket of QUIC's own, with the limits of `config`.
    ///
    /// # Errors
    /// As [`bind_udp`](Self::bind_udp), and [`Error::Invalid`] for limits that cannot work.
    pub fn bind_udp_with(addr: SocketAddr, key: &PrivateKey, config: QuicConfig) -> Result<Self> {
        Self::start(udp_base(addr)?, key, config, tls::crypto())
    }
}

/// Ids of connections that are random and no more. Quinn's own tell by a key which ones this endpoint made, and so after
/// a restart nobody would hear that their connection is gone.
struct RandomIds;

const ID_LEN: usize = 8;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; ID_LEN]>())
    }
    fn cid_len(&self) -> usize {
        ID_LEN
    }
    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn udp_base(addr: SocketAddr) -> Result<Base<SocketAddr>> {
    runtime()?;
    let bind = || {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(!addr.ip().is_unspecified())?;
        }
        socket.bind(&addr.into())?;
        let socket = std::net::UdpSocket::from(socket);
        let bound = socket.local_addr()?;
        Ok((quinn::Runtime::wrap_udp_socket(&TokioRuntime, socket)?, bound))
    };
    let (socket, bound) = bind().map_err(Error::io("binding a UDP socket for QUIC"))?;
    let medium = Arc::new(Udp {
        local: udp::Local::new(bound),
        reach: udp::Reach::of(bound),
    });
    Ok(Base {
        medium,
        socket,
        mtu: None,
    })
}

fn runtime() -> Result<Handle> {
    Handle::try_current().map_err(|_| Error::invalid("call", "QUIC needs a tokio runtime around it"))
}

fn transport(config: &QuicConfig, mtu: Option<u16>) -> Result<TransportConfig> {
    let idle = IdleTimeout::try_from(config.idle_timeout)
        .map_err(|error| Error::invalid("QUIC configuration", error.to_string()))?;
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(idle))
        .max_concurrent_uni_streams(config.max_streams.into())
        .max_concurrent_bidi_streams(config.max_streams.into())
        .receive_window(config.receive_window.into())
        .stream_receive_window(VarInt::from_u32(config.receive_window))
        .send_window(config.send_window.into())
        // One message after the other, so that the receiver holds few that are unfinished.
        .send_fairness(false)
        .datagram_receive_buffer_size(None);
    if let Some(mtu) = mtu {
        // The swarm below says what it carries, and that never changes: there is nothing to discover. The window begins
        // as RFC 9002, section 7.2 has it.
        let mut cubic = CubicConfig::default();
        let window = u64::from(mtu);
        cubic.initial_window((10 * window).min((2 * window).max(14_720)));
        transport
            .initial_mtu(mtu)
            .min_mtu(mtu)
            .mtu_discovery_config(None)
            .congestion_controller_factory(Arc::new(cubic));
    }
    Ok(transport)
}

fn server_config(
    tls: QuicServerConfig,
    config: &QuicConfig,
    transport: Arc<TransportConfig>,
) -> quinn::ServerConfig {
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(tls));
    server
        .transport_config(transport)
        .migration(false)
        .max_incoming(config.max_handshakes)
        .incoming_buffer_size(16 << 10)
        .incoming_buffer_size_total((config.max_handshakes as u64) << 14);
    server
}

impl<A: Addr> Swarm<KeyAddr<A>> for QuicSwarm<A> {
    async fn tell(&self, dst: &KeyAddr<A>, packet: Packet) -> Result<()> {
        self.node.tell(dst, packet).await
    }

    async fn tell_batch(&self, batch: &mut Vec<(KeyAddr<A>, Packet)>) -> Result<(), BatchError> {
        let mut outcome = BatchOutcome::default();
        for (dst, packet) in batch.drain(..) {
            outcome.record(self.node.tell(&dst, packet).await);
        }
        outcome.finish()
    }

    async fn receive(&self) -> Result<Message<KeyAddr<A>>> {
        consume_budget().await;
        let inbox = &self.node.messages;
        let take = || inbox.try_pop();
        let message = self
            .node
            .crew
            .wait(Kind::Message, take, || !inbox.is_empty())
            .await?;
        self.node.tells.delivered(1);
        Ok(message)
    }

    async fn receive_batch(&self, out: &mut Vec<Message<KeyAddr<A>>>, max: usize) -> Result<usize> {
        if max == 0 {
            return Ok(0);
        }
        consume_budget().await;
        let inbox = &self.node.messages;
        let take = || take_batch(inbox, out, max);
        let taken = self
            .node
            .crew
            .wait(Kind::Message, take, || !inbox.is_empty())
            .await?;
        self.node.tells.delivered(taken);
        Ok(taken)
    }

    fn mtu(&self) -> usize {
        self.node.config.mtu
    }

    fn local_addrs(&self) -> Vec<KeyAddr<A>> {
        let addrs = self.node.medium.local_addrs().into_iter();
        addrs.map(|addr| KeyAddr::new(self.id(), addr)).collect()
    }

    fn parse_addr(&self, text: &str) -> Result<KeyAddr<A>> {
        KeyAddr::parse(text, |inner| self.node.medium.parse_addr(inner))
    }

    async fn close(&self) {
        if let Some(endpoint) = self.node.shut() {
            // Peers that are there hear of it at once; for others there is nothing to wait for.
            let _ = tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await;
        }
        self.node.medium.close().await;
    }

    fn headroom(&self) -> Headroom {
        Headroom::new(LENGTH, 0)
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.node.tells);
        visit(&self.node.asks);
        visit(&self.node.handshakes);
        self.node.medium.visit_counters(visit);
    }
}

impl<A: Addr> AskSwarm<KeyAddr<A>> for QuicSwarm<A> {
    async fn ask(&self, dst: &KeyAddr<A>, request: Packet) -> Result<Packet> {
        self.node.ask(dst, request).await
    }

    async fn receive_ask(&self) -> Result<Request<KeyAddr<A>>> {
        consume_budget().await;
        let inbox = &self.node.requests;
        let take = || inbox.try_pop();
        let request = self.node.crew.wait(Kind::Ask, take, || !inbox.is_empty()).await?;
        self.node.asks.delivered(1);
        Ok(request)
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
        Ok(self.node.session(addr).await?.key.clone())
    }
}

impl<A: Addr> Drop for QuicSwarm<A> {
    fn drop(&mut self) {
        drop(self.node.shut());
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
