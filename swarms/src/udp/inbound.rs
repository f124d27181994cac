//! Reads whole batches off the socket and cuts them into messages.
//!
//! A read fills buffers of 64 KiB, each with the datagrams that the kernel joined. A buffer that came back
//! well filled is cut up without a copy and replaced by another, which is an earlier one again once all of its
//! packets are dropped. What came in a buffer that is mostly empty is copied out, so that a small packet that
//! someone keeps costs what it is long.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;

use bytes::BytesMut;
use p2p::{Counters, Headroom, Message, Packet, Reason};
use quinn_udp::{BATCH_SIZE, RecvMeta};

use super::addr::{Local, canonical};
use super::socket::Socket;

/// Bytes that the kernel joins into one buffer, at most.
const BUFFER: usize = 1 << 16;

/// A buffer that holds at least this much is handed out, not copied out.
const WELL_FILLED: usize = BUFFER / 2;

/// Buffers that one read fills at most. More gain nothing: the kernel has joined datagrams into them already, and what
/// is read should still be in the cache when it is looked at.
pub(super) const WIDEST: usize = if BATCH_SIZE < 4 { BATCH_SIZE } else { 4 };

/// Buffers handed out that are remembered, to be taken again when their packets are gone.
const REMEMBERED: usize = 32;

#[derive(Debug)]
pub(super) struct Inbound {
    /// Messages of the last read that nobody took yet.
    ready: VecDeque<Message<SocketAddr>>,
    /// Each of full length, which is kept so that it need not be zeroed for each read.
    buffers: Vec<BytesMut>,
    /// What is left of buffers that were handed out.
    lent: VecDeque<BytesMut>,
    metas: [RecvMeta; WIDEST],
    /// Buffers that the next read fills at most: twice those of the last one that filled all it had.
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

    /// Messages that wait to be taken.
    pub(super) fn waiting(&self) -> usize {
        self.ready.len()
    }

    /// Takes the message that waits longest.
    pub(super) fn next(&mut self) -> Option<Message<SocketAddr>> {
        self.ready.pop_front()
    }

    /// Takes up to `max` messages into `out`; returns how many.
    pub(super) fn take(&mut self, out: &mut Vec<Message<SocketAddr>>, max: usize) -> usize {
        let count = self.ready.len().min(max);
        out.extend(self.ready.drain(..count));
        count
    }

    /// Drops all that waits, and the buffers; returns how many messages it were.
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
        // Elsewhere a read brings one message, whatever there is.
        Ok(!filled && cfg!(any(target_os = "linux", target_os = "android")))
    }

    /// Cuts what was read into buffer `index` into messages.
    fn cut(&mut self, index: usize, local: &Local, counters: &Counters) {
        let (meta, buffer) = (&self.metas[index], &mut self.buffers[index]);
        let (src, dst) = (canonical(meta.addr), local.dst(meta.dst_ip));
        let len = meta.len.min(buffer.len());
        // A stride of 0 is an empty datagram, which is a message, too.
        let stride = meta.stride.clamp(1, len.max(1));
        let count = len.div_ceil(stride).max(1);
        counters.received(count);
        if src.port() == 0 {
            // Nobody can answer it: it does not come from a socket.
            counters.dropped_many(Reason::Malformed, count);
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

    /// A buffer for reading: one that was lent and is free again, or a new one.
    fn fresh(&mut self) -> BytesMut {
        // Readers drop packets in about the order in which they came, so the oldest is the one to ask.
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

/// Buffers that a read has at least, where the configuration allows it: the second one tells whether the
/// socket was emptied.
const NARROW: usize = 2;
