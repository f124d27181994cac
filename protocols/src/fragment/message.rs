//! The reassembly of one message, and the record of a finished message.

use std::time::Duration;

use bytes::BytesMut;
use p2p::{DropReason, Headroom, Packet};

use super::buffer_cache::BufferCache;
use super::wire::{Header, MAX_PARTS};

/// Factor by which a growing buffer may exceed its contents, so that it is reallocated once or twice instead
/// of for each fragment. It never exceeds twice the maximum of the whole message.
const GROWTH: usize = 8;

/// A partially received message.
#[derive(Debug)]
pub(super) struct Partial<A> {
    pub(super) src: A,
    pub(super) id: u32,
    pub(super) begun: Duration,
    /// Whether a fragment arrived since the flag was last cleared.
    pub(super) grew: bool,
    total: u8,
    /// One bit for each received part.
    seen: [u64; 4],
    /// In order of arrival, which is the order of their bytes in `buf`.
    parts: Vec<Part>,
    /// Room in front, then the payloads. It grows with the received bytes, never with what a header claims.
    buf: BytesMut,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    number: u8,
    /// The end of its bytes in `buf`; they start at the end of the part before.
    end: usize,
}

/// The result of adding a fragment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    Kept,
    Whole,
    /// The fragment does not belong to the message, or is a duplicate.
    Refused(DropReason),
    /// The message exceeds the MTU.
    Oversize,
    /// The sender started another message with the same id.
    Restarted,
}

impl<A> Partial<A> {
    pub(super) fn new(src: A, header: Header, begun: Duration) -> Self {
        Self {
            src,
            id: header.id(),
            begun,
            grew: false,
            total: header.total(),
            seen: [0; 4],
            parts: Vec::new(),
            buf: BytesMut::new(),
        }
    }

    /// Returns the memory of a message with `bytes` of buffers. Its entries in an ordered and a hashed table
    /// count several times, for nodes that are half full and for a table that grows to twice its size.
    pub(super) const fn cost(bytes: usize) -> usize {
        2 * size_of::<(u64, Self)>() + 6 * size_of::<u64>() + 4 * size_of::<((A, u32), u64)>() + 64 + bytes
    }

    /// Returns the maximum memory of one message of `mtu` bytes.
    pub(super) const fn max_cost(mtu: usize, room: Headroom) -> usize {
        let whole = mtu.saturating_add(room.front + room.back);
        let parts = Self::cost(2 * MAX_PARTS * size_of::<Part>());
        parts.saturating_add(whole.saturating_mul(2))
    }

    /// Returns the current memory of this message.
    pub(super) fn held(&self) -> usize {
        Self::cost(self.buf.capacity() + self.parts.capacity() * size_of::<Part>())
    }

    /// Returns the number of received fragments.
    pub(super) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Adds a fragment.
    pub(super) fn accept(
        &mut self,
        header: Header,
        payload: &[u8],
        mtu: usize,
        room: Headroom,
        buffers: &mut BufferCache,
    ) -> Accepted {
        if header.total() != self.total {
            return Accepted::Refused(DropReason::Malformed);
        }
        let bit = 1 << (header.part() % 64);
        // Two of the part's 8 bits select the word, so it exists.
        let Some(seen) = self.seen.get_mut(usize::from(header.part() / 64)) else {
            return Accepted::Refused(DropReason::Malformed);
        };
        if *seen & bit != 0 {
            return if self.part(header.part(), room.front) == Some(payload) {
                Accepted::Refused(DropReason::Duplicate)
            } else {
                Accepted::Restarted
            };
        }
        let filled = self.buf.len().max(room.front);
        if filled - room.front + payload.len() > mtu {
            return Accepted::Oversize;
        }
        *seen |= bit;
        self.reserve(payload.len(), mtu, room, buffers);
        if self.buf.is_empty() {
            self.buf.resize(room.front, 0);
        }
        self.buf.extend_from_slice(payload);
        self.grew = !self.parts.is_empty();
        self.parts.push(Part {
            number: header.part(),
            end: self.buf.len(),
        });
        if self.parts.len() == usize::from(self.total) {
            Accepted::Whole
        } else {
            Accepted::Kept
        }
    }

