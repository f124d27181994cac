//! Chooses what a full inbox drops: a message of the source with the most waiting messages.
//!
//! Networks share a full inbox, and the nodes of a network share what their network gets. The messages of each are counted
//! from when the inbox is full until half of what waited then is read. So an inbox that is not full pays nothing, and one that
//! is full pays for counting all of it once in many messages.
//!
//! Of [`SAMPLE`] waiting messages, picked at random, one of the source with the most makes room for the new message, unless
//! the new message's own source would have more than that. Looking at all of them would make a flood cost several times as
//! much. A source with half of the messages is missed once in 65,536 times.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::mem;

use p2p::Addr;
use p2p_protocols::hash::HashMap;
use p2p_protocols::overlay::Prefix;

use super::queued::charge;
use super::{Limits, Queued};

/// Waiting messages that are looked at to find one of the source with the most.
const SAMPLE: usize = 16;

/// The part of a full inbox that any source may have beside sources that have no more than that. Otherwise a source that goes
/// on to send would have less than one that makes a new name up for each message.
const LITTLE: usize = 32;

/// The hash of a source: its network and its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    network: u64,
    node: u64,
}

impl Source {
    /// Hashes the source at `addr`. Its node is the identity that `addr` names, or else `addr` itself; its network is the
    /// [`Prefix`] of its IP address, or else its node.
    pub fn of<A: Addr>(addr: &A, hasher: &RandomState) -> Self {
        let node = match addr.peer_id() {
            Some(id) => hasher.hash_one(id),
            None => hasher.hash_one(addr),
        };
        let network = Prefix::of(addr).map_or(node, |prefix| hasher.hash_one(prefix));
        Self { network, node }
    }
}

/// What waits in a full inbox, by source.
#[derive(Debug)]
pub(super) struct Shares {
    hasher: RandomState,
    /// The source and the weight of each waiting item, in the order of the queue.
    waiting: VecDeque<(Source, u64)>,
    networks: HashMap<u64, u64>,
    nodes: HashMap<(u64, u64), u64>,
    /// The weight of all waiting items.
    total: u64,
    /// Items that waited when counting began.
    began_with: usize,
    random: u64,
}

impl Shares {
    pub(super) fn new<T: Queued>(queue: &VecDeque<T>, limits: &Limits) -> Box<Self> {
        let hasher = RandomState::new();
        let mut shares = Box::new(Self {
            waiting: VecDeque::with_capacity(queue.len()),
            networks: HashMap::default(),
            nodes: HashMap::default(),
            total: 0,
            began_with: queue.len(),
            random: hasher.hash_one(0) | 1,
            hasher,
        });
        for item in queue {
            shares.push(item, limits);
        }
        shares
    }

    /// Whether half of what waited is read, so that counting is no longer worth its cost.
    pub(super) fn is_over(&self) -> bool {
        self.waiting.len() < self.began_with / 2
    }

    /// Counts an item that was put at the end of the queue.
    pub(super) fn push<T: Queued>(&mut self, item: &T, limits: &Limits) {
        let (source, weight) = (item.source(&self.hasher), weight(item, limits));
        self.waiting.push_back((source, weight));
        self.add(source, weight);
    }

    fn add(&mut self, source: Source, weight: u64) {
        self.total = self.total.saturating_add(weight);
        *self.networks.entry(source.network).or_default() += weight;
        *self.nodes.entry((source.network, source.node)).or_default() += weight;
    }

    fn subtract(&mut self, source: Source, weight: u64) {
        self.total = self.total.saturating_sub(weight);
        subtract(&mut self.networks, &source.network, weight);
        subtract(&mut self.nodes, &(source.network, source.node), weight);
    }

