//! A bound socket, and the translation of its errors.

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
            let reason = "a UDP swarm must be bound within a tokio runtime with I/O enabled";
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
    // Buffer sizes are requests: with less, the system drops packets or blocks earlier, but still works.
    let _ = socket.set_recv_buffer_size(config.receive_buffer);
    let _ = socket.set_send_buffer_size(config.send_buffer);
    socket.bind(&addr.into())?;
    let socket = std::net::UdpSocket::from(socket);
    let state = UdpSocketState::new((&socket).into())?;
    let io = UdpSocket::from_std(socket)?;
    Ok(Socket { io, state })
}

/// The address families that a socket can send to.
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

    /// Returns `dst` in the form that the socket takes.
    ///
    /// # Errors
    /// Returns [`Error::Unreachable`] if `dst` is not the address of a single node, or not of the socket's
    /// family.
    pub(crate) fn check(self, dst: &SocketAddr) -> Result<SocketAddr> {
        // Fast path for ordinary unicast addresses: neither in 0.0.0.0/8 nor from 224.0.0.0 on.
        if let (SocketAddr::V4(to), Self::V4) = (dst, self)
            && (1..224).contains(&to.ip().octets()[0])
            && to.port() != 0
        {
            return Ok(*dst);
        }
        let fail = |reason: &str| Err(Error::unreachable(dst, reason));
        if dst.port() == 0 {
            return fail("port 0 cannot receive");
        }
        // An IPv4 address may be given in its IPv4-mapped IPv6 form.
        match (super::addr::canonical(*dst), self) {
            (to, _) if to.ip().is_unspecified() => {
                fail("the unspecified address is not the address of a node")
            }
            (to, _) if to.ip().is_multicast() => {
                fail("a message goes to one node: multicast is not supported")
            }
            (SocketAddr::V4(to), _) if to.ip().is_broadcast() => {
                fail("a message goes to one node: broadcast is not supported")
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

/// Translates an error of the operating system for the sender of `size` bytes to `dst`.
pub(super) fn refusal(error: io::Error, dst: &SocketAddr, size: usize) -> Error {
    if is_too_long(&error) {
        return Error::unreachable(
            dst,
            format!("a datagram of {size} bytes exceeds the MTU of the link: configure a smaller MTU"),
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
        _ => Error::io("sending a datagram")(error),
    }
}

/// Returns whether a datagram exceeded the MTU of the link. The number is that of Linux and Android
/// (EMSGSIZE); on other systems the error keeps its own text.
fn is_too_long(error: &io::Error) -> bool {
    cfg!(any(target_os = "linux", target_os = "android")) && error.raw_os_error() == Some(90)
}
