//! Messages that wait for the application's decision, shared between networks and peers.
//!
//! When they are full, [`SAMPLE`] random ones are compared, and the one of the network with the most waiting messages is
//! removed, among those the one of the peer with the most. Comparing all of them would cost a flood's victim much more than
//! the flood. A source with half of the messages is missed once in 65,536 times.

use std::time::Duration;

use bytes::Bytes;
use p2p::Addr;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::fifo::FifoMap;
use super::message_id::MessageId;
use super::peer::PeerKey;
use super::topic::Topic;
use crate::hash::HashMap;
use crate::overlay::Prefix;

/// Waiting messages that are compared to find one of the source with the most.
const SAMPLE: usize = 16;

/// A message that waits for the application's decision.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) topic: Topic,
    pub(super) frame: Bytes,
    source: Source,
    /// The time at which it is ignored.
    end: Duration,
}

/// The peer that delivered a message first, and its network. A peer without an IP address is a network of its own.
#[derive(Clone, Copy, Debug)]
struct Source {
    network: Network,
    peer: PeerKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Network {
    Prefix(Prefix),
    Peer(PeerKey),
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Validating {
    /// All wait equally long, so the oldest ends first.
    messages: FifoMap<MessageId, Waiting>,
    of_network: HashMap<Network, usize>,
    of_peer: HashMap<PeerKey, usize>,
    timeout: Duration,
    max: usize,
}

impl Validating {
    pub(super) fn new(timeout: Duration, max: usize) -> Self {
        Self {
            messages: FifoMap::default(),
            of_network: HashMap::default(),
            of_peer: HashMap::default(),
            timeout,
            max: max.max(1),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Adds a message that the peer at `addr` delivered. Returns how many messages were removed for it.
    pub(super) fn insert<A: Addr>(
        &mut self,
        now: Duration,
        rng: &mut StdRng,
        id: MessageId,
        (topic, frame): (Topic, Bytes),
        (peer, addr): (PeerKey, &A),
    ) -> usize {
        let before = self.len();
        while self.len() >= self.max && self.remove_of_most(rng) {}
        let removed = before - self.len();
        let network = Prefix::of(addr).map_or(Network::Peer(peer), Network::Prefix);
        let waiting = Waiting {
            topic,
            frame,
            source: Source { network, peer },
            end: now.saturating_add(self.timeout),
        };
        if self.messages.push(id, waiting) {
            *self.of_network.entry(network).or_default() += 1;
            *self.of_peer.entry(peer).or_default() += 1;
        }
        removed
    }

    /// Removes a message, if it waits.
    pub(super) fn remove(&mut self, id: &MessageId) -> Option<Waiting> {
        let waiting = self.messages.remove(id)?;
        self.uncount(waiting.source);
        Some(waiting)
    }

    /// Removes messages whose decision timed out. Returns their number.
    pub(super) fn expire(&mut self, now: Duration) -> usize {
        let before = self.len();
        while self
            .messages
            .first()
            .is_some_and(|(_, waiting)| waiting.end <= now)
            && let Some((_, waiting)) = self.messages.pop_first()
        {
            self.uncount(waiting.source);
        }
        before - self.len()
    }

    /// Removes a message of the source with the most, as far as a sample shows. Returns whether a message was there.
    fn remove_of_most(&mut self, rng: &mut StdRng) -> bool {
        let places = self.messages.places();
        let count = |source: Source| {
            let network = self.of_network.get(&source.network);
            (network.copied(), self.of_peer.get(&source.peer).copied())
        };
        // Up to half of the places are vacant.
        let sample = (0..2 * SAMPLE).filter_map(|_| self.messages.at(rng.random_range(0..places.max(1))));
        let most = sample.max_by_key(|(_, waiting)| count(waiting.source));
        let id = most
            .or_else(|| self.messages.iter().next())
            .map(|(id, _)| id.clone());
        id.is_some_and(|id| self.remove(&id).is_some())
    }

    fn uncount(&mut self, source: Source) {
        uncount(&mut self.of_network, &source.network);
        uncount(&mut self.of_peer, &source.peer);
    }
}

/// Subtracts one, and removes a count of zero.
fn uncount<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use std::net::SocketAddr;

    #[test]
    fn counts_follow_what_waits() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut validating = Validating::new(Duration::from_secs(30), 50);
        for step in 0..10_000_u32 {
            let (now, peer) = (Duration::from_millis(u64::from(step)), rng.random_range(0..40_u8));
            let addr = SocketAddr::from(([8, 8, peer % 9, peer], 1));
            let id = MessageId::from(Bytes::copy_from_slice(&rng.random_range(0..200_u8).to_be_bytes()));
            if rng.random_bool(0.7) {
                let message = (Topic::from("t"), Bytes::new());
                validating.insert(now, &mut rng, id, message, (PeerKey(u64::from(peer)), &addr));
            } else {
                validating.remove(&id);
            }
            if rng.random_bool(0.01) {
                validating.expire(now);
            }
            let mut of_network = HashMap::default();
            let mut of_peer = HashMap::default();
            for (_, waiting) in validating.messages.iter() {
                *of_network.entry(waiting.source.network).or_insert(0) += 1;
                *of_peer.entry(waiting.source.peer).or_insert(0) += 1;
            }
            assert_eq!(
                (&of_network, &of_peer),
                (&validating.of_network, &validating.of_peer)
            );
            assert!(validating.len() <= 50);
        }
    }
}
