//! One iterative lookup: asks the nearest known nodes for nearer ones until there are none.
//!
//! Maymounkov and Mazières 2002, section 2.3; disjoint paths as in S/Kademlia (Baumgart and Mies 2007,
//! section 4.4): each node belongs to the path that named it first, and only that path asks it. A lookup ends
//! when the *k* nearest nodes that did not fail have answered; a lookup that fills a bucket needs fewer.
//!
//! # Security
//! - A node that names many nodes that do not answer loses credit. Addresses that only nodes without credit
//!   have named are not asked.
//! - An answer gives one address for each node. If several addresses were named for a node, the lookup tries
//!   them in turn, the most named first. Addresses that failed, or that only nodes without credit named, are
//!   replaced by new ones. So no node can hide another behind false addresses.

use std::collections::BTreeMap;

use p2p::{Addr, PeerId};

use super::candidate::{Candidate, Hint, State};
use super::distance::Distance;
use super::{Config, Counts};
use crate::hash::HashMap;
use crate::overlay::{Contact, Prefix, Progress};

/// Maximum number of untried addresses of one node that a lookup remembers, and of failed ones.
const HINTS: usize = 8;

/// Maximum number of naming nodes that are remembered for one address.
const NAMERS: usize = 4;

/// Maximum number of nodes naming the target that are remembered.
const NAMED_BY: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Path {
    in_flight: usize,
    asked: usize,
}

/// The share of one network in a lookup.
#[derive(Clone, Copy, Debug, Default)]
struct Places {
    /// Number of addresses that were named.
    named: usize,
    /// Number of nodes that are being asked or have answered.
    taken: usize,
}

/// A lookup in progress.
#[derive(Debug)]
pub(super) struct Lookup<A> {
    target: PeerId,
    /// Number of nearest nodes that must answer.
    width: usize,
    seen: BTreeMap<Distance, Candidate<A>>,
    paths: Vec<Path>,
    prefixes: HashMap<Prefix, Places>,
    /// Nodes that named the target.
    named_by: Vec<Distance>,
    progress: Progress,
}

impl<A: Addr> Lookup<A> {
    /// Creates a lookup that starts with these contacts, the nearest first, and ends when the `width` nearest
    /// nodes have answered.
    pub(super) fn new(target: PeerId, seeds: Vec<&Contact<A>>, width: usize, config: &Config) -> Self {
        let mut lookup = Self {
            target,
            width,
            seen: BTreeMap::new(),
            paths: vec![Path::default(); config.paths],
            prefixes: HashMap::default(),
            named_by: Vec::new(),
            progress: Progress::default(),
        };
        lookup.seed(seeds, config);
        lookup
    }

    /// Adds own contacts, the nearest first. Returns whether any was added.
    pub(super) fn seed(&mut self, seeds: Vec<&Contact<A>>, config: &Config) -> bool {
        let mut is_new = false;
        for (at, seed) in seeds.into_iter().enumerate() {
            let hint = Hint {
                addr: seed.addr.clone(),
                path: at % config.paths,
                hops: 1,
                named_by: Vec::new(),
            };
            is_new |= self.add(seed.id, hint, config);
        }
        is_new
    }

    /// Returns whether the lookup has heard of a node.
    pub(super) fn has_seen(&self, id: &PeerId) -> bool {
        self.seen.contains_key(&self.key(id))
    }