    /// Puts a new item into the place of one that waits, and returns that one. Items of the new one's source that wait behind
    /// the place each move up to the one before, so that they stay in order.
    pub(super) fn replace<T: Queued>(
        &mut self,
        queue: &mut VecDeque<T>,
        place: usize,
        item: T,
        limits: &Limits,
    ) -> Option<T> {
        let (own, weight) = (item.source(&self.hasher), weight(&item, limits));
        let mut last = place;
        if self.weights(own).1 > 0 {
            for behind in place + 1..self.waiting.len() {
                if self.waiting.get(behind).is_some_and(|(source, _)| *source == own) {
                    self.waiting.swap(last, behind);
                    queue.swap(last, behind);
                    last = behind;
                }
            }
        }
        let (source, old) = mem::replace(self.waiting.get_mut(last)?, (own, weight));
        self.subtract(source, old);
        self.add(own, weight);
        Some(mem::replace(queue.get_mut(last)?, item))
    }

    /// Forgets the items at the front of the queue.
    pub(super) fn pop(&mut self, count: usize) {
        for _ in 0..count {
            self.remove(0);
        }
    }

    /// Forgets the item at a place of the queue.
    pub(super) fn remove(&mut self, place: usize) {
        if let Some((source, weight)) = self.waiting.remove(place) {
            self.subtract(source, weight);
        }
    }

    /// The place of the waiting item that makes room for a new one, if one should.
    pub(super) fn victim<T: Queued>(&mut self, item: &T, limits: &Limits) -> Option<usize> {
        let (own, weight) = (item.source(&self.hasher), weight(item, limits));
        let (network, node) = self.weights(own);
        if node > self.total / 2 {
            // No other has as much.
            return None;
        }
        let mut most: Option<((u64, u64), Source, usize)> = None;
        for _ in 0..SAMPLE {
            let place = self.random_place();
            let (source, _) = *self.waiting.get(place)?;
            let weights = self.weights(source);
            if most.is_none_or(|(most, ..)| weights > most) {
                most = Some((weights, source, place));
            }
        }
        let (weights, source, place) = most?;
        // Where both would have the same, or little, the random choice decides, and not the order of arrival.
        let little = (limits.items / LITTLE) as u64;
        let has_more = if source.network == own.network {
            source.node != own.node && weights.1.max(little) >= node + weight
        } else {
            weights.0.max(little) >= network + weight
        };
        has_more.then_some(place)
    }

    /// The weights of a source's network and of its node.
    fn weights(&self, source: Source) -> (u64, u64) {
        let network = self.networks.get(&source.network).copied();
        let node = self.nodes.get(&(source.network, source.node)).copied();
        (network.unwrap_or(0), node.unwrap_or(0))
    }

    /// A place in the queue, by the generator xorshift64.
    fn random_place(&mut self) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let place = self.random % self.waiting.len().max(1) as u64;
        usize::try_from(place).unwrap_or(0)
    }

    /// Checks that the counts are those of what waits.
    #[cfg(test)]
    pub(super) fn check<T: Queued>(&self, queue: &VecDeque<T>, limits: &Limits) {
        assert_eq!(self.waiting.len(), queue.len());
        let (mut networks, mut nodes) = (HashMap::default(), HashMap::default());
        for (item, counted) in queue.iter().zip(&self.waiting) {
            let (source, weight) = (item.source(&self.hasher), weight(item, limits));
            assert_eq!((source, weight), *counted);
            *networks.entry(source.network).or_default() += weight;
            *nodes.entry((source.network, source.node)).or_default() += weight;
        }
        assert_eq!((&networks, &nodes), (&self.networks, &self.nodes));
        assert_eq!(self.total, networks.values().sum::<u64>());
    }
}

/// Subtracts from a count, and forgets it at zero.
fn subtract<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u64>, key: &K, weight: u64) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(weight);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// What an item weighs: 1, and 1 more for each average item's part of the bytes that it is charged. So a few bytes more do not
/// make a difference between sources.
fn weight<T: Queued>(item: &T, limits: &Limits) -> u64 {
    let average = (limits.bytes / limits.items.max(1)).max(1);
    1 + (charge(item) / average) as u64
}
