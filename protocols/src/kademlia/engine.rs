//! The engine of one node: its tables, its operations and its requests in flight.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, PeerId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::codec::{Codec, Request, RequestKind};
use super::config::{Config, Rules};
use super::distance::Distance;
use super::event::{Counts, Event, Outcome};
use super::lookup::Lookup;
use super::operation::Op;
use super::postcard::PostcardCodec;
use super::providers::Providers;
use super::records::Records;
use super::silent::Silent;
use super::table::Table;
use crate::overlay::validation::{AddressValidator, Challenge, with_token};
use crate::overlay::{
    Contact, Failure, InFlight, Key, OpId, RequestId, RequestTransmit, Source, request_engine,
};

/// The purpose of a request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Learns the id of the node at a bootstrap address.
    Bootstrap(OpId),
    /// Checks whether a node answers.
    Check,
    /// Makes one step of a lookup.
    Lookup(OpId),
    /// Stores one copy of an operation's record or provider announcement.
    Store(OpId),
    /// Stores a copy along the path of a lookup; no operation waits for the result.
    Copy,
}

/// The reason for pinging a node. Newcomers have a limit of their own, so that they cannot delay the checks
/// of contacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// A newcomer, with the source that the ping is charged to.
    Newcomer(Source),
    /// This node's own upkeep.
    Upkeep,
}

#[derive(Debug)]
pub(super) struct Pending<A> {
    pub(super) id: Option<PeerId>,
    pub(super) addr: A,
    pub(super) purpose: Purpose,
    pub(super) kind: RequestKind,
    /// The request, to be sent again with a token if the node asks for one.
    pub(super) request: Option<Box<[u8]>>,
}

#[derive(Debug)]
pub(super) struct Published {
    pub(super) key: Key,
    pub(super) value: Vec<u8>,
    pub(super) ttl: Duration,
    pub(super) next: Duration,
}

/// One node of a Kademlia network. See the [module](super).
#[derive(Debug)]
pub struct Engine<A> {
    pub(super) own: PeerId,
    /// The key of this node.
    pub(super) key: Key,
    pub(super) codec: Arc<dyn Codec<A>>,
    pub(super) rules: Arc<Rules<A>>,
    pub(super) rng: StdRng,
    pub(super) table: Table<A>,
    pub(super) silent: Silent<A>,
    pub(super) records: Records,
    pub(super) providers: Providers<A>,
    pub(super) published: BTreeMap<PeerId, Published>,
    /// Keys that this node provides, by place, with the time of the next announcement.
    pub(super) provided: BTreeMap<PeerId, (Key, Duration)>,
    pub(super) ops: BTreeMap<OpId, Box<Op<A>>>,
    pub(super) requests: InFlight<A, Pending<A>>,
    /// Contacts with a ping in flight, one for each address, and the reason.
    pub(super) checking: Vec<(Contact<A>, For)>,
    pub(super) next_upkeep: Duration,
    /// Whether the last upkeep left work undone because of its limit.
    pub(super) backlog: bool,
    pub(super) events: VecDeque<Event<A>>,
    pub(super) counts: Counts,
    /// Source addresses that have returned a token.
    pub(super) validator: AddressValidator<A>,
}

impl<A: Addr> Engine<A> {
    /// Creates a node with this id and no contacts. `seed` seeds jitter and the choice of ids that refresh
    /// buckets.
    pub fn new(own: PeerId, rules: Arc<Rules<A>>, now: Duration, seed: u64) -> Self {
        let codec = Arc::new(PostcardCodec::new(own, rules.clone()));
        Self::with_codec(own.into(), codec, rules, now, seed)
    }

