//! One segmented send out of many packets, wherever they lie.
//!
//! Linux takes a list of pieces and cuts their sum into segments (`UDP_SEGMENT`), so nothing is joined first. Elsewhere
//! the pieces are joined, for `quinn-udp` to send.

use std::io;
use std::net::SocketAddr;

use tokio::io::Interest;

use super::outbound::Outgoing;
use super::socket::Socket;

/// Datagrams of one segmented send, at most.
pub(super) const MAX_SEGMENTS: usize = 64;

/// Sends the datagrams of `run` as one: to `dst`, each of `segment` bytes, but for the last, which may be shorter.
///
/// # Errors
/// What the system says. Then none of them left.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn send(socket: &Socket, dst: SocketAddr, segment: u16, run: &[Outgoing]) -> io::Result<()> {
    use socket2::{MsgHdr, SockAddr, SockRef};

    let (to, control) = (SockAddr::from(dst), control(segment));
    let mut pieces = [io::IoSlice::new(&[]); MAX_SEGMENTS];
    for (piece, (_, packet)) in pieces.iter_mut().zip(run) {
        *piece = io::IoSlice::new(packet);
    }
    let pieces = pieces.get(..run.len()).unwrap_or(&pieces);
    let message = MsgHdr::new()
        .with_addr(&to)
        .with_buffers(pieces)
        .with_control(&control);
    let send = || SockRef::from(&socket.io).sendmsg(&message, 0).map(drop);
    loop {
        match socket.io.try_io(Interest::WRITABLE, send) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The control message that asks for segments: `struct cmsghdr` (`cmsg(3)`) with a `u16`, padded to a word.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn control(segment: u16) -> [u8; HEADER + size_of::<usize>()] {
    const SOL_UDP: i32 = 17;
    const UDP_SEGMENT: i32 = 103;
    let mut control = [0; HEADER + size_of::<usize>()];
    let (len, rest) = control.split_at_mut(size_of::<usize>());
    len.copy_from_slice(&(HEADER + size_of::<u16>()).to_ne_bytes());
    rest[..4].copy_from_slice(&SOL_UDP.to_ne_bytes());
    rest[4..8].copy_from_slice(&UDP_SEGMENT.to_ne_bytes());
    rest[8..10].copy_from_slice(&segment.to_ne_bytes());
    control
}

/// A length, a level and a type.
#[cfg(any(target_os = "linux", target_os = "android"))]
const HEADER: usize = size_of::<usize>() + 2 * size_of::<i32>();

/// The same where there are no lists.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn send(socket: &Socket, dst: SocketAddr, segment: u16, run: &[Outgoing]) -> io::Result<()> {
    let joined: Vec<u8> = run
        .iter()
        .flat_map(|(_, packet)| packet.iter().copied())
        .collect();
    let transmit = quinn_udp::Transmit {
        destination: dst,
        ecn: None,
        contents: &joined,
        segment_size: Some(segment.into()),
        src_ip: None,
    };
    socket.io.try_io(Interest::WRITABLE, || {
        socket.state.try_send((&socket.io).into(), &transmit)
    })
}
