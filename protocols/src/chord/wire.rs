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
/// Records in one answer at most.
pub const MAX_RECORDS: usize = 256;

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

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<'a> {
    /// Its key.
    pub key: Id,
    /// For how many seconds it is good.
    pub ttl: u32,
    /// Its value.
    pub value: &'a [u8],
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask<'a> {
    /// Are you there?
    Ping,
    /// Who succeeds this id, or is nearer to it than you are, apart from the so many nearest that you told of?
    Step(Id, u8),
    /// I take you for my successor: whom do you take for your predecessor, and who comes after you?
    Stabilize,
    /// Which record do you have under this key?
    Get(Id),
    /// Keep this record, which should be yours.
    #[serde(borrow)]
    Put(Record<'a>),
    /// Keep a copy of this record, whosever it is.
    Keep(Record<'a>),
    /// Which records do you have from the first key, without it, to the second?
    Keys(Id, Id),
    /// I leave: this is my predecessor, and these come after me.
    Leave {
        /// My predecessor.
        predecessor: Option<Node<'a>>,
        /// My successors.
        #[serde(borrow, deserialize_with = "list::<_, _, MAX_NODES>")]
        successors: Vec<Node<'a>>,
    },
    /// Pass this on towards a key.
    Route {
        /// What the origin calls it.
        token: u64,
        /// The key.
        key: Id,
        /// Nodes that have passed it on.
        hops: u8,
        /// Where it comes from; empty if it comes from whoever sends this.
        #[serde(borrow, deserialize_with = "addr")]
        origin: Cow<'a, str>,
    },
    /// What came of a [`Ask::Route`].
    Routed {
        /// What the origin called it.
        token: u64,
        /// Nodes that it came through.
        hops: u8,
        /// The sender succeeds the key itself, before those below.
        mine: bool,
        /// The key's successors.
        #[serde(borrow, deserialize_with = "list::<_, _, MAX_NODES>")]
        successors: Vec<Node<'a>>,
    },
    /// You took me for your successor. This node has come between us.
    Nearer(#[serde(borrow)] Node<'a>),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer<'a> {
    /// To what needs no more.
    Done,
    /// To [`Ask::Step`].
    Step {
        /// The answerer succeeds the key itself, before those below.
        mine: bool,
        /// The answerer's predecessor.
        #[serde(borrow)]
        predecessor: Option<Node<'a>>,
        /// Nodes between the answerer and the key, the nearest to the key first.
        #[serde(borrow, deserialize_with = "list::<_, _, MAX_NODES>")]
        nearer: Vec<Node<'a>>,
        /// The key's successors, as far as the answerer's successor list shows them.
        #[serde(borrow, deserialize_with = "list::<_, _, MAX_NODES>")]
        owners: Vec<Node<'a>>,
    },
    /// To [`Ask::Stabilize`].
    Neighbours {
        /// The answerer's predecessor, before it heard from the asker.
        predecessor: Option<Node<'a>>,
        /// Who comes after the answerer.
        #[serde(borrow, deserialize_with = "list::<_, _, MAX_NODES>")]
        successors: Vec<Node<'a>>,
    },
    /// To [`Ask::Get`] with a record: for how many seconds it is good, and its value.
    Value(u32, &'a [u8]),
    /// To [`Ask::Get`] without a record, and to [`Ask::Put`] of a record that belongs to another: my predecessor.
    Elsewhere(#[serde(borrow)] Option<Node<'a>>),
    /// To [`Ask::Put`] and [`Ask::Keep`] of a record that is no better than the one there.
    Stale,
    /// To [`Ask::Keys`].
    Keys {
        /// Records, in the order of the circle.
        #[serde(borrow, deserialize_with = "list::<_, _, MAX_RECORDS>")]
        records: Vec<Record<'a>>,
        /// There are more after the last.
        more: bool,
    },
}

/// A message: an [`Ask`] or an [`Answer`], and whose it is.
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
        // Nothing here can refuse to be written: all lengths are known, and the bytes grow as needed.
        postcard::to_allocvec(self).unwrap_or_default()
    }
}

impl<'a, T: Deserialize<'a>> Message<T> {
    /// The message that all of these bytes are. What it takes in memory grows with the bytes, not with what they claim.
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

/// Reads a list of at most `MAX` without trusting how long it says that it is.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    struct List<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX} items")
        }

        fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Vec<T>, S::Error> {
            let mut items = Vec::new();
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
