//! The heartbeat: maintains meshes, fanout and scores, and sends gossip.
//!
//! gossipsub v1.0 "Heartbeat", v1.1 "Heartbeat Maintenance", "Opportunistic Grafting", "Adaptive Gossip
//! Dissemination".

use std::collections::BTreeSet;
use std::time::Duration;

use p2p::Addr;
use rand::seq::SliceRandom;

use super::admission::Usage;
use super::engine::Engine;
use super::event::Event;
use super::message_id::MessageId;
use super::peer::PeerKey;
use super::queue::Priority;
use super::topic::Topic;
use super::wire::{ControlIHave, ControlMessage, Rpc};

impl<A: Addr> Engine<A> {
    /// Runs the heartbeat if it is due. Missed heartbeats are not made up for.
    pub fn handle_timeout(&mut self, now: Duration) {
        if now < self.next_heartbeat {
            return;
        }
        let interval = self.config.heartbeat_interval;
        self.next_heartbeat = self.next_heartbeat.saturating_add(interval);
        if self.next_heartbeat <= now {
            self.next_heartbeat = now.saturating_add(interval);
        }
        self.heartbeat(now);
    }

    fn heartbeat(&mut self, now: Duration) {
        self.ticks += 1;
        self.seen.expire(now);
        self.expire_validating(now);
        let kept = self.config.heartbeat_interval.saturating_mul(2);
        self.backoffs.expire(now.saturating_sub(kept));
        self.admission.heartbeat();
        for peer in self.peers.values_mut() {
            peer.usage = Usage::default();
            peer.dont_send.expire(now);
        }
        self.watch_peers(now);
        self.collect_promises(now);
        self.decay(now);
        let topics: Vec<Topic> = self.topics.keys().cloned().collect();
        for topic in &topics {
            if self.topics.get(topic).is_some_and(|state| state.joined) {
                self.maintain_mesh(now, topic);
            } else {
                self.maintain_fanout(now, topic);
            }
        }
        for topic in &topics {
            self.gossip(now, topic);
        }
        self.cache.shift();
        self.remind(now);
    }

    /// Penalises peers that did not send a requested message that they had announced (P7).
    fn collect_promises(&mut self, now: Duration) {
        let mut broken = Vec::new();
        self.promises.retain(|_, peers| {
            peers.retain(|key, overdue| {
                let is_broken = *overdue <= now;
                if is_broken {
                    broken.push(*key);
                }
                !is_broken
            });
            !peers.is_empty()
        });
        for key in broken {
            self.counts.broken_promises += 1;
            self.scores.penalize(key, 1);
        }
    }

    fn decay(&mut self, now: Duration) {
        let Some(every) = self.scores.config().map(|config| config.decay_interval) else {
            return;
        };
        // Bounds the work after a long pause; older decay intervals no longer matter.
        for _ in 0..64 {
            if self.next_decay > now {
                return;
            }
            self.next_decay = self.next_decay.saturating_add(every);
            self.scores.decay(now);
        }
        self.next_decay = now.saturating_add(every);
    }

    fn mesh_of(&self, topic: &Topic) -> BTreeSet<PeerKey> {
        let state = self.topics.get(topic);
        state.map(|state| state.mesh.clone()).unwrap_or_default()
    }

    /// Maintains the mesh of a topic. Afterwards it has at most `d_hi` peers, none with a negative score; if
    /// it had too few and others are available, it has at least `d`.
    fn maintain_mesh(&mut self, now: Duration, topic: &Topic) {
        let backoff = self.config.prune_backoff;
        for key in self.mesh_of(topic) {
            if self.scores.score(now, key) < 0.0 {
                self.prune(now, key, topic, backoff, false);
            }
        }
        let len = self.mesh_of(topic).len();
        if len < self.config.d_lo {
            let wanted = self.config.d.saturating_sub(len);
            self.graft_some(now, topic, wanted, |_, _| true);
        }
        let outbound = self.outbound(&self.mesh_of(topic));
        if outbound < self.config.d_out {
            let wanted = self.config.d_out - outbound;
            self.graft_some(now, topic, wanted, |engine, key| {
                engine.peers.get(&key).is_some_and(|peer| peer.outbound)
            });
        }
        let every = self.config.opportunistic_graft_ticks.max(1);
        if self.ticks.is_multiple_of(every) {
            self.graft_better(now, topic);
        }
        if self.mesh_of(topic).len() > self.config.d_hi {
            self.prune_surplus(now, topic);
        }
    }

