//! The engine of one node: its table, its records, its operations and its requests in flight.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, Error, PeerId, Result};
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
use super::wire::{self, Answer, Ask, Message};
use crate::overlay::validation::{AddressValidator, as_challenge, with_token};
use crate::overlay::{Contact, Failure, OpId, RequestId, RequestTransmit, Scope};

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

#[derive(Debug)]
struct Pending<A> {
    /// The id of the asked node, if known, and its address.
    node: Option<PeerId>,
    to: A,
    purpose: Purpose<A>,
    /// The request to repeat after a timeout.
    again: Option<Vec<u8>>,
    /// The request to send again with a token, if the node asks for one.
    request: Option<Box<[u8]>>,
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
    pending: HashMap<RequestId, Pending<A>>,
    /// Ordered, because all requests have the same timeout. The first request is still pending.
    deadlines: VecDeque<(Duration, RequestId)>,
    transmits: VecDeque<RequestTransmit<A>>,
    last_id: u64,
}

impl<A> Purpose<A> {
    /// Returns whether the request is repeated after a timeout: no other node could answer it, or no other
    /// live node is known.
    fn is_repeated(&self) -> bool {
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
            pending: HashMap::new(),
            deadlines: VecDeque::new(),
            transmits: VecDeque::new(),
            last_id: 0,
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
        self.pending.len()
    }

    /// Returns the counters since the engine was created.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Joins the ring of the first bootstrap node that answers: finds this node's successor, notifies it, and
    /// requests the records of this node's range from it. Ends with
    /// [`Outcome::Joined`](super::Outcome::Joined); from then on lookups find this node. The whole ring knows
    /// it after some rounds of stabilization. Until the join ends, the node accepts no other node.
    ///
    /// If the join fails, it is tried again, [`Config::join_tries`] times in total.
    ///
    /// # Errors
    /// [`Error::Invalid`] without an address, and [`Error::Limit`] with too many operations. Nothing is sent.
    pub fn join(&mut self, now: Duration, bootstraps: &[A]) -> Result<OpId> {
        if bootstraps.is_empty() {
            return Err(Error::invalid(
                "bootstrap",
                "a join needs at least one bootstrap address",
            ));
        }
        let (own, limit) = (self.table.own, self.rules.config.bootstraps);
        let bootstraps: Vec<A> = bootstraps.iter().take(limit).cloned().collect();
        self.upkeep.bootstraps.clone_from(&bootstraps);
        self.start(now, Goal::Join, own, bootstraps)
    }

    /// Finds the node that succeeds a key by asking one node after another (iterative lookup). Ends with
    /// [`Outcome::Found`](super::Outcome::Found).
    ///
    /// # Errors
    /// [`Error::Limit`] with too many operations. Nothing is sent.
    pub fn lookup(&mut self, now: Duration, key: PeerId) -> Result<OpId> {
        self.start(now, Goal::Find, key, Vec::new())
    }

