//! The frames of mplex: a header, which is the number of the stream and what is said of it, a length, and as many bytes.

use p2p_formats::varint::{self, VarintError};

/// Maximum length of the data of a frame, in bytes.
pub(super) const MAX_DATA: u64 = 1 << 20;

/// A stream: its number, and whether this host opened it. Both sides number their streams from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct StreamId {
    pub(super) number: u64,
    pub(super) is_ours: bool,
}

/// What a frame says of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The stream is opened. The data is a name, which has no meaning.
    Open,
    /// Data.
    Data,
    /// The sender sends no more.
    Close,
    /// The stream ends in both directions.
    Reset,
}

/// The reason for which bytes are not frames, or not permitted. The connection is of no further use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MplexError {
    /// A header or a length is not a varint.
    #[error("a frame's head is not a varint of 64 bits")]
    Varint,
    /// A header says what no version says.
    #[error("a frame has the unknown type 7")]
    Type,
    /// A length exceeds [`MAX_DATA`].
    #[error("a frame of {0} bytes exceeds {MAX_DATA}")]
    Length(u64),
    /// A stream was opened twice.
    #[error("the stream {0} was opened twice")]
    Twice(u64),
    /// The answers to the peer's frames were not taken.
    #[error("the peer takes no answers to its frames")]
    Flood,
}

/// Appends the head of a frame with `len` bytes of data.
pub(super) fn write_head(out: &mut impl Extend<u8>, id: StreamId, kind: Kind, len: usize) {
    let flag = match (kind, id.is_ours) {
        (Kind::Open, _) => 0,
        (Kind::Data, false) => 1,
        (Kind::Data, true) => 2,
        (Kind::Close, false) => 3,
        (Kind::Close, true) => 4,
        (Kind::Reset, false) => 5,
        (Kind::Reset, true) => 6,
    };
    for value in [id.number << 3 | flag, len as u64] {
        out.extend(varint::write(value, &mut [0; varint::MAX_LEN]).iter().copied());
    }
}

/// What a decoder found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// The head of a frame.
    Head(StreamId, Kind),
    /// Some bytes of the frame whose head was last.
    Data(&'a [u8]),
}

/// Splits a byte stream into heads and data, and keeps an incomplete head only.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The first bytes of an incomplete head: two varints.
    head: Vec<u8>,
    /// Bytes of data that belong to the last head.
    rest: u64,
}

