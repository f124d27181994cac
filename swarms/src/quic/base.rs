//! What an endpoint stands on, and how it is set up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use p2p::{Counters, Error, Reason, Result, Swarm};
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use quinn_proto::InvalidCid;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Handle;

use super::medium::{Medium, Udp};
use super::port::Port;
use super::socket::SwarmSocket;
use super::tls::Identity;
use super::{MIN_INNER_MTU, QuicConfig};
use crate::udp;

/// Bytes of the largest datagram that QUIC makes here: quinn panics where the length of a packet in a handshake exceeds
/// what two bytes of a varint say.
const MAX_DATAGRAM: usize = (1 << 14) - 1;

/// Bytes that the system is asked to hold for each direction of a socket.
const SOCKET_BUFFER: usize = 2 << 20;

/// First packets of peers that dial, which wait to be looked at, for each handshake that may be under way.
pub(super) const INCOMING: usize = 4;

/// The round trip that is assumed before one was measured. First packets are sent again after three times as long: a third
/// of what RFC 9002 has, so that a dial survives several losses within the time of a handshake.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// A socket, of the system's or made of a swarm.
pub(super) struct Base<A> {
    pub(super) medium: Arc<dyn Medium<A>>,
    socket: Arc<dyn quinn::AsyncUdpSocket>,
    /// Bytes of a datagram, where that is known and never changes.
    mtu: Option<u16>,
}

impl<A: p2p::Addr> Base<A> {
    pub(super) fn swarm(inner: impl Swarm<A>, config: &QuicConfig) -> Result<Self> {
        let runtime = runtime()?;
        let mtu = inner.mtu();
        if mtu < MIN_INNER_MTU {
            let reason = format!("QUIC needs an MTU of {MIN_INNER_MTU} bytes below, and there are {mtu}");
            return Err(Error::invalid("inner swarm", reason));
        }
        let socket = Arc::new(SwarmSocket::new(inner, config.max_addrs, runtime));
        Ok(Self {
            medium: socket.clone(),
            socket,
            mtu: u16::try_from(mtu.min(MAX_DATAGRAM)).ok(),
        })
    }

    /// Starts an endpoint, whose sessions are as this `transport` says.
    pub(super) fn endpoint(
        &self,
        identity: &Identity,
        tls: QuicServerConfig,
        config: &QuicConfig,
        transport: Arc<TransportConfig>,
        handshakes: &Arc<Counters>,
    ) -> Result<Endpoint> {
        let mut endpoint = EndpointConfig::new(Arc::new(identity.reset.clone()));
        let handshakes = handshakes.clone();
        endpoint.cid_generator(move || Box::new(RandomIds(handshakes.clone())));
        if let Some(mtu) = self.mtu {
            let checked = endpoint.max_udp_payload_size(mtu);
            checked.map_err(|error| Error::invalid("QUIC configuration", error.to_string()))?;
        }
        let mut server = ServerConfig::with_crypto(Arc::new(tls));
        server
            .transport_config(transport)
            .migration(false)
            // First packets that wait to be looked at. Where hundreds of peers dial at the same time, each that finds no
            // place here dials again a second later.
            .max_incoming(INCOMING * config.max_handshakes)
            .incoming_buffer_size(16 << 10)
            .incoming_buffer_size_total((config.max_handshakes as u64) << 14);
        let (socket, tokio) = (self.socket.clone(), Arc::new(TokioRuntime));
        let endpoint = Endpoint::new_with_abstract_socket(endpoint, Some(server), socket, tokio);
        endpoint.map_err(Error::io("starting QUIC"))
    }

    pub(super) fn transport(&self, config: &QuicConfig) -> Result<TransportConfig> {
        let idle = IdleTimeout::try_from(config.idle_timeout)
            .map_err(|error| Error::invalid("QUIC configuration", error.to_string()))?;
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(Some(idle))
            .initial_rtt(INITIAL_RTT)
            .max_concurrent_uni_streams(config.max_streams.into())
            .max_concurrent_bidi_streams(config.max_streams.into())
            .receive_window(config.receive_window.into())
            .stream_receive_window(VarInt::from_u32(config.receive_window))
            .send_window(config.send_window.into())
            // One message after the other, so that the receiver holds few that are unfinished.
            .send_fairness(false)
            .datagram_receive_buffer_size(None);
        if let Some(mtu) = self.mtu {
            // The swarm below says what it carries, and that never changes: there is nothing to discover. The window
            // begins as RFC 9002, section 7.2 has it.
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
}

impl Base<SocketAddr> {
    pub(super) fn udp(addr: SocketAddr) -> Result<Self> {
        runtime()?;
        let bind = || {
            let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
            if addr.is_ipv6() {
                socket.set_only_v6(!addr.ip().is_unspecified())?;
            }
            // Sizes are wishes. What the system has by default loses most of the first packets where hundreds of peers
            // dial at the same time.
            let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
            let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
            socket.bind(&addr.into())?;
            Port::new(std::net::UdpSocket::from(socket))
        };
        let port = bind().map_err(Error::io("binding a UDP socket for QUIC"))?;
        let bound = port.local();
        let port = Arc::new(port);
        let medium = Arc::new(Udp {
            port: port.clone(),
            local: udp::Local::new(bound),
            reach: udp::Reach::of(bound),
        });
        Ok(Self {
            medium,
            socket: port,
            mtu: None,
        })
    }
}

pub(super) fn runtime() -> Result<Handle> {
    Handle::try_current().map_err(|_| Error::invalid("call", "QUIC needs a tokio runtime around it"))
}

/// Ids of connections that are random and no more. Quinn's own tell by a key which ones this endpoint made, and so after
/// a restart nobody would hear that their connection is gone.
struct RandomIds(Arc<Counters>);

const ID_LEN: usize = 8;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; ID_LEN]>())
    }
    /// Called for a datagram of a connection that is not known, which may be told so. It is counted here, as QUIC's library
    /// says nothing of it.
    fn validate(&self, _: &ConnectionId) -> Result<(), InvalidCid> {
        self.0.received(1);
        self.0.dropped(Reason::NoPeer);
        Ok(())
    }
    fn cid_len(&self) -> usize {
        ID_LEN
    }
    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