    /// Finds one node and verifies that it answers. Ends with [`Outcome::Located`](super::Outcome::Located).
    ///
    /// # Errors
    /// [`Error::Limit`] with too many operations. Nothing is sent.
    pub fn locate(&mut self, now: Duration, id: PeerId) -> Result<OpId> {
        self.start(now, Goal::Locate, id, Vec::new())
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

    /// Gets the record with a key, from its owner or a node with a copy. Ends with
    /// [`Outcome::Value`](super::Outcome::Value).
    ///
    /// # Errors
    /// [`Error::Limit`] with too many operations. Nothing is sent.
    pub fn get(&mut self, now: Duration, key: PeerId) -> Result<OpId> {
        self.start(now, Goal::Get { missing: 0 }, key, Vec::new())
    }

    /// Stores a record at its key's successor, which copies it to the nodes after it. Ends with
    /// [`Outcome::Stored`](super::Outcome::Stored).
    ///
    /// The record lives for `ttl`, rounded up to seconds and limited by the nodes that keep it. To keep it
    /// longer, put it again.
    ///
    /// # Errors
    /// [`Error::MtuExceeded`] for a value that is too long, [`Error::Invalid`] if the validator rejects the
    /// record or `ttl` is zero, [`Error::Limit`] with too many operations. Nothing is sent.
    pub fn put(&mut self, now: Duration, key: PeerId, value: &[u8], ttl: Duration) -> Result<OpId> {
        let mtu = self.rules.config.value;
        if value.len() > mtu {
            let size = value.len();
            return Err(Error::MtuExceeded { size, mtu });
        }
        if !self.rules.validator.is_valid(&key, value) {
            return Err(Error::invalid("record", "the validator rejects it"));
        }
        if ttl.is_zero() {
            return Err(Error::invalid("record", "its time to live is zero"));
        }
        let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        let ttl = u32::try_from(seconds).unwrap_or(u32::MAX);
        let value = value.to_vec();
        self.start(now, Goal::Put { ttl, value }, key, Vec::new())
    }

    /// Cancels an operation. It produces no further events. Returns whether it was running.
    pub fn cancel(&mut self, op: OpId) -> bool {
        self.ops.remove(&op).is_some() || self.upkeep.joined.take_if(|joined| joined.op == op).is_some()
    }

    /// Processes the answer to a request.
    pub fn handle_answer(&mut self, now: Duration, id: RequestId, answer: &[u8]) {
        let Some(Pending {
            node,
            to,
            purpose,
            request,
            again,
        }) = self.settle(id)
        else {
            self.counts.late += 1;
            return;
        };
        if let (Some(challenge), Some(request)) = (as_challenge(answer), request) {
            self.validator.validate(&to);
            let request = with_token(&challenge, &request);
            self.send_once(now, to, node, request.clone(), purpose);
            if let Some(pending) = self.pending.get_mut(&RequestId(self.last_id)) {
                (pending.request, pending.again) = (None, again.map(|_| request));
            }
            return;
        }
        let Some(message) = Message::<Answer<'_>>::parse(answer) else {
            self.counts.malformed += 1;
            return self.unanswered(now, node, purpose);
        };
        let from = PeerId::new(message.from);
        if node.is_some_and(|node| node != from) || from == self.table.own {
            self.counts.false_ids += 1;
            // The named node is not at this address.
            self.gone_from(now, node, &to);
            return self.unanswered(now, node, purpose);
        }
        self.counts.answered += 1;
        self.validator.validate(&to);
        match purpose {
            Purpose::Op(op, sent) | Purpose::Step(op, sent) => {
                self.op_answered(now, op, sent, from, message.body);
            }
            Purpose::Probe => self.upkeep.probed(from),
            Purpose::Stabilize(asked) => {
                self.stabilized(now, &asked, message.body);
                self.taken_in();
            }
            Purpose::Check => self.heard(now, from),
            Purpose::Introduce => {
                self.heard(now, from);
                self.introduced();
            }
            Purpose::Copy => self.copied(now, from),
            Purpose::Pull(addr, pull) => self.pulled(now, from, &addr, pull, message.body),
            Purpose::Hand(_) | Purpose::Goodbye => self.leave_on(now),
        }
    }

    /// Processes the failure of a request. The engine fails a request without an answer or a failure after a
    /// timeout.
    pub fn handle_failure(&mut self, now: Duration, id: RequestId, why: Failure) {
        let Some(Pending {
            node,
            to,
            purpose,
            again,
            ..
        }) = self.settle(id)
        else {
            self.counts.late += 1;
            return;
        };
        self.counts.failed += 1;
        if why == Failure::Unreachable {
            if let Some(request) = again {
                return self.send_once(now, to, node, request, purpose);
            }
            if purpose.is_repeated() || matches!(purpose, Purpose::Probe) {
                self.gone_from(now, node, &to);
            } else {
                self.probe(now, node);
            }
        }
        self.unanswered(now, node, purpose);
    }

