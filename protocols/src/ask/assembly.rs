//! One message on its way to being whole.

use std::ops::RangeInclusive;

use bytes::BytesMut;
use p2p::{Headroom, Packet, Reason};

use super::wire::{Header, MAX_RANGES};

/// How many times its content a growing buffer may take, so that it is moved once or twice, not at each part. It
/// never takes more than the whole message does.
const GROWTH: usize = 8;

/// How a message is laid out; of all its parts but the last each carries `chunk` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    count: u16,
    total: usize,
    chunk: usize,
}

impl Layout {
    /// The layout that the first part to come, of `len` bytes, implies; `None` if its header contradicts itself.
    pub(super) fn new(header: &Header, len: usize) -> Option<Self> {
        let (count, total) = (header.part_count, usize::try_from(header.total_size).ok()?);
        let before_last = usize::from(count).checked_sub(1).filter(|more| *more > 0)?;
        let chunk = if header.part_index == count - 1 {
            let rest = total.checked_sub(len)?;
            (rest % before_last == 0).then_some(rest / before_last)?
        } else {
            len
        };
        let layout = Self { count, total, chunk };
        (header.part_index < count && layout.size(header.part_index) == Some(len)).then_some(layout)
    }

    /// Bytes of a part; `None` if it is not one of this message or the layout is impossible.
    fn size(&self, part: u16) -> Option<usize> {
        let last = self.total.checked_sub(self.chunk * usize::from(self.count - 1))?;
        if last == 0 || last > self.chunk || part >= self.count {
            return None;
        }
        Some(if part == self.count - 1 { last } else { self.chunk })
    }
}

/// A message of which some parts are here. Its memory grows with what came, never with what a header claims.
#[derive(Debug)]
pub(super) struct Assembly {
    layout: Layout,
    /// A bit for each part that is here, up to the last of them.
    seen: Vec<u64>,
    /// In the order in which they came, which is the order of their bytes in `buf`: numbers, and where they end.
    parts: Vec<(u16, usize)>,
    /// Room in front, then the parts.
    buf: BytesMut,
}

/// What a message made of a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    Kept,
    Whole,
    Refused(Reason),
}

impl Assembly {
    pub(super) fn new(layout: Layout) -> Self {
        Self {
            layout,
            seen: Vec::new(),
            parts: Vec::new(),
            buf: BytesMut::new(),
        }
    }

    /// The most that a message of `mtu` bytes, in `parts` parts, can hold.
    pub(super) fn max_held(mtu: usize, parts: usize, room: Headroom) -> usize {
        let marks = parts.min(usize::from(u16::MAX)) * 2 * (size_of::<(u16, usize)>() + 1);
        mtu.saturating_mul(2)
            .saturating_add(2 * (room.front + room.back) + marks + 64)
    }

    /// What this message holds now, without what it takes to find it.
    pub(super) fn held(&self) -> usize {
        self.buf.capacity()
            + self.parts.capacity() * size_of::<(u16, usize)>()
            + self.seen.capacity() * size_of::<u64>()
    }

    /// Adds a part. The first part that came has fixed the layout; of a part that comes again the first counts.
    pub(super) fn accept(&mut self, header: &Header, body: &[u8], room: Headroom) -> Accepted {
        if usize::try_from(header.total_size).ok() != Some(self.layout.total)
            || self.layout.size(header.part_index) != Some(body.len())
        {
            return Accepted::Refused(Reason::Malformed);
        }
        let (word, bit) = (usize::from(header.part_index / 64), 1 << (header.part_index % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if let Some(seen) = self.seen.get_mut(word) {
            if *seen & bit != 0 {
                return Accepted::Refused(Reason::Duplicate);
            }
            *seen |= bit;
        }
        let whole = room.front + self.layout.total + room.back;
        let needed = self.buf.len().max(room.front) + body.len();
        if needed > self.buf.capacity() {
            let grown = if self.parts.is_empty() {
                needed
            } else {
                GROWTH * needed
            };
            self.buf.reserve(grown.min(whole).max(needed) - self.buf.len());
        }
        if self.buf.is_empty() {
            self.buf.resize(room.front, 0);
        }
        self.buf.extend_from_slice(body);
        self.parts.push((header.part_index, self.buf.len()));
        if self.parts.len() == usize::from(self.layout.count) {
            Accepted::Whole
        } else {
            Accepted::Kept
        }
    }

    /// The message, once it is whole: in one buffer, in order. Of parts that came in order nothing is copied again.
    pub(super) fn assemble(self, room: Headroom) -> Packet {
        if self.parts.is_sorted_by_key(|(part, _)| *part) {
            return Packet::from_buffer(self.buf, room.front);
        }
        let mut start = room.front;
        let mut placed: Vec<_> = self
            .parts
            .iter()
            .map(|&(part, end)| (part, std::mem::replace(&mut start, end)..end))
            .collect();
        placed.sort_unstable_by_key(|(part, _)| *part);
        let mut whole = Packet::with_capacity(room, self.layout.total);
        for (_, place) in placed {
            whole.push_back(self.buf.get(place).unwrap_or_default());
        }
        whole
    }

    /// The parts that are not here, the first [`MAX_RANGES`] ranges of them.
    pub(super) fn lacking(&self) -> Vec<RangeInclusive<u16>> {
        let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
        for part in 0..self.layout.count {
            let word = self.seen.get(usize::from(part / 64)).copied().unwrap_or(0);
            if word & (1 << (part % 64)) != 0 {
                continue;
            }
            let full = ranges.len() == MAX_RANGES;
            match ranges.last_mut() {
                Some(range) if range.end().checked_add(1) == Some(part) => *range = *range.start()..=part,
                _ if full => break,
                _ => ranges.push(part..=part),
            }
        }
        ranges
    }
}
