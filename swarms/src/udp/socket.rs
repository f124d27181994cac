//! A bound socket, and what its errors mean to a sender.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use p2p::{Error, Result};
use quinn_udp::UdpSocketState;
use socket2::{Domain, Protocol, Type};
use tokio::net::UdpSocket;
use tokio::runtime::Handle;

use super::UdpConfig;

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) io: UdpSocket,
    pub(super) state: UdpSocketState,
}

impl Socket {
    pub(super) fn bind(addr: SocketAddr, config: &UdpConfig) -> Result<Self> {
        if Handle::try_current().is_err() {
            let reason = "a UDP swarm is bound within a tokio runtime that drives I/O";
            return Err(Error::invalid("place to bind", reason));
        }
        open(addr, config).map_err(Error::io("binding a UDP socket"))
    }
}

fn open(addr: SocketAddr, config: &UdpConfig) -> io::Result<Socket> {
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.ip() == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    // Sizes are wishes: a system that grants less still works, it only drops or waits earlier.
    let _ = socket.set_recv_buffer_size(config.receive_buffer);
    let _ = socket.set_send_buffer_size(config.send_buffer);
    socket.bind(&addr.into())?;
    let socket = std::net::UdpSocket::from(socket);
    let state = UdpSocketState::new((&socket).into())?;
    let io = UdpSocket::from_std(socket)?;
    Ok(Socket { io, state })
}

/// Which addresses a socket can send to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reach {
    V4,
    V6,
    Both,
}

impl Reach {
    pub(crate) fn of(bound: SocketAddr) -> Self {
        match bound.ip() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(ip) if ip.is_unspecified() => Self::Both,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The form of `dst` that the socket takes.
    ///
    /// # Errors
    /// [`Error::Unreachable`] for what is no single node's address, or not of the socket's family.
    pub(crate) fn check(self, dst: &SocketAddr) -> Result<SocketAddr> {
        // Most are plain addresses of one host: neither in 0.0.0.0/8 nor from 224.0.0.0 on.
        if let (SocketAddr::V4(to), Self::V4) = (dst, self)
            && (1..224).contains(&to.ip().octets()[0])
            && to.port() != 0
        {
            return Ok(*dst);
        }
        let fail = |reason: &str| Err(Error::unreachable(dst, reason));
        if dst.port() == 0 {
            return fail("nobody has port 0");
        }
        // An IPv4 address may come in its form within IPv6.
        match (super::addr::canonical(*dst), self) {
            (to, _) if to.ip().is_unspecified() => fail("the unspecified address is nobody's"),
            (to, _) if to.ip().is_multicast() => fail("a message goes to one node, not to a multicast group"),
            (SocketAddr::V4(to), _) if to.ip().is_broadcast() => {
                fail("a message goes to one node, not to all of a network")
            }
            (SocketAddr::V4(_), Self::V6) => fail("this socket is bound to an IPv6 address"),
            (SocketAddr::V6(_), Self::V4) => fail("this socket is bound to an IPv4 address"),
            (SocketAddr::V4(to), Self::Both) => {
                Ok(SocketAddrV6::new(to.ip().to_ipv6_mapped(), to.port(), 0, 0).into())
            }
            (to, _) => Ok(to),
        }
    }
}

/// What a refusal by the operating system means to the sender of `size` bytes to `dst`.
pub(super) fn refusal(error: io::Error, dst: &SocketAddr, size: usize) -> Error {
    if is_too_long(&error) {
        return Error::unreachable(
            dst,
            format!("a datagram of {size} bytes does not fit through the link: configure a smaller MTU"),
        );
    }
    match error.kind() {
        io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::Unsupported => Error::unreachable(dst, error.to_string()),
        _ => Error::Io {
            doing: "sending a datagram",
            source: error,
        },
    }
}

/// Whether a datagram was longer than the link takes. The number is that of Linux and Android; elsewhere
/// the error keeps its own text.
fn is_too_long(error: &io::Error) -> bool {
    cfg!(any(target_os = "linux", target_os = "android")) && error.raw_os_error() == Some(90)
}
