//! Operations: find a key's successor, then do there what is to be done.
//!
//! A lookup goes from node to node, always to the one that most nearly precedes the key of those it has heard of and not yet
//! asked (section 4.3 of the paper), until one says who the key's successors are. The first of these that answers is the owner,
//! or that one's predecessor, if it lies nearer to the key. Nothing is believed that leads away from the key.

use std::collections::VecDeque;
use std::time::Duration;

use p2p::{Addr, PeerId};

use super::distance::between;
use super::engine::{Engine, Purpose};
use super::event::{Event, Found, OpError, Outcome, Refusal};
use super::wire::{self, Answer, Ask, Record};
use crate::overlay::{Contact, OpId, Progress, Source};

/// Nodes that an operation remembers at most and has not asked; those farthest from the key are forgotten.
const CANDIDATES: usize = 64;

/// Requests of one who joins after which it takes the successor that it has, while ever more come between the two.
const JOIN_WALK: usize = 16;

/// Longest time between two tries of a join.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Requests that may show that a finger has not changed, or hardly, before it is looked up.
const GUESSES: usize = 3;

/// Nodes that name one that is to be located, remembered at most.
const NAMED_BY: usize = 8;

/// Addresses at which one that is to be located is asked for.
const PLACES: usize = 3;

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
    /// Find its successor by way of others.
    Route {
        token: u64,
        until: Duration,
    },
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

/// An operation. It has one request in flight, or waits for a route.
#[derive(Debug)]
pub(super) struct Op<A> {
    pub(super) goal: Goal,
    pub(super) key: PeerId,
    /// The engine's own. No event comes of it.
    pub(super) upkeep: bool,
    bootstraps: Vec<A>,
    /// How many of them were asked.
    asked_bootstraps: usize,
    /// How often it was tried before, and when it will be tried again.
    tries: u32,
    again_at: Option<Duration>,
    /// Nodes that precede the key, with how many nodes led there; the nearest last.
    candidates: Vec<(usize, Contact<A>)>,
    /// Nodes that may succeed the key, the most likely first. `None` is this node.
    owners: VecDeque<Option<Contact<A>>>,
    /// Who was nearest to the key of those who told of nearer nodes.
    nearest: Option<Told<A>>,
    /// Whom to ask for more than it has told of: how many nodes led there, and how many it is to leave out.
    again: Option<(usize, Contact<A>, u8)>,
    /// It asks the finger that there is whether it still is that, or those just before it.
    guessing: bool,
    asked: Asked<A>,
    /// Who was asked for a step, or need not be.
    tried: Vec<PeerId>,
    /// Who was asked as the owner, or did not answer.
    ruled_out: Vec<PeerId>,
    /// Where the node to be located was asked for.
    looked_at: Vec<A>,
    /// Who named it.
    named_by: Vec<Contact<A>>,
    sent: usize,
    answered: usize,
    pub(super) hops: usize,
    failed: usize,
    /// The last that told of a step.
    nearest_answered: Option<PeerId>,
}

/// One that told of nodes nearer to the key, before it is known whether they live.
#[derive(Clone, Debug)]
struct Told<A> {
    /// From it to the key.
    distance: [u8; 32],
    /// How many nodes led to it.
    depth: usize,
    /// Who it is, unless it is this node.
    node: Option<Contact<A>>,
    /// How many nodes it has told of, if it may know more.
    skip: Option<u8>,
    /// Nodes that succeed the key if none of those lives.
    owners: Vec<Contact<A>>,
}

/// What is in flight.
#[derive(Clone, Debug)]
enum Asked<A> {
    Nothing,
    /// A step, of the node at this address, to which so many nodes led; it leaves out so many that it told of.
    Step(usize, A, u8),
    /// What is to be done at the owner.
    Owner(Contact<A>),
    /// To keep a record though it is not the owner, since the owner is not there.
    Keep,
    /// To pass a lookup on.
    Route,
}

