//! What goes in and comes out beside bytes: operations and their results, requests, refusals and counts.

use std::num::NonZeroU8;

use p2p::Rejection;

use crate::overlay::{Contact, OpId, Progress};

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<A> {
    /// [`join`](super::Engine::join): this node's successor, which knows it, unless it is gone again.
    Joined(Contact<A>),
    /// [`lookup`](super::Engine::lookup).
    Found(Found<A>),
    /// [`locate`](super::Engine::locate).
    Located {
        /// The node, which has just answered.
        node: Option<Contact<A>>,
        /// Who names it, the first ones, at most 8: it may be there for them if not for this node.
        named_by: Vec<Contact<A>>,
    },
    /// [`get`](super::Engine::get): the record's value, if one was found.
    Value(Option<Vec<u8>>),
    /// [`put`](super::Engine::put): the record is with its key's successor, or with one that will be.
    Stored,
    /// [`leave`](super::Engine::leave): the neighbours know, or do not answer.
    Left,
}

/// Who succeeds a key, and what it took to find out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<A> {
    /// The key's successor, which has answered. `None` is this node itself.
    pub owner: Option<Contact<A>>,
    /// Nodes on the way, one after the other, to the one that knew the successor: the path length of the paper.
    pub hops: usize,
    /// Requests on the way that got no answer.
    pub failed: usize,
}

/// Why an operation did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// None of the nodes that it could have asked answered.
    #[error("none of the nodes that are known answered")]
    NoAnswer,
    /// It has sent as many requests as it may.
    #[error("the lookup has sent as many requests as it may")]
    Exhausted,
    /// A better record than the one to put stands under the key.
    #[error("a better record stands under the key")]
    Stale,
}

/// What an [`Engine`](super::Engine) says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<A> {
    /// An operation got on.
    Progress {
        /// Which.
        op: OpId,
        /// How far it is.
        progress: Progress,
    },
    /// An operation is over.
    Done {
        /// Which.
        op: OpId,
        /// How it ended.
        outcome: Result<Outcome<A>, OpError>,
    },
    /// All neighbours are gone: this node is a ring of its own. Join again to meet the others.
    Alone,
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The bytes are no request.
    #[error("the request is malformed")]
    Malformed,
    /// The id in it is not that of the address that it came from, or it is this node's own.
    #[error("the id is not the sender's")]
    FalseId,
    /// The request or the value is longer than this node takes.
    #[error("the request or the record is too long")]
    Oversize,
    /// The application does not take this value under this key.
    #[error("the record is not valid")]
    Invalid,
    /// There is a record that is at least as good.
    #[error("a better record is kept")]
    Stale,
    /// The sender has as much here as it may.
    #[error("the sender has reached its limit")]
    Limit,
    /// There is no room for this record.
    #[error("there is no room for this record")]
    Full,
    /// This node is not on the ring yet.
    #[error("this node is still joining")]
    Joining = 9,
    /// This node is leaving.
    #[error("this node is leaving")]
    Leaving = 10,
}

impl Refusal {
    /// As the code of a rejected ask: 32 and up.
    pub fn rejection(self) -> Rejection {
        if self == Self::Oversize {
            return Rejection::OVERSIZE;
        }
        let code = 32_u8.saturating_add(self as u8);
        Rejection::new(NonZeroU8::new(code).unwrap_or(NonZeroU8::MAX))
    }
}

/// What an engine has done and refused since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests sent.
    pub sent: u64,
    /// Good answers to them.
    pub answered: u64,
    /// Requests that failed or timed out.
    pub failed: u64,
    /// Answers and failures of no request in flight.
    pub late: u64,
    /// Requests and answers that could not be read, or do not fit what was asked.
    pub malformed: u64,
    /// Requests and answers with somebody else's id.
    pub false_ids: u64,
    /// Nodes in answers with an address that cannot be read, denies their id, or does not reach as far as the address of
    /// the node that names them (see [`Scope`](crate::overlay::Scope)).
    pub bad_nodes: u64,
    /// Requests of others that were served.
    pub served: u64,
    /// Requests of sources that can be forged which were answered by a token alone. See [`Config::unproven_ids`](super::Config::unproven_ids).
    pub challenged: u64,
    /// Other requests that were refused, for any [`Refusal`].
    pub refused: u64,
    /// Records in answers that were refused.
    pub bad_records: u64,
    /// Copies that went back to their key's successor, since nobody had left them here anew.
    pub returned: u64,
}
