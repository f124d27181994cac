//! Reads batches of datagrams from the socket and splits them into messages.
//!
//! A read fills buffers of 64 KiB, each with datagrams that the kernel coalesced (GRO). A buffer that is at
//! least half full is split without a copy and replaced; it is reused once all of its packets are dropped.
//! Datagrams in a mostly empty buffer are copied, so that a small packet that is kept for long does not keep
//! a large buffer.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;

use bytes::BytesMut;
use p2p::{Counters, DropReason, Headroom, Message, Packet};
use quinn_udp::{BATCH_SIZE, RecvMeta};

use super::addr::{Local, canonical};
use super::socket::Socket;

/// Maximum number of bytes that the kernel coalesces into one buffer.
const BUFFER: usize = 1 << 16;

/// A buffer with at least this many bytes is split without a copy.
const WELL_FILLED: usize = BUFFER / 2;

/// Maximum number of buffers that one read fills. More bring no gain: the kernel has already coalesced
/// datagrams into them, and the data should still be in the cache when it is processed.
pub(super) const WIDEST: usize = if BATCH_SIZE < 4 { BATCH_SIZE } else { 4 };

/// Number of lent buffers that are remembered for reuse.
const REMEMBERED: usize = 32;

#[derive(Debug)]
pub(super) struct Inbound {
    /// Messages of the last read that were not taken yet.
    ready: VecDeque<Message<SocketAddr>>,
    /// Each has its full length, so that it need not be zeroed for each read.
    buffers: Vec<BytesMut>,
    /// Remainders of buffers whose contents were handed out.
    lent: VecDeque<BytesMut>,
    metas: [RecvMeta; WIDEST],
    /// Number of buffers for the next read: doubled after a read that filled all buffers.
    width: usize,
    widest: usize,
}

impl Inbound {
    pub(super) fn new(widest: usize) -> Self {
        Self {
            ready: VecDeque::new(),
            buffers: Vec::new(),
            lent: VecDeque::new(),
            metas: [RecvMeta::default(); WIDEST],
            width: NARROW.min(widest.min(WIDEST)),
            widest: widest.min(WIDEST),
        }
    }

    /// Returns the number of messages that wait.
    pub(super) fn waiting(&self) -> usize {
        self.ready.len()
    }

    /// Takes the oldest message.
    pub(super) fn next(&mut self) -> Option<Message<SocketAddr>> {
        self.ready.pop_front()
    }

    /// Moves up to `max` messages to `out`; returns their number.
    pub(super) fn take(&mut self, out: &mut Vec<Message<SocketAddr>>, max: usize) -> usize {
        let count = self.ready.len().min(max);
        out.extend(self.ready.drain(..count));
        count
    }

    /// Drops all waiting messages and the buffers; returns the number of messages.
    pub(super) fn clear(&mut self) -> usize {
        let waiting = std::mem::take(&mut self.ready).len();
        self.buffers = Vec::new();
        self.lent = VecDeque::new();
        waiting
    }

    /// Reads the socket once; returns whether that emptied it.
    pub(super) fn read(&mut self, socket: &Socket, local: &Local, counters: &Counters) -> io::Result<bool> {
        while self.buffers.len() < self.width {
            self.buffers.push(BytesMut::zeroed(BUFFER));
        }
        let mut slices: [IoSliceMut<'_>; WIDEST] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        for (slice, buffer) in slices.iter_mut().zip(&mut self.buffers).take(self.width) {
            *slice = IoSliceMut::new(buffer);
        }
        let read = socket
            .state
            .recv((&socket.io).into(), &mut slices[..self.width], &mut self.metas)?;
        for index in 0..read {
            self.cut(index, local, counters);
        }
        let filled = read == self.width;
        self.width =
            if filled { self.width * 2 } else { read + 1 }.clamp(NARROW.min(self.widest), self.widest);
        // On other systems a read returns one message, however many are waiting.
        Ok(!filled && cfg!(any(target_os = "linux", target_os = "android")))
    }

    /// Splits the contents of buffer `index` into messages.
    fn cut(&mut self, index: usize, local: &Local, counters: &Counters) {
        let (meta, buffer) = (&self.metas[index], &mut self.buffers[index]);
        let (src, dst) = (canonical(meta.addr), local.dst(meta.dst_ip));
        let len = meta.len.min(buffer.len());
        // A stride of 0 is an empty datagram, which is a valid message.
        let stride = meta.stride.clamp(1, len.max(1));
        let count = len.div_ceil(stride).max(1);
        counters.add_received(count);
        if src.port() == 0 {
            // A datagram with source port 0 cannot be answered: it was not sent by a socket.
            counters.add_dropped_many(DropReason::Malformed, count);
            return;
        }
        let message = |payload| Message { src, dst, payload };
        if count == 1 && len < WELL_FILLED {
            let datagram = buffer.get(..len).unwrap_or_default();
            self.ready
                .push_back(message(Packet::new(Headroom::default(), datagram)));
            return;
        }
        if len < WELL_FILLED {
            let copies = (0..count).map(|part| {
                let rest = buffer.get(part * stride..len).unwrap_or_default();
                let datagram = rest.get(..stride).unwrap_or(rest);
                message(Packet::new(Headroom::default(), datagram))
            });
            self.ready.extend(copies);
            return;
        }
        let mut rest = len;
        while rest > 0 {
            let datagram = buffer.split_to(stride.min(rest));
            rest -= datagram.len();
            self.ready.push_back(message(Packet::from(datagram)));
        }
        let fresh = self.fresh();
        let mut used = std::mem::replace(&mut self.buffers[index], fresh);
        used.clear();
        if self.lent.len() == REMEMBERED {
            self.lent.pop_front();
        }
        self.lent.push_back(used);
    }

    /// Returns a buffer for reading: a lent one that is free again, or a new one.
    fn fresh(&mut self) -> BytesMut {
        // Readers drop packets roughly in the order of arrival, so the oldest buffer is the most likely to be
        // free.
        if let Some(mut oldest) = self.lent.pop_front() {
            if oldest.try_reclaim(BUFFER) {
                oldest.resize(BUFFER, 0);
                return oldest;
            }
            self.lent.push_front(oldest);
        }
        BytesMut::zeroed(BUFFER)
    }
}

/// Minimum number of buffers of a read, where the configuration permits: the second buffer shows whether the
/// socket was emptied.
const NARROW: usize = 2;