impl<A> Op<A> {
    fn new(goal: Goal, key: PeerId, bootstraps: Vec<A>, upkeep: bool) -> Self {
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
            named_by: Vec::new(),
            sent: 0,
            answered: 0,
            hops: 0,
            failed: 0,
            nearest_answered: None,
        }
    }

    /// Forgets whom it asked, and waits.
    fn start_again(&mut self, at: Duration) {
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

    fn progress(&self) -> Progress {
        Progress {
            asked: self.sent,
            answered: self.answered,
            failed: self.failed,
            found: 0,
            hops: self.hops,
            nearest: self.nearest_answered,
        }
    }

    /// When something is to be done though nobody answers.
    fn waits_until(&self) -> Option<Duration> {
        match self.goal {
            Goal::Route { until, .. } => Some(until),
            _ => self.again_at,
        }
    }

    /// Whether it is a recursive lookup under this token that is out.
    pub(super) fn waits_for_route(&self, token: u64) -> bool {
        let is_it = matches!(self.goal, Goal::Route { token: own, .. } if own == token);
        is_it && self.owners.is_empty() && matches!(self.asked, Asked::Nothing | Asked::Route)
    }

    /// The record to put, if there is one.
    fn record(&self) -> Option<Record<'_>> {
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
    fn locates(&self, id: &PeerId) -> bool {
        matches!(self.goal, Goal::Locate) && *id == self.key
    }

    /// Notes that somebody names it.
    fn named(&mut self, by: &Contact<A>) {
        if self.named_by.len() < NAMED_BY && !self.named_by.contains(by) {
            self.named_by.push(by.clone());
        }
    }

    /// Whether asking this node as the owner is of no use. One that has moved may answer elsewhere.
    fn rules_out(&self, node: &Contact<A>) -> bool {
        if self.locates(&node.id) {
            return self.looked_at.len() >= PLACES || self.looked_at.contains(&node.addr);
        }
        self.ruled_out.contains(&node.id)
    }
}

/// What a node knows about a key.
pub(super) struct Step<A> {
    /// It succeeds the key itself, before those below.
    pub(super) mine: bool,
    /// Nodes between it and the key. Without any, it or its successor succeeds the key.
    pub(super) nearer: Vec<Contact<A>>,
    /// Nodes of its successor list that succeed the key.
    pub(super) owners: Vec<Contact<A>>,
}

impl<A: Addr> Engine<A> {
    pub(super) fn begin(
        &mut self,
        now: Duration,
        goal: Goal,
        key: PeerId,
        bootstraps: Vec<A>,
        upkeep: bool,
    ) -> OpId {
        let id = OpId(self.next_id());
        let mut op = Box::new(Op::new(goal, key, bootstraps, upkeep));
        self.look_at_home(&mut op);
        self.advance(now, id, op);
        id
    }

    /// Begins with what this node knows itself; who joins knows nothing yet.
    fn look_at_home(&mut self, op: &mut Op<A>) {
        if matches!(op.goal, Goal::Locate) {
            let known = self.table.find(&op.key).cloned();
            op.owners.extend(known.map(Some));
        }
        if let Goal::Finger(bit) = op.goal {
            let known = self.table.finger(bit).cloned();
            op.guessing = known.is_some();
            op.owners.extend(known.map(Some));
        }
        if !matches!(op.goal, Goal::Join) && !op.guessing {
            let step = self.step(&op.key, 0, CANDIDATES);
            self.take_step(op, None, 0, 0, step);
        }
    }

    /// What this node knows about a key; of the nodes nearer to it so many at most, after so many that are nearer still.
    pub(super) fn step(&self, key: &PeerId, skip: usize, count: usize) -> Step<A> {
        let table = &self.table;
        let mine = table.owns(key);
        let found = mine
            || table.successor().is_none_or(|next| {
                between(&table.own, key) <= between(&table.own, &next.id) && *key != table.own
            });
        let nearer = if found {
            Vec::new()
        } else {
            table.preceding(key, skip, count)
        };
        let reach = between(&table.own, key);
        let owners = table
            .successors
            .iter()
            .filter(|node| found || between(&table.own, &node.id) >= reach);
        Step {
            mine,
            nearer: nearer.into_iter().cloned().collect(),
            owners: owners.cloned().collect(),
        }
    }

