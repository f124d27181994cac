//! The requests and answers of nodes, in the frame that all overlays share ([`Message`]).

use serde::{Deserialize, Serialize};

pub(super) use crate::overlay::message::SHORT;
use crate::overlay::message::list;
pub use crate::overlay::message::{MAX_ADDR, MAX_NODES, Message, Node, VERSION};

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
    Nodes(#[serde(borrow, deserialize_with = "list::<_, _, MAX_NODES>")] Vec<Node<'a>>),
    /// To [`Ask::Get`].
    Record {
        /// For how many seconds more the record is good.
        ttl: u32,
        /// Its value.
        value: &'a [u8],
        /// The nodes nearest to its key.
        #[serde(borrow, deserialize_with = "list::<_, _, MAX_NODES>")]
        nodes: Vec<Node<'a>>,
    },
    /// To [`Ask::Providers`].
    Providers {
        /// Who provides the key.
        #[serde(borrow, deserialize_with = "list::<_, _, MAX_NODES>")]
        providers: Vec<Node<'a>>,
        /// The nodes nearest to it.
        #[serde(borrow, deserialize_with = "list::<_, _, MAX_NODES>")]
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