    fn graft_some(
        &mut self,
        now: Duration,
        topic: &Topic,
        wanted: usize,
        pick: impl Fn(&Self, PeerKey) -> bool,
    ) {
        if wanted == 0 {
            return;
        }
        let mut keys = self.graftable(now, topic, |_| true);
        keys.retain(|key| pick(self, *key));
        // The order is random among peers of equal standing.
        keys.sort_by_cached_key(|key| self.scores.standing(now, *key, topic));
        for key in keys.into_iter().take(wanted) {
            self.graft(now, key, topic);
        }
    }

    /// If the median score of a mesh is low, grafts some peers with a score above the median.
    fn graft_better(&mut self, now: Duration, topic: &Topic) {
        let config = self.scores.config();
        let Some(threshold) = config.map(|config| config.opportunistic_graft_threshold) else {
            return;
        };
        let mesh = self.mesh_of(topic).into_iter();
        let mut scores: Vec<f64> = mesh.map(|key| self.scores.score(now, key)).collect();
        scores.sort_by(f64::total_cmp);
        let Some(median) = scores.get(scores.len() / 2).copied() else {
            return;
        };
        if scores.len() > 1 && median < threshold {
            let wanted = self.config.opportunistic_graft_peers;
            self.graft_some(now, topic, wanted, |engine, key| {
                engine.scores.score(now, key) > median
            });
        }
    }

    /// Prunes a mesh to `d` peers: the best `d_score` and random others, with at least `d_out` outbound ones.
    fn prune_surplus(&mut self, now: Duration, topic: &Topic) {
        let mesh: Vec<PeerKey> = self.mesh_of(topic).into_iter().collect();
        let mut ranked: Vec<(f64, PeerKey)> = mesh
            .into_iter()
            .map(|key| (self.scores.score(now, key), key))
            .collect();
        ranked.shuffle(&mut self.rng);
        ranked.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let mut keys: Vec<PeerKey> = ranked.into_iter().map(|(_, key)| key).collect();
        let best = self.config.d_score.min(keys.len());
        let mut rest = keys.split_off(best);
        rest.shuffle(&mut self.rng);
        keys.extend(rest);
        let mut dropped = keys.split_off(self.config.d.min(keys.len()));
        let is_outbound = |key: &PeerKey| self.peers.get(key).is_some_and(|peer| peer.outbound);
        let mut outbound = keys.iter().filter(|key| is_outbound(key)).count();
        // Outbound peers replace the random ones first, then the lower scored ones.
        for at in (0..keys.len()).rev() {
            if outbound >= self.config.d_out {
                break;
            }
            let (Some(kept), Some(other)) =
                (keys.get_mut(at), dropped.iter_mut().find(|key| is_outbound(key)))
            else {
                break;
            };
            if !is_outbound(kept) {
                std::mem::swap(kept, other);
                outbound += 1;
            }
        }
        for key in dropped {
            self.prune(now, key, topic, self.config.prune_backoff, true);
        }
    }

    /// Returns subscribers for the fanout of a topic, without those of `but`.
    pub(super) fn fanout_candidates(
        &mut self,
        now: Duration,
        topic: &Topic,
        but: &BTreeSet<PeerKey>,
        wanted: usize,
    ) -> BTreeSet<PeerKey> {
        let threshold = self.scores.config().map(|config| config.publish_threshold);
        let Some(state) = self.topics.get(topic) else {
            return BTreeSet::new();
        };
        let mut keys: Vec<PeerKey> = state.subscribers.difference(but).copied().collect();
        keys.retain(|key| {
            let fits = self
                .peers
                .get(key)
                .is_some_and(|peer| peer.is_router() && !peer.explicit);
            fits && threshold.is_none_or(|threshold| self.scores.score(now, *key) >= threshold)
        });
        keys.shuffle(&mut self.rng);
        keys.into_iter().take(wanted).collect()
    }

