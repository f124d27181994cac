//! Requests in flight: sends them, and processes their answers, failures and timeouts.

use std::time::Duration;

use p2p::{Addr, PeerId};

use super::engine::{Engine, Pending, Purpose};
use super::wire::{Answer, Ask, Message};
use crate::overlay::validation::{as_challenge, with_token};
use crate::overlay::{Contact, Failure, RequestId};

impl<A: Addr> Engine<A> {
    /// Processes the answer to a request.
    pub fn handle_answer(&mut self, now: Duration, id: RequestId, answer: &[u8]) {
        let Some(pending) = self.settle(id) else {
            return;
        };
        if let (Some(challenge), Some(request)) = (as_challenge(answer), &pending.request) {
            self.validator.validate(&pending.to);
            let request = with_token(&challenge, request);
            let pending = Pending {
                again: pending.again.map(|_| request.clone()),
                request: None,
                ..pending
            };
            return self.transmit(now, pending, request);
        }
        let (node, to, purpose) = (pending.node, pending.to, pending.purpose);
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
        let Some(mut pending) = self.settle(id) else {
            return;
        };
        self.counts.failed += 1;
        if why == Failure::Unreachable
            && let Some(request) = pending.again.take()
        {
            pending.request = self.validator.copy(&pending.to, &request);
            return self.transmit(now, pending, request);
        }
        let (node, to, purpose) = (pending.node, pending.to, pending.purpose);
        if why == Failure::Unreachable {
            if purpose.is_repeated() || matches!(purpose, Purpose::Probe) {
                self.gone_from(now, node, &to);
            } else {
                self.probe(now, node);
            }
        }
        self.unanswered(now, node, purpose);
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

    /// Sends a request that is encoded already.
    pub(super) fn send(
        &mut self,
        now: Duration,
        to: A,
        node: Option<PeerId>,
        request: Vec<u8>,
        purpose: Purpose<A>,
    ) {
        let pending = Pending {
            again: purpose.is_repeated().then(|| request.clone()),
            request: self.validator.copy(&to, &request),
            node,
            to,
            purpose,
        };
        self.transmit(now, pending, request);
    }

    fn transmit(&mut self, now: Duration, pending: Pending<A>, request: Vec<u8>) {
        self.counts.sent += 1;
        self.requests.begin(now, pending.to.clone(), request, pending);
    }

    /// Takes a request out of those in flight. If it is not among them, its answer or failure is counted as late.
    fn settle(&mut self, id: RequestId) -> Option<Pending<A>> {
        let pending = self.requests.end(id);
        self.counts.late += u64::from(pending.is_none());
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
}
