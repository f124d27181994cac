//! The queues of datagrams and events that both sides of the protocol fill.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use p2p::{DropReason, Headroom, Packet};

use super::event::{Event, What};
use super::serving::reply_header;
use super::split::{send_parts, send_whole};
use super::wire::{HEADER, Header, INQUIRY_CODE, INQUIRY_COUNTER, Inquiry, Key, PhaseTime};

/// Datagrams and events for the driver, and the parameters of datagrams.
#[derive(Debug)]
pub(super) struct Output<A> {
    /// Message bytes in one datagram.
    pub(super) chunk: usize,
    pub(super) transmits: VecDeque<(A, Packet)>,
    pub(super) events: VecDeque<Event<A>>,
    /// Room that the layers below need around a datagram.
    pub(super) room: Headroom,
    /// Bytes that were retransmitted and not taken by the driver yet.
    pub(super) resent: usize,
}

impl<A> Output<A> {
    pub(super) fn new(chunk: usize, room: Headroom) -> Self {
        Self {
            chunk,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            room,
            resent: 0,
        }
    }
}

impl<A: Clone> Output<A> {
    /// Maximum bytes that are retransmitted before the driver takes them. Peers that still lack parts inquire
    /// again.
    const BURST: usize = 1 << 20;

    pub(super) fn room_for_header(&self) -> Headroom {
        Headroom::new(HEADER, 0).plus(self.room)
    }

    pub(super) fn empty(&self) -> Packet {
        Packet::with_capacity(self.room_for_header(), 0)
    }

    pub(super) fn may_resend(&self) -> bool {
        self.resent < Self::BURST
    }

    pub(super) fn send_parts(
        &mut self,
        dst: &A,
        header: &Header,
        message: &[u8],
        ranges: &[RangeInclusive<u16>],
    ) {
        let transmits = &mut self.transmits;
        self.resent += send_parts(transmits, dst, header, message, self.chunk, ranges, self.room);
    }

    pub(super) fn send_inquiry(&mut self, dst: &A, unix_ms: u64, inquiry: &Inquiry) {
        let key = Key {
            counter: INQUIRY_COUNTER,
            origin: PhaseTime::new(unix_ms),
        };
        let body = inquiry.emit();
        let header = Header {
            error_code: INQUIRY_CODE,
            total_size: body.len() as u32,
            part_count: 1,
            ..reply_header(key, None)
        };
        let packet = Packet::new(self.room_for_header(), &body);
        send_whole(&mut self.transmits, dst.clone(), &header, packet);
    }

    pub(super) fn dropped(&mut self, src: A, what: What, reason: DropReason) {
        self.events.push_back(Event::Dropped { src, what, reason });
    }
}
