//! The engine of one node: its table, its records, its operations and its requests in flight.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, PeerId};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::config::{Config, Rules};
use super::copies::{Copies, Pull};
use super::event::{Counts, Event};
use super::leave::Leaving;
use super::operation::{Goal, Op};
use super::store::Store;
use super::table::Table;
use super::upkeep::Upkeep;
use super::wire;
use crate::overlay::validation::AddressValidator;
use crate::overlay::{Contact, InFlight, OpId, RequestTransmit, Scope, request_engine};

/// The purpose of a request in flight.
#[derive(Debug)]
pub(super) enum Purpose<A> {
    /// The request with this number of an operation, to a possible owner of the key.
    Op(OpId, usize),
    /// The request with this number of an operation, to a node on the way, which other nodes could answer as
    /// well.
    Step(OpId, usize),
    /// Checks whether a node that did not answer is alive.
    Probe,
    /// Asks the successor, or a node that may be the successor, for its neighbours.
    Stabilize(Contact<A>),
    /// Checks whether the predecessor is alive.
    Check,
    /// Introduces this node to the predecessor that the successor named.
    Introduce,
    /// Stores a copy at a successor.
    Copy,
    /// Requests records from the successor at this address.
    Pull(A, Pull),
    /// Hands over the record with this key on leaving.
    Hand(PeerId),
    /// Says goodbye on leaving.
    Goodbye,
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct Pending<A> {
    /// The id of the asked node, if known, and its address.
    pub(super) node: Option<PeerId>,
    pub(super) to: A,
    pub(super) purpose: Purpose<A>,
    /// The request to repeat after a timeout.
    pub(super) again: Option<Vec<u8>>,
    /// The request to send again with a token, if the node asks for one.
    pub(super) request: Option<Box<[u8]>>,
}

/// One node of a Chord ring. See the [module](super).
#[derive(Debug)]
pub struct Engine<A> {
    pub(super) rules: Arc<Rules<A>>,
    pub(super) rng: StdRng,
    pub(super) table: Table<A>,
    pub(super) store: Store,
    pub(super) ops: BTreeMap<OpId, Box<Op<A>>>,
    pub(super) upkeep: Upkeep<A>,
    pub(super) copies: Copies,
    pub(super) leaving: Option<Leaving>,
    pub(super) counts: Counts,
    pub(super) events: VecDeque<Event<A>>,
    /// Source addresses that have returned a token.
    pub(super) validator: AddressValidator<A>,
    pub(super) requests: InFlight<A, Pending<A>>,
}

impl<A> Purpose<A> {
    /// Returns whether the request is repeated after a timeout: no other node could answer it, or no other
    /// live node is known.
    pub(super) fn is_repeated(&self) -> bool {
        !matches!(self, Self::Step(..) | Self::Introduce | Self::Probe)
    }
}

impl<A: Addr> Engine<A> {
    /// Creates a node with this id. It is a ring of its own until it [joins](Self::join) another ring or
    /// another node joins it. `seed` seeds the jitter.
    pub fn new(own: PeerId, rules: Arc<Rules<A>>, now: Duration, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            table: Table::new(own, rules.config.successors),
            store: Store::default(),
            ops: BTreeMap::new(),
            upkeep: Upkeep::new(now, &rules.config, &mut rng),
            copies: Copies::default(),
            leaving: None,
            counts: Counts::default(),
            events: VecDeque::new(),
            validator: AddressValidator::new(seed, rules.config.unproven_ids),
            requests: InFlight::new(rules.config.request_timeout),
            rng,
            rules,
        }
    }

    /// Returns the configuration, with all numbers clamped to their valid ranges.
    pub fn config(&self) -> &Config {
        &self.rules.config
    }

    /// Returns this node's id.
    pub fn id(&self) -> PeerId {
        self.table.own
    }

    /// Returns the node before this one on the ring, if it is known.
    pub fn predecessor(&self) -> Option<&Contact<A>> {
        self.table.predecessor.as_ref()
    }

    /// Returns the nodes after this one on the ring, the nearest first.
    pub fn successors(&self) -> &[Contact<A>] {
        &self.table.successors
    }

