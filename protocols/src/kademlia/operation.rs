//! Operations: a lookup, the results that it collects, and the work after it.

use std::time::Duration;

use p2p::{Addr, PeerId};

use super::distance::Distance;
use super::engine::{Engine, Purpose};
use super::event::{Event, Outcome, Record};
use super::lookup::Lookup;
use super::records::Incoming;
use super::wire::{Answer, Ask, Message, Node};
use crate::overlay::validation::as_challenge;
use crate::overlay::{Contact, Failure, OpId, Progress, RequestId, Scope, Source};

#[derive(Debug)]
pub(super) enum Task<A> {
    Join {
        /// Number of bootstrap nodes that have not answered yet.
        asked: usize,
        /// Whether the lookup of this node's own id has begun.
        begun: bool,
        /// Buckets to fill after that lookup.
        buckets: Option<Vec<usize>>,
    },
    FindNode,
    Locate,
    Get {
        /// The best record so far, and its expiry time.
        best: Option<(Vec<u8>, Duration)>,
        /// Number of nodes that returned a valid record, including this node.
        found: usize,
        /// The nodes that returned the best record, and those that returned a worse one.
        holders: Vec<Contact<A>>,
        worse: Vec<Contact<A>>,
    },
    Put {
        value: Vec<u8>,
        /// Expiry time, independent of how long the lookup takes.
        until: Duration,
    },
    Provide,
    Providers {
        found: Vec<Named<A>>,
    },
}

/// A provider, and the number of nodes that named it.
#[derive(Debug)]
pub(super) struct Named<A> {
    pub(super) contact: Contact<A>,
    pub(super) votes: usize,
}

/// Number of nodes that must name a provider before it counts towards ending a lookup early.
const CONFIRMED: usize = 2;

/// Number of providers that are remembered for each wanted one. At the limit, the oldest that only one node
/// named is removed.
const REMEMBERED: usize = 8;

#[derive(Debug)]
pub(super) struct Op<A> {
    pub(super) lookup: Lookup<A>,
    pub(super) task: Task<A>,
    /// Whether this is upkeep of the node, without events for the application.
    pub(super) upkeep: bool,
    /// Number of copies in flight, once the lookup is over.
    pub(super) storing: Option<usize>,
    pub(super) copies: usize,
}

impl<A: Addr> Op<A> {
    pub(super) fn progress(&self) -> Progress {
        self.lookup.progress()
    }

    /// Returns whether the lookup can end early.
    fn has_enough(&self, quorum: usize, wanted: usize) -> bool {
        match &self.task {
            Task::Get { found, .. } => *found >= quorum,
            Task::Providers { found } => {
                let confirmed = found.iter().filter(|named| named.votes >= CONFIRMED);
                confirmed.take(wanted).count() >= wanted
            }
            Task::Locate => self.lookup.of_target().0.is_some(),
            _ => false,
        }
    }

    fn ask(&self) -> Ask<'static> {
        let target = *self.lookup.target().as_bytes();
        match self.task {
            Task::Get { .. } => Ask::Get(target),
            Task::Providers { .. } => Ask::Providers(target),
            _ => Ask::FindNode(target),
        }
    }
}