    /// The current request of an operation was answered.
    pub(super) fn op_answered(
        &mut self,
        now: Duration,
        id: OpId,
        sent: usize,
        from: PeerId,
        answer: Answer<'_>,
    ) {
        let Some(mut op) = self.current(id, sent) else {
            return;
        };
        op.answered += 1;
        if matches!(op.asked, Asked::Step(..)) {
            op.nearest_answered = Some(from);
        }
        self.tell_progress(id, &op);
        match (std::mem::replace(&mut op.asked, Asked::Nothing), answer) {
            (
                Asked::Step(depth, addr, skip),
                Answer::Step {
                    mine, nearer, owners, ..
                },
            ) => {
                let step = Step {
                    mine,
                    nearer: self.told_of_all(&nearer),
                    owners: self.told_of_all(&owners),
                };
                // A bootstrap node says here for the first time who it is.
                if self.is_at(&from, &addr) {
                    let node = Contact { id: from, addr };
                    self.take_step(&mut op, Some(node), depth, skip, step);
                } else {
                    self.counts.false_ids += 1;
                }
            }
            (Asked::Owner(owner), Answer::Step { predecessor, .. }) => {
                if !self.is_behind(&mut op, &owner, predecessor.as_ref()) {
                    return self.arrived(now, id, op, Some(owner));
                }
                if op.guessing && op.sent >= GUESSES {
                    self.guess_no_more(&mut op);
                }
            }
            (Asked::Owner(_), Answer::Value(_, value)) if matches!(op.goal, Goal::Get { .. }) => {
                if value.len() <= self.rules.config.value && self.rules.validator.is_valid(&op.key, value) {
                    return self.done(now, id, &op, Ok(Outcome::Value(Some(value.to_vec()))));
                }
                self.counts.bad_records += 1;
            }
            (Asked::Owner(owner), Answer::Elsewhere(predecessor)) => {
                if !self.is_behind(&mut op, &owner, predecessor.as_ref()) {
                    if let Goal::Get { missing } = &mut op.goal {
                        *missing += 1;
                    } else if let Some(record) = op.record() {
                        // Whoever is in between is not there; this one will be the successor, or near it.
                        let keep = Ask::Keep(record);
                        let purpose = Purpose::Op(id, op.sent + 1);
                        self.ask(now, &owner.addr, Some(owner.id), keep, purpose);
                        op.sent += 1;
                        op.asked = Asked::Keep;
                        self.ops.insert(id, op);
                        return;
                    } else {
                        self.counts.malformed += 1;
                    }
                }
            }
            (Asked::Owner(_) | Asked::Keep, Answer::Done) if op.record().is_some() => {
                return self.done(now, id, &op, Ok(Outcome::Stored));
            }
            (Asked::Owner(_) | Asked::Keep, Answer::Stale) if op.record().is_some() => {
                return self.done(now, id, &op, Err(OpError::Stale));
            }
            (Asked::Route, Answer::Done) => {
                // It is on its way; either what comes back or the clock goes on from here.
                self.ops.insert(id, op);
                return;
            }
            _ => {
                self.counts.malformed += 1;
                op.failed += 1;
            }
        }
        self.advance(now, id, op);
    }

    /// Looks a finger up, since it is none of those that it was likely to be.
    fn guess_no_more(&mut self, op: &mut Op<A>) {
        op.guessing = false;
        op.owners.clear();
        if op.failed == 0 {
            op.ruled_out.clear();
        }
        let step = self.step(&op.key, 0, CANDIDATES);
        self.take_step(op, None, 0, 0, step);
    }

    /// The current request of an operation came to nothing.
    pub(super) fn op_failed(&mut self, now: Duration, id: OpId, sent: usize, node: Option<PeerId>) {
        let Some(mut op) = self.current(id, sent) else {
            return;
        };
        op.asked = Asked::Nothing;
        op.failed += 1;
        self.tell_progress(id, &op);
        if let Some(node) = node.filter(|node| !op.locates(node)) {
            op.ruled_out.push(node);
            let is_it = |owner: &Option<Contact<A>>| owner.as_ref().is_some_and(|owner| owner.id == node);
            op.owners.retain(|owner| !is_it(owner));
        }
        self.advance(now, id, op);
    }

    /// Takes an operation out, if the request with this number is the last that it sent. Others came to nothing already: a
    /// recursive lookup may be back before the request that began it is answered.
    fn current(&mut self, id: OpId, sent: usize) -> Option<Box<Op<A>>> {
        (self.ops.get(&id)?.sent == sent).then(|| self.ops.remove(&id))?
    }

