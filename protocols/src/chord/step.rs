//! What nodes tell about a key, this one among them, and how much of it is believed: nothing that leads away from the key.

use p2p::{Addr, PeerId};

use super::distance::between;
use super::engine::Engine;
use super::operation::{Goal, Op, Told};
use super::wire;
use crate::overlay::Contact;

/// Nodes that an operation remembers at most and has not asked; those farthest from the key are forgotten.
pub(super) const CANDIDATES: usize = 64;

/// Requests of one who joins after which it takes the successor that it has, while ever more come between the two.
const JOIN_WALK: usize = 16;

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

    /// Takes what a node knows about the key; `None` is this node. It has left out the first `skip` that it knows.
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
            // Who joins where it was before is named itself. Where nobody else is, it succeeds whoever names it.
            if matches!(op.goal, Goal::Join) {
                self.add_owners(op, None, from.into_iter().collect());
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

    /// If none of the nodes lives that the nearest one told of, believes it about the rest: who succeeds the key then, or who
    /// else lies in between.
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

    /// Adds those of the nodes that may own the key, and that the same node has not named before.
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

    /// Whether the predecessor of one who might own the key lies between the two, so that it is to be tried first.
    pub(super) fn is_behind(
        &mut self,
        op: &mut Op<A>,
        owner: &Contact<A>,
        predecessor: Option<&wire::Node<'_>>,
    ) -> bool {
        let Some(nearer) = predecessor.and_then(|node| self.told_of(node, &owner.addr)) else {
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

    /// The same where this node itself might own the key.
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

    /// Looks a finger up, since it is none of those that it was likely to be.
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
