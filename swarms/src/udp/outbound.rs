//! Sends batches: consecutive datagrams of equal length to one peer leave as one segmented send.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use p2p::{BatchOutcome, Packet, Result};

use super::gather::{self, MAX_SEGMENTS};
use super::socket::{Reach, Socket, refusal};

/// Maximum number of bytes of one segmented send: the maximum of an IPv6 packet minus the IPv6 and UDP
/// headers.
const MAX_SEND: usize = 65_535 - 48;

/// A message to be sent: the destination in the form that the socket takes, and the payload.
pub(super) type Outgoing = (SocketAddr, Packet);

/// State that all sends of one swarm share.
#[derive(Debug)]
pub(super) struct Outbound {
    /// Maximum number of segments of one send; 1 without segmentation, and once the device has shown that it
    /// does not segment.
    segments: AtomicUsize,
}

impl Outbound {
    pub(super) fn new(socket: &Socket, segmentation: bool) -> Self {
        let most = if segmentation { MAX_SEGMENTS } else { 1 };
        Self {
            segments: AtomicUsize::new(socket.state.max_gso_segments().min(most)),
        }
    }

    /// Sends one datagram.
    pub(super) fn send_one(socket: &Socket, dst: SocketAddr, payload: &[u8]) -> io::Result<()> {
        match socket.io.try_send_to(payload, dst) {
            Ok(_) => Ok(()),
            // The error belongs to an earlier datagram, which was answered by an ICMP message.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                socket.io.try_send_to(payload, dst).map(drop)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends `batch` from index `from` until all messages are sent or the socket is not writable, and passes
    /// the result of each message to `done`. Returns the index of the first message that is still to be sent.
    pub(super) fn send(
        &self,
        socket: &Socket,
        batch: &[Outgoing],
        mut from: usize,
        mut done: impl FnMut(usize, Result<()>),
    ) -> usize {
        while let Some(rest @ [_, ..]) = batch.get(from..) {
            let len = run_len(rest, self.segments.load(Relaxed));
            let run = &rest[..len];
            let (mut taken, mut blocked) = (len, false);
            match (len > 1).then(|| send_run(socket, run)) {
                Some(Ok(())) => done(len, Ok(())),
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                // A single datagram, or one of them is at fault, or the device cannot segment: sending each
                // on its own shows which.
                failed => {
                    let mut left = 0;
                    for (at, (dst, packet)) in run.iter().enumerate() {
                        match Self::send_one(socket, *dst, packet) {
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                                (taken, blocked) = (at, true);
                                break;
                            }
                            Err(error) => done(1, Err(refusal(error, dst, packet.len()))),
                            Ok(()) => {
                                left += 1;
                                done(1, Ok(()));
                            }
                        }
                    }
                    if left > 0
                        && failed.is_some_and(|failed| failed.is_err_and(|error| is_of_segmenting(&error)))
                    {
                        tracing::info!(
                            layer = "udp",
                            "the device does not support segmentation: datagrams are sent one at a time"
                        );
                        self.segments.store(1, Relaxed);
                    }
                }
            }
            from += taken;
            if blocked {
                break;
            }
        }
        from
    }
}

fn send_run(socket: &Socket, run: &[Outgoing]) -> io::Result<()> {
    let Some((dst, first)) = run.first() else {
        return Ok(());
    };
    // A longer packet exceeds the limit of one send, and is alone in its run.
    gather::send(socket, *dst, first.len() as u16, run)
}

/// Returns whether an error may come from a device that does not segment: EIO or EINVAL on Linux and Android,
/// the only systems that segment.
fn is_of_segmenting(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(5 | 22))
}

/// Returns the number of messages at the front of `batch` that can leave as one segmented send: to one peer
/// and of one length, except the last, which may be shorter.
fn run_len(batch: &[Outgoing], max: usize) -> usize {
    let Some((dst, first)) = batch.first() else {
        return 0;
    };
    let (size, mut bytes, mut run) = (first.len(), first.len(), 1);
    for (other, packet) in batch.iter().take(max).skip(1) {
        bytes += packet.len();
        // A send cannot end in an empty segment.
        if other != dst || packet.len() > size || packet.is_empty() || bytes > MAX_SEND {
            break;
        }
        run += 1;
        if packet.len() < size {
            break;
        }
    }
    run
}

/// Removes messages that cannot be sent from `batch`, and converts every destination to the socket's form.
pub(super) fn admit(batch: &mut Vec<Outgoing>, reach: Reach, mtu: usize, outcome: &mut BatchOutcome) {
    // Most batches go to one peer, or to few peers in runs.
    let mut last: Option<(SocketAddr, SocketAddr)> = None;
    batch.retain_mut(|(dst, packet)| {
        let to = packet.check_mtu(mtu).and_then(|()| match last {
            Some((from, to)) if from == *dst => Ok(to),
            _ => reach.check(dst),
        });
        match to {
            Ok(to) => {
                last = Some((*dst, to));
                *dst = to;
                true
            }
            Err(error) => {
                outcome.add_refused(1, error);
                false
            }
        }
    });
}