    /// Makes room for `more` bytes: in a cached buffer, if one has about the size of the whole message, or
    /// else by growing.
    fn reserve(&mut self, more: usize, mtu: usize, room: Headroom, buffers: &mut BufferCache) {
        let needed = self.buf.len().max(room.front) + more;
        if needed <= self.buf.capacity() {
            return;
        }
        let whole = (room.front + mtu.min(more * usize::from(self.total)) + room.back).max(needed);
        if let Some(mut cached) = buffers.take(whole) {
            cached.extend_from_slice(&self.buf);
            self.buf = cached;
        } else if self.parts.is_empty() {
            self.buf.reserve(needed);
        } else {
            let target = (GROWTH * needed).min(whole);
            self.buf.reserve(target - self.buf.len());
        }
    }

    /// Iterates over the received fragments with their numbers.
    fn payloads(&self, front: usize) -> impl Iterator<Item = (u8, &[u8])> {
        let mut start = front;
        self.parts.iter().map(move |part| {
            let payload = self.buf.get(start..part.end).unwrap_or_default();
            start = part.end;
            (part.number, payload)
        })
    }

    fn part(&self, number: u8, front: usize) -> Option<&[u8]> {
        let mut payloads = self.payloads(front);
        payloads.find_map(|(at, payload)| (at == number).then_some(payload))
    }

    /// Returns the payload in one buffer, in order. Fragments that arrived in order are not copied again.
    /// Records the buffer in `buffers`.
    pub(super) fn assemble(&mut self, room: Headroom, buffers: &mut BufferCache) -> Packet {
        buffers.remember(&mut self.buf);
        let in_order = self
            .parts
            .iter()
            .zip(0..)
            .all(|(part, number)| part.number == number);
        if in_order {
            Packet::from_buffer(std::mem::take(&mut self.buf), room.front)
        } else {
            self.sorted(room)
        }
    }

    /// Copies the payload in order. A separate function, so that callers without a copy need less stack.
    #[cold]
    #[inline(never)]
    fn sorted(&self, room: Headroom) -> Packet {
        let mut placed = [&[][..]; MAX_PARTS];
        for (number, payload) in self.payloads(room.front) {
            if let Some(place) = placed.get_mut(usize::from(number)) {
                *place = payload;
            }
        }
        let mut whole = Packet::with_capacity(room, self.buf.len().saturating_sub(room.front));
        for payload in placed {
            whole.push_back(payload);
        }
        whole
    }

    /// Returns the record of the message, which ended at `at` for `reason`.
    pub(super) fn end(&self, at: Duration, reason: DropReason, front: usize) -> Ended {
        Ended {
            id: self.id,
            total: self.total,
            at,
            reason,
            marks: self
                .payloads(front)
                .map(|(part, payload)| mark(part, payload))
                .collect(),
        }
    }
}

/// The record of a complete or dropped message, which recognises its late fragments for a while.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) id: u32,
    pub(super) at: Duration,
    /// The reason for dropping its late fragments.
    pub(super) reason: DropReason,
    total: u8,
    marks: Box<[u32]>,
}

impl Ended {
    /// Returns the memory of the record, besides [`Partial::cost`] for the tables.
    pub(super) fn held(&self) -> usize {
        size_of_val(&*self.marks)
    }

    /// Returns whether this fragment belongs to this message, rather than to another one with the same id.
    pub(super) fn owns(&self, header: Header, payload: &[u8]) -> bool {
        let mark = mark(header.part(), payload);
        let same_part = |known: &&u32| (**known ^ mark).trailing_zeros() >= u8::BITS;
        header.total() == self.total
            && self
                .marks
                .iter()
                .find(same_part)
                .is_none_or(|known| *known == mark)
    }
}

/// Returns a short fingerprint of a fragment, from its length and the bytes at both ends. It is not
/// collision-resistant. The low 8 bits are the number of the part.
fn mark(part: u8, payload: &[u8]) -> u32 {
    let number = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let mixed = [number(payload.first_chunk()), number(payload.last_chunk())];
    let seed = payload
        .iter()
        .take(8)
        .fold(payload.len() as u64, |mix, byte| (mix << 5) ^ u64::from(*byte));
    let mixed = mixed.into_iter().fold(seed, |mix, more| {
        (mix ^ more).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    });
    (mixed >> 32) as u32 & !0xff | u32::from(part)
}
