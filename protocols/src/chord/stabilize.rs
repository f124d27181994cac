//! Stabilization: asks the successor for its neighbours, and takes nodes between into the successor list.
//!
//! A node becomes the successor only after it has answered, so naming a dead node can cost a request but not
//! the pointer. Pamela Zave, "Reasoning about Identifier Spaces: How to Make Chord Correct" (2017), shows why
//! this matters.

use std::time::Duration;

use p2p::Addr;

use super::copies::Pull;
use super::distance::in_open;
use super::engine::{Engine, Purpose};
use super::event::{Event, OpError, Outcome};
use super::upkeep::{CHAIN, Joined};
use super::wire::{Answer, Ask};
use crate::overlay::Contact;

impl<A: Addr> Engine<A> {
    /// Asks the successor for its neighbours.
    pub(super) fn stabilize(&mut self, now: Duration, chain: u8) {
        if let Some(successor) = self.table.successor().cloned() {
            self.ask_neighbours(now, successor, chain);
        }
    }

    pub(super) fn ask_neighbours(&mut self, now: Duration, node: Contact<A>, chain: u8) {
        self.upkeep.stabilizing = Some(chain);
        let (id, addr) = (node.id, node.addr.clone());
        self.ask(now, &addr, Some(id), Ask::Stabilize, Purpose::Stabilize(node));
    }

    /// Processes the successor's message that another node has joined in between: asks that node at once, not
    /// in the next round.
    ///
    /// So a newcomer is known to its predecessor after a few message delays, also when many nodes join at
    /// once.
    pub(super) fn hear_of(&mut self, now: Duration, by: &Contact<A>, nearer: &super::wire::Node<'_>) {
        if self.leaving.is_some() {
            return;
        }
        if nearer.addr.is_empty() && nearer.id == *by.id.as_bytes() {
            self.upkeep.hint = Some(by.clone());
        } else if self.table.successor().is_some_and(|next| next.id == by.id) {
            self.upkeep.hint = self.told_of(nearer, &by.addr);
        } else {
            return;
        }
        if self.upkeep.stabilizing.is_none() {
            self.follow_hint(now, CHAIN);
        }
    }

    /// Processes the successors of a successor that has left. The list shows which nodes are already gone;
    /// but a node that is unknown here enters the list only after it has answered.
    pub(super) fn succeeded_by(&mut self, now: Duration, told: &[Contact<A>]) {
        let own = self.table.own;
        let (list, first) = (&self.table.successors, told.first().cloned());
        let known = told
            .iter()
            .filter_map(|next| list.iter().find(|known| known.id == next.id));
        let mut known: Vec<Contact<A>> = known.cloned().collect();
        if let Some(last) = known.last().map(|last| last.id) {
            let beyond = list.iter().filter(|node| in_open(&node.id, &last, &own));
            known.extend(beyond.cloned());
            self.table.set_successors(known);
        }
        let successor = self.table.successor().map(|next| next.id);
        let nearest = first.filter(|first| successor.is_none_or(|next| in_open(&first.id, &own, &next)));
        if self.leaving.is_some() || told.is_empty() {
            return;
        }
        if self.upkeep.stabilizing.is_some() {
            self.upkeep.hint = nearest;
        } else if let Some(nearest) = nearest {
            self.ask_neighbours(now, nearest, CHAIN);
        } else {
            self.stabilize(now, CHAIN);
        }
    }

    fn follow_hint(&mut self, now: Duration, chain: u8) {
        let own = self.table.own;
        let successor = self.table.successor().map(|node| node.id);
        let hint = self.upkeep.hint.take().filter(|_| chain > 0);
        if let Some(hint) = hint.filter(|hint| successor.is_some_and(|next| in_open(&hint.id, &own, &next))) {
            self.ask_neighbours(now, hint, chain - 1);
        }
    }

