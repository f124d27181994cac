//! One iterative lookup: ask the nearest nodes known for nearer ones, until none nearer is left.
//!
//! Maymounkov and Mazières 2002, section 2.3; disjoint paths as in S/Kademlia (Baumgart and Mies 2007, section 4.4):
//! each node belongs to the path that heard of it first, and only that path asks it. A lookup is over when the *k*
//! nearest nodes that did not fail have all answered; fewer do where a bucket is to be filled.
//!
//! Who names many nodes that do not answer loses credit: what such nodes alone have named is left out. A node that is
//! named at several addresses is asked at one after the other, so that nobody hides it behind a false one.

use std::collections::{BTreeMap, HashMap};

use p2p::{Addr, PeerId};

use super::distance::Distance;
use super::{Config, Counts};
use crate::overlay::{Contact, Prefix, Progress};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Asked,
    Answered,
    Failed,
}

/// Addresses that one lookup tries of one node.
const ADDRS: usize = 3;

/// Nodes that name the target, remembered at most.
const NAMED_BY: usize = 8;

/// An address at which somebody says that a node is.
#[derive(Debug)]
struct Hint<A> {
    addr: A,
    path: usize,
    hops: usize,
    /// Who says so: the first one, until that has lost its credit.
    named_by: Option<Distance>,
}

#[derive(Debug)]
struct Candidate<A> {
    id: PeerId,
    /// Where it is, as far as is known.
    at: Hint<A>,
    /// Where else it may be.
    elsewhere: Vec<Hint<A>>,
    /// At how many addresses it was asked in vain.
    tried: usize,
    state: State,
    /// Whether it gave a record, or keeps what is being put.
    has_value: bool,
    named_alive: u32,
    named_dead: u32,
}

impl<A> Candidate<A> {
    /// Some of those that an honest node names have just left; it takes more than that to lose credit.
    fn has_credit(&self) -> bool {
        self.named_dead < 4 + 2 * self.named_alive
    }
}

