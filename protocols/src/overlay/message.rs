//! Requests and answers of engines: postcard, with the version and the sender in front. Addresses travel as text, so that
//! any swarm's addresses can.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The first byte of every message.
pub const VERSION: u8 = 1;
/// Nodes in one list at most.
pub const MAX_NODES: usize = 64;
/// Bytes of an address in text form at most.
pub const MAX_ADDR: usize = 255;

/// Bytes that are enough for a request without a record, and for an answer without nodes.
pub(crate) const SHORT: usize = 80;

/// An id or a key, big-endian.
pub type Id = [u8; 32];

/// A node, as one tells another of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node<'a> {
    /// Its id.
    pub id: Id,
    /// Its address, as text.
    #[serde(borrow, deserialize_with = "addr")]
    pub addr: Cow<'a, str>,
}

impl Node<'_> {
    /// Its bytes in a list, at most.
    pub(crate) fn len(&self) -> usize {
        32 + 2 + self.addr.len()
    }
}

/// A request or an answer, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<T> {
    version: u8,
    /// The sender's id, as it says. The address below proves it or not.
    pub from: Id,
    /// What it says.
    pub body: T,
}

impl<T: Serialize> Message<T> {
    /// A message of this version.
    pub fn new(from: Id, body: T) -> Self {
        let version = VERSION;
        Self { version, from, body }
    }

    /// Its bytes.
    pub fn emit(&self) -> Vec<u8> {
        self.emit_within(SHORT)
    }

    /// The same, where about so many bytes are expected.
    pub(crate) fn emit_within(&self, bytes: usize) -> Vec<u8> {
        // Nothing here can refuse to be written: all lengths are known, and the bytes grow as needed.
        postcard::to_extend(self, Vec::with_capacity(bytes)).unwrap_or_default()
    }
}

impl<'a, T: Deserialize<'a>> Message<T> {
    /// The message that all of these bytes are. What it takes in memory is bounded by the bytes, but for a few kilobytes,
    /// whatever they claim.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (message, rest) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        (rest.is_empty() && message.version == VERSION).then_some(message)
    }
}

/// Reads an address's text, which is short.
fn addr<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Cow<'a, str>, D::Error> {
    let text = <&str>::deserialize(from)?;
    if text.len() > MAX_ADDR {
        return Err(D::Error::custom("the address is too long"));
    }
    Ok(Cow::Borrowed(text))
}

/// Reads a list of at most `MAX` without trusting how long it says that it is.
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
            // At most a few kilobytes, however long it says that it is.
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
