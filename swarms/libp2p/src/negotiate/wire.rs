//! The messages of multistream-select.

use bytes::{Buf as _, BytesMut};
use p2p_formats::varint::{self, VarintError};

/// The first message in each direction.
pub(super) const HEADER: &str = "/multistream/1.0.0";
/// The answer to a proposal that is not accepted.
pub(super) const REFUSAL: &str = "na";

/// Maximum length of a message in bytes, with its line feed and without its length.
pub const MAX_LINE: usize = 1024;

/// The reason for which bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedLine {
    /// The length is not a varint, or exceeds [`MAX_LINE`].
    #[error("a message has 1 to {MAX_LINE} bytes")]
    Length,
    /// The text does not end with a line feed.
    #[error("a message ends with a line feed")]
    LineFeed,
    /// The text is not UTF-8.
    #[error("a message is UTF-8")]
    Text,
}

/// Encodes a message.
pub(super) fn encode(text: &str) -> Result<Vec<u8>, MalformedLine> {
    let len = text.len() + 1;
    if len > MAX_LINE {
        return Err(MalformedLine::Length);
    }
    let mut line = varint::write(len as u64, &mut [0; varint::MAX_LEN]).to_vec();
    line.extend_from_slice(text.as_bytes());
    line.push(b'\n');
    Ok(line)
}

/// Takes the message at the start of `bytes`, if it is complete.
pub(super) fn take_line(bytes: &mut BytesMut) -> Result<Option<String>, MalformedLine> {
    let (len, head) = match varint::read(bytes) {
        Ok((len, head)) => (usize::try_from(len).unwrap_or(usize::MAX), head),
        // The longest length has two bytes.
        Err(VarintError::Truncated) if bytes.len() < 2 => return Ok(None),
        Err(_) => return Err(MalformedLine::Length),
    };
    if !(1..=MAX_LINE).contains(&len) {
        return Err(MalformedLine::Length);
    }
    let Some(line) = bytes.get(head..head + len) else {
        return Ok(None);
    };
    let text = line.strip_suffix(b"\n").ok_or(MalformedLine::LineFeed)?;
    let text = std::str::from_utf8(text)
        .map_err(|_| MalformedLine::Text)?
        .to_owned();
    bytes.advance(head + len);
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_have_the_bytes_of_the_specification() {
        let header = encode(HEADER).expect("a short text");
        assert_eq!(header, b"\x13/multistream/1.0.0\n");
        assert_eq!(encode(REFUSAL).expect("a short text"), b"\x03na\n");
        assert_eq!(encode(&"/".repeat(MAX_LINE)), Err(MalformedLine::Length));
    }

    #[test]
    fn invalid_messages_are_refused() {
        for (bytes, error) in [
            (&b"\x00"[..], MalformedLine::Length),
            (b"\x81\x08", MalformedLine::Length),
            (b"\x80\x80", MalformedLine::Length),
            (b"\x03nab", MalformedLine::LineFeed),
            (b"\x02\xff\n", MalformedLine::Text),
        ] {
            assert_eq!(take_line(&mut BytesMut::from(bytes)), Err(error));
        }
    }

    proptest! {
        #[test]
        fn encoding_and_parsing_round_trip(text in "[ -~]{0,300}", tail: Vec<u8>) {
            let line = encode(&text).expect("a short text");
            let mut bytes = BytesMut::from(&line[..]);
            bytes.extend_from_slice(&tail);
            prop_assert_eq!(take_line(&mut bytes), Ok(Some(text)));
            prop_assert_eq!(&bytes[..], &tail[..]);
            for end in 0..line.len() {
                prop_assert_eq!(take_line(&mut BytesMut::from(&line[..end])), Ok(None));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let mut bytes = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take_line(&mut bytes) {}
        }
    }
}
