//! The header of every datagram, and the inquiries about the state of an ask.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Length of a [`Header`] in bytes: six big-endian words of 32 bits.
pub const HEADER: usize = 24;

/// Maximum number of parts of a message: the number is a field of 16 bits.
pub const MAX_PARTS: usize = u16::MAX as usize;

/// Maximum timeout of an ask; longer ones are shortened to it, so that a server need not remember longer.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_mins(10);

/// The timeout field of a tell in milliseconds: go-p2p's value for "no deadline".
pub(super) const NO_DEADLINE: u32 = 1 << 28;

const ASK: u32 = 1 << 31;
const REPLY: u32 = 1 << 30;

/// A time as 32 bits of milliseconds, which distinguishes times that are less than 12 days apart.
///
/// The top bit selects one of two interleaved sequences of epochs, each 2³¹ ms long and half a length apart;
/// the other bits count from the start of that epoch. So no time is close to the point where its sequence
/// wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PhaseTime(pub u32);

impl PhaseTime {
    const EPOCH: i64 = 1 << 31;
    /// Offset of the odd epochs from the even epochs.
    const ODD: i64 = 1 << 30;

    /// Converts a time in milliseconds since the Unix epoch.
    pub fn new(unix_ms: u64) -> Self {
        let unix_ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
        let phase = unix_ms.rem_euclid(Self::EPOCH);
        let even = (Self::ODD / 2..3 * (Self::ODD / 2)).contains(&phase);
        let (bit, since) = if even {
            (0, phase)
        } else {
            (1 << 31, (unix_ms - Self::ODD).rem_euclid(Self::EPOCH))
        };
        // A remainder modulo 2³¹ fits.
        Self(bit | u32::try_from(since).unwrap_or_default())
    }

    /// Returns the time in milliseconds since the Unix epoch, as seen by a node with the clock `clock_ms`.
    pub fn recover(self, clock_ms: u64) -> u64 {
        let clock = i64::try_from(clock_ms).unwrap_or(i64::MAX);
        let offset = if self.0 >> 31 == 0 { 0 } else { Self::ODD };
        let epoch = clock - (clock - offset).rem_euclid(Self::EPOCH);
        let since = i64::from(self.0 & (u32::MAX >> 1));
        u64::try_from(epoch.saturating_add(since)).unwrap_or(0)
    }
}

/// Identifies an ask among all asks of a node; a reply has the key of its ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The number of the message in its swarm, from 1.
    pub counter: u32,
    /// The creation time of the message, by the sender's clock.
    pub origin: PhaseTime,
}

/// The header of each part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether the message is an ask, or the reply to one.
    pub is_ask: bool,
    /// Whether the message is a reply. Meaningless without `is_ask`.
    pub is_reply: bool,
    /// In a reply: 0, or the reason for the rejection.
    pub error_code: u8,
    /// Identifies the message.
    pub key: Key,
    /// Length of the whole message in bytes.
    pub total_size: u32,
    /// The index of this part, from 0.
    pub part_index: u16,
    /// The number of parts. An empty message has 0.
    pub part_count: u16,
    /// The timeout of the ask in milliseconds.
    pub timeout_ms: u32,
}

impl Header {
    /// Returns the timeout of an ask; a value of zero means the maximum.
    pub(super) fn timeout(&self) -> Duration {
        match self.timeout_ms {
            0 => MAX_TIMEOUT,
            timeout => Duration::from_millis(timeout.into()).min(MAX_TIMEOUT),
        }
    }

    /// Parses the header at the front of `bytes`. Returns it and the part behind it; `None` if `bytes` is too
    /// short. Unknown bits are ignored.
    pub fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (words, body) = bytes.split_first_chunk::<HEADER>()?;
        let mut words = words
            .as_chunks::<4>()
            .0
            .iter()
            .map(|word| u32::from_be_bytes(*word));
        let mut word = || words.next().unwrap_or_default();
        let flags = word();
        let origin = PhaseTime(word());
        let counter = word();
        let total_size = word();
        let part = word();
        let header = Self {
            is_ask: flags & ASK != 0,
            is_reply: flags & REPLY != 0,
            error_code: flags as u8,
            key: Key { counter, origin },
            total_size,
            part_index: (part >> 16) as u16,
            part_count: part as u16,
            timeout_ms: word(),
        };
        Some((header, body))
    }

    /// Encodes the header.
    pub fn emit(&self) -> [u8; HEADER] {
        let flag = |set, bit| if set { bit } else { 0 };
        let words = [
            flag(self.is_ask, ASK) | flag(self.is_reply, REPLY) | u32::from(self.error_code),
            self.key.origin.0,
            self.key.counter,
            self.total_size,
            u32::from(self.part_index) << 16 | u32::from(self.part_count),
            self.timeout_ms,
        ];
        let mut bytes = [0; HEADER];
        for (place, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *place = word.to_be_bytes();
        }
        bytes
    }
}

