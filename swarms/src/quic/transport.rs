//! The transport below an endpoint, and the endpoint's configuration.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use p2p::{Counters, DropReason, Error, Result, Swarm};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use quinn_proto::InvalidCid;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Handle;

use super::addr_mapping::{AddrMapping, Udp};
use super::mtu;
use super::port::Port;
use super::socket::SwarmSocket;
use super::tls::Identity;
use super::{MIN_INNER_MTU, QuicConfig};
use crate::udp;

/// Maximum length of a datagram: quinn panics if the length of a handshake packet does not fit into a
/// two-byte varint.
pub(super) const MAX_DATAGRAM: usize = (1 << 14) - 1;

/// Requested kernel buffer size for each direction of a socket, in bytes.
const SOCKET_BUFFER: usize = 2 << 20;

/// Maximum number of initial packets of inbound dials that wait, for each permitted handshake.
pub(super) const INCOMING: usize = 4;

/// The assumed round-trip time before one was measured. Initial packets are retransmitted after three times
/// as long: a third of the value in RFC 9002, so that a dial survives several losses within the handshake
/// timeout.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// A socket, either of the operating system or on top of a swarm.
pub(super) struct Transport<A> {
    pub(super) mapping: Arc<dyn AddrMapping<A>>,
    socket: Arc<dyn quinn::AsyncUdpSocket>,
    /// Length of a datagram, if it is known and never changes.
    mtu: Option<u16>,
}

impl<A: p2p::Addr> Transport<A> {
    pub(super) fn swarm(inner: impl Swarm<A>, config: &QuicConfig) -> Result<Self> {
        let runtime = runtime()?;
        let mtu = inner.mtu();
        if mtu < MIN_INNER_MTU {
            let reason =
                format!("QUIC needs an MTU of at least {MIN_INNER_MTU} bytes below, and it is {mtu}");
            return Err(Error::invalid("inner swarm", reason));
        }
        let socket = Arc::new(SwarmSocket::new(inner, config.max_addrs, runtime));
        Ok(Self {
            mapping: socket.clone(),
            socket,
            mtu: u16::try_from(mtu.min(MAX_DATAGRAM)).ok(),
        })
    }

    /// Starts an endpoint whose sessions use this `transport_config` configuration.
    pub(super) fn endpoint(
        &self,
        identity: &Identity,
        tls: QuicServerConfig,
        config: &QuicConfig,
        transport_config: Arc<TransportConfig>,
        handshakes: &Arc<Counters>,
    ) -> Result<Endpoint> {
        let mut endpoint = EndpointConfig::new(Arc::new(ResetKey(identity.reset.clone())));
        let handshakes = handshakes.clone();
        endpoint.cid_generator(move || Box::new(RandomIds(handshakes.clone())));
        let checked = endpoint.max_udp_payload_size(self.mtu.unwrap_or(mtu::MAX_UDP_DATAGRAM));
        checked.map_err(|error| Error::invalid("QUIC configuration", error.to_string()))?;
        let mut server = ServerConfig::with_crypto(Arc::new(tls));
        server
            .transport_config(transport_config)
            .migration(false)
            // Initial packets that wait. If hundreds of peers dial at the same time, those that find no room
            // retry a second later.
            .max_incoming(INCOMING * config.max_handshakes)
            .incoming_buffer_size(16 << 10)
            .incoming_buffer_size_total((config.max_handshakes as u64) << 14);
        let (socket, tokio) = (self.socket.clone(), Arc::new(TokioRuntime));
        let endpoint = Endpoint::new_with_abstract_socket(endpoint, Some(server), socket, tokio);
        endpoint.map_err(Error::io("starting QUIC"))
    }

    pub(super) fn transport_config(&self, config: &QuicConfig) -> Result<TransportConfig> {
        let idle = IdleTimeout::try_from(config.idle_timeout)
            .map_err(|error| Error::invalid("QUIC configuration", error.to_string()))?;
        let mut transport_config = TransportConfig::default();
        transport_config
            .max_idle_timeout(Some(idle))
            .initial_rtt(INITIAL_RTT)
            .max_concurrent_uni_streams(config.max_streams.into())
            .max_concurrent_bidi_streams(config.max_streams.into())
            .receive_window(config.receive_window.into())
            .stream_receive_window(VarInt::from_u32(config.receive_window))
            .send_window(config.send_window.into())
            // One message after the other, so that the receiver holds few incomplete ones.
            .send_fairness(false)
            .mtu_discovery_config(Some(mtu::mtu_discovery()))
            .datagram_receive_buffer_size(None);
        if let Some(mtu) = self.mtu {
            mtu::set_mtu(&mut transport_config, mtu);
        }
        Ok(transport_config)
    }
}

impl Transport<SocketAddr> {
    pub(super) fn udp(addr: SocketAddr) -> Result<Self> {
        runtime()?;
        let bind = || {
            let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
            if addr.is_ipv6() {
                socket.set_only_v6(!addr.ip().is_unspecified())?;
            }
            // Buffer sizes are requests. With the system's defaults most of the initial packets are lost if
            // hundreds of peers dial at the same time.
            let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
            let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
            socket.bind(&addr.into())?;
            Port::new(std::net::UdpSocket::from(socket))
        };
        let port = bind().map_err(Error::io("binding a UDP socket for QUIC"))?;
        let bound = port.local();
        let port = Arc::new(port);
        let mapping = Arc::new(Udp {
            port: port.clone(),
            local: udp::Local::new(bound),
            reach: udp::Reach::of(bound),
        });
        Ok(Self {
            mapping,
            socket: port,
            mtu: None,
        })
    }
}

pub(super) fn runtime() -> Result<Handle> {
    Handle::try_current().map_err(|_| Error::invalid("call", "QUIC needs a tokio runtime"))
}

/// The key of stateless resets. quinn implements its trait for the key of one library, which is ring's wherever
/// another crate of the program selects that.
struct ResetKey(hmac::Key);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        for (out, byte) in out.iter_mut().zip(hmac::sign(&self.0, data).as_ref()) {
            *out = *byte;
        }
    }

    fn signature_len(&self) -> usize {
        self.0.algorithm().digest_algorithm().output_len()
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        hmac::verify(&self.0, data, signature).map_err(|_| CryptoError)
    }
}

/// Random connection ids. Quinn's own generator recognizes ids of this endpoint by a key, so after a restart
/// peers would not receive stateless resets.
struct RandomIds(Arc<Counters>);

const ID_LEN: usize = 8;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; ID_LEN]>())
    }
    /// Called for a datagram of an unknown connection, which may be answered with a stateless reset. It is
    /// counted here, since quinn does not report it.
    fn validate(&self, _: &ConnectionId) -> Result<(), InvalidCid> {
        self.0.add_received(1);
        self.0.add_dropped(DropReason::NoPeer);
        Ok(())
    }
    fn cid_len(&self) -> usize {
        ID_LEN
    }
    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