    /// Creates a node that speaks another encoding. The place of `key` is its id.
    pub fn with_codec(
        key: Key,
        codec: Arc<dyn Codec<A>>,
        rules: Arc<Rules<A>>,
        now: Duration,
        seed: u64,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let own = *key.id();
        let config = rules.config;
        Self {
            own,
            key,
            codec,
            table: Table::new(own),
            silent: Silent::new(),
            records: Records::new(own, config.records),
            providers: Providers::new(own, config.provider_keys),
            published: BTreeMap::new(),
            provided: BTreeMap::new(),
            ops: BTreeMap::new(),
            requests: InFlight::new(config.request_timeout),
            checking: Vec::new(),
            next_upkeep: now.saturating_add(config.upkeep_every.mul_f64(rng.random_range(0.5..1.0))),
            backlog: false,
            events: VecDeque::new(),
            counts: Counts::default(),
            validator: AddressValidator::new(seed, rules.config.unproven_ids),
            rng,
            rules,
        }
    }

    /// Returns this node's id.
    pub fn id(&self) -> PeerId {
        self.own
    }

    /// Returns the configuration, with all numbers clamped to their valid ranges.
    pub fn config(&self) -> &Config {
        &self.rules.config
    }

    /// Iterates over the contacts in all buckets. Each of them has answered a request.
    pub fn contacts(&self) -> impl Iterator<Item = &Contact<A>> {
        self.table.iter()
    }

    /// Returns the number of records kept for other nodes, and the total bytes of their values.
    pub fn stored(&self) -> (usize, usize) {
        (self.records.len(), self.records.bytes())
    }

    /// Returns the number of keys with known providers, and the total number of providers.
    pub fn kept_providers(&self) -> (usize, usize) {
        self.providers.len()
    }

    /// Returns the number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// Returns the counters since the engine was created.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the contact nearest to an id if it is nearer than this node: the next hop of a route.
    ///
    /// Each hop is nearer than the one before, so a route of such hops ends and has no loops.
    pub fn next_hop(&self, id: &PeerId) -> Option<&Contact<A>> {
        let nearest = self.table.nearest(id, 1, |_| true, false).into_iter().next()?;
        let distance = |other| Distance::between(id, other);
        (distance(&nearest.id) < distance(&self.own)).then_some(nearest)
    }

    /// Returns the next request to send.
    pub fn poll_transmit(&mut self) -> Option<RequestTransmit<A>> {
        self.requests.poll_transmit()
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event<A>> {
        self.events.pop_front()
    }

    /// Returns the time at which [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Duration {
        let first = self.requests.next_deadline();
        first.map_or(self.next_upkeep, |at| at.min(self.next_upkeep))
    }

