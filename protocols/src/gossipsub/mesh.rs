//! Topic membership and meshes: gossipsub v1.0 "Topic Membership", v1.1 "PRUNE Backoff".

use std::collections::BTreeSet;
use std::time::Duration;

use p2p::{Addr, Result};
use rand::RngExt as _;
use rand::seq::{IndexedRandom, SliceRandom};

use super::engine::Engine;
use super::event::Event;
use super::peer::{PeerKey, Version};
use super::queue::Priority;
use super::score::Standing;
use super::topic::Topic;
use super::wire::{ControlGraft, ControlMessage, ControlPrune, PeerInfo};

impl<A: Addr> Engine<A> {
    /// Subscribes to a topic: announces it to all peers and builds a mesh. Returns `false` if it was already
    /// subscribed.
    ///
    /// # Errors
    /// [`Error::Invalid`](p2p::Error) if the name is empty or longer than
    /// [`Limits::topic`](super::wire::Limits). Nothing changes.
    pub fn subscribe(&mut self, now: Duration, name: &str) -> Result<bool> {
        self.codec.check_topic(name)?;
        let topic = self.intern(name);
        let state = self.topics.entry(topic.clone()).or_default();
        if std::mem::replace(&mut state.joined, true) {
            return Ok(false);
        }
        let fanout = state.fanout.take().map(|(peers, _)| peers).unwrap_or_default();
        if let Some(every) = self.scores.idle_graft_every() {
            state.next_idle = now.saturating_add(self.rng.random_range(Duration::ZERO..=every));
        }
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in keys {
            self.announce(now, key, std::slice::from_ref(&topic), true);
        }
        self.note_change(&topic);
        let mut chosen: Vec<PeerKey> = self.graftable(now, &topic, |key| fanout.contains(&key));
        chosen.truncate(self.config.d);
        let wanted = self.config.d - chosen.len();
        let mut others = self.graftable(now, &topic, |key| !fanout.contains(&key));
        others.truncate(wanted);
        for key in chosen.into_iter().chain(others) {
            self.graft(now, key, &topic);
        }
        Ok(true)
    }

    /// Unsubscribes from a topic: announces it to all peers and prunes the mesh. Returns `false` if it was
    /// not subscribed.
    pub fn unsubscribe(&mut self, now: Duration, name: &str) -> bool {
        let Some(state) = self.topics.get_mut(name).filter(|state| state.joined) else {
            return false;
        };
        state.joined = false;
        let topic = Topic::from(name);
        let mesh: Vec<PeerKey> = state.mesh.iter().copied().collect();
        for key in mesh {
            self.prune(now, key, &topic, self.config.unsubscribe_backoff, true);
        }
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in keys {
            self.announce(now, key, std::slice::from_ref(&topic), false);
        }
        self.note_change(&topic);
        self.forget_topic(name);
        true
    }

    /// Returns the shared string of a topic, if the topic is known.
    pub(super) fn intern(&self, name: &str) -> Topic {
        let known = self.topics.get_key_value(name);
        known.map_or_else(|| Topic::from(name), |(topic, _)| topic.clone())
    }

    /// Returns the peers that can be grafted into a mesh, in random order: subscribers without a negative
    /// score that are routers, not explicit, not in the mesh and not in a backoff.
    pub(super) fn graftable(
        &mut self,
        now: Duration,
        topic: &Topic,
        mut pick: impl FnMut(PeerKey) -> bool,
    ) -> Vec<PeerKey> {
        let Some(state) = self.topics.get(topic) else {
            return Vec::new();
        };
        // The other side counts from the receipt of the PRUNE, and clears backoffs at its heartbeat.
        let slack = self.config.heartbeat_interval.saturating_mul(2);
        let candidates = state.subscribers.difference(&state.mesh).copied();
        let mut keys: Vec<PeerKey> = candidates
            .filter(|key| {
                let fits = self.peers.get(key).is_some_and(|peer| {
                    let backoff = self.backoffs.until(&peer.identity, topic);
                    let rests = backoff.is_some_and(|until| until.saturating_add(slack) > now);
                    peer.is_router() && !peer.explicit && !rests
                });
                fits && pick(*key) && self.scores.score(now, *key) >= 0.0
            })
            .collect();
        keys.shuffle(&mut self.rng);
        keys
    }