    pub(super) fn target(&self) -> PeerId {
        self.target
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    pub(super) fn found(&mut self, found: usize) {
        self.progress.found = found;
    }

    fn key(&self, id: &PeerId) -> Distance {
        Distance::between(&self.target, id)
    }

    /// Returns whether an address named by these nodes is worth a request.
    fn has_credit(&self, by: &[Distance]) -> bool {
        let mut by = by.iter().filter_map(|by| self.seen.get(by)).peekable();
        by.peek().is_none() || by.any(Candidate::has_credit)
    }

    /// Records a claimed address of a node. Returns whether there was room for it.
    fn add(&mut self, id: PeerId, hint: Hint<A>, config: &Config) -> bool {
        let key = self.key(&id);
        if let Some(known) = self.seen.get_mut(&key) {
            if known.state == State::Answered || known.in_vain.contains(&hint.addr) {
                return true;
            }
            if let Some(same) = known.hints.iter_mut().find(|other| other.addr == hint.addr) {
                if (1..NAMERS).contains(&same.named_by.len()) {
                    same.named_by.extend(hint.named_by);
                }
                return true;
            }
        }
        if !self.has_place(&key) || !self.has_room_for(&key, &hint, config) {
            return false;
        }
        let candidate = self.seen.entry(key).or_insert_with(|| Candidate::new(id));
        candidate.hints.push(hint);
        if candidate.state == State::Failed {
            candidate.state = State::New;
        }
        if self.seen.len() > config.lookup_nodes {
            let mut farthest = self.seen.iter().rev();
            let idle = farthest.find(|(_, candidate)| candidate.state == State::New);
            if let Some(key) = idle.map(|(key, _)| *key) {
                self.seen.remove(&key);
            }
        }
        true
    }

    /// Returns whether another address of a node can be remembered. If its list is full, removes an address
    /// that only nodes without credit have named, or else the oldest that a single node named.
    fn has_place(&mut self, key: &Distance) -> bool {
        let Some(known) = self.seen.get(key).filter(|known| known.hints.len() >= HINTS) else {
            return true;
        };
        let asked = usize::from(known.state == State::Asked);
        let hints = || known.hints.iter().enumerate().skip(asked);
        let unworthy = hints().find(|(_, hint)| !self.has_credit(&hint.named_by));
        let lone = || hints().find(|(_, hint)| hint.votes() == 1);
        let Some((leaves, _)) = unworthy.or_else(lone) else {
            return false;
        };
        if let Some(known) = self.seen.get_mut(key) {
            known.hints.remove(leaves);
        }
        true
    }

    /// Returns whether another address of its network can be remembered. If the network has too many, removes
    /// the node that the fewest others name, and of those the farthest.
    fn has_room_for(&mut self, key: &Distance, hint: &Hint<A>, config: &Config) -> bool {
        let Some(prefix) = Prefix::of(&hint.addr) else {
            return true;
        };
        let places = self.prefixes.entry(prefix).or_default();
        places.named += 1;
        let most = prefix.limit(config.lookup_per_prefix).saturating_mul(2);
        if places.named <= most {
            return true;
        }
        let hearsay = self.seen.iter().filter(|(_, node)| node.is_hearsay_of(prefix));
        let (mut count, mut least): (usize, Option<(usize, Distance)>) = (0, None);
        for (key, node) in hearsay {
            count += 1;
            // `<=` selects the farthest of equals.
            if least.is_none_or(|(votes, _)| node.votes() <= votes) {
                least = Some((node.votes(), *key));
            }
        }
        let Some((votes, least)) = least.filter(|_| count >= most) else {
            return true;
        };
        if votes > 1 || least <= *key {
            return false;
        }
        self.seen.remove(&least);
        true
    }

    /// Selects the nodes to ask next: for each path the nearest node it knows, within the path's request
    /// limit.
    pub(super) fn next_asks(&mut self, config: &Config) -> Vec<Contact<A>> {
        let per_path = (config.alpha / config.paths).max(1);
        let budget = config.lookup_requests / config.paths;
        let is_free = |path: &Path| path.in_flight < per_path && path.asked < budget;
        // Most answers free one path, so the scan usually stops after one request.
        let mut free = self.paths.iter().filter(|path| is_free(path)).count();
        let (mut answered, mut chosen) = (0, Vec::new());
        for (key, candidate) in &self.seen {
            if free == 0 {
                break;
            }
            match candidate.state {
                State::Answered => {
                    answered += 1;
                    if answered >= self.width {
                        break;
                    }
                }
                State::New => {
                    let hints = candidate.hints.iter().enumerate().filter(|(_, hint)| {
                        let path = self.paths.get(hint.path);
                        path.is_some_and(is_free)
                            && self.has_credit(&hint.named_by)
                            && self.has_network_room(&hint.addr, config)
                    });
                    // Of addresses with equally many votes, the first.
                    let Some((which, hint)) = hints.rev().max_by_key(|(_, hint)| hint.votes()) else {
                        continue;
                    };
                    chosen.push((*key, which));
                    if let Some(path) = self.paths.get_mut(hint.path) {
                        path.in_flight += 1;
                        path.asked += 1;
                        free -= usize::from(!is_free(path));
                    }
                    if let Some(prefix) = Prefix::of(&hint.addr) {
                        self.prefixes.entry(prefix).or_default().taken += 1;
                    }
                }
                State::Asked | State::Failed => {}
            }
        }
        self.progress.asked += chosen.len();
        let asked = chosen.into_iter().filter_map(|(key, which)| {
            let candidate = self.seen.get_mut(&key)?;
            candidate.state = State::Asked;
            candidate.hints.swap(0, which);
            candidate.contact()
        });
        asked.collect()
    }

    /// Returns whether another node of this network may be asked.
    fn has_network_room(&self, addr: &A, config: &Config) -> bool {
        Prefix::of(addr).is_none_or(|prefix| {
            let places = self.prefixes.get(&prefix);
            places.is_none_or(|places| places.taken < prefix.limit(config.lookup_per_prefix))
        })
    }

    /// Returns whether no request is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.paths.iter().all(|path| path.in_flight == 0)
    }

