//! Sends batches: datagrams that follow one another to one peer, and are equally long, leave as one.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;
use p2p::{BatchOutcome, Packet, Result};
use quinn_udp::Transmit;
use tokio::io::Interest;

use super::socket::{Reach, Socket, refusal};

/// Bytes of one segmented send, at most: what an IPv6 packet carries less the headers of IPv6 and UDP.
const MAX_SEND: usize = 65_535 - 48;

/// Buffers for joining datagrams that are kept for the next batch.
const KEPT: usize = 4;

/// A message on its way out: where to, in the socket's form, and what.
pub(super) type Outgoing = (SocketAddr, Packet);

/// What sends of one swarm share.
#[derive(Debug)]
pub(super) struct Outbound {
    /// Datagrams that the device cuts one send into at most; 1 once it turned out that it does not.
    segments: AtomicUsize,
    /// Buffers for datagrams that do not lie in memory as one piece.
    joined: Mutex<Vec<BytesMut>>,
}

impl Outbound {
    pub(super) fn new(socket: &Socket) -> Self {
        Self {
            segments: AtomicUsize::new(socket.state.max_gso_segments()),
            joined: Mutex::default(),
        }
    }

    /// Sends one datagram.
    pub(super) fn send_one(socket: &Socket, dst: SocketAddr, payload: &[u8]) -> io::Result<()> {
        match socket.io.try_send_to(payload, dst) {
            Ok(_) => Ok(()),
            // Not this datagram's fault: an earlier one was answered by an ICMP message.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                socket.io.try_send_to(payload, dst).map(drop)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends `batch` from its message `from` on, until all are gone or the socket takes no more, and says
    /// to `done` for each message in turn what became of it. Returns the first one that is still to be sent.
    ///
    /// The packets of messages that are gone may be empty afterwards.
    pub(super) fn send(
        &self,
        socket: &Socket,
        batch: &mut [Outgoing],
        mut from: usize,
        mut done: impl FnMut(usize, Result<()>),
    ) -> usize {
        while let Some(rest @ [_, ..]) = batch.get_mut(from..) {
            let len = run_len(rest, self.segments.load(Relaxed));
            let run = &mut rest[..len];
            let (mut taken, mut blocked) = (len, false);
            match (len > 1).then(|| self.send_run(socket, run)) {
                Some(Ok(())) => done(len, Ok(())),
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Alone, or one of them is at fault, or the device cannot segment: each on its own shows.
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
                            "this device does not segment: datagrams leave one by one"
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

    /// Sends the datagrams of `run` as one. On an error they are as they were.
    fn send_run(&self, socket: &Socket, run: &mut [Outgoing]) -> io::Result<()> {
        let Some((dst, first)) = run.first() else {
            return Ok(());
        };
        let (dst, size) = (*dst, first.len());
        if in_one_piece(run) {
            return send_piece(socket, dst, size, run);
        }
        let mut joined = {
            let mut kept = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
            kept.pop().unwrap_or_else(|| BytesMut::with_capacity(MAX_SEND))
        };
        joined.clear();
        for (_, packet) in run {
            joined.extend_from_slice(packet);
        }
        let sent = send_joined(socket, dst, &joined, size);
        let mut kept = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(joined);
        }
        sent
    }
}

/// Whether an error may be that of a device that does not segment: EIO or EINVAL, on Linux and Android, which
/// alone segment.
fn is_of_segmenting(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(5 | 22))
}

/// Whether the packets of `run` follow one another in memory, as those of a pool do.
fn in_one_piece(run: &[Outgoing]) -> bool {
    run.windows(2).all(|pair| match pair {
        [(_, before), (_, after)] => before.as_ptr_range().end == after.as_ptr() && after.room().front == 0,
        _ => true,
    })
}

/// Sends packets that follow one another in memory, without a copy.
fn send_piece(socket: &Socket, dst: SocketAddr, size: usize, run: &mut [Outgoing]) -> io::Result<()> {
    let mut packets = run.iter_mut().map(|(_, packet)| packet);
    let Some(first) = packets.next() else {
        return Ok(());
    };
    let (mut piece, start) = std::mem::take(first).into_buffer();
    for packet in packets {
        piece.unsplit(std::mem::take(packet).into_buffer().0);
    }
    let sent = send_joined(socket, dst, piece.get(start..).unwrap_or_default(), size);
    if sent.is_err() {
        let mut front = start;
        for (_, packet) in run {
            let len = (front + size).min(piece.len());
            *packet = Packet::from_buffer(piece.split_to(len), std::mem::take(&mut front));
        }
    }
    sent
}

fn send_joined(socket: &Socket, destination: SocketAddr, contents: &[u8], segment: usize) -> io::Result<()> {
    let transmit = Transmit {
        destination,
        ecn: None,
        contents,
        segment_size: Some(segment),
        src_ip: None,
    };
    socket.io.try_io(Interest::WRITABLE, || {
        socket.state.try_send((&socket.io).into(), &transmit)
    })
}

/// How many messages at the front of `batch` can leave as one segmented send: to one peer, of one length,
/// but for the last, which may be shorter.
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

/// Drops from `batch` what cannot be sent, and turns every destination into the socket's form.
pub(super) fn admit(batch: &mut Vec<Outgoing>, reach: Reach, mtu: usize, outcome: &mut BatchOutcome) {
    batch.retain_mut(
        |(dst, packet)| match packet.check(mtu).and_then(|()| reach.check(dst)) {
            Ok(to) => {
                *dst = to;
                true
            }
            Err(error) => {
                outcome.refused(1, error);
                false
            }
        },
    );
}
