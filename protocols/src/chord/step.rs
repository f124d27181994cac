//! Steps of a lookup: what nodes, including this one, know about a key. Nodes that lead away from the key are
//! ignored.

use p2p::{Addr, PeerId};

use super::distance::between;
use super::engine::Engine;
use super::operation::{Goal, Op, Told};
use super::wire;
use crate::overlay::Contact;

/// Maximum number of unasked nodes that an operation remembers; the farthest from the key are forgotten.
pub(super) const CANDIDATES: usize = 64;

/// Number of requests of a join after which it takes the successor that it has, if new nodes keep appearing
/// in between.
const JOIN_WALK: usize = 16;

/// A node's knowledge about a key.
pub(super) struct Step<A> {
    /// Whether the node itself succeeds the key, before the nodes in `owners`.
    pub(super) mine: bool,
    /// Nodes between it and the key. If empty, the node or its successor succeeds the key.
    pub(super) nearer: Vec<Contact<A>>,
    /// Nodes of its successor list that succeed the key.
    pub(super) owners: Vec<Contact<A>>,
}

impl<A: Addr> Engine<A> {
    /// Returns this node's knowledge about a key, with up to `count` nearer nodes after the nearest `skip`.
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

    /// Processes a node's knowledge about the key; `None` is this node. The node has skipped the nearest
    /// `skip` nodes.
    pub(super) fn take_step(
        &mut self,
        op: &mut Op<A>,
        from: Option<Contact<A>>,
        depth: usize,
        skip: u8,
        step: Step<A>,
    ) {
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
                return self.add_owners(op, Some(from_id), step.owners);
            }
            self.add_owners(op, Some(from_id), step.owners);
            // A node that joins at its previous place is named itself. If there is no other node, it succeeds
            // the node that names it.
            if matches!(op.goal, Goal::Join) {
                self.add_owners(op, None, from.into_iter().collect());
            }
            return;
        }
        // A node that is not nearer to the key than the node that names it is ignored. This also ends all
        // loops.
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
                && !op.rules_out(&node)
                && op.candidates.iter().all(|(_, known)| *known != node);
            if new && distance != [0; 32] && (distance < limit || limit == [0; 32]) {
                op.candidates.push((depth + 1, node));
            }
        }
        op.candidates
            .sort_by_cached_key(|(_, node)| std::cmp::Reverse(between(&node.id, &op.key)));
        let surplus = op.candidates.len().saturating_sub(CANDIDATES);
        op.candidates.drain(..surplus);
    }

    /// If none of the nodes that the nearest node named is alive, uses the rest of its answer: the successors
    /// that it named, or further nodes in between.
    pub(super) fn fall_back(&self, op: &mut Op<A>) {
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
            let by = told.node.map_or(self.table.own, |node| node.id);
            self.add_owners(op, Some(by), told.owners);
        } else if let (Some(node), Some(skip)) = (told.node, told.skip) {
            op.again = Some((told.depth, node, skip));
        }
    }

    /// Adds the nodes that may own the key and that the same node has not named before.
    fn add_owners(&self, op: &mut Op<A>, by: Option<PeerId>, nodes: Vec<Contact<A>>) {
        let own = self.table.own;
        for node in nodes {
            if node.id == own {
                op.owners.push_back(None);
            } else if !op.rules_out(&node) && op.first_named(&node.id, by) {
                op.owners.push_back(Some(node));
            }
        }
    }

    /// Returns whether the predecessor of a possible owner is between it and the key, and is therefore asked
    /// first.
    pub(super) fn is_behind(
        &mut self,
        op: &mut Op<A>,
        owner: &Contact<A>,
        predecessor: Option<&wire::Node<'_>>,
    ) -> bool {
        let Some(nearer) = predecessor.and_then(|node| self.told_of(node, &owner.addr)) else {
            return false;
        };
        // A joining node can use any successor that is not too near; stabilization finds the right one from
        // there.
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
        if !op.first_named(&nearer.id, Some(owner.id)) {
            return false;
        }
        op.owners.push_front(Some(owner.clone()));
        if nearer.id == own {
            op.ruled_out.push(own);
        }
        op.owners.push_front((nearer.id != own).then_some(nearer));
        true
    }

    /// Does the same as [`is_behind`](Self::is_behind) if this node is the possible owner.
    pub(super) fn is_behind_home(&self, op: &mut Op<A>) -> bool {
        let before = self.table.predecessor.as_ref();
        let before = before.filter(|before| {
            let nearer = between(&op.key, &before.id) < between(&op.key, &self.table.own);
            nearer && !matches!(op.goal, Goal::Join) && !op.rules_out(before)
        });
        let Some(before) = before.cloned() else {
            return false;
        };
        op.owners.push_front(None);
        op.looked_at.push(before.clone());
        op.owners.push_front(Some(before));
        true
    }

    /// Looks up a finger because none of the likely nodes is the finger.
    pub(super) fn guess_no_more(&mut self, op: &mut Op<A>) {
        op.guessing = false;
        op.owners.clear();
        if op.failed == 0 {
            op.ruled_out.clear();
            op.looked_at.clear();
        }
        op.namers.clear();
        let step = self.step(&op.key, 0, CANDIDATES);
        self.take_step(op, None, 0, 0, step);
    }
}
