//! An operation: what it is for, whom it knows, and whom it has asked.

use std::collections::VecDeque;
use std::time::Duration;

use p2p::{Addr, PeerId};

use super::wire::Record;
use crate::overlay::{Contact, Progress};

/// Nodes that name one that is to be located, remembered at most.
const NAMED_BY: usize = 8;

/// What is to be done at the key's successor.
#[derive(Debug)]
pub(super) enum Goal {
    /// Become its predecessor.
    Join,
    /// Take it as the finger of this number.
    Finger(u8),
    Find,
    /// Find the node whose id the key is, and no other.
    Locate,
    /// So many had no record.
    Get {
        missing: usize,
    },
    Put {
        ttl: u32,
        value: Vec<u8>,
    },
    /// The same with a copy that belongs elsewhere.
    Return {
        since: Duration,
        ttl: u32,
        value: Vec<u8>,
    },
}

/// An operation. It has one request in flight, or waits before it is tried again.
#[derive(Debug)]
pub(super) struct Op<A> {
    pub(super) goal: Goal,
    pub(super) key: PeerId,
    /// The engine's own. No event comes of it.
    pub(super) upkeep: bool,
    pub(super) bootstraps: Vec<A>,
    /// How many of them were asked.
    pub(super) asked_bootstraps: usize,
    /// How often it was tried before, and when it will be tried again.
    pub(super) tries: u32,
    pub(super) again_at: Option<Duration>,
    /// Nodes that precede the key, with how many nodes led there; the nearest last.
    pub(super) candidates: Vec<(usize, Contact<A>)>,
    /// Nodes that may succeed the key, the most likely first. `None` is this node.
    pub(super) owners: VecDeque<Option<Contact<A>>>,
    /// Who was nearest to the key of those who told of nearer nodes.
    pub(super) nearest: Option<Told<A>>,
    /// Whom to ask for more than it has told of: how many nodes led there, and how many it is to leave out.
    pub(super) again: Option<(usize, Contact<A>, u8)>,
    /// It asks the finger that there is whether it still is that, or those just before it.
    pub(super) guessing: bool,
    pub(super) asked: Asked<A>,
    /// Who was asked for a step, or need not be.
    pub(super) tried: Vec<PeerId>,
    /// Who answered as the owner and is not.
    pub(super) ruled_out: Vec<PeerId>,
    /// Where a node was asked as the owner, or did not answer.
    pub(super) looked_at: Vec<Contact<A>>,
    /// Who has named an owner's address already; one node has one address of an owner tried.
    pub(super) namers: Vec<(PeerId, Option<PeerId>)>,
    /// Who named the node to be located.
    pub(super) named_by: Vec<Contact<A>>,
    pub(super) sent: usize,
    pub(super) answered: usize,
    pub(super) hops: usize,
    pub(super) failed: usize,
    /// The last that told of a step.
    pub(super) nearest_answered: Option<PeerId>,
}

/// One that told of nodes nearer to the key, before it is known whether they live.
#[derive(Clone, Debug)]
pub(super) struct Told<A> {
    /// From it to the key.
    pub(super) distance: [u8; 32],
    /// How many nodes led to it.
    pub(super) depth: usize,
    /// Who it is, unless it is this node.
    pub(super) node: Option<Contact<A>>,
    /// How many nodes it has told of, if it may know more.
    pub(super) skip: Option<u8>,
    /// Nodes that succeed the key if none of those lives.
    pub(super) owners: Vec<Contact<A>>,
}

/// What is in flight.
#[derive(Clone, Debug)]
pub(super) enum Asked<A> {
    Nothing,
    /// A step, of the node at this address, to which so many nodes led; it leaves out so many that it told of.
    Step(usize, A, u8),
    /// What is to be done at the owner.
    Owner(Contact<A>),
    /// To keep a record though it is not the owner, since the owner is not there.
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

    /// Forgets whom it asked, and waits.
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

    /// The node that most nearly precedes the key of those that were not asked.
    pub(super) fn next_candidate(&mut self) -> Option<(usize, Contact<A>)> {
        while let Some((depth, node)) = self.candidates.pop() {
            // It may have been named at several addresses.
            if !self.tried.contains(&node.id) {
                return Some((depth, node));
            }
        }
        None
    }

    /// The record to put, if there is one.
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
    /// Whether this is the node that is to be located.
    pub(super) fn locates(&self, id: &PeerId) -> bool {
        matches!(self.goal, Goal::Locate) && *id == self.key
    }

    /// Notes that somebody names it.
    pub(super) fn named(&mut self, by: &Contact<A>) {
        if self.named_by.len() < NAMED_BY && !self.named_by.contains(by) {
            self.named_by.push(by.clone());
        }
    }

    /// Whether asking this node as the owner is of no use. One that is not where it was said to be may be elsewhere.
    pub(super) fn rules_out(&self, node: &Contact<A>) -> bool {
        self.ruled_out.contains(&node.id) || self.looked_at.contains(node)
    }

    /// Whether this is the first time that a node, or this one itself, names an owner.
    pub(super) fn first_named(&mut self, owner: &PeerId, by: Option<PeerId>) -> bool {
        let is_first = !self.namers.contains(&(*owner, by));
        if is_first {
            self.namers.push((*owner, by));
        }
        is_first
    }
}
