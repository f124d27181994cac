//! Leaving: hands over the records, then says goodbye (section 5.4 of the paper).

use std::time::Duration;

use p2p::{Addr, Error, PeerId, Result};

use super::distance::in_open;
use super::engine::{Engine, Purpose};
use super::event::Outcome;
use super::wire::{self, Ask, Message};
use crate::overlay::{Contact, OpId};

/// Records in flight while leaving.
const HANDED: usize = 16;

/// The state of leaving.
#[derive(Debug)]
pub(super) struct Leaving {
    op: OpId,
    /// The key of the last record that was handed over.
    after: PeerId,
    /// Whether all records were handed over.
    handed: bool,
    in_flight: usize,
    told: bool,
}

impl<A: Addr> Engine<A> {
    /// Hands this node's records to its successor and notifies both neighbours. Ends with [`Outcome::Left`];
    /// stop the node then. A node that has left serves what is in flight and cannot join again; create a new
    /// engine for that.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the node is already leaving.
    pub fn leave(&mut self, now: Duration) -> Result<OpId> {
        if self.leaving.is_some() {
            return Err(Error::invalid("operation", "this node is already leaving"));
        }
        let op = OpId(self.requests.new_id());
        let after = self.table.own_range().map_or(self.table.own, |(from, _)| from);
        self.leaving = Some(Leaving {
            op,
            after,
            handed: false,
            in_flight: 1,
            told: false,
        });
        self.leave_on(now);
        Ok(op)
    }

    /// Continues after one request of leaving has ended: sends the next requests, or finishes.
    pub(super) fn leave_on(&mut self, now: Duration) {
        let Some(mut leaving) = self.leaving.take() else {
            return;
        };
        leaving.in_flight = leaving.in_flight.saturating_sub(1);
        if !leaving.told {
            self.hand_over(now, &mut leaving);
        }
        if leaving.in_flight == 0 && !leaving.told {
            leaving.told = true;
            leaving.in_flight = self.say_goodbye(now);
        }
        if leaving.in_flight == 0 {
            let (op, outcome) = (leaving.op, Ok(Outcome::Left));
            self.events.push_back(super::Event::Done { op, outcome });
        }
        self.leaving = Some(leaving);
    }

    fn hand_over(&mut self, now: Duration, leaving: &mut Leaving) {
        let own = self.table.own;
        while leaving.in_flight < HANDED && !leaving.handed {
            let next = self.store.range(now, leaving.after, own).next();
            let Some(key) = next.map(|record| PeerId::new(record.key)) else {
                leaving.handed = true;
                break;
            };
            leaving.after = key;
            leaving.handed = key == own;
            leaving.in_flight += usize::from(self.hand(now, &key));
        }
    }

    /// Hands a record to the successor. Returns whether there are both.
    fn hand(&mut self, now: Duration, key: &PeerId) -> bool {
        let own = *self.table.own.as_bytes();
        let Some(Contact { id, addr }) = self.table.successor().cloned() else {
            return false;
        };
        let Some(record) = self.store.get(now, key) else {
            return false;
        };
        let request = Message::new(own, Ask::Keep(record)).emit();
        self.send(now, addr, Some(id), request, Purpose::Hand(*key));
        true
    }

    /// Processes a record that was not accepted. If the successor has failed, sends the record to the next
    /// one.
    pub(super) fn hand_failed(&mut self, now: Duration, to: Option<PeerId>, key: &PeerId) {
        if self.table.successor().map(|next| next.id) == to || !self.hand(now, key) {
            self.leave_on(now);
        }
    }

    /// Notifies both neighbours. Returns the number of requests.
    fn say_goodbye(&mut self, now: Duration) -> usize {
        let (successor, predecessor) = (self.table.successor(), self.table.predecessor.as_ref());
        let mut neighbours: Vec<Contact<A>> = successor.into_iter().chain(predecessor).cloned().collect();
        neighbours.dedup_by_key(|node| node.id);
        let mut room = self.room();
        let predecessor = predecessor.and_then(|node| room.tell_of(node));
        let goodbye = Ask::Leave {
            predecessor,
            successors: room.tell_of_all(&self.table.successors),
        };
        let request = Message::new(*self.table.own.as_bytes(), goodbye).emit();
        for Contact { id, addr } in &neighbours {
            self.send(now, addr.clone(), Some(*id), request.clone(), Purpose::Goodbye);
        }
        neighbours.len()
    }

    /// Processes the goodbye of a neighbour, which names the nodes before and after it. A node after it is
    /// asked before it becomes the successor; the node before it is the predecessor as long as it answers.
    pub(super) fn left(
        &mut self,
        now: Duration,
        node: &Contact<A>,
        predecessor: Option<&wire::Node<'_>>,
        successors: &[wire::Node<'_>],
    ) {
        let own = self.table.own;
        let is_it = |known: Option<&Contact<A>>| known.is_some_and(|known| known.id == node.id);
        let was_predecessor = is_it(self.table.predecessor.as_ref());
        let was_successor = is_it(self.table.successor());
        let mut after = Vec::new();
        if was_successor {
            after = self.told_of_all(successors, &node.addr);
            // The successors of the leaving node are beyond it.
            after.retain(|next| in_open(&next.id, &node.id, &own));
        }
        let before = predecessor
            .filter(|_| was_predecessor)
            .and_then(|before| self.told_of(before, &node.addr))
            .filter(|before| before.id != own && before.id != node.id);
        self.gone(now, Some(node.id));
        if let Some(before) = before {
            let Contact { id, addr } = before.clone();
            self.table.predecessor = Some(before);
            self.upkeep.heard = now;
            self.copies.again();
            self.ask(now, &addr, Some(id), Ask::Ping, Purpose::Check);
        }
        self.succeeded_by(now, &after);
    }
}