impl<A: Addr> Candidate<A> {
    fn contact(&self) -> Contact<A> {
        Contact {
            id: self.id,
            addr: self.at.addr.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Path {
    in_flight: usize,
    asked: usize,
}

/// A lookup under way.
#[derive(Debug)]
pub(super) struct Lookup<A> {
    target: PeerId,
    /// How many of the nearest must have answered.
    width: usize,
    seen: BTreeMap<Distance, Candidate<A>>,
    paths: Vec<Path>,
    prefixes: HashMap<Prefix, usize>,
    /// Who names the target.
    named_by: Vec<Distance>,
    progress: Progress,
}

impl<A: Addr> Lookup<A> {
    /// A lookup that begins with these contacts, the nearest first, and ends with the `width` nearest.
    pub(super) fn new(target: PeerId, seeds: Vec<&Contact<A>>, width: usize, config: &Config) -> Self {
        let mut lookup = Self {
            target,
            width,
            seen: BTreeMap::new(),
            paths: vec![Path::default(); config.paths],
            prefixes: HashMap::new(),
            named_by: Vec::new(),
            progress: Progress::default(),
        };
        for (at, seed) in seeds.into_iter().enumerate() {
            let hint = Hint {
                addr: seed.addr.clone(),
                path: at % config.paths,
                hops: 1,
                named_by: None,
            };
            lookup.add(seed.id, hint, config);
        }
        lookup
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

    /// Whether what this node names is worth a request.
    fn has_credit(&self, by: Option<&Distance>) -> bool {
        let by = by.and_then(|by| self.seen.get(by));
        by.is_none_or(Candidate::has_credit)
    }

    /// Notes a node. Says whether it is worth anything.
    fn add(&mut self, id: PeerId, hint: Hint<A>, config: &Config) -> bool {
        let key = self.key(&id);
        let known = self.seen.get(&key);
        if known.is_some_and(|known| known.state != State::New && known.at.addr == hint.addr) {
            return true;
        }
        let is_new = known.is_none_or(|known| known.wants(&hint.addr));
        let vouched = known.is_none_or(|known| self.has_credit(known.at.named_by.as_ref()));
        if is_new && let Some(prefix) = Prefix::of(&hint.addr) {
            let count = self.prefixes.entry(prefix).or_default();
            if *count >= config.lookup_per_prefix {
                return false;
            }
            *count += 1;
        }
        if let Some(known) = self.seen.get_mut(&key) {
            known.add(hint, vouched);
            return true;
        }
        let candidate = Candidate {
            id,
            at: hint,
            elsewhere: Vec::new(),
            tried: 0,
            state: State::New,
            has_value: false,
            named_alive: 0,
            named_dead: 0,
        };
        self.seen.insert(key, candidate);
        if self.seen.len() > config.lookup_nodes {
            let mut farthest = self.seen.iter().rev();
            let idle = farthest.find(|(_, candidate)| candidate.state == State::New);
            if let Some(key) = idle.map(|(key, _)| *key) {
                self.seen.remove(&key);
            }
        }
        true
    }

    /// Whom to ask next: on each path the nearest that it has, as long as the path has requests left.
    pub(super) fn next_asks(&mut self, config: &Config) -> Vec<Contact<A>> {
        let per_path = (config.alpha / config.paths).max(1);
        let budget = config.lookup_requests / config.paths;
        let is_free = |path: &Path| path.in_flight < per_path && path.asked < budget;
        // Most answers free one path, so that one request ends the search among all that were heard of.
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
                    let hints = std::iter::once(&candidate.at).chain(&candidate.elsewhere);
                    let usable = hints.enumerate().find(|(_, hint)| {
                        let path = self.paths.get(hint.path);
                        path.is_some_and(is_free) && self.has_credit(hint.named_by.as_ref())
                    });
                    let Some((which, hint)) = usable else {
                        continue;
                    };
                    chosen.push((*key, which));
                    if let Some(path) = self.paths.get_mut(hint.path) {
                        path.in_flight += 1;
                        path.asked += 1;
                        free -= usize::from(!is_free(path));
                    }
                }
                State::Asked | State::Failed => {}
            }
        }
        self.progress.asked += chosen.len();
        let asked = chosen.into_iter().filter_map(|(key, which)| {
            let candidate = self.seen.get_mut(&key)?;
            candidate.state = State::Asked;
            let better = which
                .checked_sub(1)
                .and_then(|at| candidate.elsewhere.get_mut(at));
            if let Some(better) = better {
                std::mem::swap(&mut candidate.at, better);
            }
            Some(candidate.contact())
        });
        asked.collect()
    }

    /// Whether all answers that were waited for are here.
    pub(super) fn is_idle(&self) -> bool {
        self.paths.iter().all(|path| path.in_flight == 0)
    }

    /// Whether the lookup has sent all that it may.
    pub(super) fn is_exhausted(&self, config: &Config) -> bool {
        let budget = config.lookup_requests / config.paths;
        self.paths.iter().all(|path| path.asked >= budget)
    }

    /// Takes the answer of a node that was asked, with the nodes that it names.
    pub(super) fn answered(
        &mut self,
        id: &PeerId,
        nodes: Vec<Contact<A>>,
        config: &Config,
        counts: &mut Counts,
    ) {
        let key = self.key(id);
        let Some((path, hops, named_by)) = self.settle(key, State::Answered) else {
            return;
        };
        self.progress.answered += 1;
        if let Some(by) = named_by.and_then(|by| self.seen.get_mut(&by)) {
            by.named_alive = by.named_alive.saturating_add(1);
        }
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
                named_by: Some(key),
            };
            if !self.add(id, hint, config) {
                counts.surplus += 1;
            }
        }
    }

    /// Notes that a node that was asked gave no answer of use.
    pub(super) fn failed(&mut self, id: &PeerId) {
        let key = self.key(id);
        let Some((_, _, named_by)) = self.settle(key, State::Failed) else {
            return;
        };
        self.progress.failed += 1;
        if let Some(by) = named_by.and_then(|by| self.seen.get_mut(&by)) {
            by.named_dead = by.named_dead.saturating_add(1);
        }
        if let Some(candidate) = self.seen.get_mut(&key) {
            candidate.tried += 1;
            if !candidate.elsewhere.is_empty() {
                candidate.at = candidate.elsewhere.remove(0);
                candidate.state = State::New;
            }
        }
    }

    fn settle(&mut self, key: Distance, state: State) -> Option<(usize, usize, Option<Distance>)> {
        let candidate = self.seen.get_mut(&key)?;
        if candidate.state != State::Asked {
            return None;
        }
        candidate.state = state;
        let Hint {
            path, hops, named_by, ..
        } = candidate.at;
        if let Some(path) = self.paths.get_mut(path) {
            path.in_flight = path.in_flight.saturating_sub(1);
        }
        Some((path, hops, named_by))
    }

    /// Notes that a node has what is looked for.
    pub(super) fn has_value(&mut self, id: &PeerId) {
        let key = self.key(id);
        if let Some(candidate) = self.seen.get_mut(&key) {
            candidate.has_value = true;
        }
    }

    /// The nearest nodes that have answered, at most *k*.
    pub(super) fn nearest(&self, config: &Config) -> Vec<Contact<A>> {
        let answered = self.seen.values().filter(|node| node.state == State::Answered);
        answered.take(config.k).map(Candidate::contact).collect()
    }

    /// The nearest node that answered without having what was looked for, and how many that have it are nearer.
    pub(super) fn nearest_without(&self) -> Option<(Contact<A>, usize)> {
        let mut answered = self.seen.values().filter(|node| node.state == State::Answered);
        let at = answered.position(|node| !node.has_value)?;
        let mut answered = self.seen.values().filter(|node| node.state == State::Answered);
        answered.nth(at).map(|node| (node.contact(), at))
    }

    /// What is known of the target itself: where it answered, and who names it.
    pub(super) fn of_target(&self) -> (Option<Contact<A>>, Vec<Contact<A>>) {
        let target = self.seen.get(&self.key(&self.target));
        let answered = target.filter(|node| node.state == State::Answered);
        let named_by = self.named_by.iter().filter_map(|by| self.seen.get(by));
        (
            answered.map(Candidate::contact),
            named_by.map(Candidate::contact).collect(),
        )
    }
}

impl<A: Addr> Candidate<A> {
    /// Whether this address is one to be tried besides those that are known.
    fn wants(&self, addr: &A) -> bool {
        let known = self.at.addr == *addr || self.elsewhere.iter().any(|other| other.addr == *addr);
        let enough = self.tried + self.elsewhere.len() + 1 >= ADDRS;
        !known && !enough && self.state != State::Answered
    }

    /// Notes where it may be; `vouched` says whether who named it so far has credit.
    fn add(&mut self, hint: Hint<A>, vouched: bool) {
        if self.at.addr == hint.addr {
            if self.state == State::New && !vouched {
                self.at = hint;
            }
        } else if !self.wants(&hint.addr) {
            // It has answered, or enough of its addresses are known.
        } else if self.state == State::Failed {
            self.at = hint;
            self.state = State::New;
        } else {
            self.elsewhere.push(hint);
        }
    }
}
