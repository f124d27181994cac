//! Processes the answers and the failures of requests.

use std::time::Duration;

use p2p::{Addr, PeerId};

use super::codec::{Answer, NamedNode};
use super::engine::{Engine, Purpose};
use super::event::{Event, Outcome};
use super::operation::{CONFIRMED, Named, Op, REMEMBERED, Task};
use crate::overlay::validation::as_challenge;
use crate::overlay::{Contact, Failure, OpId, RequestId, Scope};

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
        let Some(pending) = self.requests.get(id) else {
            self.counts.late += 1;
            return;
        };
        if answer.len() > self.rules.config.message {
            self.counts.malformed += 1;
            self.handle_failure(now, id, Failure::Unreachable);
            return;
        }
        let Some((contact, answer)) = self.codec.read_answer(&pending.addr, pending.kind, answer) else {
            self.counts.malformed += 1;
            self.handle_failure(now, id, Failure::Unreachable);
            return;
        };
        let expected = pending.id.is_none_or(|id| id == contact.id) && contact.id != self.own;
        if !expected || !self.proves(&contact.addr, contact.id) {
            self.counts.false_ids += 1;
            self.handle_failure(now, id, Failure::Unreachable);
            return;
        }
        if !answer.fits(pending.kind) {
            self.counts.malformed += 1;
            self.handle_failure(now, id, Failure::Unreachable);
            return;
        }
        let Some(pending) = self.requests.end(id) else {
            return;
        };
        self.counts.answered += 1;
        self.validator.validate(&pending.addr);
        self.silent.remove(&contact);
        if pending.purpose == Purpose::Check {
            self.checking.retain(|(other, _)| other.addr != pending.addr);
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
            Purpose::Lookup(op) => self.lookup_answered(now, op, &contact, answer),
            Purpose::Store(op) => self.store_settled(op, true),
        }
    }

    /// Processes the failure of a request.
    pub fn handle_failure(&mut self, now: Duration, id: RequestId, failure: Failure) {
        let Some(pending) = self.requests.end(id) else {
            self.counts.late += 1;
            return;
        };
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

    fn lookup_answered(
        &mut self,
        now: Duration,
        id: OpId,
        contact: &Contact<A>,
        answer: Answer<'_, NamedNode<A>>,
    ) {
        let Some(mut op) = self.ops.remove(&id) else {
            return;
        };
        let nodes = match answer {
            Answer::Nodes(nodes) => nodes,
            Answer::Record { ttl, value, nodes } => {
                self.record_found(now, &mut op, contact, value, ttl);
                nodes
            }
            Answer::Providers { providers, nodes } => {
                self.providers_found(&mut op, contact, providers);
                nodes
            }
            Answer::Pong | Answer::Kept => Vec::new(),
        };
        let mut nodes = self.contacts_of(nodes, contact, self.rules.config.k);
        self.silent.expire(now, self.rules.config.silent_pause);
        nodes.retain(|node| !self.silent.leaves_out(&op.lookup.target(), node));
        let config = &self.rules.config;
        op.lookup.answered(&contact.id, nodes, config, &mut self.counts);
        self.tell_progress(id, &op);
        self.advance(now, id, op);
    }

    /// Converts the nodes that `by` named into contacts: the first `most`, each at one address. Leaves out
    /// this node, false ids, and addresses with a narrower scope than that of `by`.
    fn contacts_of(&mut self, nodes: Vec<NamedNode<A>>, by: &Contact<A>, most: usize) -> Vec<Contact<A>> {
        self.counts.surplus += nodes.len().saturating_sub(most) as u64;
        let mut contacts: Vec<Contact<A>> = Vec::with_capacity(nodes.len().min(most));
        for NamedNode { id, addr } in nodes.into_iter().take(most) {
            if id == self.own {
                continue;
            }
            if contacts.iter().any(|known| known.id == id) {
                self.counts.surplus += 1;
                continue;
            }
            match addr {
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
        let key = &op.key;
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
        if !good || !rules.validator.is_valid(key, value) {
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
            Some((known, _)) if !rules.validator.supersedes(key, value, known) => {
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

    fn providers_found(&mut self, op: &mut Op<A>, by: &Contact<A>, providers: Vec<NamedNode<A>>) {
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
}
