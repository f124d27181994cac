//! TCP of a host: listening and dialling, and the places at which a host listens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use multiaddr::{Multiaddr, PeerId};
use p2p::{Error, Result};
use p2p_protocols::dial::Failure;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

use super::engines::{Admitted, Failed};
use super::events::HostEvent;
use super::port::SwarmCarrier;
use super::shared::Shared;
use crate::addr::{HostAddr, quic_place, swarm_place, tcp_place};
use crate::connection::Transport;
use crate::noise::Role;
use crate::upgrade::Upgraded;

/// Connections that the system keeps until they are accepted.
const BACKLOG: i32 = 1024;
/// Silence after which the system probes whether the peer of a TCP connection is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Pause after the system could not accept a connection, for example without a free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a host listens.
#[derive(Clone, Debug)]
pub(super) enum Listening {
    Quic(SocketAddr),
    Tcp(SocketAddr),
    Swarm(Arc<dyn SwarmCarrier>),
}

impl Shared {
    /// Returns the places at which this host listens.
    pub(crate) fn local_addrs(&self) -> Vec<Multiaddr> {
        let listening = self.listening.lock().clone();
        let mut addrs = Vec::new();
        for at in listening {
            match at {
                Listening::Quic(bound) => addrs.extend(on_interfaces(bound).into_iter().map(quic_place)),
                Listening::Tcp(bound) => addrs.extend(on_interfaces(bound).into_iter().map(tcp_place)),
                Listening::Swarm(swarm) => {
                    addrs.extend(swarm.local_addrs().iter().map(|text| swarm_place(text)));
                }
            }
        }
        addrs
    }

    /// Returns the addresses of this host with its peer id: those at which it listens, or the id alone.
    pub(crate) fn host_addrs(&self) -> Vec<HostAddr> {
        let peer_id = self.upgrader.keypair.peer_id();
        let places = self.local_addrs();
        if places.is_empty() {
            return vec![HostAddr::of_peer(peer_id)];
        }
        places
            .into_iter()
            .map(|place| HostAddr::new(peer_id, place))
            .collect()
    }

    /// Listens at a socket address, and accepts connections in a task.
    pub(super) fn listen_tcp(self: &Arc<Self>, addr: SocketAddr) -> Result<()> {
        let listener = bind(addr).map_err(Error::io("binding a TCP socket"))?;
        let bound = listener.local_addr().map_err(Error::io("binding a TCP socket"))?;
        self.listening.lock().push(Listening::Tcp(bound));
        self.events.send(HostEvent::Listening(tcp_place(bound)));
        let shared = self.clone();
        self.spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((socket, remote)) => shared.accept_tcp(socket, remote),
                    Err(error) => {
                        tracing::debug!(layer = "libp2p", %error, "a TCP connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
        Ok(())
    }

    fn accept_tcp(self: &Arc<Self>, socket: TcpStream, remote: SocketAddr) {
        // At the limit the socket is dropped, which ends the connection.
        if let Some(inbound) = self.admit(Some(remote.ip())) {
            let (shared, admitted) = (self.clone(), inbound.admitted);
            let handshake = async move { shared.upgrade_tcp(socket, remote, Role::Listener, admitted).await };
            self.await_handshake(inbound, remote, handshake);
        }
    }

    /// Dials an address over TCP, where `expected` or any peer must answer.
    pub(super) async fn dial_tcp(
        self: &Arc<Self>,
        to: SocketAddr,
        expected: Option<PeerId>,
        admitted: Admitted,
    ) -> Result<(), Failed> {
        let connected = TcpStream::connect(to).await;
        let socket = connected.map_err(|error| {
            let unreachable = Error::unreachable(&tcp_place(to), error.to_string());
            Failed::new(Failure::Io(error.kind()), unreachable)
        })?;
        self.upgrade_tcp(socket, to, Role::Dialler(expected), admitted)
            .await
    }

    async fn upgrade_tcp(
        self: &Arc<Self>,
        socket: TcpStream,
        remote: SocketAddr,
        role: Role,
        admitted: Admitted,
    ) -> Result<(), Failed> {
        let remote = tcp_place(remote);
        // Both are optimizations.
        let _ = socket.set_nodelay(true);
        let _ = SockRef::from(&socket).set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(KEEP_ALIVE)
                .with_interval(KEEP_ALIVE),
        );
        let upgraded = self.upgrader.upgrade(socket, role).await;
        let Upgraded {
            key,
            security,
            muxer,
            ends,
        } = upgraded.map_err(|error| {
            let failure = if error.is_other_peer() {
                Failure::WrongPeer
            } else {
                Failure::Handshake
            };
            Failed::new(failure, Error::unreachable(&remote, error.to_string()))
        })?;
        self.adopt(admitted, key, remote, Transport::Tcp(security, muxer), ends, None)
    }
}

fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier listener that have ended do not keep the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Returns the addresses of a bound socket: of one that is bound to all interfaces, one for each of their
/// addresses.
fn on_interfaces(bound: SocketAddr) -> Vec<SocketAddr> {
    if !bound.ip().is_unspecified() {
        return vec![bound];
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut ips: Vec<_> = interfaces.into_iter().map(|interface| interface.ip()).collect();
    ips.retain(|ip| ip.is_ipv4() == bound.is_ipv4());
    // Loopback is of use to this machine alone.
    ips.sort_by_key(std::net::IpAddr::is_loopback);
    ips.into_iter()
        .map(|ip| SocketAddr::new(ip, bound.port()))
        .collect()
}
