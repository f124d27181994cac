//! The header of every datagram, and the inquiries that ask peers make into what became of an ask.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Bytes of a [`Header`]: six big-endian words of 32 bits.
pub const HEADER: usize = 24;

/// Parts that a message has at most: their number is a field of 16 bits.
pub const MAX_PARTS: usize = u16::MAX as usize;

/// The longest that an ask is waited for; longer timeouts are cut to it, so that a server need not remember longer.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_mins(10);

/// The timeout field of a tell: go-p2p's value for "no deadline", in milliseconds.
pub(super) const NO_DEADLINE: u32 = 1 << 28;

const ASK: u32 = 1 << 31;
const REPLY: u32 = 1 << 30;

/// A moment as 32 bits of milliseconds, good for telling times apart that are less than 12 days from one another.
///
/// The top bit says which of two interleaved sequences of epochs, 2³¹ ms long each and half a length apart, the
/// others count from, so that no moment is close to where its sequence wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PhaseTime(pub u32);

impl PhaseTime {
    const EPOCH: i64 = 1 << 31;
    /// How much later than the even epochs the odd ones begin.
    const ODD: i64 = 1 << 30;

    /// The phase of a moment given in milliseconds since the Unix epoch.
    pub fn new(unix_ms: u64) -> Self {
        let unix_ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
        let phase = unix_ms.rem_euclid(Self::EPOCH);
        let even = (Self::ODD / 2..3 * (Self::ODD / 2)).contains(&phase);
        let (bit, since) = if even {
            (0, phase)
        } else {
            (1 << 31, (unix_ms - Self::ODD).rem_euclid(Self::EPOCH))
        };
        // A remainder of 2³¹ fits.
        Self(bit | u32::try_from(since).unwrap_or_default())
    }

    /// The moment, in milliseconds since the Unix epoch, that a node whose clock shows `clock_ms` takes this for.
    pub fn recover(self, clock_ms: u64) -> u64 {
        let clock = i64::try_from(clock_ms).unwrap_or(i64::MAX);
        let offset = if self.0 >> 31 == 0 { 0 } else { Self::ODD };
        let epoch = clock - (clock - offset).rem_euclid(Self::EPOCH);
        let since = i64::from(self.0 & (u32::MAX >> 1));
        u64::try_from(epoch.saturating_add(since)).unwrap_or(0)
    }
}

/// What tells one ask of a node from all its others; a reply carries that of its ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Counts the messages of one swarm, from 1.
    pub counter: u32,
    /// When the message was made, by the sender's clock.
    pub origin: PhaseTime,
}

/// What stands in front of each part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The message is an ask, or the reply to one.
    pub is_ask: bool,
    /// The message is a reply. Without `is_ask` this means nothing.
    pub is_reply: bool,
    /// Of a reply: 0, or why there is no response.
    pub error_code: u8,
    /// Which message.
    pub key: Key,
    /// Bytes of the whole message.
    pub total_size: u32,
    /// Which part of it this is, from 0.
    pub part_index: u16,
    /// How many parts it has. An empty message has 0.
    pub part_count: u16,
    /// How long the sender waits for the answer, in milliseconds.
    pub timeout_ms: u32,
}

impl Header {
    /// How long the sender of an ask waits; no timeout means the longest.
    pub(super) fn timeout(&self) -> Duration {
        match self.timeout_ms {
            0 => MAX_TIMEOUT,
            timeout => Duration::from_millis(timeout.into()).min(MAX_TIMEOUT),
        }
    }

    /// The header at the front of `bytes`, and the part behind it; `None` if they are too short. Bits without a
    /// meaning are ignored.
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

    /// The header's bytes.
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

/// The counter of inquiries: no message has it, so that no ask can take an inquiry for its reply.
pub(super) const INQUIRY_COUNTER: u32 = 0;

/// The error code of inquiries, so that even who mistook one for a reply would see a failed ask and no response.
pub(super) const INQUIRY_CODE: u8 = u8::MAX;

/// Who says which parts it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lacks {
    /// The asker, parts of the reply: a question.
    Reply,
    /// The server, parts of the request: the answer to that question while there is no reply. If it lacks none it
    /// is at work.
    Request,
}

/// One node's account of an ask that both know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inquiry {
    pub(super) about: Key,
    pub(super) lacks: Lacks,
    /// The parts lacked, as far as they fit; those not named may be lacked as well, if there are as many ranges as fit.
    pub(super) parts: Vec<RangeInclusive<u16>>,
}

/// Ranges that one inquiry names at most, so that it fits small MTUs and small budgets; further ones come up in the next.
pub(super) const MAX_RANGES: usize = 12;

/// All parts, however many there are.
pub(super) const ALL: RangeInclusive<u16> = 0..=u16::MAX;

impl Inquiry {
    /// What `bytes`, the body of a datagram with [`INQUIRY_COUNTER`], say; `None` if it is nothing of this form.
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

    /// The body of the inquiry.
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
        fn what_parses_is_what_was_emitted(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
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
