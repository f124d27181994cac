//! Serves requests of other nodes, each at once from local state.

use std::borrow::Cow;
use std::time::Duration;

use p2p::{Addr, PeerId};

use super::config::FRAME;
use super::distance::in_open;
use super::engine::{Engine, Purpose};
use super::event::Refusal;
use super::wire::{self, Answer, Ask, MAX_ADDR, MAX_NODES, MAX_RECORDS, Message, Record};
use crate::overlay::{Contact, Source};

/// Upper bound of the bytes of a record around its value, and of a node around its address.
const AROUND: usize = 40;

impl<A: Addr> Engine<A> {
    /// Serves a request. Returns the answer.
    ///
    /// # Errors
    /// See [`Refusal`]. Nothing of a refused request is kept.
    pub fn handle_request(&mut self, now: Duration, from: &A, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        let request = match self.validator.admit(from, request) {
            Ok(request) => request,
            Err(challenge) => {
                self.counts.challenged += 1;
                return Ok(challenge.into());
            }
        };
        let served = self.serve(now, from, request);
        self.counts.add_served(&served);
        served
    }

    fn serve(&mut self, now: Duration, from: &A, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        if request.len() > self.rules.config.message {
            return Err(Refusal::Oversize);
        }
        let message = Message::<Ask<'_>>::parse(request).ok_or(Refusal::Malformed)?;
        let asker = Contact {
            id: PeerId::new(message.from),
            addr: from.clone(),
        };
        if asker.id == self.table.own || !self.is_at(&asker.id, from) {
            return Err(Refusal::FalseId);
        }
        self.check_membership(&message.body)?;
        match message.body {
            Ask::Ping => Ok(self.emit(Answer::Done)),
            Ask::Step(key, skip) => Ok(self.serve_step(&PeerId::new(key), skip)),
            Ask::Stabilize => {
                let mut room = self.room();
                let answer = Answer::Neighbours {
                    predecessor: self.table.predecessor.as_ref().and_then(|it| room.tell_of(it)),
                    successors: room.tell_of_all(&self.table.successors),
                };
                let answer = self.emit(answer);
                self.notified(now, asker);
                Ok(answer)
            }
            Ask::Get(key) => Ok(match self.store.get(now, &PeerId::new(key)) {
                Some(Record { ttl, value, .. }) => self.emit(Answer::Value(ttl, value)),
                None => self.elsewhere(),
            }),
            Ask::Put(record) => {
                let key = PeerId::new(record.key);
                if !self.table.owns(&key) {
                    return Ok(self.elsewhere());
                }
                let answer = self.serve_keep(now, record, Source::of(&asker))?;
                self.copy(now, key);
                Ok(answer)
            }
            Ask::Keep(record) => self.serve_keep(now, record, Source::of(&asker)),
            Ask::Keys(after, until) => Ok(self.page(now, PeerId::new(after), PeerId::new(until))),
            Ask::Leave {
                predecessor,
                successors,
            } => {
                self.left(now, &asker, predecessor.as_ref(), &successors);
                Ok(self.emit(Answer::Done))
            }
            Ask::Route(never) | Ask::Routed(never) => match never {},
            Ask::Nearer(node) => {
                self.hear_of(now, &asker, &node);
                Ok(self.emit(Answer::Done))
            }
        }
    }

    /// Refuses requests about the ring while this node is joining or leaving.
    fn check_membership(&self, ask: &Ask<'_>) -> Result<(), Refusal> {
        let concerns_ring = matches!(ask, Ask::Step(..) | Ask::Stabilize | Ask::Put(_) | Ask::Keep(_));
        if !concerns_ring {
            return Ok(());
        }
        if self.leaving.is_some() {
            return Err(Refusal::Leaving);
        }
        let alone = self.table.successor().is_none();
        if alone && self.is_joining() {
            return Err(Refusal::Joining);
        }
        Ok(())
    }

    fn serve_step(&self, key: &PeerId, skip: u8) -> Vec<u8> {
        let step = self.step(key, skip.into(), self.rules.config.nearer);
        let mut room = self.room();
        let predecessor = self.table.predecessor.as_ref();
        self.emit(Answer::Step {
            mine: step.mine,
            predecessor: predecessor.and_then(|node| room.tell_of(node)),
            nearer: room.tell_of_all(&step.nearer),
            owners: room.tell_of_all(&step.owners),
        })
    }

    fn serve_keep(&mut self, now: Duration, record: Record<'_>, from: Source) -> Result<Vec<u8>, Refusal> {
        match self.keep(now, record, from) {
            Ok(()) => Ok(self.emit(Answer::Done)),
            Err(Refusal::Stale) => Ok(self.emit(Answer::Stale)),
            Err(refusal) => Err(refusal),
        }
    }

    fn elsewhere(&self) -> Vec<u8> {
        let predecessor = self.table.predecessor.as_ref();
        self.emit(Answer::Elsewhere(
            predecessor.and_then(|node| self.room().tell_of(node)),
        ))
    }

    /// Processes the notification of a node that has this node as its successor.
    fn notified(&mut self, now: Duration, node: Contact<A>) {
        let own = self.table.own;
        let known = self.table.predecessor.as_ref();
        if known.is_some_and(|known| known.id != node.id && !in_open(&node.id, &known.id, &own)) {
            return;
        }
        self.upkeep.heard = now;
        if self.table.successors.is_empty() {
            self.found_ring(now, node.clone());
        }
        let told = self.room().tell_of(&node);
        let id = node.id;
        let Some(displaced) = self.table.predecessor.replace(node) else {
            return self.copies.again();
        };
        if displaced.id != id {
            self.copies.again();
            if let Some(told) = told {
                let Contact { id, addr } = displaced;
                self.ask(now, &addr, Some(id), Ask::Nearer(told), Purpose::Check);
            }
        }
    }

    /// Returns a page of the records in an arc, as many as fit into an answer.
    fn page(&self, now: Duration, after: PeerId, until: PeerId) -> Vec<u8> {
        let mut records = Vec::new();
        let mut room = self.rules.config.message - FRAME + AROUND;
        let mut more = false;
        for record in self.store.range(now, after, until) {
            let left = room.checked_sub(record.value.len() + AROUND);
            let Some(left) = left.filter(|_| records.len() < MAX_RECORDS) else {
                more = true;
                break;
            };
            room = left;
            records.push(record);
        }
        self.emit(Answer::Keys { records, more })
    }

    fn emit(&self, answer: Answer<'_>) -> Vec<u8> {
        Message::new(*self.table.own.as_bytes(), answer).emit()
    }

    pub(super) fn room(&self) -> Room {
        Room(self.rules.config.message - FRAME)
    }
}

/// The space left for nodes in a message, in bytes.
pub(super) struct Room(usize);

impl Room {
    /// Converts a contact into its wire form, if it fits.
    pub(super) fn tell_of<A: Addr>(&mut self, node: &Contact<A>) -> Option<wire::Node<'static>> {
        let addr = node.addr.to_string();
        if addr.len() > MAX_ADDR {
            return None;
        }
        self.0 = self.0.checked_sub(addr.len() + AROUND)?;
        Some(wire::Node {
            id: *node.id.as_bytes(),
            addr: Cow::Owned(addr),
        })
    }

    /// Converts the first of the nodes, as many as fit.
    pub(super) fn tell_of_all<A: Addr>(&mut self, nodes: &[Contact<A>]) -> Vec<wire::Node<'static>> {
        let nodes = nodes.iter().take(MAX_NODES);
        nodes.map_while(|node| self.tell_of(node)).collect()
    }
}
