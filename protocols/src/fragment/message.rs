//! One message on its way to being whole, and what is remembered of it afterwards.

use std::time::Duration;

use bytes::BytesMut;
use p2p::{Headroom, Packet, Reason};

use super::spare::Spares;
use super::wire::{Header, MAX_PARTS};

/// How many times its content a growing buffer may take, so that it is moved once or twice, not at each
/// fragment. It never takes more than twice what the whole message can.
const GROWTH: usize = 8;

/// A message of which some fragments are here.
#[derive(Debug)]
pub(super) struct Partial<A> {
    pub(super) src: A,
    pub(super) id: u32,
    pub(super) begun: Duration,
    /// Whether a fragment came since it was last asked.
    pub(super) grew: bool,
    total: u8,
    /// One bit for each part that is here.
    seen: [u64; 4],
    /// In the order in which they came, which is the order of their bytes in `buf`.
    parts: Vec<Part>,
    /// Room in front, then the payloads. It grows with what came, never with what a header claims.
    buf: BytesMut,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    number: u8,
    /// Where in `buf` it ends; it starts where the one before it ends.
    end: usize,
}

/// What a message made of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    Kept,
    Whole,
    /// The fragment is not part of it, or was here before.
    Refused(Reason),
    /// The message exceeds the MTU.
    Oversize,
    /// The sender began another message under the same id.
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

    /// Memory of a message with `bytes` of buffers: its entries in an ordered and in a hashed table count
    /// several times, for nodes half full and for a table that is moved to twice its size.
    pub(super) const fn cost(bytes: usize) -> usize {
        2 * size_of::<(u64, Self)>() + 6 * size_of::<u64>() + 4 * size_of::<((A, u32), u64)>() + 64 + bytes
    }

    /// The most that one message of `mtu` bytes can cost.
    pub(super) const fn max_cost(mtu: usize, room: Headroom) -> usize {
        let whole = mtu.saturating_add(room.front + room.back);
        let parts = Self::cost(2 * MAX_PARTS * size_of::<Part>());
        parts.saturating_add(whole.saturating_mul(2))
    }

    /// What this message costs now.
    pub(super) fn held(&self) -> usize {
        Self::cost(self.buf.capacity() + self.parts.capacity() * size_of::<Part>())
    }

    /// Fragments that are here.
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
        spares: &mut Spares,
    ) -> Accepted {
        if header.total() != self.total {
            return Accepted::Refused(Reason::Malformed);
        }
        let bit = 1 << (header.part() % 64);
        // Of a part's 8 bits two choose the word, so it is there.
        let Some(seen) = self.seen.get_mut(usize::from(header.part() / 64)) else {
            return Accepted::Refused(Reason::Malformed);
        };
        if *seen & bit != 0 {
            return if self.part(header.part(), room.front) == Some(payload) {
                Accepted::Refused(Reason::Duplicate)
            } else {
                Accepted::Restarted
            };
        }
        let filled = self.buf.len().max(room.front);
        if filled - room.front + payload.len() > mtu {
            return Accepted::Oversize;
        }
        *seen |= bit;
        self.reserve(payload.len(), mtu, room, spares);
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

    /// Makes place for `more` bytes: in a buffer that is held anyway, if it is about as large as the whole message,
    /// else as growth by what came allows.
    fn reserve(&mut self, more: usize, mtu: usize, room: Headroom, spares: &mut Spares) {
        let needed = self.buf.len().max(room.front) + more;
        if needed <= self.buf.capacity() {
            return;
        }
        let whole = (room.front + mtu.min(more * usize::from(self.total)) + room.back).max(needed);
        if let Some(mut spare) = spares.take(whole) {
            spare.extend_from_slice(&self.buf);
            self.buf = spare;
        } else if self.parts.is_empty() {
            self.buf.reserve(needed);
        } else {
            let target = (GROWTH * needed).min(whole);
            self.buf.reserve(target - self.buf.len());
        }
    }

    /// The fragments that are here, with their numbers.
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

    /// Ends the message: its payload, in one buffer, in order. Of fragments that came in order nothing is
    /// copied again. The buffer is remembered among `spares`.
    pub(super) fn assemble(&mut self, room: Headroom, spares: &mut Spares) -> Packet {
        spares.remember(&mut self.buf);
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

    /// A copy of the payload, in order. Apart, for the sake of the stack of whoever needs no copy.
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

    /// What is remembered of the message after `at`, when it ended because of `reason`.
    pub(super) fn end(&self, at: Duration, reason: Reason, front: usize) -> Ended {
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

/// A message that is whole or was given up, known for a while by the marks of its fragments.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) id: u32,
    pub(super) at: Duration,
    /// Why a late fragment of it is dropped.
    pub(super) reason: Reason,
    total: u8,
    marks: Box<[u32]>,
}

impl Ended {
    /// What it costs, beside [`Partial::cost`] for the tables.
    pub(super) fn held(&self) -> usize {
        size_of_val(&*self.marks)
    }

    /// Whether this fragment is of this message, rather than of another one with the same id.
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

/// Tells fragments apart that are not meant to look alike: by length and by the bytes at both ends. The low 8 bits
/// are the part's number.
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