/// The counter of inquiries: no message has it, so an inquiry cannot match a pending ask.
pub(super) const INQUIRY_COUNTER: u32 = 0;

/// The error code of inquiries: a peer that mistakes one for a reply sees a failed ask, not a response.
pub(super) const INQUIRY_CODE: u8 = u8::MAX;

/// The direction of an inquiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lacks {
    /// The asking node lacks parts of the reply: a question.
    Reply,
    /// The server lacks parts of the request: the answer to the question while there is no reply. With no
    /// parts, the request is being processed.
    Request,
}

/// An inquiry about an ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inquiry {
    pub(super) about: Key,
    pub(super) lacks: Lacks,
    /// The missing parts, up to the maximum number of ranges; at the maximum, further parts may be missing.
    pub(super) parts: Vec<RangeInclusive<u16>>,
}

/// Maximum number of ranges in one inquiry, so that it fits small MTUs; the next inquiry names further ones.
pub(super) const MAX_RANGES: usize = 12;

/// All parts of any message.
pub(super) const ALL: RangeInclusive<u16> = 0..=u16::MAX;

impl Inquiry {
    /// Parses the body of a datagram with [`INQUIRY_COUNTER`]; `None` if it is invalid.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (&lacks, rest) = bytes.split_first()?;
        let (counter, rest) = rest.split_first_chunk()?;
        let (origin, rest) = rest.split_first_chunk()?;
        let (ranges, []) = rest.as_chunks::<4>() else {
            return None;
        };
        let range = |[a, b, c, d]: [u8; 4]| {
            let (first, last) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            (first <= last).then_some(first..=last)
        };
        if ranges.len() > MAX_RANGES {
            return None;
        }
        Some(Self {
            about: Key {
                counter: u32::from_be_bytes(*counter),
                origin: PhaseTime(u32::from_be_bytes(*origin)),
            },
            lacks: match lacks {
                0 => Lacks::Reply,
                1 => Lacks::Request,
                _ => return None,
            },
            parts: ranges.iter().copied().map(range).collect::<Option<_>>()?,
        })
    }

    /// Encodes the body of the inquiry.
    pub(super) fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![match self.lacks {
            Lacks::Reply => 0,
            Lacks::Request => 1,
        }];
        bytes.extend(self.about.counter.to_be_bytes());
        bytes.extend(self.about.origin.0.to_be_bytes());
        for part in self.parts.iter().take(MAX_RANGES) {
            bytes.extend(part.start().to_be_bytes());
            bytes.extend(part.end().to_be_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_encoding_of_an_inquiry_is_pinned() {
        let inquiry = Inquiry {
            about: Key {
                counter: 0x0102_0304,
                origin: PhaseTime(0x0506_0708),
            },
            lacks: Lacks::Request,
            parts: vec![0..=2, 0x1011..=0xffff],
        };
        assert_eq!(
            inquiry.emit(),
            [1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 2, 0x10, 0x11, 0xff, 0xff]
        );
    }

    proptest! {
        #[test]
        fn parsing_and_encoding_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(inquiry) = Inquiry::parse(&bytes) {
                prop_assert_eq!(inquiry.emit(), bytes);
            }
        }

        #[test]
        fn a_phase_is_recovered_by_every_clock_within_six_days(
            unix_ms in (1_u64 << 31)..(1 << 45), skew in -(1_i64 << 29) + 1..1 << 29
        ) {
            let clock = unix_ms.checked_add_signed(skew).expect("both are small");
            prop_assert_eq!(PhaseTime::new(unix_ms).recover(clock), unix_ms);
        }
    }
}