    /// Takes what a node knows about the key; `None` is this node. It has left out the first `skip` that it knows.
    fn take_step(&mut self, op: &mut Op<A>, from: Option<Contact<A>>, depth: usize, skip: u8, step: Step<A>) {
        let own = self.table.own;
        let from_id = from.as_ref().map_or(own, |from| from.id);
        if let Some(from) = from
            .as_ref()
            .filter(|_| step.owners.iter().any(|owner| op.locates(&owner.id)))
        {
            op.named(from);
        }
        if step.mine || step.nearer.is_empty() {
            op.hops = depth;
            if step.mine {
                op.owners.push_back(from);
                return self.add_owners(op, step.owners);
            }
            self.add_owners(op, step.owners);
            // Who joins where it was before is named itself. Where nobody else is, it succeeds whoever names it.
            if matches!(op.goal, Goal::Join) {
                self.add_owners(op, from.into_iter().collect());
            }
            return;
        }
        // What is not nearer to the key than who tells of it leads nowhere. This also ends every circle.
        let limit = between(&from_id, &op.key);
        if op.nearest.as_ref().is_none_or(|known| limit <= known.distance) {
            let told = u8::try_from(step.nearer.len()).ok();
            op.nearest = Some(Told {
                distance: limit,
                depth,
                skip: told
                    .and_then(|told| skip.checked_add(told))
                    .filter(|_| from.is_some()),
                node: from,
                owners: step.owners,
            });
        }
        for node in step.nearer {
            let distance = between(&node.id, &op.key);
            let new = node.id != own
                && !op.tried.contains(&node.id)
                && !op.ruled_out.contains(&node.id)
                && op.candidates.iter().all(|(_, known)| known.id != node.id);
            if new && distance != [0; 32] && (distance < limit || limit == [0; 32]) {
                op.candidates.push((depth + 1, node));
            }
        }
        op.candidates
            .sort_by_cached_key(|(_, node)| std::cmp::Reverse(between(&node.id, &op.key)));
        let surplus = op.candidates.len().saturating_sub(CANDIDATES);
        op.candidates.drain(..surplus);
    }

    /// If none of the nodes lives that the nearest one told of, believes it about the rest: who succeeds the key then, or who
    /// else lies in between.
    fn fall_back(&self, op: &mut Op<A>) {
        let between_them = |told: &Told<A>, node: &Contact<A>| between(&node.id, &op.key) < told.distance;
        let hopeful = |told: &Told<A>| {
            op.candidates
                .last()
                .is_some_and(|(_, node)| between_them(told, node))
        };
        if !op.owners.is_empty() || op.nearest.as_ref().is_none_or(hopeful) {
            return;
        }
        let Some(told) = op.nearest.take() else { return };
        if !told.owners.is_empty() {
            op.hops = told.depth;
            self.add_owners(op, told.owners);
        } else if let (Some(node), Some(skip)) = (told.node, told.skip) {
            op.again = Some((told.depth, node, skip));
        }
    }

    /// Adds those of the nodes that may own the key.
    pub(super) fn add_owners(&self, op: &mut Op<A>, nodes: Vec<Contact<A>>) {
        let own = self.table.own;
        for node in nodes {
            if node.id == own {
                op.owners.push_back(None);
            } else if !op.rules_out(&node) {
                op.owners.push_back(Some(node));
            }
        }
    }

    /// Whether the predecessor of one who might own the key lies between the two, so that it is to be tried first.
    fn is_behind(
        &mut self,
        op: &mut Op<A>,
        owner: &Contact<A>,
        predecessor: Option<&wire::Node<'_>>,
    ) -> bool {
        let Some(nearer) = predecessor.and_then(|node| self.told_of(node)) else {
            return false;
        };
        // Who joins needs any successor that is not too near; stabilization leads back from there.
        if matches!(op.goal, Goal::Join) && op.sent >= JOIN_WALK {
            return false;
        }
        let own = self.table.own;
        if op.locates(&nearer.id) {
            op.named(owner);
        }
        let is_new = !op.rules_out(&nearer) && (nearer.id != own || !matches!(op.goal, Goal::Join));
        if !is_new || between(&op.key, &nearer.id) >= between(&op.key, &owner.id) {
            return false;
        }
        op.owners.push_front(Some(owner.clone()));
        if !op.locates(&nearer.id) {
            op.ruled_out.push(nearer.id);
        }
        op.owners.push_front((nearer.id != own).then_some(nearer));
        true
    }

