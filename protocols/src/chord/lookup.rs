//! Operations: find a key's successor, then perform the operation there.
//!
//! A lookup asks one node after another, always the one that most nearly precedes the key among the known
//! nodes that were not asked (section 4.3 of the paper), until a node names the key's successors. The owner
//! is the first of these that answers, or that node's predecessor if it is nearer to the key. Nodes that lead
//! away from the key are ignored.

use std::time::Duration;

use p2p::{Addr, PeerId};

use super::engine::{Engine, Purpose};
use super::event::{Event, Found, OpError, Outcome, Refusal};
use super::operation::{Asked, Goal, Op};
use super::step::{CANDIDATES, Step};
use super::wire::{Answer, Ask};
use crate::overlay::{Contact, OpId, Source};

/// Maximum pause between two attempts of a join.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Maximum number of requests that verify a finger, before it is looked up.
const GUESSES: usize = 3;

impl<A: Addr> Engine<A> {
    pub(super) fn begin(
        &mut self,
        now: Duration,
        goal: Goal,
        key: PeerId,
        bootstraps: Vec<A>,
        upkeep: bool,
    ) -> OpId {
        let id = OpId(self.requests.new_id());
        let mut op = Box::new(Op::new(goal, key, bootstraps, upkeep));
        self.look_at_home(&mut op);
        self.advance(now, id, op);
        id
    }

    /// Starts with this node's own knowledge; a joining node has none.
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

    /// Processes the answer to the current request of an operation.
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
        } else if !op.locates(&from) {
            op.ruled_out.push(from);
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
                    nearer: self.told_of_all(&nearer, &addr),
                    owners: self.told_of_all(&owners, &addr),
                };
                // A bootstrap node states its id here for the first time.
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
                if value.len() <= self.rules.config.value
                    && self.rules.validator.is_valid(&op.key.into(), value)
                {
                    return self.done(now, id, &op, Ok(Outcome::Value(Some(value.to_vec()))));
                }
                self.counts.bad_records += 1;
            }
            (Asked::Owner(owner), Answer::Elsewhere(predecessor)) => {
                if !self.is_behind(&mut op, &owner, predecessor.as_ref()) {
                    if let Goal::Get { missing } = &mut op.goal {
                        *missing += 1;
                    } else if let Some(record) = op.record() {
                        // The nodes in between have failed; this node will be the successor, or near it.
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
            _ => {
                self.counts.malformed += 1;
                op.failed += 1;
            }
        }
        self.advance(now, id, op);
    }

    /// Processes the failure of the current request of an operation.
    pub(super) fn op_failed(&mut self, now: Duration, id: OpId, sent: usize, node: Option<PeerId>) {
        let Some(mut op) = self.current(id, sent) else {
            return;
        };
        let asked = std::mem::replace(&mut op.asked, Asked::Nothing);
        op.failed += 1;
        self.tell_progress(id, &op);
        if let Some(id) = node {
            match asked {
                Asked::Owner(Contact { addr, .. }) | Asked::Step(_, addr, _) => {
                    // The node may be at another address.
                    let asked = Contact { id, addr };
                    op.owners.retain(|owner| owner.as_ref() != Some(&asked));
                    op.tried.retain(|tried| *tried != id);
                    op.looked_at.push(asked);
                }
                Asked::Keep | Asked::Nothing => op.ruled_out.push(id),
            }
        }
        self.advance(now, id, op);
    }

    /// Removes and returns an operation if the request with this number is its last one.
    fn current(&mut self, id: OpId, sent: usize) -> Option<Box<Op<A>>> {
        (self.ops.get(&id)?.sent == sent).then(|| self.ops.remove(&id))?
    }

    /// Sends the next request of an operation, or ends it.
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
        } else if let Some((depth, node)) = op.next_candidate() {
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
        self.ask(now, &addr, node, Ask::Step(key, skip), Purpose::Step(id, op.sent));
        op.asked = Asked::Step(depth, addr, skip);
        self.ops.insert(id, op);
    }

    /// Sends the request of the operation to a possible owner of the key.
    fn ask_owner(&mut self, now: Duration, id: OpId, mut op: Box<Op<A>>, owner: Contact<A>) {
        op.looked_at.push(owner.clone());
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

    /// Performs the operation locally if this node may be the owner. Returns the operation if it continues.
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
            Goal::Finger(_) | Goal::Find | Goal::Locate | Goal::Return { .. } => {
                self.arrived(now, id, op, None);
                return None;
            }
        }
        Some(op)
    }

    /// Processes the answer of the key's successor; `None` is this node.
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

    /// Ends an operation that found no node, or schedules another attempt.
    fn fail(&mut self, now: Duration, id: OpId, mut op: Box<Op<A>>, why: OpError) {
        let config = &self.rules.config;
        let tries = match op.goal {
            _ if op.upkeep => 1,
            Goal::Join => config.join_tries,
            // By then the failed node is forgotten, and perhaps replaced.
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

    /// Returns the time of the next scheduled attempt.
    pub(super) fn next_wait(&self) -> Option<Duration> {
        self.ops.values().filter_map(|op| op.again_at).min()
    }

    /// Starts the scheduled attempts that are due.
    pub(super) fn end_waits(&mut self, now: Duration) {
        let over = |op: &Op<A>| op.again_at.is_some_and(|until| until <= now);
        let waiting = self.ops.iter().filter(|(_, op)| over(op));
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            let Some(mut op) = self.ops.remove(&id) else {
                continue;
            };
            op.again_at = None;
            self.look_at_home(&mut op);
            self.advance(now, id, op);
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
