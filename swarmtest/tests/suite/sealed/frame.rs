//! The toy's bytes: what packets are made of, and what is sealed in them.
//!
//! | first byte | packet | then |
//! | --- | --- | --- |
//! | 0 | hello | number of the session with the initiator, its short-lived key, its long-lived key |
//! | 1 | answer | both numbers, the responder's keys, a proof that it has the session's keys |
//! | 2 | data | the receiver's number of the session, counter, sealed frame |
//! | 3 | unknown | the number of a session that data came for and that is not known |

use std::num::NonZeroU8;

use p2p::Rejection;

use super::session::{Public, TAG};

/// Bytes that a message is shorter than its packet: kind, number of the session, counter, kind of frame, number
/// of the ask, tag.
pub(crate) const OVERHEAD: usize = 1 + 8 + 8 + 1 + 8 + TAG;

pub(super) const HELLO: u8 = 0;
pub(super) const ANSWER: u8 = 1;
pub(super) const DATA: u8 = 2;
pub(super) const UNKNOWN: u8 = 3;
/// Data that is not sealed as it should be, by a fault.
pub(super) const FAULTY: u8 = 4;

/// The first byte, a session and a counter.
pub(super) type Header = [u8; 17];

pub(super) fn header(kind: u8, number: u64, counter: u64) -> Header {
    let mut header = [kind; 17];
    header[1..9].copy_from_slice(&number.to_be_bytes());
    header[9..].copy_from_slice(&counter.to_be_bytes());
    header
}

/// What is sealed.
pub(crate) enum Frame<'a> {
    Tell(&'a [u8]),
    Request(u64, &'a [u8]),
    Response(u64, &'a [u8]),
    Rejection(u64, Rejection),
}

impl Frame<'_> {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let (kind, number, rest) = match self {
            Frame::Tell(text) => return [&[0], *text].concat(),
            Frame::Request(number, text) => (1, number, *text),
            Frame::Response(number, text) => (2, number, *text),
            Frame::Rejection(number, why) => {
                return [&[3][..], &number.to_be_bytes(), &[why.code().get()]].concat();
            }
        };
        [&[kind][..], &number.to_be_bytes(), rest].concat()
    }

    pub(super) fn is_tell(&self) -> bool {
        matches!(self, Frame::Tell(_))
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Frame<'_>> {
        let (kind, rest) = bytes.split_first()?;
        if *kind == 0 {
            return Some(Frame::Tell(rest));
        }
        let (number, rest) = rest.split_first_chunk()?;
        let number = u64::from_be_bytes(*number);
        match (kind, rest) {
            (1, text) => Some(Frame::Request(number, text)),
            (2, text) => Some(Frame::Response(number, text)),
            (3, [code]) => Some(Frame::Rejection(number, Rejection::new(NonZeroU8::new(*code)?))),
            _ => None,
        }
    }
}

/// The number, the short-lived key and the long-lived key of a hello.
pub(super) fn split_hello(packet: &[u8]) -> Option<(u64, Public, Public)> {
    let (_, rest) = packet.split_first()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (short, long) = rest.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), *short, *long.as_array()?))
}

/// The initiator's number, the responder's number, and its keys.
pub(super) fn split_answer(packet: &[u8]) -> Option<(u64, u64, Public, Public)> {
    let (_, rest) = packet.split_first()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (theirs, rest) = rest.split_first_chunk()?;
    let (short, rest) = rest.split_first_chunk()?;
    let (long, proof) = rest.split_first_chunk()?;
    let (number, theirs) = (u64::from_be_bytes(*number), u64::from_be_bytes(*theirs));
    (proof.len() == TAG).then_some((number, theirs, *short, *long))
}