    /// The same where this node itself might own the key.
    fn is_behind_home(&self, op: &mut Op<A>) -> bool {
        let before = self.table.predecessor.as_ref();
        let before = before.filter(|before| {
            let nearer = between(&op.key, &before.id) < between(&op.key, &self.table.own);
            nearer && !matches!(op.goal, Goal::Join) && !op.rules_out(before)
        });
        let Some(before) = before.cloned() else {
            return false;
        };
        op.owners.push_front(None);
        if !op.locates(&before.id) {
            op.ruled_out.push(before.id);
        }
        op.owners.push_front(Some(before));
        true
    }

    /// Sends an operation's next request, or ends it.
    pub(super) fn advance(&mut self, now: Duration, id: OpId, mut op: Box<Op<A>>) {
        let config = self.rules.config;
        if matches!(op.goal, Goal::Get { missing } if missing >= config.copies) {
            return self.done(now, id, &op, Ok(Outcome::Value(None)));
        }
        if op.sent >= config.lookup_requests {
            return self.fail(now, id, op, OpError::Exhausted);
        }
        if op.guessing && op.owners.is_empty() {
            self.guess_no_more(&mut op);
        }
        self.fall_back(&mut op);
        while let Some(owner) = op.owners.pop_front() {
            if let Some(owner) = owner {
                return self.ask_owner(now, id, op, owner);
            }
            if self.is_behind_home(&mut op) {
                continue;
            }
            match self.at_home(now, id, op) {
                Some(rest) => op = rest,
                None => return,
            }
        }
        if matches!(op.goal, Goal::Get { missing } if missing > 0) {
            return self.done(now, id, &op, Ok(Outcome::Value(None)));
        }
        let mut skip = 0;
        let (depth, node, addr) = if let Some((depth, node, told)) = op.again.take() {
            skip = told;
            (depth, Some(node.id), node.addr)
        } else if let Some((depth, node)) = op.candidates.pop() {
            op.tried.push(node.id);
            (depth, Some(node.id), node.addr)
        } else if let Some(addr) = op.bootstraps.get(op.asked_bootstraps).cloned() {
            op.asked_bootstraps += 1;
            (1, None, addr)
        } else {
            return self.fail(now, id, op, OpError::NoAnswer);
        };
        op.sent += 1;
        let key = *op.key.as_bytes();
        let ask = match op.goal {
            Goal::Route { token, .. } => Ask::Route {
                token,
                key,
                hops: 1,
                origin: "".into(),
            },
            _ => Ask::Step(key, skip),
        };
        self.ask(now, &addr, node, ask, Purpose::Step(id, op.sent));
        op.asked = match op.goal {
            Goal::Route { .. } => Asked::Route,
            _ => Asked::Step(depth, addr, skip),
        };
        self.ops.insert(id, op);
    }

    /// Asks one who may own the key for what the operation is for.
    fn ask_owner(&mut self, now: Duration, id: OpId, mut op: Box<Op<A>>, owner: Contact<A>) {
        if op.locates(&owner.id) {
            op.looked_at.push(owner.addr.clone());
        } else {
            op.ruled_out.push(owner.id);
        }
        op.sent += 1;
        let key = *op.key.as_bytes();
        let ask = match (&op.goal, op.record()) {
            (_, Some(record)) => Ask::Put(record),
            (Goal::Get { .. }, _) => Ask::Get(key),
            _ => Ask::Step(key, 0),
        };
        let purpose = if op.guessing { Purpose::Step } else { Purpose::Op };
        self.ask(now, &owner.addr, Some(owner.id), ask, purpose(id, op.sent));
        op.asked = Asked::Owner(owner);
        self.ops.insert(id, op);
    }

    /// Does what is to be done where this node itself may be the owner; gives the operation back if that is not the end of it.
    fn at_home(&mut self, now: Duration, id: OpId, mut op: Box<Op<A>>) -> Option<Box<Op<A>>> {
        match &mut op.goal {
            Goal::Get { missing } => {
                if let Some(record) = self.store.get(now, &op.key) {
                    let value = record.value.to_vec();
                    self.done(now, id, &op, Ok(Outcome::Value(Some(value))));
                    return None;
                }
                *missing += 1;
            }
            Goal::Put { .. } => match op
                .record()
                .map(|record| self.keep(now, record, Source::Node(self.table.own)))
            {
                Some(Ok(())) => {
                    self.copy(now, op.key);
                    self.done(now, id, &op, Ok(Outcome::Stored));
                    return None;
                }
                Some(Err(Refusal::Stale)) => {
                    self.done(now, id, &op, Err(OpError::Stale));
                    return None;
                }
                _ => {}
            },
            Goal::Join => {}
            Goal::Finger(_) | Goal::Find | Goal::Locate | Goal::Route { .. } | Goal::Return { .. } => {
                self.arrived(now, id, op, None);
                return None;
            }
        }
        Some(op)
    }

