//! Events, outcomes of operations, refusals and counters.

use p2p::Rejection;

use crate::overlay::{Contact, OpId, Progress, message};

/// The result of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<A> {
    /// The result of [`join`](super::Engine::join): this node's successor, which knows this node unless it
    /// has failed since.
    Joined(Contact<A>),
    /// The result of [`lookup`](super::Engine::lookup).
    Found(Found<A>),
    /// The result of [`locate`](super::Engine::locate).
    Located {
        /// The node, which has just answered, or `None` if it did not.
        node: Option<Contact<A>>,
        /// The first nodes, at most 8, that named it: they may reach it even if this node does not.
        named_by: Vec<Contact<A>>,
    },
    /// The result of [`get`](super::Engine::get): the record's value, if one was found.
    Value(Option<Vec<u8>>),
    /// The result of [`put`](super::Engine::put): the record is stored at its key's successor, or at the node
    /// that will be.
    Stored,
    /// The result of [`leave`](super::Engine::leave): the neighbours were notified, or do not answer.
    Left,
}

/// The successor of a key, and the cost of the lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<A> {
    /// The key's successor, which has answered. `None` is this node itself.
    pub owner: Option<Contact<A>>,
    /// Nodes in sequence on the way to the one that knew the successor: the path length of the paper.
    pub hops: usize,
    /// Requests of the lookup that got no answer.
    pub failed: usize,
}

/// The reason for which an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// None of the known nodes answered.
    #[error("none of the known nodes answered")]
    NoAnswer,
    /// The lookup has reached its request limit.
    #[error("the lookup has reached its request limit")]
    Exhausted,
    /// A better record is stored under the key.
    #[error("a better record is stored under the key")]
    Stale,
}

/// An event of an [`Engine`](super::Engine).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<A> {
    /// An operation made progress.
    Progress {
        /// The operation.
        op: OpId,
        /// Its progress so far.
        progress: Progress,
    },
    /// An operation ended.
    Done {
        /// The operation.
        op: OpId,
        /// Its result.
        outcome: Result<Outcome<A>, OpError>,
    },
    /// All neighbours have failed: this node is a ring of its own. Join again to reach the others.
    Alone,
}

/// The reason for refusing a request. Nothing of a refused request is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The request cannot be parsed.
    #[error("the request is malformed")]
    Malformed,
    /// The id in the request differs from that of its source address, or is this node's own.
    #[error("the id is not the sender's")]
    FalseId,
    /// The request or the value exceeds this node's size limit.
    #[error("the request or the record is too long")]
    Oversize,
    /// The validator rejects the record.
    #[error("the record is not valid")]
    Invalid,
    /// A record that is at least as good is stored.
    #[error("a record that is at least as good is stored")]
    Stale,
    /// The sender has reached its limit.
    #[error("the sender has reached its limit")]
    Limit,
    /// The store is full, and this record replaces no other.
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
    /// Returns the rejection code of the ask: [`Rejection::OVERSIZE`], or a code from 32 up.
    pub fn rejection(self) -> Rejection {
        match self {
            Self::Oversize => Rejection::OVERSIZE,
            reason => message::rejection(reason as u8),
        }
    }
}

/// Counters of an engine since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests sent.
    pub sent: u64,
    /// Valid answers received.
    pub answered: u64,
    /// Requests that failed or timed out.
    pub failed: u64,
    /// Answers and failures that match no request in flight.
    pub late: u64,
    /// Requests and answers that cannot be parsed, and answers that do not match their request.
    pub malformed: u64,
    /// Requests and answers with another node's id.
    pub false_ids: u64,
    /// Nodes in answers with an address that cannot be parsed, has another id, or has a narrower scope than
    /// the address of the naming node (see [`Scope`](crate::overlay::Scope)).
    pub bad_nodes: u64,
    /// Requests of other nodes that were served.
    pub served: u64,
    /// Requests from unauthenticated sources that were answered with a token only. See
    /// [`Config::unproven_ids`](super::Config::unproven_ids).
    pub challenged: u64,
    /// Requests refused with any [`Refusal`] other than malformed ones and false ids.
    pub refused: u64,
    /// Records in answers that were refused.
    pub bad_records: u64,
    /// Copies that were returned to their key's successor because they were not renewed.
    pub returned: u64,
}

impl Counts {
    /// Counts a request of another node by its result.
    pub(super) fn add_served<T>(&mut self, served: &Result<T, Refusal>) {
        match served {
            Ok(_) => self.served += 1,
            Err(Refusal::Malformed) => self.malformed += 1,
            Err(Refusal::FalseId) => self.false_ids += 1,
            Err(_) => self.refused += 1,
        }
    }
}
