//! Any sequence of steps of one engine among a few peers, with what must be true after each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use p2p_protocols::gossipsub::wire::{
    ControlGraft, ControlIDontWant, ControlIHave, ControlIWant, ControlMessage, ControlPrune, Limits,
    PeerInfo, Rpc, SubOpts, frame,
};
use p2p_protocols::gossipsub::{
    Config, Connection, Engine, Event, MessageId, QueueConfig, Received, ScoreConfig, Signing,
    TopicScoreParams, Validation, Verdict, Version,
};
use prost::Message as _;

use crate::net::Node;

/// A step: what happens, and three numbers whose meaning depends on that.
pub(crate) type Op = (u8, u8, u8, u16);

const TOPICS: [&str; 3] = ["a", "b", "c"];
const PEERS: u8 = 12;

pub(crate) struct World {
    engine: Engine<Node>,
    now: Duration,
    versions: BTreeMap<u32, Version>,
    explicit: BTreeSet<u32>,
    /// Until when a peer that pruned this node must not be in a mesh.
    rests: BTreeMap<(u32, &'static str), Duration>,
    /// When each message was delivered last.
    delivered: BTreeMap<MessageId, Duration>,
    /// Messages that wait for a verdict, or did.
    asked: Vec<MessageId>,
}

fn config(seed: u64) -> Config {
    let p3 = TopicScoreParams {
        mesh_message_deliveries_weight: -2.0,
        mesh_failure_penalty_weight: -1.0,
        ..TopicScoreParams::default()
    };
    Config {
        d: 3,
        d_lo: 2,
        d_hi: 4,
        d_score: 2,
        d_out: 1,
        d_lazy: 2,
        flood_publish: seed & 1 == 0,
        validation: if seed & 2 == 0 {
            Validation::Automatic
        } else {
            Validation::Application
        },
        idontwant_threshold: 8,
        opportunistic_graft_ticks: 5,
        max_ihave_messages: 3,
        max_ihave_length: 8,
        max_idontwant_messages: 4,
        max_validating: 4,
        max_peers: 8,
        max_topics: 6,
        max_topics_per_peer: 4,
        max_cached: 8,
        max_cached_bytes: 256,
        max_backoffs: 64,
        limits: Limits {
            rpc: 400,
            topic: 64,
            id: 64,
            ..Limits::default()
        },
        queue: QueueConfig {
            bytes: 512,
            control: 4,
            own: 4,
            forwarded: 4,
            gossip: 4,
            ..QueueConfig::default()
        },
        score: Some(ScoreConfig {
            other_topics: Some(if seed & 4 == 0 {
                TopicScoreParams::default()
            } else {
                p3
            }),
            max_retained: 4,
            ..ScoreConfig::default()
        }),
        ..Config::default()
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let now = Duration::ZERO;
        Self {
            engine: Engine::new(config(seed), Signing::StrictNoSign, 0, now, seed).expect("a configuration"),
            now,
            versions: BTreeMap::new(),
            explicit: BTreeSet::new(),
            rests: BTreeMap::new(),
            delivered: BTreeMap::new(),
            asked: Vec::new(),
        }
    }

    pub(crate) fn step(&mut self, (kind, peer, topic, number): Op) {
        let topic = TOPICS[usize::from(topic) % TOPICS.len()];
        let node = Node(u32::from(peer % PEERS));
        let now = self.now;
        match kind % 24 {
            0 => drop(self.engine.subscribe(now, topic).expect("a topic")),
            1 => drop(self.engine.unsubscribe(now, topic)),
            2 | 3 => {
                let version = Version::ALL[usize::from(number) % 4];
                let connection = Connection {
                    version,
                    outbound: number & 4 > 0,
                    info: (number & 8 > 0).then(PeerInfo::default),
                };
                if self.engine.add_peer(now, &node, connection).is_ok() {
                    self.versions.insert(node.0, version);
                }
            }
            4 => drop(self.engine.remove_peer(now, &node)),
            5 => {
                let _ = self.engine.publish(now, topic, data(number));
            }
            6 => self.engine.set_writable(&node, number & 1 > 0),
            7 if number.is_multiple_of(32) => {
                self.engine.add_explicit(now, node);
                self.explicit.insert(node.0);
            }
            7 => {
                self.engine.remove_explicit(&node);
                self.explicit.remove(&node.0);
            }
            8 => {
                let score = f64::from(number.cast_signed()) / 256.0;
                self.engine.set_app_specific_score(&node, score);
            }
            9 => {
                let verdict = [Verdict::Accept, Verdict::Ignore, Verdict::Reject][usize::from(peer % 3)];
                if let Some(id) = self.asked.get(usize::from(number) % self.asked.len().max(1)) {
                    self.engine.validate(now, &id.clone(), verdict);
                }
            }
            10 => self.pass(Duration::from_millis(u64::from(number))),
            11 | 12 => self.pass(Duration::from_secs(1)),
            13 => self.pass(Duration::from_secs(61)),
            14 => {
                let bytes = [kind, peer, number as u8, (number >> 8) as u8, 0x0a, 1];
                let bytes = Bytes::copy_from_slice(&bytes[..usize::from(peer % 7)]);
                self.engine.handle_rpc(now, &node, &bytes);
            }
            kind => {
                if kind == 20 && self.engine.subscriptions().any(|joined| &**joined == topic) {
                    self.rest(node.0, topic, u64::from(number));
                }
                let rpc = rpc(kind, topic, number);
                self.engine.handle_rpc(now, &node, &rpc);
            }
        }
        self.check();
    }

    /// A PRUNE that is heeded: it comes from a router that is not graylisted.
    fn rest(&mut self, peer: u32, topic: &'static str, seconds: u64) {
        let score = self.engine.score(self.now, &Node(peer));
        let heeded = self.engine.peers().any(|other| other.0 == peer)
            && self
                .versions
                .get(&peer)
                .is_some_and(|version| *version > Version::Floodsub)
            && (score >= -80.0 || self.explicit.contains(&peer));
        if heeded {
            let seconds = if seconds == 0 { 60 } else { seconds.min(3600) };
            let until = self.now + Duration::from_secs(seconds);
            let rest = self.rests.entry((peer, topic)).or_default();
            *rest = until.max(*rest);
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.engine.poll_timeout() <= until {
            self.now = self.engine.poll_timeout();
            self.engine.handle_timeout(self.now);
            for topic in TOPICS {
                assert!(self.engine.mesh(topic).count() <= self.engine.config().d_hi);
                for peer in self.engine.mesh(topic) {
                    assert!(self.engine.score(self.now, peer) >= 0.0);
                }
            }
            self.check();
        }
        self.now = until;
    }

    fn check(&mut self) {
        let (engine, now) = (&mut self.engine, self.now);
        while let Some(transmit) = engine.poll_transmit(now) {
            let rpc = Rpc::parse(&transmit.rpc, &engine.config().limits).expect("an RPC");
            let (control, version) = (rpc.control.unwrap_or_default(), self.versions[&transmit.to.0]);
            assert!(version >= Version::V1_2 || control.idontwant.is_empty());
            assert!(version > Version::Floodsub || control == ControlMessage::default());
            assert!(
                control
                    .prune
                    .iter()
                    .all(|prune| prune.peers.len() <= engine.config().prune_peers)
            );
            assert!(control.iwant.iter().all(|want| want.message_ids.len() <= 8));
        }
        let evicted = engine.counts().seen_evicted;
        while let Some(event) = engine.poll_event() {
            if let Event::Message(received) | Event::Validate(received) = event {
                let Received { id, topic, .. } = received;
                assert!(
                    engine.subscriptions().any(|joined| *joined == topic),
                    "not subscribed to"
                );
                let last = self.delivered.insert(id.clone(), now);
                let again = last.is_some_and(|last| now < last + engine.config().seen_ttl);
                assert!(!again || evicted > 0, "delivered twice");
                self.asked.push(id);
            }
        }
        for topic in TOPICS {
            let joined = engine.subscriptions().any(|joined| &**joined == topic);
            for peer in engine.mesh(topic) {
                assert!(joined && engine.subscribers(topic).any(|other| other == peer));
                assert!(engine.peers().any(|other| other == peer), "gone");
                assert!(!self.explicit.contains(&peer.0), "explicit");
                assert!(self.versions[&peer.0] > Version::Floodsub, "floodsub");
                assert!(engine.score(now, peer).is_finite());
                let rest = self.rests.get(&(peer.0, topic));
                assert!(rest.is_none_or(|until| *until <= now), "{peer} in a backoff");
            }
        }
        let (kept, config) = (engine.kept(), engine.config());
        assert!(engine.peers().count() <= usize::from(PEERS));
        assert!(kept.topics <= config.max_topics + TOPICS.len());
        assert!(kept.seen <= config.max_seen && kept.validating <= config.max_validating);
        assert!(kept.cached <= config.max_cached && kept.cached_bytes <= config.max_cached_bytes);
        assert!(kept.backoffs <= config.max_backoffs);
        assert!(kept.queued <= 16 * engine.peers().count());
        assert!(kept.queued_bytes <= config.queue.bytes * engine.peers().count());
    }
}

fn data(number: u16) -> Bytes {
    vec![number as u8 % 32; usize::from(number % 64)].into()
}

/// An RPC of a kind from 15 to 23.
fn rpc(kind: u8, topic: &str, number: u16) -> Bytes {
    let name = || Some(topic.to_owned());
    let message = |number| Signing::StrictNoSign.make(topic, data(number), 0);
    let id = |number| Signing::StrictNoSign.message_id(&message(number));
    let count = number % 11;
    let ids: Vec<Bytes> = (0..count)
        .map(|more| id(number.wrapping_add(more * 1000)).into())
        .collect();
    let mut rpc = Rpc::default();
    let mut control = ControlMessage::default();
    match kind {
        15 | 16 => rpc.subscriptions.push(SubOpts {
            subscribe: Some(kind == 15 || number & 3 > 0),
            topicid: Some(if number & 31 == 31 {
                number.to_string()
            } else {
                topic.to_owned()
            }),
        }),
        17 => return frame(&message(number).encode_to_vec()),
        18 | 19 => control.graft.push(ControlGraft { topic_id: name() }),
        20 => control.prune.push(ControlPrune {
            topic_id: name(),
            peers: (0..number % 40)
                .map(|number| PeerInfo {
                    peer_id: Some(Bytes::copy_from_slice(&number.to_be_bytes())),
                    signed_peer_record: None,
                })
                .collect(),
            // The largest stands for all that are too large.
            backoff: Some(if number == u16::MAX {
                u64::MAX
            } else {
                u64::from(number)
            }),
        }),
        21 => control.ihave.push(ControlIHave {
            topic_id: name(),
            message_ids: ids,
        }),
        22 => control.iwant.push(ControlIWant { message_ids: ids }),
        _ => control.idontwant.push(ControlIDontWant { message_ids: ids }),
    }
    if control != ControlMessage::default() {
        rpc.control = Some(control);
    }
    rpc.emit()
}