    /// Fails requests past their deadline and runs upkeep if it is due.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some(id) = self.requests.expired(now) {
            self.handle_failure(now, id, Failure::Unreachable);
        }
        if now >= self.next_upkeep {
            self.upkeep(now);
        }
    }

    pub(super) fn look_up(&mut self, now: Duration, target: PeerId, width: usize) -> Lookup<A> {
        self.table.looked_up(now, &target);
        let config = &self.rules.config;
        self.silent.expire(now, config.silent_pause);
        let answers = |contact: &Contact<A>| !self.silent.leaves_out(&target, contact);
        let mut nearest = self.table.nearest(&target, config.k, answers, true);
        if nearest.is_empty() {
            // The fault may be this node's own.
            nearest = self.table.nearest(&target, config.k, |_| true, true);
        }
        let seeds = self.newcomer(&target).into_iter().chain(nearest).collect();
        Lookup::new(target, seeds, width, config)
    }

    /// Returns the node with this id if it is a newcomer that is being pinged. A node that looks for it would
    /// otherwise not find it until it has answered, which may be after its join has ended.
    pub(super) fn newcomer(&self, id: &PeerId) -> Option<&Contact<A>> {
        let is_it = |(contact, why): &&(Contact<A>, For)| contact.id == *id && *why != For::Upkeep;
        self.checking.iter().find(is_it).map(|(contact, _)| contact)
    }

    /// Sends a request.
    pub(super) fn send(
        &mut self,
        now: Duration,
        id: Option<PeerId>,
        addr: A,
        request: &Request<'_>,
        purpose: Purpose,
    ) {
        let bytes = self.codec.write_request(request);
        let kind = request.kind();
        let request = self.validator.copy(&addr, &bytes);
        let pending = Pending {
            id,
            addr,
            purpose,
            kind,
            request,
        };
        self.transmit(now, pending, bytes);
    }

    fn transmit(&mut self, now: Duration, pending: Pending<A>, request: Vec<u8>) {
        self.counts.sent += 1;
        self.requests.begin(now, pending.addr.clone(), request, pending);
    }

    /// Resends a request with the token that its node asked for. Returns whether it was sent; a request is
    /// resent at most once.
    pub(super) fn send_with_token(&mut self, now: Duration, id: RequestId, challenge: &Challenge) -> bool {
        let pending = self.requests.get(id);
        let Some(request) = pending.and_then(|pending| pending.request.as_deref()) else {
            return false;
        };
        let request = with_token(challenge, request);
        let Some(pending) = self.requests.end(id) else {
            return false;
        };
        // A node that answers, if only with a token, receives packets at its address. Its own first request
        // is then served at once.
        self.validator.validate(&pending.addr);
        let pending = Pending {
            request: None,
            ..pending
        };
        self.transmit(now, pending, request);
        true
    }

    /// Records that a node serves requests, as the driver knows from elsewhere, such as from what the node says of itself
    /// on a connection. The node is pinged if there is a place for it.
    ///
    /// Does nothing for this node, and for an address that authenticates another id.
    pub fn handle_contact(&mut self, now: Duration, contact: &Contact<A>) {
        if contact.id != self.own && self.proves(&contact.addr, contact.id) {
            self.heard(now, contact, true);
        }
    }

    /// Records that a node no longer serves requests: it loses its place. Operations in progress may still ask it.
    pub fn handle_departure(&mut self, id: &PeerId) {
        self.table.remove(id);
    }

    /// Processes a sign of life of a node whose id is proven. Pings it if there is a place for it, `may_serve` permitting.
    pub(super) fn heard(&mut self, now: Duration, node: &Contact<A>, may_serve: bool) {
        self.silent.remove(node);
        let Some(unsure) = self.table.heard(now, node, &self.rules.config) else {
            return;
        };
        if unsure != *node {
            self.check(now, unsure);
        } else if may_serve {
            self.check_newcomer(now, unsure);
        }
    }

    /// Pings a contact, unless a ping to it is in flight or the limit for contacts is reached.
    pub(super) fn check(&mut self, now: Duration, contact: Contact<A>) {
        let own = |(_, why): &&(Contact<A>, For)| *why == For::Upkeep;
        let running = self.checking.iter().filter(own).count();
        if running < self.rules.config.checks {
            self.begin_check(now, contact, For::Upkeep);
        }
    }

    /// Pings a newcomer, within the limits for newcomers: in total, and for each network, or each node if its
    /// network is unknown.
    pub(super) fn check_newcomer(&mut self, now: Duration, contact: Contact<A>) {
        let source = Source::of(&contact);
        let others = self.checking.iter().filter_map(|(_, why)| match why {
            For::Newcomer(source) => Some(*source),
            For::Upkeep => None,
        });
        let most = self.rules.config.checks;
        let (all, same) = others.fold((0, 0), |(all, same), other| {
            (all + 1, same + usize::from(other == source))
        });
        let of_source = match source {
            Source::Network(prefix) => prefix.limit(most.div_ceil(4)).min(most.div_ceil(2)),
            Source::Node(_) => 2,
        };
        if all >= most || same >= of_source {
            self.counts.unchecked += 1;
            return;
        }
        self.begin_check(now, contact, For::Newcomer(source));
    }

    fn begin_check(&mut self, now: Duration, contact: Contact<A>, why: For) {
        if self.checking.iter().all(|(other, _)| other.addr != contact.addr) {
            self.checking.push((contact.clone(), why));
            self.send(
                now,
                Some(contact.id),
                contact.addr,
                &Request::Ping,
                Purpose::Check,
            );
        }
    }

    pub(super) fn done(&mut self, id: OpId, op: &Op<A>, outcome: Outcome<A>) {
        if op.upkeep {
            if self.backlog {
                self.next_upkeep = Duration::ZERO;
            }
            return;
        }
        let progress = op.progress();
        self.events.push_back(Event::Done {
            op: id,
            outcome,
            progress,
        });
    }
}

request_engine!(Engine, Event, {});
