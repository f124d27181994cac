//! The nodes that a lookup has heard of, with their claimed addresses.

use p2p::{Addr, PeerId};

use super::distance::Distance;
use crate::overlay::{Contact, Prefix};

/// The state of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    New,
    Asked,
    Answered,
    Failed,
}

/// A claimed address of a node.
#[derive(Debug)]
pub(super) struct Hint<A> {
    pub(super) addr: A,
    pub(super) path: usize,
    pub(super) hops: usize,
    /// The first nodes that named this address; empty for this node's own knowledge.
    pub(super) named_by: Vec<Distance>,
}

impl<A> Hint<A> {
    /// Returns the rank of the address: the number of nodes that named it, or the maximum for this node's own
    /// knowledge.
    pub(super) fn votes(&self) -> usize {
        match self.named_by.len() {
            0 => usize::MAX,
            votes => votes,
        }
    }
}

/// A node that a lookup may ask.
#[derive(Debug)]
pub(super) struct Candidate<A> {
    pub(super) id: PeerId,
    /// Claimed addresses. If the node was asked, the first is the address that was used.
    pub(super) hints: Vec<Hint<A>>,
    /// The latest addresses at which it did not answer.
    pub(super) in_vain: Vec<A>,
    pub(super) state: State,
    /// Whether the node returned a record.
    pub(super) has_value: bool,
    pub(super) named_alive: u32,
    pub(super) named_dead: u32,
}

impl<A> Candidate<A> {
    /// Returns whether addresses named by this node are tried. An honest node also names some nodes that have
    /// just left, so a few failures are tolerated.
    pub(super) fn has_credit(&self) -> bool {
        self.named_dead < 4 + 2 * self.named_alive
    }
}

impl<A: Addr> Candidate<A> {
    pub(super) fn new(id: PeerId) -> Self {
        Self {
            id,
            hints: Vec::new(),
            in_vain: Vec::new(),
            state: State::New,
            has_value: false,
            named_alive: 0,
            named_dead: 0,
        }
    }

    pub(super) fn contact(&self) -> Option<Contact<A>> {
        let addr = self.hints.first()?.addr.clone();
        Some(Contact { id: self.id, addr })
    }

    /// Returns whether the node was not asked yet and all its claimed addresses are in this network.
    pub(super) fn is_hearsay_of(&self, prefix: Prefix) -> bool {
        let in_prefix = |hint: &Hint<A>| Prefix::of(&hint.addr) == Some(prefix);
        self.state == State::New && self.hints.iter().all(in_prefix)
    }

    /// Returns the number of nodes that agree on its best address.
    pub(super) fn votes(&self) -> usize {
        let votes = self.hints.iter().map(Hint::votes);
        votes.max().unwrap_or(0)
    }
}
