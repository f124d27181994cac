//! Splits a message into fragments for a smaller MTU.

use std::hash::Hash;

use bytes::BytesMut;
use p2p::{Error, Headroom, Packet, Result};

use super::wire::{Header, MAX_HEADER, MAX_PARTS, OVERHEAD};
use crate::hash::HashMap;

/// Returns the payload bytes of one fragment for an inner MTU of `inner_mtu`; at least one.
pub fn chunk(inner_mtu: usize) -> usize {
    inner_mtu.saturating_sub(OVERHEAD).max(1)
}

/// Returns the maximum length in bytes of a message for an inner MTU of `inner_mtu`, at most `configured`; 0 if the header
/// leaves no room in a fragment.
pub fn mtu(configured: usize, inner_mtu: usize) -> usize {
    configured.min(inner_mtu.saturating_sub(OVERHEAD).saturating_mul(MAX_PARTS))
}

/// Passes the fragments of message `id` to `emit`, in order, each with `room` around it.
///
/// A message of one part keeps its buffer: no copy, and no allocation if it has room for the header. A longer
/// one is copied once, into one buffer from which the fragments are sliced. If `room` is empty, or the layers
/// below fill it completely, the fragments are contiguous in memory, so that a base can send them as one
/// buffer.
///
/// `slab` keeps that buffer, and the next call reuses it if all fragments have been dropped and it is at most
/// twice as large as needed. Start with an empty one.
///
/// # Errors
/// [`MtuExceeded`](Error::MtuExceeded) if the message needs more than [`MAX_PARTS`] fragments; nothing is
/// emitted.
pub fn split(
    id: u32,
    mut packet: Packet,
    chunk: usize,
    room: Headroom,
    slab: &mut BytesMut,
    mut emit: impl FnMut(Packet),
) -> Result<()> {
    let total = packet.len().div_ceil(chunk).max(1);
    let Ok(total) = u8::try_from(total) else {
        return Err(Error::MtuExceeded {
            size: packet.len(),
            mtu: chunk.saturating_mul(MAX_PARTS),
        });
    };
    let mut header = [0; MAX_HEADER];
    if total == 1 {
        packet.push_front(Header { id, part: 0, total }.write(&mut header));
        emit(packet);
        return Ok(());
    }
    let around = room.front + room.back;
    let needed = packet.len() + usize::from(total) * (around + MAX_HEADER);
    let mut fresh = BytesMut::new();
    let buf = if !slab.try_reclaim(needed) {
        *slab = BytesMut::with_capacity(needed);
        slab
    } else if slab.capacity() <= 2 * needed {
        slab
    } else {
        fresh.reserve(needed);
        &mut fresh
    };
    for (part, payload) in (0..total).zip(packet.chunks(chunk)) {
        buf.resize(room.front, 0);
        buf.extend_from_slice(Header { id, part, total }.write(&mut header));
        buf.extend_from_slice(payload);
        let rest = buf.split_off(buf.len() + room.back);
        emit(Packet::from_buffer(std::mem::replace(buf, rest), room.front));
    }
    // The unused end stays with the last fragment: a short later message in it would keep the whole buffer
    // alive.
    *buf = buf.split_off(buf.capacity());
    Ok(())
}

/// The ids of messages by destination: they count from 0, as the encoding requires.
///
/// The number of destinations is bounded; the least recently used are forgotten. After that, new destinations
/// start at the highest forgotten count, so that no destination sees an id again that it may still be
/// reassembling.
#[derive(Debug)]
pub struct Ids<A> {
    /// Recently used destinations, and those used before. When `recent` is full, it replaces `older`.
    recent: HashMap<A, u32>,
    older: HashMap<A, u32>,
    half: usize,
    start: u32,
}

impl<A: Clone + Eq + Hash> Ids<A> {
    /// Creates counters for up to `limit` destinations (at least two).
    pub fn new(limit: usize) -> Self {
        Self {
            recent: HashMap::default(),
            older: HashMap::default(),
            half: (limit / 2).max(1),
            start: 0,
        }
    }

    /// Returns the id of the next message to `dst`. Wraps around after 2³² messages.
    pub fn next(&mut self, dst: &A) -> u32 {
        if let Some(next) = self.recent.get_mut(dst) {
            let id = *next;
            *next = next.wrapping_add(1);
            return id;
        }
        let id = self.older.remove(dst).unwrap_or(self.start);
        if self.recent.len() >= self.half {
            let forgotten = std::mem::replace(&mut self.older, std::mem::take(&mut self.recent));
            self.start = forgotten.into_values().fold(self.start, u32::max);
        }
        self.recent.insert(dst.clone(), id.wrapping_add(1));
        id
    }

    /// Returns the number of destinations with a counter.
    pub fn destinations(&self) -> usize {
        self.recent.len() + self.older.len()
    }
}