impl Decoder {
    /// Takes the next piece from the front of `bytes`, unless they are used up.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Piece<'a>>, MplexError> {
        if self.rest > 0 && !bytes.is_empty() {
            let count = usize::try_from(self.rest).unwrap_or(usize::MAX).min(bytes.len());
            let (data, more) = bytes.split_at(count);
            self.rest -= count as u64;
            *bytes = more;
            return Ok(Some(Piece::Data(data)));
        }
        while let Some((byte, more)) = bytes.split_first() {
            *bytes = more;
            self.head.push(*byte);
            if *byte & 0x80 != 0 {
                if self.head.len() > 2 * varint::MAX_LEN {
                    return Err(MplexError::Varint);
                }
                continue;
            }
            // A varint is complete.
            let Some((header, len)) = self.varints()? else {
                continue;
            };
            self.head.clear();
            if len > MAX_DATA {
                return Err(MplexError::Length(len));
            }
            self.rest = len;
            // The sender of 1, 3 and 5 received the stream, so this host opened it.
            let (kind, is_ours) = match header & 7 {
                0 => (Kind::Open, false),
                1 => (Kind::Data, true),
                2 => (Kind::Data, false),
                3 => (Kind::Close, true),
                4 => (Kind::Close, false),
                5 => (Kind::Reset, true),
                6 => (Kind::Reset, false),
                _ => return Err(MplexError::Type),
            };
            let number = header >> 3;
            return Ok(Some(Piece::Head(StreamId { number, is_ours }, kind)));
        }
        Ok(None)
    }

    fn varints(&self) -> Result<Option<(u64, u64)>, MplexError> {
        let read = |bytes| match varint::read(bytes) {
            Ok(found) => Ok(Some(found)),
            Err(VarintError::Truncated) => Ok(None),
            Err(VarintError::Overflow) => Err(MplexError::Varint),
        };
        let Some((header, len)) = read(&self.head)? else {
            return Ok(None);
        };
        let second = self.head.get(len..).unwrap_or_default();
        Ok(read(second)?.map(|(len, _)| (header, len)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: StreamId = StreamId {
        number: 17,
        is_ours: true,
    };

    fn frame(id: StreamId, kind: Kind, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_head(&mut bytes, id, kind, data.len());
        bytes.extend_from_slice(data);
        bytes
    }

    /// Decodes bytes that arrive in parts.
    fn decode(parts: &[&[u8]]) -> Result<Vec<(StreamId, Kind, Vec<u8>)>, MplexError> {
        let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
        for mut part in parts.iter().copied() {
            while let Some(piece) = decoder.next(&mut part)? {
                match piece {
                    Piece::Head(id, kind) => frames.push((id, kind, Vec::new())),
                    Piece::Data(data) => frames.last_mut().expect("a head").2.extend_from_slice(data),
                }
            }
        }
        Ok(frames)
    }

    #[test]
    fn frames_are_those_of_the_specification() {
        let theirs = StreamId {
            number: 0,
            is_ours: false,
        };
        // Number, shifted by three bits, and the type; then the length.
        assert_eq!(frame(OURS, Kind::Open, b"17"), b"\x88\x01\x0217");
        assert_eq!(frame(OURS, Kind::Data, b"hi"), b"\x8a\x01\x02hi");
        assert_eq!(frame(OURS, Kind::Close, b""), [0x8c, 1, 0]);
        assert_eq!(frame(OURS, Kind::Reset, b""), [0x8e, 1, 0]);
        assert_eq!(frame(theirs, Kind::Data, b"x"), b"\x01\x01x");
        assert_eq!(frame(theirs, Kind::Close, b""), [3, 0]);
        assert_eq!(frame(theirs, Kind::Reset, b""), [5, 0]);
    }

    #[test]
    fn what_no_frame_begins_with_is_refused() {
        assert_eq!(decode(&[&[7, 0]]), Err(MplexError::Type));
        assert_eq!(
            decode(&[&[2, 0x81, 0x80, 0x40]]),
            Err(MplexError::Length((1 << 20) + 1))
        );
        assert!(decode(&[&[2, 0x80, 0x80, 0x40]]).is_ok());
        assert_eq!(decode(&[&[0xff; 30]]), Err(MplexError::Varint));
        assert_eq!(decode(&[&[0xff; 10], &[1, 0]]), Err(MplexError::Varint));
    }

    proptest! {
        #[test]
        fn frames_are_decoded_from_any_parts(
            sent in prop::collection::vec((0..1_u64 << 60, any::<bool>(), 0..4_u8, prop::collection::vec(any::<u8>(), 0..40)), 0..8),
            cuts in prop::collection::vec(0..200_usize, 0..8),
        ) {
            let sent: Vec<_> = sent.into_iter().map(|(number, is_ours, kind, data)| {
                let kind = [Kind::Open, Kind::Data, Kind::Close, Kind::Reset][usize::from(kind)];
                (StreamId { number, is_ours: is_ours || kind == Kind::Open }, kind, data)
            }).collect();
            let bytes: Vec<u8> = sent.iter().flat_map(|(id, kind, data)| frame(*id, *kind, data)).collect();
            let mut cuts: Vec<_> = cuts.into_iter().filter(|cut| *cut <= bytes.len()).collect();
            cuts.sort_unstable();
            let ends = cuts.iter().copied().chain([bytes.len()]);
            let parts: Vec<_> = [0].into_iter().chain(cuts.iter().copied()).zip(ends).map(|(from, to)| &bytes[from..to]).collect();
            // A stream of the sender is one that its peer did not open.
            let received: Vec<_> = sent.into_iter().map(|(id, kind, data)| {
                (StreamId { is_ours: !id.is_ours, ..id }, kind, data)
            }).collect();
            prop_assert_eq!(decode(&parts), Ok(received));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&[&bytes]);
        }
    }
}
