//! Accessors for an engine's state.

use std::collections::BTreeSet;
use std::time::Duration;

use p2p::Addr;

use super::config::Config;
use super::engine::Engine;
use super::event::Counts;
use super::peer::PeerKey;
use super::topic::Topic;

/// Sizes of an engine's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Topics with a subscriber or local interest.
    pub topics: usize,
    /// Messages that are recognised as duplicates.
    pub seen: usize,
    /// Messages that wait for the application's decision.
    pub validating: usize,
    /// Messages in the message cache.
    pub cached: usize,
    /// Total bytes of these messages.
    pub cached_bytes: usize,
    /// RPCs in the queues of peers.
    pub queued: usize,
    /// Total bytes of these RPCs. Copies of one message share memory.
    pub queued_bytes: usize,
    /// Backoffs.
    pub backoffs: usize,
    /// Messages requested from peers.
    pub promises: usize,
}

impl<A: Addr> Engine<A> {
    /// Returns the configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the counters since the engine was created.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the score of a peer; 0 for an address that is not a peer.
    pub fn score(&self, now: Duration, addr: &A) -> f64 {
        let key = self.keys.get(addr);
        key.map_or(0.0, |key| self.scores.score(now, *key))
    }

    /// Iterates over the peers.
    pub fn peers(&self) -> impl Iterator<Item = &A> {
        self.peers.values().map(|peer| &peer.addr)
    }

    /// Returns whether an address is a peer.
    pub fn is_peer(&self, addr: &A) -> bool {
        self.keys.contains_key(addr)
    }

    /// Iterates over the topics that this node has subscribed to.
    pub fn subscriptions(&self) -> impl Iterator<Item = &Topic> {
        let joined = self.topics.iter().filter(|(_, state)| state.joined);
        joined.map(|(topic, _)| topic)
    }

    /// Iterates over the peers that have subscribed to a topic.
    pub fn subscribers(&self, topic: &str) -> impl Iterator<Item = &A> {
        let keys = self.topics.get(topic).map(|state| &state.subscribers);
        self.addrs(keys)
    }

    /// Iterates over the mesh of a topic.
    pub fn mesh(&self, topic: &str) -> impl Iterator<Item = &A> {
        let keys = self.topics.get(topic).map(|state| &state.mesh);
        self.addrs(keys)
    }

    /// Iterates over the fanout of a topic.
    pub fn fanout(&self, topic: &str) -> impl Iterator<Item = &A> {
        let fanout = self.topics.get(topic).and_then(|state| state.fanout.as_ref());
        self.addrs(fanout.map(|(keys, _)| keys))
    }

    /// Returns the sizes of the engine's state, for comparison with its limits.
    pub fn kept(&self) -> Kept {
        let (cached, cached_bytes) = self.cache.len();
        let waiting = self.peers.values().map(|peer| peer.queue.len());
        let (queued, queued_bytes) = waiting.fold((0, 0), |sum, len| (sum.0 + len.0, sum.1 + len.1));
        Kept {
            topics: self.topics.len(),
            seen: self.seen.len(),
            validating: self.validating.len(),
            cached,
            cached_bytes,
            queued,
            queued_bytes,
            backoffs: self.backoffs.len(),
            promises: self.promises.len(),
        }
    }

    fn addrs<'a>(&'a self, keys: Option<&'a BTreeSet<PeerKey>>) -> impl Iterator<Item = &'a A> {
        let peers = keys.into_iter().flatten().filter_map(|key| self.peers.get(key));
        peers.map(|peer| &peer.addr)
    }
}
