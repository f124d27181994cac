//! QUIC of a host (libp2p specification, quic): endpoints that listen and dial.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use p2p::{Counters, Error, Result};
use p2p_protocols::dial::Failure;
use p2p_swarms::quic::{MAX_UDP_DATAGRAM, Port, mtu_discovery, set_mtu};
use quinn::{
    AsyncUdpSocket, ClientConfig, Endpoint, EndpointConfig, IdleTimeout, Incoming, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use rustls::pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};

use super::engines::{Admitted, Failed};
use super::events::HostEvent;
use super::listen::Listening;
use super::port::{Carrier, SwarmCarrier};
use super::shared::Shared;
use crate::addr::{quic_place, swarm_place};
use crate::config::HostConfig;
use crate::connection::{Acceptor, Opener, Transport};
use crate::packets;
use crate::tls::{OtherPeerFlag, peer_key};

/// Streams that a peer may have open on one connection.
const STREAMS: u32 = 256;
/// Receive windows of a stream and of a connection in bytes, those of other implementations.
const STREAM_WINDOW: u32 = 10 << 20;
const WINDOW: u32 = 15 << 20;
/// Unacknowledged bytes of a connection.
const SEND_WINDOW: u64 = 15 << 20;
/// Requested kernel buffer size for each direction of a socket, in bytes.
const SOCKET_BUFFER: usize = 2 << 20;
/// The name that rustls requires, and that is not sent.
const SERVER_NAME: &str = "libp2p";

/// An endpoint, and its carrier, which is freed while handles of streams still refer to it.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    endpoint: Endpoint,
    carrier: Carrier,
}

impl Bound {
    /// Waits until the connections of a closed endpoint have told their peers.
    pub(super) async fn wait_idle(&self) {
        self.endpoint.wait_idle().await;
    }

    /// Frees the address. Idempotent.
    pub(super) async fn release(&self) {
        self.carrier.release().await;
    }
}

/// The endpoints of a host: those that listen, and one of each family that only dials.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    all: Vec<Bound>,
    /// Kept after the end, for their counters.
    swarms: Vec<Arc<dyn SwarmCarrier>>,
    is_closed: bool,
}

impl Endpoints {
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        for bound in &self.all {
            bound.endpoint.close(VarInt::from_u32(0), b"");
        }
    }

    pub(super) fn all(&self) -> Vec<Bound> {
        self.all.clone()
    }

    pub(super) fn take(&mut self) -> Vec<Bound> {
        std::mem::take(&mut self.all)
    }

    /// Adds an endpoint, unless the host is closed.
    fn add(&mut self, bound: &Bound) -> Result<()> {
        if self.is_closed {
            bound.endpoint.close(VarInt::from_u32(0), b"");
            return Err(Error::Closed);
        }
        if let Carrier::Swarm(swarm) = &bound.carrier {
            self.swarms.push(swarm.clone());
        }
        self.all.push(bound.clone());
        Ok(())
    }

    /// Returns an endpoint from which an address can be reached.
    fn for_dialling(&self, to: SocketAddr) -> Option<Bound> {
        let reaches = |bound: &&Bound| {
            let Carrier::Udp(port) = &bound.carrier else {
                return false;
            };
            let local = port.local();
            let is_everywhere = local.ip().is_unspecified();
            local.is_ipv4() == to.is_ipv4()
                && (is_everywhere || local.ip().is_loopback() == to.ip().is_loopback())
        };
        self.all.iter().find(reaches).cloned()
    }

    /// Returns the endpoints over swarms.
    fn over_swarms(&self) -> Vec<(Bound, Arc<dyn SwarmCarrier>)> {
        let swarms = self.all.iter().filter_map(|bound| match &bound.carrier {
            Carrier::Udp(_) => None,
            Carrier::Swarm(swarm) => Some((bound.clone(), swarm.clone())),
        });
        swarms.collect()
    }
}

