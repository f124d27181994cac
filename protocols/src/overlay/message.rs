//! The frame of requests and answers: postcard, with the version and the sender in front. Addresses are sent
//! as text, so that any swarm's addresses fit.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU8;

use p2p::Rejection;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The first byte of every message.
pub const VERSION: u8 = 1;
/// Maximum number of nodes in one list.
pub const MAX_NODES: usize = 64;
/// Maximum length of an address in text form, in bytes.
pub const MAX_ADDR: usize = 255;

/// Sufficient capacity in bytes for a request without a record, and for an answer without nodes.
pub(crate) const SHORT: usize = 80;

/// Returns the rejection that carries an overlay's reason for refusing a request, numbered from 0: codes from 32 up.
pub(crate) fn rejection(reason: u8) -> Rejection {
    Rejection::new(NonZeroU8::new(reason.saturating_add(32)).unwrap_or(NonZeroU8::MAX))
}

/// An id or a key, big-endian.
pub type Id = [u8; 32];

/// A node, as named in a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node<'a> {
    /// The id.
    pub id: Id,
    /// The address as text.
    #[serde(borrow, deserialize_with = "addr")]
    pub addr: Cow<'a, str>,
}

impl Node<'_> {
    /// Returns the maximum encoded length in a list, in bytes.
    pub(crate) fn len(&self) -> usize {
        32 + 2 + self.addr.len()
    }
}

/// A request or an answer with its sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<T> {
    version: u8,
    /// The id that the sender claims. The address below may authenticate it.
    pub from: Id,
    /// The request or the answer.
    pub body: T,
}

impl<T: Serialize> Message<T> {
    /// Creates a message of this version.
    pub fn new(from: Id, body: T) -> Self {
        let version = VERSION;
        Self { version, from, body }
    }

    /// Encodes the message.
    pub fn emit(&self) -> Vec<u8> {
        self.emit_within(SHORT)
    }

    /// Encodes the message into a buffer with this initial capacity.
    pub(crate) fn emit_within(&self, bytes: usize) -> Vec<u8> {
        // Encoding cannot fail: all lengths are known, and the buffer grows as needed.
        postcard::to_extend(self, Vec::with_capacity(bytes)).unwrap_or_default()
    }
}

impl<'a, T: Deserialize<'a>> Message<T> {
    /// Parses a message from all of `bytes`. Its memory is bounded by the length of `bytes` plus a few
    /// kilobytes, whatever lengths they claim.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (message, rest) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        (rest.is_empty() && message.version == VERSION).then_some(message)
    }
}

/// Parses an address within the length limit.
fn addr<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Cow<'a, str>, D::Error> {
    let text = <&str>::deserialize(from)?;
    if text.len() > MAX_ADDR {
        return Err(D::Error::custom("the address is too long"));
    }
    Ok(Cow::Borrowed(text))
}

/// Parses a list of at most `MAX` items without trusting its claimed length.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    struct List<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX} items")
        }

        fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Vec<T>, S::Error> {
            let said = seq.size_hint().unwrap_or(0);
            if said > MAX {
                return Err(S::Error::custom("the list is too long"));
            }
            // Reserves at most a few kilobytes, whatever length is claimed.
            let mut items = Vec::with_capacity(said.min(MAX_NODES));
            while let Some(item) = seq.next_element()? {
                if items.len() == MAX {
                    return Err(S::Error::custom("the list is too long"));
                }
                items.push(item);
            }
            Ok(items)
        }
    }

    from.deserialize_seq(List::<T, MAX>(PhantomData))
}
