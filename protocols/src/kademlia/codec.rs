//! What nodes say to one another, apart from its encoding: an [`Engine`](super::Engine) speaks any [`Codec`].
//!
//! An engine writes and reads its messages through a codec, and decides nothing by their bytes. [`Engine::new`] uses
//! [`PostcardCodec`](super::PostcardCodec), the encoding of this framework; [`Engine::with_codec`] takes another one, such
//! as that of libp2p's `/ipfs/kad/1.0.0`.
//!
//! [`Engine::new`]: super::Engine::new
//! [`Engine::with_codec`]: super::Engine::with_codec

use std::fmt;
use std::time::Duration;

use p2p::PeerId;
use rand::Rng;

use crate::overlay::{Contact, Key};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Checks whether the node is alive.
    Ping,
    /// Requests the known nodes nearest to this key.
    FindNode(Key),
    /// Requests the record with this key, and the nodes nearest to it.
    Get(Key),
    /// Stores a record.
    Put {
        /// The record's key.
        key: Key,
        /// The record's lifetime; the longest one if the message does not carry it.
        ttl: Duration,
        /// The record's value.
        value: &'a [u8],
    },
    /// Requests the providers of this key, and the nodes nearest to it.
    Providers(Key),
    /// Announces the sender as a provider of a key.
    Provide {
        /// The key.
        key: Key,
        /// The lifetime of the announcement; the longest one if the message does not carry it.
        ttl: Duration,
    },
}

impl Request<'_> {
    /// Returns the key of the request; a ping has none.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Ping => None,
            Self::FindNode(key)
            | Self::Get(key)
            | Self::Providers(key)
            | Self::Put { key, .. }
            | Self::Provide { key, .. } => Some(key),
        }
    }

    /// Returns the kind of the request, which says what answers it.
    pub fn kind(&self) -> RequestKind {
        match self {
            Self::Ping => RequestKind::Ping,
            Self::FindNode(_) => RequestKind::FindNode,
            Self::Get(_) => RequestKind::Get,
            Self::Put { .. } => RequestKind::Put,
            Self::Providers(_) => RequestKind::Providers,
            Self::Provide { .. } => RequestKind::Provide,
        }
    }
}

/// The kind of a [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// [`Request::Ping`], which [`Answer::Pong`] answers.
    Ping,
    /// [`Request::FindNode`], which [`Answer::Nodes`] answers.
    FindNode,
    /// [`Request::Get`], which [`Answer::Record`] or [`Answer::Nodes`] answers.
    Get,
    /// [`Request::Put`], which [`Answer::Kept`] answers.
    Put,
    /// [`Request::Providers`], which [`Answer::Providers`] answers.
    Providers,
    /// [`Request::Provide`], which [`Answer::Kept`] answers.
    Provide,
}

/// An answer, which names nodes as `N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a, N> {
    /// Answers [`Request::Ping`].
    Pong,
    /// Answers [`Request::FindNode`], and [`Request::Get`] without a record.
    Nodes(Vec<N>),
    /// Answers [`Request::Get`] with a record.
    Record {
        /// The record's remaining lifetime; the longest one if the message does not carry it.
        ttl: Duration,
        /// The record's value.
        value: &'a [u8],
        /// The nodes nearest to its key, the nearest first.
        nodes: Vec<N>,
    },
    /// Answers [`Request::Providers`].
    Providers {
        /// The providers of the key.
        providers: Vec<N>,
        /// The nodes nearest to the key, the nearest first.
        nodes: Vec<N>,
    },
    /// Answers [`Request::Put`] and [`Request::Provide`].
    Kept,
}

impl<N> Answer<'_, N> {
    /// Returns whether this is an answer to a request of this kind.
    pub(super) fn fits(&self, request: RequestKind) -> bool {
        match request {
            RequestKind::Ping => matches!(self, Self::Pong),
            RequestKind::FindNode => matches!(self, Self::Nodes(_)),
            RequestKind::Get => matches!(self, Self::Nodes(_) | Self::Record { .. }),
            RequestKind::Providers => matches!(self, Self::Providers { .. }),
            RequestKind::Put | RequestKind::Provide => matches!(self, Self::Kept),
        }
    }
}

/// A node that an answer names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedNode<A> {
    /// The id.
    pub id: PeerId,
    /// The address, or `None` if this node cannot parse it.
    pub addr: Option<A>,
}

/// Writes and reads the messages of one node. `A` is the address of a node.
///
/// # Security
/// Reading must be total: any bytes are a message or `None`, and the memory of a message is bounded by the length of its
/// bytes, whatever numbers they claim. The engine checks what a message says: lifetimes, records, ids and addresses.
pub trait Codec<A>: fmt::Debug + Send + Sync {
    /// Returns whether a node that sends a request can be expected to serve requests. If not, the engine learns of nodes
    /// from answers and from [`handle_contact`](super::Engine::handle_contact) only. By default it can.
    fn senders_serve(&self) -> bool {
        true
    }

    /// Encodes a request.
    fn write_request(&self, request: &Request<'_>) -> Vec<u8>;

    /// Parses a request. Returns the id that its sender claims, and the request; `None` if it is malformed.
    fn read_request<'a>(&self, from: &A, bytes: &'a [u8]) -> Option<(PeerId, Request<'a>)>;

    /// Encodes the answer to a request of the node at `to`, in at most `most` bytes. A record that does not fit, and the
    /// nodes from the first that does not fit on, are left out.
    fn write_answer(
        &self,
        to: &A,
        request: &Request<'_>,
        answer: Answer<'_, &Contact<A>>,
        most: usize,
    ) -> Vec<u8>;

    /// Parses the answer of the node at `from` to a request of this kind. Returns the node, with the id that it claims
    /// and the address at which it answered, and the answer; `None` if it is malformed.
    fn read_answer<'a>(
        &self,
        from: &A,
        request: RequestKind,
        bytes: &'a [u8],
    ) -> Option<(Contact<A>, Answer<'a, NamedNode<A>>)>;

    /// Returns a random key whose place shares `bits` leading bits with the id of this node, and not the next bit. If
    /// finding one is too costly, its place shares fewer bits.
    fn random_key(&self, bits: usize, rng: &mut dyn Rng) -> Key;
}