    /// Iterates over the fingers, each with its number: finger *n* succeeds the id that is 2 to the power of
    /// *n* after this node. Equal fingers are listed once, with the lowest number, and the successor is not
    /// listed.
    pub fn fingers(&self) -> impl Iterator<Item = &(u8, Contact<A>)> {
        self.table.fingers()
    }

    /// Returns the number of records kept, and the total bytes of their values.
    pub fn stored(&self) -> (usize, usize) {
        (self.store.len(), self.store.bytes())
    }

    /// Returns whether a record with this key that has not expired is kept, as the owner or as a copy.
    pub fn keeps(&self, now: Duration, key: &PeerId) -> bool {
        self.store.get(now, key).is_some()
    }

    /// Returns the number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// Returns the counters since the engine was created.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the known node with the shortest distance to an id, if it is shorter than this node's: the
    /// next hop of a route.
    ///
    /// Each hop is nearer than the one before, so a route of such hops ends and has no loops.
    pub fn next_hop(&self, id: &PeerId) -> Option<&Contact<A>> {
        self.table.next_hop(id)
    }

    /// Returns whether this node is looking up its place on the ring.
    pub fn is_joining(&self) -> bool {
        self.ops.values().any(|op| matches!(op.goal, Goal::Join))
    }

    /// Returns the next request to send.
    pub fn poll_transmit(&mut self) -> Option<RequestTransmit<A>> {
        self.requests.poll_transmit()
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event<A>> {
        self.events.pop_front()
    }

    /// Forgets a node that is not at its known address. A failure at another address, which some node named,
    /// proves nothing.
    pub(super) fn gone_from(&mut self, now: Duration, node: Option<PeerId>, at: &A) {
        let is_there = |node: &PeerId| self.table.find(node).is_some_and(|known| known.addr == *at);
        if node.is_some_and(|node| is_there(&node)) {
            self.gone(now, node);
        }
    }

    /// Forgets a node that is not alive.
    pub(super) fn gone(&mut self, now: Duration, node: Option<PeerId>) {
        let Some(node) = node else { return };
        let had = self.table.successor().is_some();
        let before = self.copy_holders();
        let predecessor = self.table.predecessor.as_ref().map(|node| node.id);
        let far = self.table.forget(&node);
        if had && self.table.successor().is_none() {
            self.events.push_back(Event::Alone);
            self.upkeep.rejoin_soon(now, &self.rules.config);
        }
        if far {
            self.find_place(now);
        }
        if predecessor == Some(node) || before != self.copy_holders() {
            self.copies.again();
        }
    }

    /// Converts a node that the node at `by` named into a contact, unless its address cannot be parsed, has
    /// another id, or has a narrower scope than `by`.
    pub(super) fn told_of(&mut self, node: &wire::Node<'_>, by: &A) -> Option<Contact<A>> {
        let id = PeerId::new(node.id);
        let addr = (self.rules.parse)(&node.addr);
        let node = addr
            .filter(|addr| self.is_at(&id, addr) && Scope::may_name(by, addr))
            .map(|addr| Contact { id, addr });
        self.counts.bad_nodes += u64::from(node.is_none());
        node
    }

    /// Converts all named nodes, each at one address.
    pub(super) fn told_of_all(&mut self, nodes: &[wire::Node<'_>], by: &A) -> Vec<Contact<A>> {
        let mut told: Vec<Contact<A>> = Vec::with_capacity(nodes.len());
        for node in nodes {
            if told.iter().any(|known| *known.id.as_bytes() == node.id) {
                self.counts.bad_nodes += 1;
            } else {
                told.extend(self.told_of(node, by));
            }
        }
        told
    }

    /// Returns whether an address can belong to the node with this id.
    pub(super) fn is_at(&self, id: &PeerId, addr: &A) -> bool {
        match addr.peer_id() {
            Some(proven) => proven == *id,
            None => self.rules.config.unproven_ids,
        }
    }
}

request_engine!(Engine, Event, {
    /// Starts to leave the ring. A node that is already leaving continues.
    fn handle_leave(&mut self, now: Duration) {
        let _ = self.leave(now);
    }
});
