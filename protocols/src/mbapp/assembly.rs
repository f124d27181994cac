//! The reassembly of one message.

use std::ops::RangeInclusive;

use bytes::BytesMut;
use p2p::{DropReason, Headroom, Packet};

use super::wire::{Header, MAX_RANGES};

/// Factor by which a growing buffer may exceed its contents, so that it is reallocated once or twice instead
/// of for each part. It never exceeds the whole message.
const GROWTH: usize = 8;

/// Minimum bytes of each part of a message except the last, unless this node's own datagrams carry less, or
/// there are at most [`FEW`] parts. So a message of the MTU has a bounded number of parts, and the memory and
/// the work for it are bounded, too.
pub(super) const LEAST_CHUNK: usize = 64;

/// Number of parts up to which they may have any length.
const FEW: u16 = 256;

/// The layout of a message: each part except the last carries `chunk` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    count: u16,
    total: usize,
    chunk: usize,
}

impl Layout {
    /// Derives the layout from the first received part, of `len` bytes. Returns `None` if its header is
    /// inconsistent, or there are many parts with less than `least` bytes each.
    pub(super) fn new(header: &Header, len: usize, least: usize) -> Option<Self> {
        let (count, total) = (header.part_count, usize::try_from(header.total_size).ok()?);
        let before_last = usize::from(count).checked_sub(1).filter(|more| *more > 0)?;
        let chunk = if header.part_index == count - 1 {
            let rest = total.checked_sub(len)?;
            (rest % before_last == 0).then_some(rest / before_last)?
        } else {
            len
        };
        let layout = Self { count, total, chunk };
        let bounded = chunk >= least || count <= FEW;
        let fits = bounded && layout.size(header.part_index) == Some(len);
        fits.then_some(layout)
    }

    /// Returns the length of a part in bytes; `None` if the part is not in this message or the layout is
    /// impossible.
    fn size(&self, part: u16) -> Option<usize> {
        let last = self.total.checked_sub(self.chunk * usize::from(self.count - 1))?;
        if last == 0 || last > self.chunk || part >= self.count {
            return None;
        }
        Some(if part == self.count - 1 { last } else { self.chunk })
    }
}

/// A partially received message. Its memory grows with the received bytes, never with what a header claims.
#[derive(Debug)]
pub(super) struct Assembly {
    layout: Layout,
    /// One bit for each received part, up to the last of them.
    seen: Vec<u64>,
    /// Numbers of the received parts and the ends of their bytes in `buf`, in order of arrival.
    parts: Vec<(u16, usize)>,
    /// Room in front, then the parts.
    buf: BytesMut,
}

/// The result of adding a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    Kept,
    Whole,
    Refused(DropReason),
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

    /// Returns the maximum memory of a message of `mtu` bytes in `parts` parts.
    pub(super) fn max_held(mtu: usize, parts: usize, room: Headroom) -> usize {
        let marks = parts.min(usize::from(u16::MAX)) * 2 * (size_of::<(u16, usize)>() + 1);
        mtu.saturating_mul(2)
            .saturating_add(2 * (room.front + room.back) + marks + 64)
    }

    /// Returns the current memory of this message, without the table entries.
    pub(super) fn held(&self) -> usize {
        self.buf.capacity()
            + self.parts.capacity() * size_of::<(u16, usize)>()
            + self.seen.capacity() * size_of::<u64>()
    }

    /// Adds a part. The first received part has fixed the layout; of a repeated part, the first copy counts.
    pub(super) fn accept(&mut self, header: &Header, body: &[u8], room: Headroom) -> Accepted {
        if usize::try_from(header.total_size).ok() != Some(self.layout.total)
            || self.layout.size(header.part_index) != Some(body.len())
        {
            return Accepted::Refused(DropReason::Malformed);
        }
        let (word, bit) = (usize::from(header.part_index / 64), 1 << (header.part_index % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if let Some(seen) = self.seen.get_mut(word) {
            if *seen & bit != 0 {
                return Accepted::Refused(DropReason::Duplicate);
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

    /// Returns the complete message in one buffer, in order. Parts that arrived in order are not copied
    /// again.
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

    /// Returns the missing parts: the first [`MAX_RANGES`] ranges.
    pub(super) fn lacking(&self) -> Vec<RangeInclusive<u16>> {
        let mut ranges = Vec::new();
        let mut from = 0;
        while ranges.len() < MAX_RANGES {
            let first = self.next(from, false);
            if first >= self.layout.count {
                break;
            }
            from = self.next(first, true);
            ranges.push(first..=from - 1);
        }
        ranges
    }

    /// Returns the first part from `from` on that is received (`here`) or missing; the number of parts if
    /// there is none. Scans words instead of parts, so that a short inquiry cannot cause a long scan.
    fn next(&self, from: u16, here: bool) -> u16 {
        let mut skip = u64::MAX << (from % 64);
        for (at, word) in self.seen.iter().enumerate().skip(usize::from(from / 64)) {
            let found = skip & if here { *word } else { !*word };
            if found != 0 {
                let part = 64 * at + found.trailing_zeros() as usize;
                return u16::try_from(part).map_or(self.layout.count, |part| part.min(self.layout.count));
            }
            skip = u64::MAX;
        }
        // Parts beyond the last word are missing.
        let behind = u16::try_from(64 * self.seen.len()).unwrap_or(u16::MAX).max(from);
        if here {
            self.layout.count
        } else {
            behind.min(self.layout.count)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Key, PhaseTime};
    use super::*;
    use proptest::prelude::*;

    fn header(part_index: u16, part_count: u16) -> Header {
        Header {
            is_ask: false,
            is_reply: false,
            error_code: 0,
            key: Key {
                counter: 1,
                origin: PhaseTime(0),
            },
            total_size: u32::from(part_count),
            part_index,
            part_count,
            timeout_ms: 0,
        }
    }

    /// Finds the same ranges by checking one part after another.
    fn lacking_part_by_part(assembly: &Assembly) -> Vec<RangeInclusive<u16>> {
        let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
        for part in 0..assembly.layout.count {
            if assembly.parts.iter().any(|(here, _)| *here == part) {
                continue;
            }
            let full = ranges.len() == MAX_RANGES;
            match ranges.last_mut() {
                Some(range) if range.end() + 1 == part => *range = *range.start()..=part,
                _ if full => break,
                _ => ranges.push(part..=part),
            }
        }
        ranges
    }

    proptest! {
        #[test]
        fn missing_ranges_equal_those_of_a_scan_by_part(
            count in 2_u16..700,
            parts in proptest::collection::vec((0_u16..700, 1_u16..150), 1..12),
        ) {
            let layout = Layout::new(&header(0, count), 1, 1).expect("a layout");
            let mut assembly = Assembly::new(layout);
            for (first, len) in parts {
                for part in (first..first + len).filter(|part| *part < count) {
                    assembly.accept(&header(part, count), &[7], Headroom::default());
                }
            }
            prop_assert_eq!(assembly.lacking(), lacking_part_by_part(&assembly));
        }
    }

    #[test]
    fn missing_ranges_of_the_largest_message_include_both_ends() {
        let count = u16::MAX;
        let layout = Layout::new(&header(0, count), 1, 1).expect("a layout");
        let mut assembly = Assembly::new(layout);
        assert_eq!(assembly.lacking(), [0..=count - 1]);
        assembly.accept(&header(count - 1, count), &[7], Headroom::default());
        assert_eq!(assembly.lacking(), [0..=count - 2]);
        assembly.accept(&header(0, count), &[7], Headroom::default());
        assert_eq!(assembly.lacking(), [1..=count - 2]);
    }
}