impl Shared {
    /// Calls `visit` with the counters of datagrams over swarms, and of these swarms.
    pub(crate) fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        let swarms = self.endpoints.lock().swarms.clone();
        for swarm in swarms {
            swarm.visit_counters(visit);
        }
    }

    /// Listens at a socket address, and accepts connections in a task.
    pub(super) fn listen_quic(self: &Arc<Self>, addr: SocketAddr) -> Result<()> {
        let port = udp(addr)?;
        let bound = port.local();
        self.listen_on(Carrier::Udp(port))?;
        self.listening.lock().push(Listening::Quic(bound));
        self.events.send(HostEvent::Listening(quic_place(bound)));
        Ok(())
    }

    /// Listens and dials over a swarm.
    pub(super) fn listen_swarm(self: &Arc<Self>, swarm: Arc<dyn SwarmCarrier>) -> Result<()> {
        self.listen_on(Carrier::Swarm(swarm.clone()))?;
        for text in swarm.local_addrs() {
            self.events.send(HostEvent::Listening(swarm_place(&text)));
        }
        self.listening.lock().push(Listening::Swarm(swarm));
        Ok(())
    }

    fn listen_on(self: &Arc<Self>, carrier: Carrier) -> Result<()> {
        let mut server = ServerConfig::with_crypto(Arc::new(self.upgrader.tls.quic_server()?));
        server
            .transport_config(transport(&self.config, &carrier)?)
            .max_incoming(2 * self.config.max_handshakes)
            .incoming_buffer_size(16 << 10)
            .incoming_buffer_size_total((self.config.max_handshakes as u64) << 14);
        let bound = self.endpoint(carrier, Some(server))?;
        let shared = self.clone();
        self.spawn(async move {
            while let Some(incoming) = bound.endpoint.accept().await {
                shared.accept_quic(incoming, &bound.carrier);
            }
        });
        Ok(())
    }

    fn endpoint(&self, carrier: Carrier, server: Option<ServerConfig>) -> Result<Bound> {
        let mut config = EndpointConfig::default();
        let socket: Arc<dyn AsyncUdpSocket> = match &carrier {
            Carrier::Udp(port) => port.clone(),
            Carrier::Swarm(swarm) => swarm.socket(),
        };
        let longest = match &carrier {
            Carrier::Udp(_) => MAX_UDP_DATAGRAM,
            Carrier::Swarm(swarm) => swarm.mtu(),
        };
        let checked = config.max_udp_payload_size(longest);
        checked.map_err(|error| Error::invalid("QUIC configuration", error.to_string()))?;
        let endpoint = Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime));
        let endpoint = endpoint.map_err(Error::io("starting QUIC"))?;
        let bound = Bound { endpoint, carrier };
        self.endpoints.lock().add(&bound)?;
        Ok(bound)
    }

    fn accept_quic(self: &Arc<Self>, incoming: Incoming, carrier: &Carrier) {
        let remote = incoming.remote_address();
        let ip = carrier.ip_of(remote);
        if !incoming.remote_address_validated() && incoming.may_retry() && self.is_crowded(ip) {
            // An address that is made up does not return the token, and takes no place.
            let _ = incoming.retry();
            return;
        }
        let Some(inbound) = self.admit(ip) else {
            incoming.refuse();
            return;
        };
        let (shared, carrier, admitted) = (self.clone(), carrier.clone(), inbound.admitted);
        let handshake = async move {
            let failed = |error: quinn::ConnectionError| {
                let unreachable = Error::unreachable(&quic_place(remote), error.to_string());
                Failed::new(Failure::Handshake, unreachable)
            };
            let connection = incoming.await.map_err(failed)?;
            shared.adopt_quic(connection, &carrier, admitted)
        };
        self.await_handshake(inbound, remote, handshake);
    }

    /// Dials an address over QUIC, where `expected` or any peer must answer.
    pub(super) async fn dial_quic(
        self: &Arc<Self>,
        to: SocketAddr,
        expected: Option<multiaddr::PeerId>,
        admitted: Admitted,
    ) -> Result<(), Failed> {
        let bound = self.endpoints.lock().for_dialling(to);
        let bound = match bound {
            Some(bound) => bound,
            None => self.endpoint(Carrier::Udp(udp(SocketAddr::new(unspecified(to), 0))?), None)?,
        };
        self.dial_from(&bound, to, expected, admitted).await
    }

    /// Dials an address of a swarm below, given as text.
    pub(super) async fn dial_swarm(
        self: &Arc<Self>,
        text: &str,
        expected: Option<multiaddr::PeerId>,
        admitted: Admitted,
    ) -> Result<(), Failed> {
        let swarms = self.endpoints.lock().over_swarms();
        let mut refusal = Error::unreachable(&swarm_place(text), "this host has no swarm below");
        for (bound, swarm) in swarms {
            match swarm.lease(text) {
                Ok((to, _lease)) => return self.dial_from(&bound, to, expected, admitted).await,
                Err(error) => refusal = error,
            }
        }
        Err(Failed::new(Failure::Unsupported, refusal))
    }

    async fn dial_from(
        self: &Arc<Self>,
        from: &Bound,
        to: SocketAddr,
        expected: Option<multiaddr::PeerId>,
        admitted: Admitted,
    ) -> Result<(), Failed> {
        let is_other = OtherPeerFlag::default();
        let failed = |reason: String| {
            let place = from.carrier.place_of(to).map(|(place, _)| place);
            let error = Error::unreachable(&place.unwrap_or_else(|| quic_place(to)), reason);
            let failure = if is_other.is_set() {
                Failure::WrongPeer
            } else {
                Failure::Handshake
            };
            Failed::new(failure, error)
        };
        let client = self.upgrader.tls.quic_client(expected, &is_other)?;
        let mut client = ClientConfig::new(Arc::new(client));
        client.transport_config(transport(&self.config, &from.carrier)?);
        let connecting = from.endpoint.connect_with(client, to, SERVER_NAME);
        let connecting = connecting.map_err(|error| failed(error.to_string()))?;
        let connection = connecting.await.map_err(|error| failed(error.to_string()))?;
        self.adopt_quic(connection, &from.carrier, admitted)
    }

    fn adopt_quic(
        self: &Arc<Self>,
        connection: quinn::Connection,
        carrier: &Carrier,
        admitted: Admitted,
    ) -> Result<(), Failed> {
        let at = connection.remote_address();
        let chain = connection.peer_identity();
        let chain = chain.and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
        let key = chain.and_then(|chain| peer_key(&chain));
        let (Some(key), Some((remote, lease))) = (key, carrier.place_of(at)) else {
            connection.close(VarInt::from_u32(0), b"");
            let reason = "the peer has no certificate or no address";
            let error = Error::unreachable(&quic_place(at), reason);
            return Err(Failed::new(Failure::Handshake, error));
        };
        let ends = (Opener::Quic(connection.clone()), Acceptor::Quic(connection));
        self.adopt(admitted, key, remote, Transport::Quic, ends, lease)
    }
}