    /// Processes the neighbours of the successor, or of a node before it.
    pub(super) fn stabilized(&mut self, now: Duration, asked: &Contact<A>, answer: Answer<'_>) {
        self.heard(now, asked.id);
        let Answer::Neighbours {
            predecessor,
            successors,
        } = answer
        else {
            self.counts.malformed += 1;
            return self.stabilize_failed(now, asked);
        };
        let chain = self.upkeep.stabilizing.take().unwrap_or(0);
        let own = self.table.own;
        let successor = self.table.successor().map(|node| node.id);
        if successor.is_some_and(|known| known != asked.id && !in_open(&asked.id, &own, &known)) {
            // Another node has become the successor meanwhile.
            return self.stabilize_again(now, chain);
        }
        let before = self.copy_holders();
        let after = self.told_of_all(&successors, &asked.addr);
        self.table
            .set_successors(std::iter::once(asked.clone()).chain(after));
        if before != self.copy_holders() {
            self.copies.again();
        }
        let predecessor = predecessor.and_then(|node| self.told_of(&node, &asked.addr));
        let (nearer, farther) = match predecessor {
            Some(node) if in_open(&node.id, &own, &asked.id) => (Some(node), None),
            farther => (None, farther.filter(|node| node.id != own)),
        };
        if let Some(before) = farther.as_ref().filter(|_| self.table.predecessor.is_none()) {
            // The successor's previous predecessor is this node's predecessor until that node notifies this
            // one, or fails to answer. So lookups that arrive through the successor find the right node at
            // once.
            self.table.predecessor = Some(before.clone());
            self.upkeep.heard = now;
        }
        if let Some(nearer) = nearer {
            if chain > 0 {
                self.ask_neighbours(now, nearer, chain - 1);
            } else {
                self.upkeep.hint = None;
            }
            return;
        }
        if let Some(joined) = &mut self.upkeep.joined
            && let Some(before) = &farther
        {
            joined.introducing = true;
            self.introduce(now, before);
        }
        if std::mem::take(&mut self.upkeep.fetch) {
            // The keys after the successor's predecessor belong to this node from now on.
            let copies_until = farther.map(|node| node.id);
            let pull = Pull {
                after: copies_until.unwrap_or(asked.id),
                until: own,
                copies_until,
            };
            self.pull(now, &asked.addr, asked.id, pull);
        }
        if self.upkeep.stabilizing.is_none() {
            self.follow_hint(now, chain);
        }
    }

    fn stabilize_again(&mut self, now: Duration, chain: u8) {
        if let Some(chain) = chain.checked_sub(1) {
            self.stabilize(now, chain);
        } else {
            self.upkeep.hint = None;
        }
    }

    /// Processes the failure of a request for neighbours.
    pub(super) fn stabilize_failed(&mut self, now: Duration, asked: &Contact<A>) {
        let chain = self.upkeep.stabilizing.take().unwrap_or(0);
        let is_successor = self.table.successor().is_some_and(|next| next.id == asked.id);
        if is_successor {
            if self.table.successors.len() < 2 {
                // It is the only successor. The next round asks again.
                return;
            }
            self.gone(now, Some(asked.id));
        }
        self.stabilize_again(now, chain);
    }

    /// Introduces this node to its predecessor, so that it is known there even if the successor fails at
    /// once.
    fn introduce(&mut self, now: Duration, before: &Contact<A>) {
        let own = super::wire::Node {
            id: *self.table.own.as_bytes(),
            addr: "".into(),
        };
        self.ask(
            now,
            &before.addr,
            Some(before.id),
            Ask::Nearer(own),
            Purpose::Introduce,
        );
    }

    pub(super) fn introduced(&mut self) {
        if let Some(joined) = &mut self.upkeep.joined {
            joined.introducing = false;
        }
        self.taken_in();
    }

    /// Ends a join once both neighbours know this node or have failed.
    pub(super) fn taken_in(&mut self) {
        if self.upkeep.stabilizing.is_some() {
            return;
        }
        if let Some(Joined { op, .. }) = self.upkeep.joined.take_if(|joined| !joined.introducing) {
            let successor = self.table.successor().cloned();
            let outcome = successor.map(Outcome::Joined).ok_or(OpError::NoAnswer);
            self.events.push_back(Event::Done { op, outcome });
        }
    }
}
