//! Sends batches: datagrams that follow one another to one peer, and are equally long, leave as one.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

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
#[derive(Debug, Default)]
pub(super) struct Outbound {
    joined: Mutex<Vec<Vec<u8>>>,
}

impl Outbound {
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
    pub(super) fn send(
        &self,
        socket: &Socket,
        batch: &[Outgoing],
        mut from: usize,
        mut done: impl FnMut(usize, Result<()>),
    ) -> usize {
        let mut joined = None;
        while let Some((dst, first)) = batch.get(from) {
            let run = run_len(&batch[from..], socket.state.max_gso_segments());
            let sent = if run == 1 {
                Self::send_one(socket, *dst, first)
            } else {
                let joined = joined.get_or_insert_with(|| self.take());
                joined.clear();
                for (_, packet) in &batch[from..from + run] {
                    joined.extend_from_slice(packet);
                }
                send_joined(socket, *dst, joined, first.len())
            };
            match sent {
                Ok(()) => done(run, Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The device may not segment, or one datagram was at fault: each on its own shows.
                Err(_) if run > 1 => {
                    let mut blocked = false;
                    for (dst, packet) in &batch[from..from + run] {
                        match Self::send_one(socket, *dst, packet) {
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                                blocked = true;
                                break;
                            }
                            sent => done(1, sent.map_err(|error| refusal(error, dst, packet.len()))),
                        }
                        from += 1;
                    }
                    if blocked {
                        break;
                    }
                    continue;
                }
                Err(error) => done(1, Err(refusal(error, dst, first.len()))),
            }
            from += run;
        }
        if let Some(joined) = joined {
            self.put(joined);
        }
        from
    }

    fn take(&self) -> Vec<u8> {
        let mut kept = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        kept.pop().unwrap_or_default()
    }

    fn put(&self, joined: Vec<u8>) {
        let mut kept = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(joined);
        }
    }
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