    /// Returns whether a mesh has no place for an inbound peer. Places beyond `d_lo` are for newcomers and
    /// for peers that delivered a message. An idle peer gets one of them now and then, because an honest peer
    /// may have had nothing to send.
    pub(super) fn is_mesh_full(&mut self, now: Duration, key: PeerKey, topic: &Topic) -> bool {
        let Some(state) = self.topics.get_mut(topic) else {
            return true;
        };
        let len = state.mesh.len();
        let is_idle = || self.scores.standing(now, key, topic) == Standing::Idle;
        if len < self.config.d_lo || len >= self.config.d_hi || !is_idle() {
            return len >= self.config.d_hi;
        }
        if state.next_idle > now {
            return true;
        }
        let every = self.scores.idle_graft_every().unwrap_or_default();
        state.next_idle = now.saturating_add(every);
        false
    }

    /// Adds a peer to a mesh and notifies it.
    pub(super) fn graft(&mut self, now: Duration, key: PeerKey, topic: &Topic) {
        self.join_mesh(now, key, topic);
        self.push_control(
            now,
            key,
            Priority::Control,
            ControlMessage {
                graft: vec![ControlGraft {
                    topic_id: Some(topic.to_string()),
                }],
                ..ControlMessage::default()
            },
        );
    }

    /// Removes a peer from a mesh and notifies it. Neither side may graft the other during the backoff.
    pub(super) fn prune(
        &mut self,
        now: Duration,
        key: PeerKey,
        topic: &Topic,
        backoff: Duration,
        exchange: bool,
    ) {
        self.leave_mesh(now, key, topic);
        let Some(peer) = self.peers.get(&key) else { return };
        self.backoffs
            .set(&peer.identity, topic, now.saturating_add(backoff));
        let (is_v1_1, others) = (
            peer.version >= Version::V1_1,
            exchange && self.config.peer_exchange,
        );
        let mut prune = ControlPrune {
            topic_id: Some(topic.to_string()),
            ..ControlPrune::default()
        };
        if is_v1_1 {
            prune.backoff = Some(backoff.as_secs());
            if others && self.scores.score(now, key) >= 0.0 {
                prune.peers = self.others(now, key, topic);
            }
        }
        self.push_control(
            now,
            key,
            Priority::Control,
            ControlMessage {
                prune: vec![prune],
                ..ControlMessage::default()
            },
        );
    }

    pub(super) fn join_mesh(&mut self, now: Duration, key: PeerKey, topic: &Topic) {
        let Some(peer) = self.peers.get(&key) else { return };
        let Some(state) = self.topics.get_mut(topic) else {
            return;
        };
        if state.joined && state.subscribers.contains(&key) && state.mesh.insert(key) {
            let (peer, topic) = (peer.addr.clone(), topic.clone());
            self.scores.graft(now, key, &topic);
            self.events.push_back(Event::Grafted { peer, topic });
        }
    }

    pub(super) fn leave_mesh(&mut self, now: Duration, key: PeerKey, topic: &Topic) {
        let Some(peer) = self.peers.get(&key) else { return };
        if self
            .topics
            .get_mut(topic)
            .is_some_and(|state| state.mesh.remove(&key))
        {
            let (peer, topic) = (peer.addr.clone(), topic.clone());
            self.scores.prune(now, key, &topic);
            self.events.push_back(Event::Pruned { peer, topic });
        }
    }

    /// Returns some subscribers in good standing, for the peer exchange of a PRUNE.
    fn others(&mut self, now: Duration, than: PeerKey, topic: &Topic) -> Vec<PeerInfo> {
        let subscribers = self.topics.get(topic).map(|state| &state.subscribers);
        let infos: Vec<PeerInfo> = subscribers
            .into_iter()
            .flatten()
            .filter(|key| **key != than && self.scores.score(now, **key) >= 0.0)
            .filter_map(|key| self.peers.get(key)?.info.clone())
            .collect();
        let chosen = infos.sample(&mut self.rng, self.config.prune_peers);
        let mut chosen: Vec<PeerInfo> = chosen.cloned().collect();
        let lens = chosen.iter().map(prost::Message::encoded_len);
        chosen.truncate(
            self.fitting(std::iter::once(topic.len()).chain(lens))
                .saturating_sub(1),
        );
        chosen
    }

    /// Returns the number of outbound peers among these.
    pub(super) fn outbound(&self, keys: &BTreeSet<PeerKey>) -> usize {
        let outbound = |key: &&PeerKey| self.peers.get(key).is_some_and(|peer| peer.outbound);
        keys.iter().filter(outbound).count()
    }
}
