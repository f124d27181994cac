//! The routing table of a node: its predecessor, its successor list, and its fingers.

use p2p::PeerId;

use super::distance::{between, bit_beyond};
use crate::overlay::Contact;

/// The routing state of one node.
///
/// Fingers are stored sparsely: of equal fingers only the lowest, and none that is the successor. So there
/// are about log2 N of them, not 256.
#[derive(Debug)]
pub(super) struct Table<A> {
    pub(super) own: PeerId,
    pub(super) predecessor: Option<Contact<A>>,
    /// In the order of the circle, without this node.
    pub(super) successors: Vec<Contact<A>>,
    /// Ordered by the lowest finger number of each node.
    fingers: Vec<(u8, Contact<A>)>,
    max: usize,
}

impl<A: Clone + Eq> Table<A> {
    pub(super) fn new(own: PeerId, max: usize) -> Self {
        Self {
            own,
            predecessor: None,
            successors: Vec::new(),
            fingers: Vec::new(),
            max,
        }
    }

    pub(super) fn successor(&self) -> Option<&Contact<A>> {
        self.successors.first()
    }

    pub(super) fn fingers(&self) -> impl Iterator<Item = &(u8, Contact<A>)> {
        self.fingers.iter()
    }

    /// Iterates over all known nodes; some occur more than once.
    fn all(&self) -> impl Iterator<Item = &Contact<A>> {
        let fingers = self.fingers.iter().map(|(_, node)| node);
        self.successors.iter().chain(fingers).chain(&self.predecessor)
    }

    /// Returns the contact of a known node.
    pub(super) fn find(&self, id: &PeerId) -> Option<&Contact<A>> {
        self.all().find(|node| node.id == *id)
    }

    /// Returns the known node with the shortest distance to an id, if it is shorter than this node's.
    pub(super) fn next_hop(&self, id: &PeerId) -> Option<&Contact<A>> {
        let nearest = self.all().min_by_key(|node| between(&node.id, id))?;
        (between(&nearest.id, id) < between(&self.own, id)).then_some(nearest)
    }

    /// Returns whether this node succeeds the key, as far as it knows.
    pub(super) fn owns(&self, key: &PeerId) -> bool {
        match &self.predecessor {
            Some(predecessor) => super::distance::in_half_open(key, &predecessor.id, &self.own),
            None => self.successors.is_empty(),
        }
    }

    /// Returns up to `count` known nodes that precede a key, the nearest first, after the nearest `skip`.
    pub(super) fn preceding(&self, key: &PeerId, skip: usize, count: usize) -> Vec<&Contact<A>> {
        let zero = [0; 32];
        // A node that is nearer to the key than this node is between the two. The arc from a key to itself is
        // the whole circle.
        let reach = between(&self.own, key);
        let known = self
            .successors
            .iter()
            .chain(self.fingers.iter().map(|(_, node)| node));
        let mut nodes: Vec<_> = known
            .map(|node| (between(&node.id, key), node))
            .filter(|(distance, node)| {
                *distance != zero && node.id != self.own && (*distance < reach || reach == zero)
            })
            .collect();
        nodes.sort_unstable_by_key(|(distance, _)| *distance);
        nodes.dedup_by_key(|(distance, _)| *distance);
        let nodes = nodes.into_iter().skip(skip).take(count);
        nodes.map(|(_, node)| node).collect()
    }

    /// Sets the successor list, as far as the nodes are in the order of the circle. Returns whether it
    /// changed.
    pub(super) fn set_successors(&mut self, nodes: impl IntoIterator<Item = Contact<A>>) -> bool {
        let mut list: Vec<Contact<A>> = Vec::with_capacity(self.successors.len());
        let mut reached = [0; 32];
        for node in nodes {
            let distance = between(&self.own, &node.id);
            // The list of a node just before this one ends with this node and its successors.
            if distance <= reached || list.len() == self.max {
                break;
            }
            reached = distance;
            list.push(node);
        }
        let changed = list != self.successors;
        self.successors = list;
        changed
    }

    /// Inserts a node into the successor list. Returns whether it is the new successor.
    pub(super) fn add_successor(&mut self, node: Contact<A>) -> bool {
        if node.id == self.own || self.successors.iter().any(|known| known.id == node.id) {
            return false;
        }
        let distance = between(&self.own, &node.id);
        let at = self
            .successors
            .partition_point(|known| between(&self.own, &known.id) < distance);
        self.successors.insert(at, node);
        self.successors.truncate(self.max);
        at == 0
    }

    /// Returns the finger with this number, if it is known.
    pub(super) fn finger(&self, bit: u8) -> Option<&Contact<A>> {
        let (_, node) = self.fingers.iter().rfind(|(lowest, _)| *lowest <= bit)?;
        (bit_beyond(&between(&self.own, &node.id)) > u16::from(bit)).then_some(node)
    }

    /// Sets a finger: the node that succeeds 2 to the power of `bit` after this one. Returns the number of
    /// the next finger to look up.
    pub(super) fn set_finger(&mut self, bit: u8, node: Option<Contact<A>>) -> u16 {
        let next = match &node {
            Some(node) => bit_beyond(&between(&self.own, &node.id)).max(u16::from(bit) + 1),
            // The whole rest of the circle belongs to this node.
            None => 256,
        };
        self.fingers
            .retain(|(other, _)| *other < bit || u16::from(*other) >= next);
        if let Some(node) = node {
            let at = self.fingers.partition_point(|(other, _)| *other < bit);
            self.fingers.insert(at, (bit, node));
        }
        next
    }

    /// Returns the number of the first finger beyond the successor, and forgets lower ones.
    pub(super) fn first_finger(&mut self) -> Option<u8> {
        let distance = between(&self.own, &self.successor()?.id);
        let first = bit_beyond(&distance);
        self.fingers.retain(|(bit, _)| u16::from(*bit) >= first);
        u8::try_from(first).ok()
    }

    /// Forgets a node that does not answer. Returns whether the successor list became empty and was refilled
    /// with a finger or the predecessor.
    pub(super) fn forget(&mut self, id: &PeerId) -> bool {
        let had = !self.successors.is_empty();
        self.successors.retain(|node| node.id != *id);
        self.fingers.retain(|(_, node)| node.id != *id);
        self.predecessor.take_if(|node| node.id == *id);
        if !had || !self.successors.is_empty() {
            return false;
        }
        let own = &self.own;
        let others = self.fingers.iter().map(|(_, node)| node).chain(&self.predecessor);
        let nearest = others.min_by_key(|node| between(own, &node.id)).cloned();
        self.successors.extend(nearest);
        !self.successors.is_empty()
    }

    /// Returns the arc of keys that this node succeeds, from its predecessor to itself.
    pub(super) fn own_range(&self) -> Option<(PeerId, PeerId)> {
        self.predecessor.as_ref().map(|node| (node.id, self.own))
    }
}
