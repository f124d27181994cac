//! What goes in and comes out beside bytes: operations, their progress and results, refusals and counts.

use std::num::NonZeroU8;
use std::time::Duration;

use p2p::Rejection;

use crate::overlay::{Contact, OpId, Progress};

/// What an operation ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<A> {
    /// [`join`](super::Engine::join): how many contacts there are now. With none, nobody answered.
    Joined {
        /// Contacts in all buckets.
        contacts: usize,
    },
    /// [`find_node`](super::Engine::find_node): nodes that answered, the nearest first, at most *k*.
    Nodes(Vec<Contact<A>>),
    /// [`locate`](super::Engine::locate).
    Located {
        /// Where the node has just answered.
        contact: Option<Contact<A>>,
        /// Who names it, the first ones, at most 8: it may be there for them if not for this node.
        named_by: Vec<Contact<A>>,
    },
    /// [`get`](super::Engine::get): the best record found.
    Record(Option<Record>),
    /// [`put`](super::Engine::put) and [`provide`](super::Engine::provide): how many other nodes keep it.
    Kept {
        /// Nodes that said that they keep it.
        copies: usize,
    },
    /// [`providers`](super::Engine::providers): who provides the key, as others say. None of them was asked.
    Providers(Vec<Contact<A>>),
}

/// A record that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its value.
    pub value: Vec<u8>,
    /// For how long it is good, at least.
    pub ttl: Duration,
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
    /// An operation ended.
    Done {
        /// Which.
        op: OpId,
        /// With what.
        outcome: Outcome<A>,
        /// How far it got.
        progress: Progress,
    },
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The bytes are no request.
    #[error("the request is malformed")]
    Malformed,
    /// It is longer than any request may be.
    #[error("the request or the record is too long")]
    Oversize,
    /// The id in it is not that of the address that it came from, or it is this node's own.
    #[error("the id is not the sender's")]
    FalseId,
    /// Its address proves no id, and only proven ones may leave something here.
    #[error("the sender's id is not proven")]
    Unproven,
    /// The validator does not take the record.
    #[error("the record is not valid")]
    Invalid,
    /// There is a record that is at least as good.
    #[error("a better record is kept")]
    Stale,
    /// The record has no time left.
    #[error("the record has expired")]
    Expired,
    /// The sender, or its network, has as much here as it may.
    #[error("the sender has reached its limit")]
    Limit,
    /// There is no room for this key.
    #[error("there is no room for this key")]
    Full,
    /// This node serves nobody.
    #[error("this node serves nobody")]
    Visitor,
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
    /// Answers to no request in flight.
    pub late: u64,
    /// Requests of others that were served.
    pub served: u64,
    /// Requests of sources that can be forged which were answered by a token alone. See [`Config::unproven_ids`](super::Config::unproven_ids).
    pub challenged: u64,
    /// Requests and answers that could not be read, or do not fit what was asked.
    pub malformed: u64,
    /// Requests and answers with somebody else's id, and contacts named with an id that their address denies.
    pub false_ids: u64,
    /// Contacts named with addresses that cannot be read.
    pub bad_addrs: u64,
    /// Contacts named at addresses that do not reach as far as those who name them (see
    /// [`Scope`](crate::overlay::Scope)), and so ignored.
    pub out_of_scope: u64,
    /// Nodes in answers beyond *k*, named again in one answer, or too many of one network, and so ignored.
    pub surplus: u64,
    /// Newcomers that were not asked whether they live, since too many were being asked.
    pub unchecked: u64,
    /// Contacts refused since there are enough of their network.
    pub crowded: u64,
    /// Contacts that others took the place of.
    pub replaced: u64,
    /// Puts and providers refused, for any [`Refusal`].
    pub refused: u64,
    /// Records found that were not valid, or worse than another.
    pub bad_records: u64,
    /// Records and keys with providers that left for nearer or older ones.
    pub evicted: u64,
    /// Lookups that ended since they had sent as many requests as they may.
    pub exhausted: u64,
}
