//! Control messages and their limits: IHAVE, IWANT, GRAFT, PRUNE, IDONTWANT.
//!
//! gossipsub v1.0 "Control Messages", v1.1 "Spam Protection Measures", v1.2 "IDONTWANT Message".

use std::collections::BTreeSet;
use std::hash::BuildHasher as _;
use std::time::Duration;

use p2p::Addr;
use rand::seq::{IndexedRandom, SliceRandom};

use super::engine::Engine;
use super::event::Event;
use super::message_cache::Asker;
use super::message_id::MessageId;
use super::peer::{PeerKey, Version, hash_of};
use super::queue::Priority;
use super::topic::Topic;
use super::wire::{ControlGraft, ControlIDontWant, ControlIHave, ControlIWant, ControlMessage, ControlPrune};
use crate::overlay::Prefix;

impl<A: Addr> Engine<A> {
    pub(super) fn handle_control(&mut self, now: Duration, key: PeerKey, control: ControlMessage) {
        let threshold = self.scores.config().map(|config| config.gossip_threshold);
        let gossips = threshold.is_none_or(|threshold| self.scores.score(now, key) >= threshold);
        if gossips {
            self.handle_ihave(now, key, control.ihave);
            self.handle_iwant(now, key, control.iwant);
        } else {
            self.counts.ihave_ignored += control.ihave.len() as u64;
        }
        self.handle_graft(now, key, &control.graft);
        self.handle_prune(now, key, control.prune);
        self.handle_idontwant(now, key, control.idontwant);
    }

    fn handle_ihave(&mut self, now: Duration, key: PeerKey, ihave: Vec<ControlIHave>) {
        let config = &self.config;
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if ihave.is_empty() {
            return;
        }
        peer.usage.ihaves += 1;
        let room = config.max_ihave_length.saturating_sub(peer.usage.asked);
        if peer.usage.ihaves > config.max_ihave_messages || room == 0 {
            self.counts.ihave_ignored += ihave.len() as u64;
            return;
        }
        let mut wanted = BTreeSet::new();
        for have in ihave {
            let joined = self.topics.get(have.topic_id()).is_some_and(|state| state.joined);
            let ids = have.message_ids.into_iter().take(config.max_ihave_length);
            for id in ids.filter(|_| joined) {
                if !self.seen.contains_at(now, &id[..]) {
                    wanted.insert(MessageId::copy_from_slice(&id));
                }
            }
        }
        let mut wanted: Vec<MessageId> = wanted.into_iter().collect();
        wanted.shuffle(&mut self.rng);
        wanted.truncate(room);
        // The ids that do not fit are requested when they are announced again.
        wanted.truncate(self.fitting(wanted.iter().map(|id| id.len())));
        let Some(promise) = wanted.choose(&mut self.rng).cloned() else {
            return;
        };
        let config = &self.config;
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        peer.usage.asked += wanted.len();
        self.counts.iwant_sent += wanted.len() as u64;
        let overdue = now.saturating_add(config.iwant_followup_time);
        let promises = self.promises.entry(promise).or_default();
        promises.entry(key).or_insert(overdue);
        self.push_control(
            now,
            key,
            Priority::Gossip,
            ControlMessage {
                iwant: vec![ControlIWant {
                    message_ids: wanted.iter().map(MessageId::to_bytes).collect(),
                }],
                ..ControlMessage::default()
            },
        );
    }

    fn handle_iwant(&mut self, now: Duration, key: PeerKey, iwant: Vec<ControlIWant>) {
        let ids = iwant.into_iter().flat_map(|want| want.message_ids);
        let ids: BTreeSet<MessageId> = ids.map(MessageId::from).collect();
        let Some(peer) = self.peers.get(&key) else {
            return;
        };
        let network = Prefix::of(&peer.addr);
        let asker = Asker {
            identity: self.number_of(&peer.identity),
            network: network.map(|network| (self.keys.hasher().hash_one(network) as u32, network)),
            is_chosen: peer.outbound || peer.explicit,
        };
        for id in ids {
            let limit = self.config.gossip_retransmission;
            if let Some(frame) = self.cache.get_for(&id, asker, limit) {
                self.counts.iwant_served += 1;
                self.counts.copies += 1;
                self.push_message(now, key, Priority::Forwarded, frame, Some(id));
            }
        }
    }