impl<A: Addr> Engine<A> {
    /// Processes the answer to a request.
    ///
    /// An answer that cannot be parsed, has another node's id or does not match the request counts as a
    /// failure of the request.
    pub fn handle_answer(&mut self, now: Duration, id: RequestId, answer: &[u8]) {
        if let Some(challenge) = as_challenge(answer)
            && self.send_with_token(now, id, &challenge)
        {
            return;
        }
        let Some(pending) = self.pending.get(&id) else {
            self.counts.late += 1;
            return;
        };
        if answer.len() > self.rules.config.message {
            self.counts.malformed += 1;
            self.handle_failure(now, id, Failure::Unreachable);
            return;
        }
        let Some(message) = Message::<Answer<'_>>::parse(answer) else {
            self.counts.malformed += 1;
            self.handle_failure(now, id, Failure::Unreachable);
            return;
        };
        let from = PeerId::new(message.from);
        let expected = pending.id.is_none_or(|id| id == from) && from != self.own;
        if !expected || !self.proves(&pending.addr, from) {
            self.counts.false_ids += 1;
            self.handle_failure(now, id, Failure::Unreachable);
            return;
        }
        if !self.fits(pending.purpose, &message.body) {
            self.counts.malformed += 1;
            self.handle_failure(now, id, Failure::Unreachable);
            return;
        }
        let Some(pending) = self.pending.remove(&id) else {
            return;
        };
        self.skip_settled();
        self.counts.answered += 1;
        self.validator.validate(&pending.addr);
        let contact = Contact {
            id: from,
            addr: pending.addr,
        };
        self.silent.remove(&contact);
        if pending.purpose == Purpose::Check {
            self.checking.retain(|(other, _)| other.addr != contact.addr);
        }
        let config = &self.rules.config;
        let wanted = self
            .table
            .answered(now, contact.clone(), config, &mut self.counts);
        if let Some(silent) = wanted.check {
            self.check(now, silent);
        }
        match pending.purpose {
            Purpose::Check | Purpose::Copy => {}
            Purpose::Bootstrap(op) => self.bootstrap_settled(now, op),
            Purpose::Lookup(op) => self.lookup_answered(now, op, &contact, message.body),
            Purpose::Store(op) => self.store_settled(op, true),
        }
    }

    /// Processes the failure of a request.
    pub fn handle_failure(&mut self, now: Duration, id: RequestId, failure: Failure) {
        let Some(pending) = self.pending.remove(&id) else {
            self.counts.late += 1;
            return;
        };
        self.skip_settled();
        self.counts.failed += 1;
        if pending.purpose == Purpose::Check {
            self.checking.retain(|(other, _)| other.addr != pending.addr);
        }
        let refusable = matches!(pending.purpose, Purpose::Store(_) | Purpose::Copy);
        if let Some(id) = pending.id
            && (failure == Failure::Unreachable || !refusable)
        {
            let contact = Contact {
                id,
                addr: pending.addr,
            };
            if failure == Failure::Unreachable {
                self.silent.add(now, &contact);
            }
            let config = &self.rules.config;
            let elsewhere = self.table.failed(now, &contact, config, &mut self.counts);
            if let Some(elsewhere) = elsewhere {
                self.check(now, elsewhere);
            }
        }
        match pending.purpose {
            Purpose::Check | Purpose::Copy => {}
            Purpose::Bootstrap(op) => self.bootstrap_settled(now, op),
            Purpose::Store(op) => self.store_settled(op, false),
            Purpose::Lookup(op) => {
                if let (Some(mut running), Some(id)) = (self.ops.remove(&op), pending.id) {
                    running.lookup.failed(&id);
                    self.tell_progress(op, &running);
                    self.advance(now, op, running);
                }
            }
        }
    }

    /// Returns whether the address authenticates the id, or all ids are accepted.
    pub(super) fn proves(&self, addr: &A, id: PeerId) -> bool {
        addr.peer_id()
            .map_or(self.rules.config.unproven_ids, |proven| proven == id)
    }

    fn fits(&self, purpose: Purpose, answer: &Answer<'_>) -> bool {
        match purpose {
            Purpose::Bootstrap(_) | Purpose::Check => matches!(answer, Answer::Pong),
            Purpose::Store(_) | Purpose::Copy => matches!(answer, Answer::Kept),
            Purpose::Lookup(op) => match self.ops.get(&op).map(|op| &op.task) {
                Some(Task::Get { .. }) => matches!(answer, Answer::Nodes(_) | Answer::Record { .. }),
                Some(Task::Providers { .. }) => matches!(answer, Answer::Providers { .. }),
                Some(_) => matches!(answer, Answer::Nodes(_)),
                // The operation has ended or was cancelled; the answer still shows that the node is alive.
                None => true,
            },
        }
    }

    fn bootstrap_settled(&mut self, now: Duration, id: OpId) {
        let Some(mut op) = self.ops.remove(&id) else {
            return;
        };
        if let Task::Join { asked, .. } = &mut op.task {
            *asked = asked.saturating_sub(1);
        }
        self.advance(now, id, op);
    }

    fn store_settled(&mut self, id: OpId, kept: bool) {
        let Some(mut op) = self.ops.remove(&id) else {
            return;
        };
        op.copies += usize::from(kept);
        op.lookup.found(op.copies);
        let left = op.storing.map_or(0, |storing| storing.saturating_sub(1));
        op.storing = Some(left);
        if left == 0 {
            let copies = op.copies;
            self.done(id, &op, Outcome::Kept { copies });
        } else {
            self.tell_progress(id, &op);
            self.ops.insert(id, op);
        }
    }

    fn tell_progress(&mut self, id: OpId, op: &Op<A>) {
        if !op.upkeep {
            self.events.push_back(Event::Progress {
                op: id,
                progress: op.progress(),
            });
        }
    }

    fn lookup_answered(&mut self, now: Duration, id: OpId, contact: &Contact<A>, answer: Answer<'_>) {
        let Some(mut op) = self.ops.remove(&id) else {
            return;
        };
        let nodes = match answer {
            Answer::Nodes(nodes) => nodes,
            Answer::Record { ttl, value, nodes } => {
                self.record_found(now, &mut op, contact, value, Duration::from_secs(ttl.into()));
                nodes
            }
            Answer::Providers { providers, nodes } => {
                self.providers_found(&mut op, contact, &providers);
                nodes
            }
            Answer::Pong | Answer::Kept => Vec::new(),
        };
        let mut nodes = self.contacts_of(&nodes, contact, self.rules.config.k);
        self.silent.expire(now, self.rules.config.silent_pause);
        nodes.retain(|node| !self.silent.leaves_out(&op.lookup.target(), node));
        let config = &self.rules.config;
        op.lookup.answered(&contact.id, nodes, config, &mut self.counts);
        self.tell_progress(id, &op);
        self.advance(now, id, op);
    }

    /// Converts the nodes that `by` named into contacts: the first `most`, each at one address. Leaves out
    /// this node, false ids, and addresses with a narrower scope than that of `by`.
    fn contacts_of(&mut self, nodes: &[Node<'_>], by: &Contact<A>, most: usize) -> Vec<Contact<A>> {
        self.counts.surplus += nodes.len().saturating_sub(most) as u64;
        let mut contacts: Vec<Contact<A>> = Vec::with_capacity(nodes.len().min(most));
        for node in nodes.iter().take(most) {
            let id = PeerId::new(node.id);
            if id == self.own {
                continue;
            }
            if contacts.iter().any(|known| known.id == id) {
                self.counts.surplus += 1;
                continue;
            }
            match (self.rules.parse)(&node.addr) {
                None => self.counts.bad_addrs += 1,
                Some(addr) if !self.proves(&addr, id) => self.counts.false_ids += 1,
                Some(addr) if !Scope::may_name(&by.addr, &addr) => self.counts.out_of_scope += 1,
                Some(addr) => contacts.push(Contact { id, addr }),
            }
        }
        contacts
    }

    fn record_found(
        &mut self,
        now: Duration,
        op: &mut Op<A>,
        from: &Contact<A>,
        value: &[u8],
        ttl: Duration,
    ) {
        let rules = &self.rules;
        let key = op.lookup.target();
        let Task::Get {
            best,
            found,
            holders,
            worse,
        } = &mut op.task
        else {
            return;
        };
        let good = value.len() <= rules.config.value && !ttl.is_zero();
        if !good || !rules.validator.is_valid(&key, value) {
            self.counts.bad_records += 1;
            return;
        }
        *found += 1;
        op.lookup.found(*found);
        op.lookup.has_value(&from.id);
        let expires = now.saturating_add(ttl.min(rules.config.record_ttl));
        match best {
            Some((known, until)) if *known == value => {
                *until = expires.max(*until);
                holders.push(from.clone());
            }
            Some((known, _)) if !rules.validator.supersedes(&key, value, known) => {
                self.counts.bad_records += 1;
                worse.push(from.clone());
            }
            _ => {
                *best = Some((value.to_vec(), expires));
                worse.append(holders);
                holders.push(from.clone());
            }
        }
    }

    fn providers_found(&mut self, op: &mut Op<A>, by: &Contact<A>, providers: &[Node<'_>]) {
        let config = self.rules.config;
        let contacts = self.contacts_of(providers, by, config.providers_per_key);
        if let Task::Providers { found } = &mut op.task {
            let most = config.providers_wanted.saturating_mul(REMEMBERED);
            for contact in contacts {
                if let Some(known) = found.iter_mut().find(|known| known.contact == contact) {
                    known.votes = known.votes.saturating_add(1);
                    continue;
                }
                if found.len() >= most {
                    let Some(lone) = found.iter().position(|named| named.votes < CONFIRMED) else {
                        continue;
                    };
                    found.remove(lone);
                }
                found.push(Named { contact, votes: 1 });
            }
            op.lookup.found(found.len().min(config.providers_wanted));
        }
    }

    /// Sends the requests that an operation can send now, and finishes it if nothing is left to do.
    pub(super) fn advance(&mut self, now: Duration, id: OpId, mut op: Box<Op<A>>) {
        if op.storing.is_some() {
            self.ops.insert(id, op);
            return;
        }
        let config = self.rules.config;
        loop {
            if self.waits_for_bootstraps(now, &mut op) {
                break;
            }
            if !op.has_enough(config.quorum, config.providers_wanted) {
                for contact in op.lookup.next_asks(&config) {
                    let ask = op.ask();
                    self.send(now, Some(contact.id), contact.addr, ask, Purpose::Lookup(id));
                }
                if !op.lookup.is_idle() {
                    break;
                }
            }
            if op.lookup.is_exhausted(&config) {
                self.counts.exhausted += 1;
            } else if self.seeds_again(&mut op) {
                continue;
            }
            if !self.looks_into_next_bucket(now, &mut op) {
                self.finish(now, id, op);
                return;
            }
        }
        self.ops.insert(id, op);
    }

    /// Adds further contacts to a lookup in which no node has answered, so that unresponsive nodes near a key
    /// do not hide live ones. Returns whether any was added.
    fn seeds_again(&self, op: &mut Op<A>) -> bool {
        let progress = op.progress();
        if progress.answered > 0 || progress.failed == 0 {
            return false;
        }
        let config = &self.rules.config;
        let is_new = |contact: &Contact<A>| !op.lookup.has_seen(&contact.id);
        let seeds = self.table.nearest(&op.lookup.target(), config.k, is_new, false);
        op.lookup.seed(seeds, config)
    }

    /// Returns whether a join still waits for bootstrap nodes. Starts its lookup as soon as it does not.
    fn waits_for_bootstraps(&mut self, now: Duration, op: &mut Op<A>) -> bool {
        let Task::Join { asked, begun, .. } = &mut op.task else {
            return false;
        };
        if *begun {
            return false;
        }
        // Wait for all of them: a single hostile bootstrap node could mislead the whole join.
        if *asked > 0 {
            return true;
        }
        *begun = true;
        op.lookup = self.look_up(now, self.own, self.rules.config.k);
        false
    }

    fn looks_into_next_bucket(&mut self, now: Duration, op: &mut Op<A>) -> bool {
        let Task::Join { buckets, .. } = &mut op.task else {
            return false;
        };
        let config = &self.rules.config;
        let buckets = buckets.get_or_insert_with(|| self.table.to_fill(config));
        let Some(bucket) = buckets.pop() else {
            return false;
        };
        let target = self.table.random_id(bucket, &mut self.rng);
        op.lookup = self.look_up(now, target, self.rules.config.k.div_ceil(10));
        true
    }

    /// Performs the work after the lookup.
    fn finish(&mut self, now: Duration, id: OpId, mut op: Box<Op<A>>) {
        let config = self.rules.config;
        let key = op.lookup.target();
        let outcome = match &mut op.task {
            Task::Join { .. } => Outcome::Joined {
                contacts: self.table.len(),
            },
            Task::FindNode => Outcome::Nodes(op.lookup.nearest(&config)),
            Task::Locate => {
                let (contact, named_by) = op.lookup.of_target();
                Outcome::Located { contact, named_by }
            }
            Task::Providers { found } => {
                Outcome::Providers(most_named(std::mem::take(found), config.providers_wanted))
            }
            Task::Get { best, worse, .. } => {
                let worse = std::mem::take(worse);
                let best = best.take().filter(|(_, until)| *until > now);
                let record = best.map(|(value, until)| Record {
                    value,
                    ttl: until.saturating_sub(now),
                });
                if let Some(Record { value, ttl }) = &record {
                    self.spread(now, &op.lookup, worse, value, *ttl);
                }
                Outcome::Record(record)
            }
            Task::Put { value, until } => {
                let (value, ttl) = (std::mem::take(value), until.saturating_sub(now));
                self.keep_if_near(now, &op.lookup, &value, ttl);
                let ask = Ask::Put {
                    key: *key.as_bytes(),
                    ttl: seconds(ttl),
                    value: &value,
                };
                self.store(now, id, op, &ask);
                return;
            }
            Task::Provide => {
                let ask = Ask::Provide {
                    key: *key.as_bytes(),
                    ttl: seconds(config.provider_ttl),
                };
                self.store(now, id, op, &ask);
                return;
            }
        };
        self.done(id, &op, outcome);
    }

    /// Sends a copy to each of the nearest nodes.
    fn store(&mut self, now: Duration, id: OpId, mut op: Box<Op<A>>, ask: &Ask<'_>) {
        let nodes = op.lookup.nearest(&self.rules.config);
        if nodes.is_empty() {
            self.done(id, &op, Outcome::Kept { copies: 0 });
            return;
        }
        op.storing = Some(nodes.len());
        for contact in nodes {
            let purpose = Purpose::Store(id);
            self.send(now, Some(contact.id), contact.addr, ask.clone(), purpose);
        }
        self.ops.insert(id, op);
    }

    /// Also stores a record here if this node is among the nearest.
    fn keep_if_near(&mut self, now: Duration, lookup: &Lookup<A>, value: &[u8], ttl: Duration) {
        let (key, config) = (lookup.target(), self.rules.config);
        let nodes = lookup.nearest(&config);
        let farthest = nodes.last().map(|node| Distance::between(&key, &node.id));
        let own = Distance::between(&key, &self.own);
        if nodes.len() < config.k || Some(own) < farthest {
            let record = Incoming {
                key,
                value,
                ttl,
                source: Source::Node(self.own),
                replicate_at: self.replicate_at(now),
            };
            // A better record that is already stored stays.
            if let Ok(evicted) = self.records.put(now, &record, &self.rules) {
                self.counts.evicted += evicted;
            }
        }
    }

    /// Sends a record to the nearest node that did not have it, and to those that had a worse one.
    fn spread(
        &mut self,
        now: Duration,
        lookup: &Lookup<A>,
        worse: Vec<Contact<A>>,
        value: &[u8],
        ttl: Duration,
    ) {
        let key = *lookup.target().as_bytes();
        let mut copies: Vec<_> = worse.into_iter().map(|contact| (contact, ttl)).collect();
        if let Some((contact, nearer)) = lookup.nearest_without() {
            // Section 2.3: the lifetime of a cached copy decreases exponentially with the number of nodes
            // that are nearer to the key.
            let share = 1_u32 << nearer.min(20);
            copies.push((contact, ttl / share));
        }
        for (contact, ttl) in copies {
            let ttl = seconds(ttl);
            if ttl > 0 {
                let ask = Ask::Put { key, ttl, value };
                self.send(now, Some(contact.id), contact.addr, ask, Purpose::Copy);
            }
        }
    }
}

/// Returns the providers that most nodes named, each with one address.
fn most_named<A: Addr>(mut found: Vec<Named<A>>, most: usize) -> Vec<Contact<A>> {
    found.sort_by_key(|named| std::cmp::Reverse(named.votes));
    let mut contacts: Vec<Contact<A>> = Vec::with_capacity(found.len().min(most));
    for Named { contact, .. } in found {
        if contacts.len() < most && contacts.iter().all(|known| known.id != contact.id) {
            contacts.push(contact);
        }
    }
    contacts
}

/// Converts a duration into whole seconds, as sent on the wire.
pub(super) fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