    /// The key's successor has answered; `None` is this node.
    fn arrived(&mut self, now: Duration, id: OpId, op: Box<Op<A>>, owner: Option<Contact<A>>) {
        match (&op.goal, owner) {
            (Goal::Join, Some(owner)) => {
                if op.upkeep {
                    self.found_place(now, owner);
                } else {
                    self.joined(now, owner, Some(id));
                }
            }
            (Goal::Locate, owner) => match owner.filter(|owner| op.locates(&owner.id)) {
                None => self.fail(now, id, op, OpError::NoAnswer),
                node => self.located(id, &op, node),
            },
            (Goal::Finger(bit), owner) => {
                let next = self.table.set_finger(*bit, owner);
                self.finger_fixed(now, next);
            }
            (Goal::Return { since, .. }, _) => self.returned(&op.key, *since, false),
            (_, owner) => {
                let (hops, failed) = (op.hops, op.failed);
                self.done(now, id, &op, Ok(Outcome::Found(Found { owner, hops, failed })));
            }
        }
    }

    /// Ends an operation that found nobody, or lets it try again later.
    fn fail(&mut self, now: Duration, id: OpId, mut op: Box<Op<A>>, why: OpError) {
        let config = &self.rules.config;
        let tries = match op.goal {
            _ if op.upkeep => 1,
            Goal::Join => config.join_tries,
            // Who failed is forgotten by then, and perhaps replaced.
            _ if why == OpError::NoAnswer && op.failed > 0 && op.named_by.is_empty() => 2,
            _ => 1,
        };
        if op.tries + 1 < tries {
            let pause = config.retry_pause.saturating_mul(1 << op.tries.min(16));
            op.start_again(now.saturating_add(pause.min(LONGEST_PAUSE)));
            self.ops.insert(id, op);
        } else if matches!(op.goal, Goal::Locate) {
            self.located(id, &op, None);
        } else {
            self.done(now, id, &op, Err(why));
        }
    }

    fn located(&mut self, id: OpId, op: &Op<A>, node: Option<Contact<A>>) {
        let named_by = op.named_by.clone();
        let outcome = Ok(Outcome::Located { node, named_by });
        self.events.push_back(Event::Done { op: id, outcome });
    }

    fn tell_progress(&mut self, id: OpId, op: &Op<A>) {
        if !op.upkeep {
            let progress = op.progress();
            self.events.push_back(Event::Progress { op: id, progress });
        }
    }

    /// When the first operation that waits will have waited long enough.
    pub(super) fn next_wait(&self) -> Option<Duration> {
        self.ops.values().filter_map(|op| op.waits_until()).min()
    }

    /// Ends recursive lookups that took too long, and tries again what is to be tried again.
    pub(super) fn end_waits(&mut self, now: Duration) {
        let over = |op: &Op<A>| op.waits_until().is_some_and(|until| until <= now);
        let waiting = self.ops.iter().filter(|(_, op)| over(op));
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            let Some(mut op) = self.ops.remove(&id) else {
                continue;
            };
            if op.again_at.take().is_some() {
                self.look_at_home(&mut op);
                self.advance(now, id, op);
            } else {
                self.done(now, id, &op, Err(OpError::TimedOut));
            }
        }
    }

    /// Ends an operation.
    pub(super) fn done(&mut self, now: Duration, id: OpId, op: &Op<A>, outcome: Result<Outcome<A>, OpError>) {
        match op.goal {
            Goal::Finger(bit) => self.finger_fixed(now, u16::from(bit) + 1),
            Goal::Return { since, .. } => {
                let is_there = matches!(outcome, Ok(_) | Err(OpError::Stale));
                self.returned(&op.key, since, is_there);
            }
            _ if op.upkeep => {}
            _ => self.events.push_back(Event::Done { op: id, outcome }),
        }
    }
}