    /// Processes each topic once, however often it is named.
    fn handle_graft(&mut self, now: Duration, key: PeerKey, graft: &[ControlGraft]) {
        let named: BTreeSet<&str> = graft.iter().map(ControlGraft::topic_id).collect();
        for name in named {
            // GRAFTs for topics that are not joined get no answer, so that no peer can provoke one.
            let joined = self.topics.get_key_value(name).filter(|(_, state)| state.joined);
            let Some((topic, state)) = joined else { continue };
            if state.mesh.contains(&key) {
                continue;
            }
            let topic = topic.clone();
            let Some(peer) = self.peers.get_mut(&key) else {
                return;
            };
            if !state.subscribers.contains(&key) {
                // The subscription was lost or is still in flight; the GRAFT implies it.
                if peer.topics.len() >= self.config.max_topics_per_peer {
                    self.counts.subscriptions_ignored += 1;
                    continue;
                }
                peer.topics.insert(topic.clone());
                let addr = peer.addr.clone();
                if let Some(state) = self.topics.get_mut(&topic) {
                    state.subscribers.insert(key);
                }
                let topic = topic.clone();
                self.events.push_back(Event::Subscribed { peer: addr, topic });
            }
            let (outbound, explicit) = (peer.outbound, peer.explicit);
            let until = self
                .backoffs
                .until(&peer.identity, &topic)
                .filter(|until| *until > now);
            let backoff = self.config.prune_backoff;
            if let Some(until) = until {
                let soon = now.saturating_add(backoff);
                let is_flood = soon < until.saturating_add(self.config.graft_flood_threshold);
                self.scores.penalize(key, 1 + u32::from(is_flood));
            }
            let is_low = self.scores.score(now, key) < 0.0;
            let is_refused = explicit || until.is_some() || is_low;
            let is_full = !is_refused && !outbound && self.is_mesh_full(now, key, &topic);
            if is_refused || is_full {
                self.counts.graft_refused += 1;
                self.prune(now, key, &topic, backoff, is_full);
            } else {
                self.join_mesh(now, key, &topic);
            }
        }
    }

    fn handle_prune(&mut self, now: Duration, key: PeerKey, prune: Vec<ControlPrune>) {
        let mut named = BTreeSet::new();
        for prune in prune {
            let joined = self.topics.get_key_value(prune.topic_id());
            let Some((topic, _)) = joined.filter(|(_, state)| state.joined) else {
                continue;
            };
            let topic: Topic = topic.clone();
            if !named.insert(topic.clone()) {
                continue;
            }
            self.leave_mesh(now, key, &topic);
            let Some(peer) = self.peers.get(&key) else { return };
            // Clamp the peer's value, so that it can be added to a time without overflow.
            let backoff = match prune.backoff.filter(|seconds| *seconds > 0) {
                Some(seconds) => Duration::from_secs(seconds).min(self.config.max_backoff),
                None => self.config.prune_backoff,
            };
            self.backoffs
                .set(&peer.identity, &topic, now.saturating_add(backoff));
            if prune.peers.is_empty() {
                continue;
            }
            let least = self
                .scores
                .config()
                .map_or(0.0, |config| config.accept_px_threshold);
            let is_trusted = self.scores.score(now, key) >= least || peer.explicit;
            let offered = prune.peers.len();
            let taken = if is_trusted {
                offered.min(self.config.prune_peers)
            } else {
                0
            };
            self.counts.exchange_ignored += (offered - taken) as u64;
            if taken > 0 {
                let peers = prune.peers.into_iter().take(taken).collect();
                let peer = peer.addr.clone();
                self.events.push_back(Event::PeerExchange { peer, topic, peers });
            }
        }
    }

    fn handle_idontwant(&mut self, now: Duration, key: PeerKey, idontwant: Vec<ControlIDontWant>) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if peer.version < Version::V1_2 {
            return;
        }
        for id in idontwant.into_iter().flat_map(|dont| dont.message_ids) {
            if peer.usage.idontwants >= self.config.max_idontwant_messages {
                self.counts.idontwant_ignored += 1;
                continue;
            }
            peer.usage.idontwants += 1;
            let hash = hash_of(self.keys.hasher(), &id);
            peer.dont_send.insert(now, hash, ());
        }
    }
}
