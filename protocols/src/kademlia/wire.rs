//! Requests and answers of nodes, in the frame that all overlays share ([`Message`]).

use serde::{Deserialize, Serialize};

pub(super) use crate::overlay::message::SHORT;
use crate::overlay::message::list;
pub use crate::overlay::message::{MAX_ADDR, MAX_NODES, Message, Node, VERSION};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask<'a> {
    /// Checks whether the node is alive.
    Ping,
    /// Requests the known nodes nearest to this id.
    FindNode([u8; 32]),
    /// Requests the record with this key, and the nodes nearest to it.
    Get([u8; 32]),
    /// Stores a record.
    Put {
        /// The record's key.
        key: [u8; 32],
        /// Lifetime in seconds.
        ttl: u32,
        /// The record's value.
        value: &'a [u8],
    },
    /// Requests the providers of this key, and the nodes nearest to it.
    Providers([u8; 32]),
    /// Announces the sender as a provider of a key.
    Provide {
        /// The key.
        key: [u8; 32],
        /// Lifetime in seconds.
        ttl: u32,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer<'a> {
    /// Answers [`Ask::Ping`].
    Pong,
    /// Answers [`Ask::FindNode`], and [`Ask::Get`] without a record.
    Nodes(#[serde(borrow, deserialize_with = "list::<_, _, MAX_NODES>")] Vec<Node<'a>>),
    /// Answers [`Ask::Get`] with a record.
    Record {
        /// Remaining lifetime in seconds.
        ttl: u32,
        /// The record's value.
        value: &'a [u8],
        /// The nodes nearest to its key.
        #[serde(borrow, deserialize_with = "list::<_, _, MAX_NODES>")]
        nodes: Vec<Node<'a>>,
    },
    /// Answers [`Ask::Providers`].
    Providers {
        /// The providers of the key.
        #[serde(borrow, deserialize_with = "list::<_, _, MAX_NODES>")]
        providers: Vec<Node<'a>>,
        /// The nodes nearest to the key.
        #[serde(borrow, deserialize_with = "list::<_, _, MAX_NODES>")]
        nodes: Vec<Node<'a>>,
    },
    /// Answers [`Ask::Put`] and [`Ask::Provide`].
    Kept,
}

impl Answer<'_> {
    /// Returns the approximate length of the answer in bytes.
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
