//! Sends many packets from separate buffers as one segmented send.
//!
//! Linux takes a list of buffers and cuts their concatenation into segments (`UDP_SEGMENT`), so they need not
//! be joined first. On other systems the buffers are joined and sent by `quinn-udp`.

use std::io;
use std::net::SocketAddr;

use tokio::io::Interest;

use super::outbound::Outgoing;
use super::socket::Socket;

/// Maximum number of datagrams in one segmented send.
pub(super) const MAX_SEGMENTS: usize = 64;

/// Sends the datagrams of `run` to `dst` as one segmented send. Each has `segment` bytes, except the last,
/// which may be shorter.
///
/// # Errors
/// Returns the error of the operating system. In that case none of them was sent.
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

/// Returns the control message that requests segmentation: `struct cmsghdr` (`cmsg(3)`) with a `u16`, padded
/// to a word.
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

/// Length of a control message header: length, level and type.
#[cfg(any(target_os = "linux", target_os = "android"))]
const HEADER: usize = size_of::<usize>() + 2 * size_of::<i32>();

/// Fallback for systems without scatter-gather segmentation.
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
