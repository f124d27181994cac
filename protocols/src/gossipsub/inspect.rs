//! What an engine lets others see of itself.

use std::collections::BTreeSet;
use std::time::Duration;

use p2p::Addr;

use super::config::Config;
use super::engine::Engine;
use super::event::Counts;
use super::peer::PeerKey;
use super::topic::Topic;

/// How much an engine keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Topics that somebody wants.
    pub topics: usize,
    /// Messages that are known again.
    pub seen: usize,
    /// Messages that wait for the application.
    pub validating: usize,
    /// Messages in the message cache.
    pub cached: usize,
    /// Their bytes.
    pub cached_bytes: usize,
    /// RPCs that wait for peers.
    pub queued: usize,
    /// Their bytes. Copies of one message share them.
    pub queued_bytes: usize,
    /// Backoffs.
    pub backoffs: usize,
    /// Messages that were asked of others.
    pub promises: usize,
}

impl<A: Addr> Engine<A> {
    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What was done and refused so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// A peer's score; 0 for who is no peer.
    pub fn score(&self, now: Duration, addr: &A) -> f64 {
        let key = self.keys.get(addr);
        key.map_or(0.0, |key| self.scores.score(now, *key))
    }

    /// The peers.
    pub fn peers(&self) -> impl Iterator<Item = &A> {
        self.peers.values().map(|peer| &peer.addr)
    }

    /// Whether this is the address of a peer.
    pub fn is_peer(&self, addr: &A) -> bool {
        self.keys.contains_key(addr)
    }

    /// The topics that this node subscribed to.
    pub fn subscriptions(&self) -> impl Iterator<Item = &Topic> {
        let joined = self.topics.iter().filter(|(_, state)| state.joined);
        joined.map(|(topic, _)| topic)
    }

    /// The peers that want a topic.
    pub fn subscribers(&self, topic: &str) -> impl Iterator<Item = &A> {
        let keys = self.topics.get(topic).map(|state| &state.subscribers);
        self.addrs(keys)
    }

    /// The mesh of a topic.
    pub fn mesh(&self, topic: &str) -> impl Iterator<Item = &A> {
        let keys = self.topics.get(topic).map(|state| &state.mesh);
        self.addrs(keys)
    }

    /// The fanout of a topic.
    pub fn fanout(&self, topic: &str) -> impl Iterator<Item = &A> {
        let fanout = self.topics.get(topic).and_then(|state| state.fanout.as_ref());
        self.addrs(fanout.map(|(keys, _)| keys))
    }

    /// How much is kept, to be held against the bounds.
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
