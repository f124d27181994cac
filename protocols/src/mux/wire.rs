//! The framings: the header that names the channel of a payload.

use std::borrow::{Borrow, Cow};
use std::fmt::{self, Debug, Display};
use std::hash::Hash;

use p2p_formats::varint::{self, VarintError};

/// The reason for which bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A varint is malformed.
    #[error("the frame's varint is malformed")]
    Varint(#[from] VarintError),
    /// The frame is shorter than its header.
    #[error("a header of {needed} bytes exceeds the frame of {len} bytes")]
    Truncated {
        /// Length of the header in bytes.
        needed: u64,
        /// Length of the frame in bytes.
        len: usize,
    },
}

/// A channel, with the encoding of its header.
pub trait Channel: Clone + Debug + Display + Eq + Hash + Borrow<Self::Key> + Send + Sync + 'static {
    /// A borrowed form of the channel, for lookups without an allocation.
    type Key: ?Sized + Eq + Hash + ToOwned;

    /// Returns the header of this channel: the exact bytes in front of each payload.
    fn header(&self) -> Box<[u8]>;

    /// Parses the channel at the start of `frame`. Returns it and the length of the header in bytes.
    ///
    /// # Errors
    /// [`WireError`] if the frame is invalid.
    fn read(frame: &[u8]) -> Result<(Cow<'_, Self::Key>, usize), WireError>;
}

/// The name of a channel: any bytes, usually a word. `Display` escapes bytes that are not UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Returns the bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<T: AsRef<[u8]> + ?Sized> From<&T> for Name {
    fn from(name: &T) -> Self {
        Self(name.as_ref().into())
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        Self(name.into_bytes().into())
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) => f.write_str(text),
            Err(_) => Display::fmt(&self.0.escape_ascii(), f),
        }
    }
}

impl Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// `uvarint(length) name payload`.
impl Channel for Name {
    type Key = [u8];

    fn header(&self) -> Box<[u8]> {
        let mut buf = [0; varint::MAX_LEN];
        let length = varint::write(self.0.len() as u64, &mut buf);
        [length, &self.0].concat().into()
    }

    fn read(frame: &[u8]) -> Result<(Cow<'_, [u8]>, usize), WireError> {
        let (length, start) = varint::read(frame)?;
        let name = usize::try_from(length)
            .ok()
            .and_then(|length| frame.get(start..)?.get(..length))
            .ok_or(WireError::Truncated {
                needed: length.saturating_add(start as u64),
                len: frame.len(),
            })?;
        Ok((Cow::Borrowed(name), start + name.len()))
    }
}

/// The number of a channel, encoded in as few bytes as possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Varint(pub u64);

impl From<u64> for Varint {
    fn from(channel: u64) -> Self {
        Self(channel)
    }
}

impl Display for Varint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0, f)
    }
}

/// `uvarint(channel) payload`; overlong encodings are accepted.
impl Channel for Varint {
    type Key = Varint;

    fn header(&self) -> Box<[u8]> {
        varint::write(self.0, &mut [0; varint::MAX_LEN]).into()
    }

    fn read(frame: &[u8]) -> Result<(Cow<'_, Varint>, usize), WireError> {
        let (channel, len) = varint::read(frame)?;
        Ok((Cow::Owned(Varint(channel)), len))
    }
}

/// The number in big-endian, then the payload.
macro_rules! fixed {
    ($($number:ty),+) => {$(
        impl Channel for $number {
            type Key = $number;

            fn header(&self) -> Box<[u8]> {
                self.to_be_bytes().into()
            }

            fn read(frame: &[u8]) -> Result<(Cow<'_, $number>, usize), WireError> {
                let header = frame.first_chunk().ok_or(WireError::Truncated {
                    needed: size_of::<$number>() as u64,
                    len: frame.len(),
                })?;
                Ok((Cow::Owned(<$number>::from_be_bytes(*header)), header.len()))
            }
        }
    )+};
}

fixed!(u16, u32, u64);
