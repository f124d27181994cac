//! Requests and answers of nodes, in the frame that all overlays share ([`Message`]).

use serde::{Deserialize, Serialize};

use crate::overlay::message::list;
pub use crate::overlay::message::{Id, MAX_ADDR, MAX_NODES, Message, Node, VERSION};

/// Maximum number of records in one answer.
pub const MAX_RECORDS: usize = 256;

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<'a> {
    /// The record's key.
    pub key: Id,
    /// Remaining lifetime in seconds.
    pub ttl: u32,
    /// The record's value.
    pub value: &'a [u8],
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask<'a> {
    /// Checks whether the node is alive.
    Ping,
    /// Requests the successors of this id, or nodes nearer to it than the receiver, after skipping the given
    /// number of nearest ones.
    Step(Id, u8),
    /// Notifies the receiver that the sender has it as its successor, and requests its predecessor and
    /// successors.
    Stabilize,
    /// Requests the record with this key.
    Get(Id),
    /// Stores a record that the receiver should own.
    #[serde(borrow)]
    Put(Record<'a>),
    /// Stores a copy of a record, regardless of its owner.
    Keep(Record<'a>),
    /// Requests the records after the first key, up to and including the second.
    Keys(Id, Id),
    /// Announces that the sender leaves, with its neighbours.
    Leave {
        /// The sender's predecessor.
        predecessor: Option<Node<'a>>,
        /// The sender's successors.
        #[serde(borrow, deserialize_with = "list::<_, _, MAX_NODES>")]
        successors: Vec<Node<'a>>,
    },
    /// Formerly a lookup to forward. It allowed an attacker to redirect other nodes' answers to a victim.
    /// Refused as malformed.
    Route(Retired),
    /// Formerly the result of a forwarded lookup.
    Routed(Retired),
    /// Tells a node that has the sender as its successor about a node that joined between them. Without an
    /// address: the sender has joined between the receiver and its successor.
    Nearer(#[serde(borrow)] Node<'a>),
}

/// The body of a retired message. It has no values, so it cannot be parsed or made; its number stays
/// reserved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Retired {}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer<'a> {
    /// Confirms a request that needs no other answer.
    Done,
    /// Answers [`Ask::Step`].
    Step {
        /// Whether the answering node itself succeeds the key, before the nodes in `owners`.
        mine: bool,
        /// The answering node's predecessor.
        #[serde(borrow)]
        predecessor: Option<Node<'a>>,
        /// Nodes between the answering node and the key, the nearest to the key first.
        #[serde(borrow, deserialize_with = "list::<_, _, MAX_NODES>")]
        nearer: Vec<Node<'a>>,
        /// The key's successors, as far as the answering node's successor list shows them.
        #[serde(borrow, deserialize_with = "list::<_, _, MAX_NODES>")]
        owners: Vec<Node<'a>>,
    },
    /// Answers [`Ask::Stabilize`].
    Neighbours {
        /// The answering node's predecessor, before it processed the request.
        predecessor: Option<Node<'a>>,
        /// The answering node's successors.
        #[serde(borrow, deserialize_with = "list::<_, _, MAX_NODES>")]
        successors: Vec<Node<'a>>,
    },
    /// Answers [`Ask::Get`] with a record: its remaining lifetime in seconds, and its value.
    Value(u32, &'a [u8]),
    /// Answers [`Ask::Get`] without a record, and [`Ask::Put`] of a record that another node owns, with the
    /// answering node's predecessor.
    Elsewhere(#[serde(borrow)] Option<Node<'a>>),
    /// Answers [`Ask::Put`] and [`Ask::Keep`] of a record that is no better than the stored one.
    Stale,
    /// Answers [`Ask::Keys`].
    Keys {
        /// Records, in the order of the circle.
        #[serde(borrow, deserialize_with = "list::<_, _, MAX_RECORDS>")]
        records: Vec<Record<'a>>,
        /// Whether there are more records after the last one.
        more: bool,
    },
}
