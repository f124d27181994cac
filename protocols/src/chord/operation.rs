//! The state of one operation: its goal, the nodes it knows, and the nodes it has asked.

use std::collections::VecDeque;
use std::time::Duration;

use p2p::{Addr, PeerId};

use super::wire::Record;
use crate::overlay::{Contact, Progress};

/// Maximum number of remembered nodes that named the node to locate.
const NAMED_BY: usize = 8;

/// The work to do at the key's successor.
#[derive(Debug)]
pub(super) enum Goal {
    /// Become its predecessor.
    Join,
    /// Use it as the finger with this number.
    Finger(u8),
    Find,
    /// Find the node with the key as its id, and no other.
    Locate,
    /// Get the record; `missing` nodes had none.
    Get {
        missing: usize,
    },
    Put {
        ttl: u32,
        value: Vec<u8>,
    },
    /// Return a copy to its key's successor.
    Return {
        since: Duration,
        ttl: u32,
        value: Vec<u8>,
    },
}

/// An operation. It has one request in flight, or waits for another attempt.
#[derive(Debug)]
pub(super) struct Op<A> {
    pub(super) goal: Goal,
    pub(super) key: PeerId,
    /// Whether this is upkeep of the engine, without events for the application.
    pub(super) upkeep: bool,
    pub(super) bootstraps: Vec<A>,
    /// Number of bootstrap nodes that were asked.
    pub(super) asked_bootstraps: usize,
    /// Number of earlier attempts, and the time of the next one.
    pub(super) tries: u32,
    pub(super) again_at: Option<Duration>,
    /// Nodes that precede the key, with the number of nodes that led there; the nearest last.
    pub(super) candidates: Vec<(usize, Contact<A>)>,
    /// Nodes that may succeed the key, the most likely first. `None` is this node.
    pub(super) owners: VecDeque<Option<Contact<A>>>,
    /// The node nearest to the key among those that named nearer nodes.
    pub(super) nearest: Option<Told<A>>,
    /// A node to ask for more nodes: the number of nodes that led to it, and the number of nodes to skip.
    pub(super) again: Option<(usize, Contact<A>, u8)>,
    /// Whether the operation verifies the known finger, or the nodes just before it, instead of looking it
    /// up.
    pub(super) guessing: bool,
    pub(super) asked: Asked<A>,
    /// Nodes that were asked for a step, or need not be.
    pub(super) tried: Vec<PeerId>,
    /// Nodes that answered as the owner and are not.
    pub(super) ruled_out: Vec<PeerId>,
    /// Contacts that were asked as the owner, or did not answer.
    pub(super) looked_at: Vec<Contact<A>>,
    /// Pairs of an owner and the node that named it; each node may name one address of an owner.
    pub(super) namers: Vec<(PeerId, Option<PeerId>)>,
    /// Nodes that named the node to locate.
    pub(super) named_by: Vec<Contact<A>>,
    pub(super) sent: usize,
    pub(super) answered: usize,
    pub(super) hops: usize,
    pub(super) failed: usize,
    /// The last node that answered a step.
    pub(super) nearest_answered: Option<PeerId>,
}

/// A node that named nodes nearer to the key, before it is known whether they are alive.
#[derive(Clone, Debug)]
pub(super) struct Told<A> {
    /// Its distance to the key.
    pub(super) distance: [u8; 32],
    /// Number of nodes that led to it.
    pub(super) depth: usize,
    /// The node; `None` is this node.
    pub(super) node: Option<Contact<A>>,
    /// Number of nodes that it has named, if it may know more.
    pub(super) skip: Option<u8>,
    /// Nodes that succeed the key if none of the nearer nodes is alive.
    pub(super) owners: Vec<Contact<A>>,
}

/// The request in flight.
#[derive(Clone, Debug)]
pub(super) enum Asked<A> {
    Nothing,
    /// A step, from the node at this address: the number of nodes that led there, the address, and the number
    /// of nodes to skip.
    Step(usize, A, u8),
    /// The operation's request, to a possible owner.
    Owner(Contact<A>),
    /// A request to keep a record at a node that is not the owner, because the owner has failed.
    Keep,
}

impl<A> Op<A> {
    pub(super) fn new(goal: Goal, key: PeerId, bootstraps: Vec<A>, upkeep: bool) -> Self {
        Self {
            goal,
            key,
            upkeep,
            bootstraps,
            asked_bootstraps: 0,
            tries: 0,
            again_at: None,
            candidates: Vec::new(),
            owners: VecDeque::new(),
            nearest: None,
            again: None,
            guessing: false,
            asked: Asked::Nothing,
            tried: Vec::new(),
            ruled_out: Vec::new(),
            looked_at: Vec::new(),
            namers: Vec::new(),
            named_by: Vec::new(),
            sent: 0,
            answered: 0,
            hops: 0,
            failed: 0,
            nearest_answered: None,
        }
    }

    /// Resets the lookup and schedules another attempt.
    pub(super) fn start_again(&mut self, at: Duration) {
        let goal = std::mem::replace(&mut self.goal, Goal::Find);
        let bootstraps = std::mem::take(&mut self.bootstraps);
        *self = Self {
            tries: self.tries + 1,
            again_at: Some(at),
            sent: self.sent,
            answered: self.answered,
            failed: self.failed,
            ..Self::new(goal, self.key, bootstraps, self.upkeep)
        };
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            asked: self.sent,
            answered: self.answered,
            failed: self.failed,
            found: 0,
            hops: self.hops,
            nearest: self.nearest_answered,
        }
    }

    /// Returns the unasked node that most nearly precedes the key.
    pub(super) fn next_candidate(&mut self) -> Option<(usize, Contact<A>)> {
        while let Some((depth, node)) = self.candidates.pop() {
            // The node may have been named at several addresses.
            if !self.tried.contains(&node.id) {
                return Some((depth, node));
            }
        }
        None
    }

    /// Returns the record to put, if the operation has one.
    pub(super) fn record(&self) -> Option<Record<'_>> {
        match &self.goal {
            Goal::Put { ttl, value } | Goal::Return { ttl, value, .. } => Some(Record {
                key: *self.key.as_bytes(),
                ttl: *ttl,
                value,
            }),
            _ => None,
        }
    }
}

impl<A: Addr> Op<A> {
    /// Returns whether this is the node to locate.
    pub(super) fn locates(&self, id: &PeerId) -> bool {
        matches!(self.goal, Goal::Locate) && *id == self.key
    }

    /// Records a node that named the node to locate.
    pub(super) fn named(&mut self, by: &Contact<A>) {
        if self.named_by.len() < NAMED_BY && !self.named_by.contains(by) {
            self.named_by.push(by.clone());
        }
    }

    /// Returns whether it is useless to ask this node as the owner. A node that is not at a named address may
    /// be at another.
    pub(super) fn rules_out(&self, node: &Contact<A>) -> bool {
        self.ruled_out.contains(&node.id) || self.looked_at.contains(node)
    }

    /// Records that a node, or this node itself, named an owner. Returns whether it is the first time.
    pub(super) fn first_named(&mut self, owner: &PeerId, by: Option<PeerId>) -> bool {
        let is_first = !self.namers.contains(&(*owner, by));
        if is_first {
            self.namers.push((*owner, by));
        }
        is_first
    }
}
