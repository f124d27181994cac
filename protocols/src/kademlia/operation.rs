//! Operations: a lookup, the results that it collects, and the work after it.

use std::time::Duration;

use p2p::Addr;

use super::codec::Request;
use super::distance::Distance;
use super::engine::{Engine, Purpose};
use super::event::{Outcome, Record};
use super::lookup::Lookup;
use super::postcard::seconds;
use super::records::Incoming;
use crate::overlay::{Contact, Key, OpId, Progress, Source};

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
pub(super) const CONFIRMED: usize = 2;

/// Number of providers that are remembered for each wanted one. At the limit, the oldest that only one node
/// named is removed.
pub(super) const REMEMBERED: usize = 8;

#[derive(Debug)]
pub(super) struct Op<A> {
    /// The key that the lookup looks for.
    pub(super) key: Key,
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

    fn request(&self) -> Request<'static> {
        let key = self.key.clone();
        match self.task {
            Task::Get { .. } => Request::Get(key),
            Task::Providers { .. } => Request::Providers(key),
            _ => Request::FindNode(key),
        }
    }
}

impl<A: Addr> Engine<A> {
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
                    let purpose = Purpose::Lookup(id);
                    self.send(now, Some(contact.id), contact.addr, &op.request(), purpose);
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
        op.key = self.key.clone();
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
        op.key = self.codec.random_key(bucket, &mut self.rng);
        op.lookup = self.look_up(now, *op.key.id(), self.rules.config.k.div_ceil(10));
        true
    }

    /// Performs the work after the lookup.
    fn finish(&mut self, now: Duration, id: OpId, mut op: Box<Op<A>>) {
        let config = self.rules.config;
        let key = op.key.clone();
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
                    self.spread(now, &op.lookup, &key, worse, value, *ttl);
                }
                Outcome::Record(record)
            }
            Task::Put { value, until } => {
                let (value, ttl) = (std::mem::take(value), until.saturating_sub(now));
                self.keep_if_near(now, &op.lookup, &key, &value, ttl);
                let value = &value;
                self.store(now, id, op, &Request::Put { key, ttl, value });
                return;
            }
            Task::Provide => {
                let ttl = config.provider_ttl;
                self.store(now, id, op, &Request::Provide { key, ttl });
                return;
            }
        };
        self.done(id, &op, outcome);
    }

    /// Sends a copy to each of the nearest nodes.
    fn store(&mut self, now: Duration, id: OpId, mut op: Box<Op<A>>, request: &Request<'_>) {
        let nodes = op.lookup.nearest(&self.rules.config);
        if nodes.is_empty() {
            self.done(id, &op, Outcome::Kept { copies: 0 });
            return;
        }
        op.storing = Some(nodes.len());
        for contact in nodes {
            let purpose = Purpose::Store(id);
            self.send(now, Some(contact.id), contact.addr, request, purpose);
        }
        self.ops.insert(id, op);
    }

    /// Also stores a record here if this node is among the nearest.
    fn keep_if_near(&mut self, now: Duration, lookup: &Lookup<A>, key: &Key, value: &[u8], ttl: Duration) {
        let config = self.rules.config;
        let nodes = lookup.nearest(&config);
        let farthest = nodes.last().map(|node| Distance::between(key.id(), &node.id));
        let own = Distance::between(key.id(), &self.own);
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
        key: &Key,
        worse: Vec<Contact<A>>,
        value: &[u8],
        ttl: Duration,
    ) {
        let mut copies: Vec<_> = worse.into_iter().map(|contact| (contact, ttl)).collect();
        if let Some((contact, nearer)) = lookup.nearest_without() {
            // Section 2.3: the lifetime of a cached copy decreases exponentially with the number of nodes
            // that are nearer to the key.
            let share = 1_u32 << nearer.min(20);
            copies.push((contact, ttl / share));
        }
        for (contact, ttl) in copies {
            if seconds(ttl) > 0 {
                let key = key.clone();
                let request = Request::Put { key, ttl, value };
                self.send(now, Some(contact.id), contact.addr, &request, Purpose::Copy);
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