fn unspecified(like: SocketAddr) -> IpAddr {
    match like {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn udp(addr: SocketAddr) -> Result<Arc<Port>> {
    let port = bind(addr).and_then(Port::new);
    port.map(Arc::new)
        .map_err(Error::io("binding a UDP socket for QUIC"))
}

fn bind(addr: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Buffer sizes are requests.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

fn transport(config: &HostConfig, carrier: &Carrier) -> Result<Arc<TransportConfig>> {
    let idle = IdleTimeout::try_from(config.idle_timeout)
        .map_err(|error| Error::invalid("host configuration", error.to_string()))?;
    let mut transport = TransportConfig::default();
    // Other implementations end a connection after 10 seconds of silence.
    let keep_alive = (config.idle_timeout / 3).min(Duration::from_secs(4));
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(keep_alive))
        .max_concurrent_bidi_streams(STREAMS.into())
        .max_concurrent_uni_streams(0_u32.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(WINDOW.into())
        .send_window(SEND_WINDOW)
        .mtu_discovery_config(Some(mtu_discovery()))
        .datagram_receive_buffer_size(Some(packets::BUFFER))
        .datagram_send_buffer_size(packets::BUFFER);
    if let Carrier::Swarm(swarm) = carrier {
        set_mtu(&mut transport, swarm.mtu());
    }
    Ok(Arc::new(transport))
}