    /// Returns the next request to send.
    pub fn poll_transmit(&mut self) -> Option<RequestTransmit<A>> {
        self.transmits.pop_front()
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event<A>> {
        self.events.pop_front()
    }

    /// Returns the earliest deadline of the requests in flight.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.front().map(|(at, _)| *at)
    }

    /// Fails requests past their deadline.
    pub(super) fn expire_requests(&mut self, now: Duration) {
        while let Some((_, id)) = self.deadlines.front().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.pop_front();
            self.handle_failure(now, id, Failure::Unreachable);
        }
    }

    fn start(&mut self, now: Duration, goal: Goal, key: PeerId, bootstraps: Vec<A>) -> Result<OpId> {
        let limit = self.rules.config.operations;
        if self.ops.values().filter(|op| !op.upkeep).count() >= limit {
            let what = "operations";
            return Err(Error::Limit { what, limit });
        }
        Ok(self.begin(now, goal, key, bootstraps, false))
    }

    /// Sends a request.
    pub(super) fn ask(
        &mut self,
        now: Duration,
        to: &A,
        node: Option<PeerId>,
        ask: Ask<'_>,
        purpose: Purpose<A>,
    ) {
        let request = Message::new(*self.table.own.as_bytes(), ask).emit();
        self.send(now, to.clone(), node, request, purpose);
    }

    pub(super) fn send(
        &mut self,
        now: Duration,
        to: A,
        node: Option<PeerId>,
        request: Vec<u8>,
        purpose: Purpose<A>,
    ) {
        let again = purpose.is_repeated().then(|| request.clone());
        self.send_once(now, to, node, request, purpose);
        if let Some(pending) = self.pending.get_mut(&RequestId(self.last_id)) {
            pending.again = again;
        }
    }

    fn send_once(
        &mut self,
        now: Duration,
        to: A,
        node: Option<PeerId>,
        request: Vec<u8>,
        purpose: Purpose<A>,
    ) {
        let id = RequestId(self.next_id());
        self.counts.sent += 1;
        let deadline = now.saturating_add(self.rules.config.request_timeout);
        self.deadlines.push_back((deadline, id));
        let pending = Pending {
            node,
            to: to.clone(),
            purpose,
            again: None,
            request: self.validator.copy(&to, &request),
        };
        self.pending.insert(id, pending);
        self.transmits.push_back(RequestTransmit { to, id, request });
    }

    fn settle(&mut self, id: RequestId) -> Option<Pending<A>> {
        let pending = self.pending.remove(&id);
        while let Some((_, id)) = self.deadlines.front()
            && !self.pending.contains_key(id)
        {
            self.deadlines.pop_front();
        }
        pending
    }

    /// Processes a request without a valid answer.
    fn unanswered(&mut self, now: Duration, node: Option<PeerId>, purpose: Purpose<A>) {
        match purpose {
            Purpose::Op(op, sent) | Purpose::Step(op, sent) => self.op_failed(now, op, sent, node),
            Purpose::Probe => node.into_iter().for_each(|node| self.upkeep.probed(node)),
            Purpose::Stabilize(asked) => {
                self.stabilize_failed(now, &asked);
                self.taken_in();
            }
            Purpose::Copy => self.copy_failed(now),
            Purpose::Hand(key) => self.hand_failed(now, node, &key),
            Purpose::Goodbye => self.leave_on(now),
            Purpose::Introduce => self.introduced(),
            Purpose::Check | Purpose::Pull(..) => {}
        }
    }

    /// Pings a node that did not answer, if it is in the table.
    fn probe(&mut self, now: Duration, node: Option<PeerId>) {
        let known = node.and_then(|node| self.table.find(&node)).cloned();
        if let Some(Contact { id, addr }) = known
            && self.upkeep.begin_probe(id)
        {
            self.ask(now, &addr, Some(id), Ask::Ping, Purpose::Probe);
        }
    }

    /// Forgets a node that is not at its known address. A failure at another address, which some node named,
    /// proves nothing.
    fn gone_from(&mut self, now: Duration, node: Option<PeerId>, at: &A) {
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

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
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
