//! The bytes of requests and answers: postcard, with the version in front.
//!
//! Each message says who sends it. Addresses travel as text, so that any swarm's addresses can.

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
pub(super) const SHORT: usize = 80;

/// A node in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node<'a> {
    /// Its id.
    pub id: [u8; 32],
    /// Its address, as text.
    #[serde(borrow, deserialize_with = "addr")]
    pub addr: Cow<'a, str>,
}

impl Node<'_> {
    /// Its bytes in a list, at most.
    pub(super) fn len(&self) -> usize {
        32 + 2 + self.addr.len()
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask<'a> {
    /// Are you there?
    Ping,
    /// Which nodes do you know that are nearest to this id?
    FindNode([u8; 32]),
    /// Which record do you have under this key, and which nodes are nearest to it?
    Get([u8; 32]),
    /// Keep this record.
    Put {
        /// Its key.
        key: [u8; 32],
        /// For how many seconds.
        ttl: u32,
        /// Its value.
        value: &'a [u8],
    },
    /// Who provides this key, and which nodes are nearest to it?
    Providers([u8; 32]),
    /// The sender provides this key.
    Provide {
        /// The key.
        key: [u8; 32],
        /// For how many seconds.
        ttl: u32,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer<'a> {
    /// To [`Ask::Ping`].
    Pong,
    /// To [`Ask::FindNode`], and to [`Ask::Get`] without a record.
    Nodes(#[serde(borrow, deserialize_with = "list")] Vec<Node<'a>>),
    /// To [`Ask::Get`].
    Record {
        /// For how many seconds more the record is good.
        ttl: u32,
        /// Its value.
        value: &'a [u8],
        /// The nodes nearest to its key.
        #[serde(borrow, deserialize_with = "list")]
        nodes: Vec<Node<'a>>,
    },
    /// To [`Ask::Providers`].
    Providers {
        /// Who provides the key.
        #[serde(borrow, deserialize_with = "list")]
        providers: Vec<Node<'a>>,
        /// The nodes nearest to it.
        #[serde(borrow, deserialize_with = "list")]
        nodes: Vec<Node<'a>>,
    },
    /// To [`Ask::Put`] and [`Ask::Provide`].
    Kept,
}

impl Answer<'_> {
    /// About how many bytes it takes.
    pub(super) fn estimate(&self) -> usize {
        let len = |nodes: &[Node<'_>]| nodes.iter().map(Node::len).sum::<usize>();
        let body = match self {
            Self::Pong | Self::Kept => 0,
            Self::Nodes(nodes) => len(nodes),
            Self::Record { value, nodes, .. } => value.len() + len(nodes),
            Self::Providers { providers, nodes } => len(providers) + len(nodes),
        };
        SHORT + body
    }
}

/// A message: an [`Ask`] or an [`Answer`], and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<T> {
    version: u8,
    /// The sender's id, as it says. The address below proves it or not.
    pub from: [u8; 32],
    /// What it says.
    pub body: T,
}

impl<T: Serialize> Message<T> {
    /// A message of this version.
    pub fn new(from: [u8; 32], body: T) -> Self {
        let version = VERSION;
        Self { version, from, body }
    }

    /// Its bytes.
    pub fn emit(&self) -> Vec<u8> {
        self.emit_within(SHORT)
    }

    /// The same, where about so many bytes are expected.
    pub(super) fn emit_within(&self, bytes: usize) -> Vec<u8> {
        // Nothing here can refuse to be written: all lengths are known, and the bytes grow as needed.
        postcard::to_extend(self, Vec::with_capacity(bytes)).unwrap_or_default()
    }
}

impl<'a, T: Deserialize<'a>> Message<T> {
    /// The message that all of these bytes are.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (message, rest) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        (rest.is_empty() && message.version == VERSION).then_some(message)
    }
}

fn addr<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Cow<'a, str>, D::Error> {
    let text = <&str>::deserialize(from)?;
    if text.len() > MAX_ADDR {
        return Err(D::Error::custom("the address is too long"));
    }
    Ok(Cow::Borrowed(text))
}

/// Reads a list without trusting how long it says that it is.
fn list<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Vec<Node<'a>>, D::Error> {
    struct List<'a>(PhantomData<Node<'a>>);

    impl<'de: 'a, 'a> Visitor<'de> for List<'a> {
        type Value = Vec<Node<'a>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX_NODES} nodes")
        }

        fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
            if seq.size_hint().is_some_and(|len| len > MAX_NODES) {
                return Err(S::Error::custom("the list is too long"));
            }
            // At most a few kilobytes, however long it says that it is.
            let mut nodes = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(MAX_NODES));
            while let Some(node) = seq.next_element()? {
                if nodes.len() == MAX_NODES {
                    return Err(S::Error::custom("the list is too long"));
                }
                nodes.push(node);
            }
            Ok(nodes)
        }
    }

    from.deserialize_seq(List(PhantomData))
}
