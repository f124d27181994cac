//! The requests and answers of nodes, in the frame that all overlays share ([`Message`]).

use serde::{Deserialize, Serialize};

use crate::overlay::message::list;
pub use crate::overlay::message::{Id, MAX_ADDR, MAX_NODES, Message, Node, VERSION};

/// Records in one answer at most.
pub const MAX_RECORDS: usize = 256;

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
    /// Was a lookup to be passed on, which let anybody aim others' answers at a stranger. Refused as malformed.
    Route(Retired),
    /// Was what came of one.
    Routed(Retired),
    /// You took me for your successor. This node has come between us. Or without an address: I have come between you and
    /// your successor.
    Nearer(#[serde(borrow)] Node<'a>),
}

/// The body of a message that there is no longer. Nothing parses as one, and none can be made; its number stays taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Retired {}

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
