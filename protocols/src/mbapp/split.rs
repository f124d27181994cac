//! Splits a message into datagrams for a smaller MTU.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use bytes::BytesMut;
use p2p::{Headroom, Packet};

use super::wire::{HEADER, Header, MAX_PARTS};

/// Returns the message bytes in one datagram for an inner MTU of `inner_mtu`; at least one.
pub(super) fn chunk(inner_mtu: usize) -> usize {
    inner_mtu.saturating_sub(HEADER).max(1)
}

/// Returns the maximum message length in bytes for an inner MTU of `inner_mtu`, at most `configured`; 0 if the header leaves
/// no room in a datagram.
pub(super) fn mtu(configured: usize, inner_mtu: usize) -> usize {
    let chunk = inner_mtu.saturating_sub(HEADER);
    let most = chunk.saturating_mul(MAX_PARTS).min(u32::MAX as usize);
    configured.min(most)
}

/// Returns the header of a message of `len` bytes with its sizes. `len` is at most [`mtu`].
pub(super) fn sized(header: Header, len: usize, chunk: usize) -> Header {
    Header {
        total_size: len as u32,
        part_index: 0,
        part_count: len.div_ceil(chunk) as u16,
        ..header
    }
}

/// Sends a message in a single datagram: no copy, and no allocation if it has room for the header.
pub(super) fn send_whole<A>(out: &mut VecDeque<(A, Packet)>, dst: A, header: &Header, mut packet: Packet) {
    packet.push_front(&header.emit());
    out.push_back((dst, packet));
}

/// Sends the parts of `message` in `ranges`. Copies them into one buffer, from which the datagrams are
/// sliced, each with `room` around it. Returns the bytes sent.
pub(super) fn send_parts<A: Clone>(
    out: &mut VecDeque<(A, Packet)>,
    dst: &A,
    header: &Header,
    message: &[u8],
    chunk: usize,
    ranges: &[RangeInclusive<u16>],
    room: Headroom,
) -> usize {
    let count = header.part_count.max(1);
    // Each part is sent once, for any ranges.
    let mut next = 0;
    let mut wanted = Vec::new();
    for range in ranges {
        let (first, last) = ((*range.start()).max(next), (*range.end()).min(count - 1));
        if first <= last {
            wanted.push(first..=last);
            next = last.saturating_add(1);
        }
    }
    let parts: usize = wanted.iter().map(ExactSizeIterator::len).sum();
    let each = HEADER + room.front + room.back;
    let mut buf = BytesMut::with_capacity(parts * (each + chunk.min(message.len())));
    let mut sent = 0;
    for part in wanted.into_iter().flatten() {
        let start = usize::from(part) * chunk;
        let end = (start + chunk).min(message.len());
        let body = message.get(start..end).unwrap_or_default();
        let header = Header {
            part_index: part,
            ..*header
        };
        buf.resize(room.front, 0);
        buf.extend_from_slice(&header.emit());
        buf.extend_from_slice(body);
        // The room behind stays with the datagram, except for the last one, which keeps the rest of the
        // buffer.
        let cut = (buf.len() + room.back).min(buf.capacity());
        let rest = buf.split_off(cut);
        out.push_back((
            dst.clone(),
            Packet::from_buffer(std::mem::replace(&mut buf, rest), room.front),
        ));
        sent += HEADER + body.len();
    }
    sent
}