    fn maintain_fanout(&mut self, now: Duration, topic: &Topic) {
        let fanout = self.topics.get_mut(topic).and_then(|state| state.fanout.take());
        let Some((mut peers, last)) = fanout else { return };
        if now.saturating_sub(last) > self.config.fanout_ttl {
            return self.forget_topic(topic);
        }
        let threshold = self.scores.config().map(|config| config.publish_threshold);
        peers.retain(|key| threshold.is_none_or(|threshold| self.scores.score(now, *key) >= threshold));
        let wanted = self.config.d.saturating_sub(peers.len());
        let more = self.fanout_candidates(now, topic, &peers, wanted);
        peers.extend(more);
        if let Some(state) = self.topics.get_mut(topic) {
            state.fanout = Some((peers, last));
        }
    }

    /// Announces recent messages to some peers outside the mesh.
    fn gossip(&mut self, now: Duration, topic: &Topic) {
        let mut ids = self.cache.gossip_ids(topic);
        let Some(state) = self.topics.get(topic).filter(|_| !ids.is_empty()) else {
            return;
        };
        let threshold = self.scores.config().map(|config| config.gossip_threshold);
        let mut keys: Vec<PeerKey> = state.subscribers.difference(&state.mesh).copied().collect();
        keys.retain(|key| {
            let in_fanout = state
                .fanout
                .as_ref()
                .is_some_and(|(peers, _)| peers.contains(key));
            let fits = self
                .peers
                .get(key)
                .is_some_and(|peer| peer.is_router() && !peer.explicit);
            let low = threshold.is_some_and(|threshold| self.scores.score(now, *key) < threshold);
            fits && !in_fanout && !low
        });
        let others = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let part = (f64::from(others) * self.config.gossip_factor).ceil();
        #[allow(clippy::cast_sign_loss, reason = "the factor is not negative")]
        let wanted = self.config.d_lazy.max(part as usize);
        keys.shuffle(&mut self.rng);
        keys.truncate(wanted);
        if self.config.direct && keys.len() < self.config.d_lazy {
            // If RPCs get lost, mesh peers miss messages as well, and may have no other peer that announces
            // them.
            let mut mesh: Vec<PeerKey> = self.mesh_of(topic).into_iter().collect();
            mesh.shuffle(&mut self.rng);
            mesh.truncate(self.config.d_lazy - keys.len());
            keys.extend(mesh);
        }
        let max = self.config.max_ihave_length;
        let all = (self.fitting_ids(topic, &ids).min(max) >= ids.len()).then(|| ihave(topic, &ids));
        for key in keys {
            let rpc = all.clone().unwrap_or_else(|| {
                // Each peer gets a different subset, so that together they learn of all.
                ids.shuffle(&mut self.rng);
                let fitting = self.fitting_ids(topic, &ids).min(max);
                ihave(topic, ids.get(..fitting).unwrap_or(&ids))
            });
            self.push(now, key, Priority::Gossip, rpc);
        }
    }

    /// Returns how many of these ids fit into an IHAVE of a topic.
    fn fitting_ids(&self, topic: &Topic, ids: &[MessageId]) -> usize {
        let lens = ids.iter().map(|id| id.len());
        let parts = std::iter::once(topic.len()).chain(lens);
        self.fitting(parts).saturating_sub(1)
    }

    /// Repeats what may have been lost, and requests connections to absent explicit peers.
    fn remind(&mut self, now: Duration) {
        if now >= self.next_connect {
            self.next_connect = now.saturating_add(self.config.direct_connect_every);
            let absent = self.explicit.iter().filter(|addr| !self.keys.contains_key(*addr));
            let events = absent.map(|addr| Event::Connect { peer: addr.clone() });
            self.events.extend(events);
        }
        if now < self.next_announce {
            return;
        }
        self.next_announce = now.saturating_add(self.config.announce_every);
        let joined = self.topics.iter().filter(|(_, state)| state.joined);
        let joined: Vec<Topic> = joined.map(|(topic, _)| topic.clone()).collect();
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in keys {
            self.greet(now, key, false);
        }
        for topic in &joined {
            for key in self.mesh_of(topic) {
                self.graft(now, key, topic);
            }
        }
    }
}

fn ihave(topic: &Topic, ids: &[MessageId]) -> bytes::Bytes {
    let control = ControlMessage {
        ihave: vec![ControlIHave {
            topic_id: Some(topic.to_string()),
            message_ids: ids.iter().map(MessageId::to_bytes).collect(),
        }],
        ..ControlMessage::default()
    };
    let rpc = Rpc {
        control: Some(control),
        ..Rpc::default()
    };
    rpc.emit()
}