    /// Returns whether all paths have reached their request limit.
    pub(super) fn is_exhausted(&self, config: &Config) -> bool {
        let budget = config.lookup_requests / config.paths;
        self.paths.iter().all(|path| path.asked >= budget)
    }

    /// Processes the answer of an asked node and the nodes that it names.
    pub(super) fn answered(
        &mut self,
        id: &PeerId,
        nodes: Vec<Contact<A>>,
        config: &Config,
        counts: &mut Counts,
    ) {
        let key = self.key(id);
        let Some((path, hops)) = self.settle(key, State::Answered) else {
            return;
        };
        self.progress.answered += 1;
        if self
            .progress
            .nearest
            .is_none_or(|nearest| key < self.key(&nearest))
        {
            self.progress.nearest = Some(*id);
            self.progress.hops = hops;
        }
        for Contact { id, addr } in nodes {
            if id == self.target && self.named_by.len() < NAMED_BY && !self.named_by.contains(&key) {
                self.named_by.push(key);
            }
            let hint = Hint {
                addr,
                path,
                hops: hops + 1,
                named_by: vec![key],
            };
            if !self.add(id, hint, config) {
                counts.surplus += 1;
            }
        }
    }

    /// Records that an asked node gave no useful answer.
    pub(super) fn failed(&mut self, id: &PeerId) {
        let key = self.key(id);
        if self.settle(key, State::Failed).is_none() {
            return;
        }
        self.progress.failed += 1;
        if let Some(candidate) = self.seen.get_mut(&key) {
            let in_vain = candidate.hints.remove(0);
            if candidate.in_vain.len() >= HINTS {
                candidate.in_vain.remove(0);
            }
            candidate.in_vain.push(in_vain.addr);
            if !candidate.hints.is_empty() {
                candidate.state = State::New;
            }
        }
    }

    /// Ends a request: frees its slot, and updates the credit of the nodes that named the asked node.
    fn settle(&mut self, key: Distance, state: State) -> Option<(usize, usize)> {
        let candidate = self.seen.get_mut(&key)?;
        if candidate.state != State::Asked {
            return None;
        }
        candidate.state = state;
        let hint = candidate.hints.first()?;
        let (at, hops, named_by) = (hint.path, hint.hops, hint.named_by.clone());
        let prefix = Prefix::of(&hint.addr);
        if let Some(path) = self.paths.get_mut(at) {
            path.in_flight = path.in_flight.saturating_sub(1);
        }
        let is_there = state == State::Answered;
        if let Some(places) = prefix
            .filter(|_| !is_there)
            .and_then(|it| self.prefixes.get_mut(&it))
        {
            places.taken = places.taken.saturating_sub(1);
        }
        for by in named_by {
            if let Some(by) = self.seen.get_mut(&by) {
                let count = if is_there {
                    &mut by.named_alive
                } else {
                    &mut by.named_dead
                };
                *count = count.saturating_add(1);
            }
        }
        Some((at, hops))
    }

    /// Records that a node has the value that is looked up.
    pub(super) fn has_value(&mut self, id: &PeerId) {
        let key = self.key(id);
        if let Some(candidate) = self.seen.get_mut(&key) {
            candidate.has_value = true;
        }
    }

    /// Returns the nearest nodes that answered, at most *k*.
    pub(super) fn nearest(&self, config: &Config) -> Vec<Contact<A>> {
        let answered = self.seen.values().filter(|node| node.state == State::Answered);
        answered.take(config.k).filter_map(Candidate::contact).collect()
    }

    /// Returns the nearest node that answered without having the value, and the number of nearer nodes that
    /// have it.
    pub(super) fn nearest_without(&self) -> Option<(Contact<A>, usize)> {
        let mut answered = self.seen.values().filter(|node| node.state == State::Answered);
        let at = answered.position(|node| !node.has_value)?;
        let mut answered = self.seen.values().filter(|node| node.state == State::Answered);
        Some((answered.nth(at)?.contact()?, at))
    }

    /// Returns the target itself, if it answered, and the nodes that named it.
    pub(super) fn of_target(&self) -> (Option<Contact<A>>, Vec<Contact<A>>) {
        let target = self.seen.get(&self.key(&self.target));
        let answered = target.filter(|node| node.state == State::Answered);
        let named_by = self.named_by.iter().filter_map(|by| self.seen.get(by));
        (
            answered.and_then(Candidate::contact),
            named_by.filter_map(Candidate::contact).collect(),
        )
    }
}
