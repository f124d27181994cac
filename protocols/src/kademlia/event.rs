//! Events, outcomes of operations, refusals and counters.

use std::time::Duration;

use p2p::Rejection;

use crate::overlay::{Contact, OpId, Progress, message};

/// The result of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<A> {
    /// The result of [`join`](super::Engine::join): the number of known contacts; zero means that no
    /// bootstrap node answered.
    Joined {
        /// Number of contacts in all buckets.
        contacts: usize,
    },
    /// The result of [`find_node`](super::Engine::find_node): nodes that answered, the nearest first, at most
    /// *k*.
    Nodes(Vec<Contact<A>>),
    /// The result of [`locate`](super::Engine::locate).
    Located {
        /// The node at the address where it just answered, or `None` if it did not answer.
        contact: Option<Contact<A>>,
        /// The first nodes, at most 8, that named it: they may reach it even if this node does not.
        named_by: Vec<Contact<A>>,
    },
    /// The result of [`get`](super::Engine::get): the best record found.
    Record(Option<Record>),
    /// The result of [`put`](super::Engine::put) and [`provide`](super::Engine::provide).
    Kept {
        /// Number of other nodes that confirmed a copy.
        copies: usize,
    },
    /// The result of [`providers`](super::Engine::providers): the providers that other nodes named. They were
    /// not contacted.
    Providers(Vec<Contact<A>>),
}

/// A record that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The value of the record.
    pub value: Vec<u8>,
    /// Remaining lifetime of the record.
    pub ttl: Duration,
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
        outcome: Outcome<A>,
        /// Its final progress.
        progress: Progress,
    },
}

/// The reason for refusing a request. Nothing of a refused request is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The request cannot be parsed.
    #[error("the request is malformed")]
    Malformed,
    /// The request, or the record in it, exceeds the size limit.
    #[error("the request or the record is too long")]
    Oversize,
    /// The id in the request differs from that of its source address, or is this node's own.
    #[error("the id is not the sender's")]
    FalseId,
    /// The source address does not authenticate the id, which is required for storing.
    #[error("the sender's id is not proven")]
    Unproven,
    /// The validator rejects the record.
    #[error("the record is not valid")]
    Invalid,
    /// A record that is at least as good is stored.
    #[error("a record that is at least as good is stored")]
    Stale,
    /// The record has no lifetime left.
    #[error("the record has expired")]
    Expired,
    /// The sender, or its network, has reached its limit.
    #[error("the sender has reached its limit")]
    Limit,
    /// The store is full, and this key replaces no other.
    #[error("there is no room for this key")]
    Full,
    /// This node serves no requests; see [`Config::serves`](super::Config::serves).
    #[error("this node serves no requests")]
    Visitor,
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
    /// Answers that match no request in flight.
    pub late: u64,
    /// Requests of other nodes that were served.
    pub served: u64,
    /// Requests from unauthenticated sources that were answered with a token only. See
    /// [`Config::unproven_ids`](super::Config::unproven_ids).
    pub challenged: u64,
    /// Requests and answers that cannot be parsed, and answers that do not match their request.
    pub malformed: u64,
    /// Requests and answers with another node's id, and named contacts with an id that their address
    /// contradicts.
    pub false_ids: u64,
    /// Named contacts with addresses that cannot be parsed.
    pub bad_addrs: u64,
    /// Named contacts that were ignored because their address has a narrower scope than the address of the
    /// naming node (see [`Scope`](crate::overlay::Scope)).
    pub out_of_scope: u64,
    /// Named nodes that were ignored: beyond *k*, repeated in one answer, or too many of one network.
    pub surplus: u64,
    /// Newcomers that were not pinged because too many pings were in flight.
    pub unchecked: u64,
    /// Contacts refused because of the limits per network.
    pub crowded: u64,
    /// Contacts that were replaced by others.
    pub replaced: u64,
    /// Requests refused with any [`Refusal`] other than malformed ones and false ids.
    pub refused: u64,
    /// Received records that were invalid, or worse than another.
    pub bad_records: u64,
    /// Records and keys with providers that were evicted.
    pub evicted: u64,
    /// Lookups that ended at their request limit.
    pub exhausted: u64,
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
