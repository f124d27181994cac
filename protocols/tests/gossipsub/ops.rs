//! Any sequence of steps of one engine among a few peers, with the invariants after each step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use p2p_protocols::gossipsub::wire::{
    ControlGraft, ControlIDontWant, ControlIHave, ControlIWant, ControlMessage, ControlPrune, Hello, Limits,
    Message, PeerInfo, Rpc, SubOpts, frame, is_message,
};
use p2p_protocols::gossipsub::{
    Config, Connection, Engine, Event, MessageAcceptance, MessageId, QueueConfig, Received, ScoreConfig,
    Signing, TopicScoreParams, Validation, Version,
};
use prost::Message as _;

use crate::net::{Node, signing};

/// A step: its kind, and three numbers with a meaning that depends on the kind.
pub(crate) type Op = (u8, u8, u8, u16);

const TOPICS: [&str; 3] = ["a", "b", "c"];
const PEERS: u8 = 12;
/// The engine's own number, which no peer has.
const OWN: u32 = 100;
/// Encoded RPCs with messages, kept for sending them to this node again.
const KEPT: usize = 8;

pub(crate) struct World {
    engine: Engine<Node>,
    now: Duration,
    versions: BTreeMap<u32, Version>,
    explicit: BTreeSet<u32>,
    /// The end of the backoff of each peer that pruned this node.
    rests: BTreeMap<(u32, &'static str), Duration>,
    /// The last delivery time of each message.
    delivered: BTreeMap<MessageId, Duration>,
    /// Messages with a pending or past decision.
    asked: Vec<MessageId>,
    signed: bool,
    /// Peers that announced that they accept direct messages.
    introduced: BTreeSet<u32>,
    /// The last delivery time of each direct message.
    told: BTreeMap<MessageId, Duration>,
    /// The RPCs with messages that were sent last.
    frames: VecDeque<Bytes>,
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
        max_spoken: 2,
        direct: seed & 8 == 0,
        pack: [0, 100, 300, 1200][(seed >> 5) as usize % 4],
        limits: Limits {
            rpc: 400,
            messages: 2,
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
            newcomer_time: if seed & 4 == 0 {
                Duration::MAX
            } else {
                Duration::from_secs(3)
            },
            idle_graft_every: Duration::from_secs(10),
            ..ScoreConfig::default()
        }),
        ..Config::default()
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let now = Duration::ZERO;
        let signed = seed & 16 > 0;
        Self {
            engine: Engine::new(config(seed), policy(OWN, signed), 0, now, seed).expect("a configuration"),
            now,
            versions: BTreeMap::new(),
            explicit: BTreeSet::new(),
            rests: BTreeMap::new(),
            delivered: BTreeMap::new(),
            asked: Vec::new(),
            signed,
            introduced: BTreeSet::new(),
            told: BTreeMap::new(),
            frames: VecDeque::new(),
        }
    }

    #[expect(clippy::too_many_lines, reason = "a step for each kind")]
    pub(crate) fn step(&mut self, (kind, peer, topic, number): Op) {
        let topic = TOPICS[usize::from(topic) % TOPICS.len()];
        let node = Node(u32::from(peer % PEERS));
        let now = self.now;
        match kind % 32 {
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
                    self.introduced.remove(&node.0);
                }
            }
            4 => {
                self.engine.remove_peer(now, &node);
                self.introduced.remove(&node.0);
            }
            5 => {
                if let Ok(published) = self.engine.publish(now, topic, data(number)) {
                    // A message that returns to its author is not delivered.
                    self.delivered.insert(published.id, now);
                }
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
                let acceptance = [
                    MessageAcceptance::Accept,
                    MessageAcceptance::Ignore,
                    MessageAcceptance::Reject,
                ][usize::from(peer % 3)];
                if let Some(id) = self.asked.get(usize::from(number) % self.asked.len().max(1)) {
                    self.engine.validate(now, &id.clone(), acceptance);
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
            24 => {
                let hello = Rpc {
                    hello: Some(Hello {
                        author: author(node.0 + u32::from(number.is_multiple_of(16)), self.signed),
                        asks: (number & 1 > 0).then_some(true),
                        leaves: number.is_multiple_of(64).then_some(true),
                    }),
                    ..Rpc::default()
                };
                self.engine.handle_rpc(now, &node, &hello.emit());
            }
            25 | 26 => {
                let to = if kind % 32 == 25 { OWN } else { OWN + 1 };
                let rpc = direct(self.signed, node.0, to, topic, number);
                self.engine.handle_rpc(now, &node, &rpc);
            }
            27 | 28 => {
                let told = self.engine.tell(now, &node, topic, data(number));
                assert!(
                    told.is_err() || self.introduced.contains(&node.0),
                    "not introduced"
                );
            }
            29 => {
                let at = usize::from(number) % self.frames.len().max(1);
                if let Some(rpc) = self.frames.get(at).cloned() {
                    self.engine.handle_rpc(now, &node, &rpc);
                }
            }
            30 => {
                let frames = (0..number % 5).map(|more| {
                    let number = number.wrapping_add(more * 1000);
                    frame(&message(self.signed, node.0, topic, number).encode_to_vec())
                });
                let pack = frames.collect::<Vec<_>>().concat();
                self.engine.handle_rpc(now, &node, &pack.into());
            }
            31 if number.is_multiple_of(64) => self.engine.leave(now),
            31 => self.pass(Duration::from_millis(100)),
            kind => {
                if kind == 20 && self.engine.subscriptions().any(|joined| &**joined == topic) {
                    self.rest(node.0, topic, u64::from(number));
                }
                let rpc = rpc(kind, self.signed, node.0, topic, number);
                self.engine.handle_rpc(now, &node, &rpc);
            }
        }
        self.check();
    }

    /// Records an effective PRUNE: one of a router that is not graylisted.
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
            assert!(engine.peers().any(|peer| *peer == transmit.to), "gone");
            check_pack(&transmit.rpc, &rpc, engine.config());
            assert!(engine.config().direct || (rpc.hello.is_none() && rpc.direct.is_empty()));
            for message in &rpc.direct {
                assert!(self.introduced.contains(&transmit.to.0), "not introduced");
                let message = Message::parse(message, &engine.config().limits).expect("a message");
                assert_eq!(
                    message.to.is_some(),
                    self.signed,
                    "the message does not name its recipient"
                );
            }
            if is_message(&transmit.rpc) {
                self.frames.truncate(KEPT - 1);
                self.frames.push_front(transmit.rpc.clone());
            }
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
        let own = author(OWN, self.signed);
        while let Some(event) = engine.poll_event() {
            match event {
                Event::Message(received) | Event::Validate(received) => {
                    let Received {
                        id, topic, author, ..
                    } = received;
                    assert!(
                        engine.subscriptions().any(|joined| *joined == topic),
                        "not subscribed to"
                    );
                    let is_own = author.is_some_and(|author| own.as_deref() == Some(author.as_bytes()));
                    assert!(!is_own, "an own message");
                    let last = self.delivered.insert(id.clone(), now);
                    let again = last.is_some_and(|last| now < last + engine.config().seen_ttl);
                    assert!(!again || evicted > 0, "delivered twice");
                    self.asked.push(id);
                }
                Event::Direct(received) => {
                    assert!(engine.config().direct && engine.peers().any(|peer| *peer == received.via));
                    assert!(
                        engine.local_topics().any(|topic| *topic == received.topic),
                        "neither subscribed nor sent to"
                    );
                    let (to, is_own) = (
                        received.data.first(),
                        received
                            .author
                            .map(|author| own.as_deref() == Some(author.as_bytes())),
                    );
                    assert_eq!(is_own, self.signed.then_some(false), "an own message");
                    assert!(!self.signed || to == Some(&(OWN as u8)), "for another node");
                    let last = self.told.insert(received.id, now);
                    let again = last.is_some_and(|last| now < last + engine.config().seen_ttl);
                    assert!(!again || evicted > 0, "a direct message was delivered twice");
                }
                Event::Introduced { peer, author } => {
                    assert!(engine.config().direct && (self.signed || author.is_none()));
                    self.introduced.insert(peer.0);
                }
                Event::Left { peer } => {
                    assert!(engine.config().direct && engine.peers().all(|other| *other != peer));
                    self.introduced.remove(&peer.0);
                }
                _ => {}
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
        assert!(engine.local_topics().count() <= engine.subscriptions().count() + config.max_spoken);
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

fn policy(number: u32, signed: bool) -> Signing {
    if signed {
        signing(number)
    } else {
        Signing::StrictNoSign
    }
}

/// Returns the author of a node, if messages are signed.
fn author(number: u32, signed: bool) -> Option<Bytes> {
    let signing = policy(number, signed);
    let author = signing.author();
    author.map(|author| Bytes::copy_from_slice(author.as_bytes()))
}

/// Returns a message that a peer publishes.
fn message(signed: bool, from: u32, topic: &str, number: u16) -> Message {
    policy(from, signed).make(topic, data(number), u64::from(number))
}

/// Returns a direct message of a peer to a node, with that node's number in front.
fn direct(signed: bool, from: u32, to: u32, topic: &str, number: u16) -> Bytes {
    let config = Config {
        direct: true,
        ..Config::default()
    };
    let (now, node) = (Duration::ZERO, Node(to));
    let seqno = u64::from(number % 16);
    let mut engine = Engine::new(config, policy(from, signed), seqno, now, 0).expect("a configuration");
    let connection = Connection {
        version: Version::V1_2,
        outbound: true,
        info: None,
    };
    engine.add_peer(now, &node, connection).expect("room");
    let hello = Rpc {
        hello: Some(Hello {
            author: author(to, signed),
            ..Hello::default()
        }),
        ..Rpc::default()
    };
    engine.handle_rpc(now, &node, &hello.emit());
    let data = [&[to as u8][..], &data(number)].concat();
    engine.tell(now, &node, topic, data.into()).expect("a neighbour");
    std::iter::from_fn(|| engine.poll_transmit(now))
        .map(|transmit| transmit.rpc)
        .find(|rpc| is_message(rpc))
        .expect("the message")
}

/// Checks an RPC: it is a single item, or distinct messages within the limits of packs.
fn check_pack(bytes: &Bytes, rpc: &Rpc, config: &Config) {
    let messages: Vec<&Bytes> = rpc.publish.iter().chain(&rpc.direct).collect();
    assert!(messages.len() <= config.limits.messages && bytes.len() <= config.limits.rpc);
    assert!(
        messages.len() <= 1 || bytes.len() <= config.pack,
        "{} bytes",
        bytes.len()
    );
    if !messages.is_empty() {
        assert!(rpc.subscriptions.is_empty() && rpc.control.is_none() && rpc.hello.is_none());
    }
    let different: BTreeSet<&&Bytes> = messages.iter().collect();
    assert_eq!(different.len(), messages.len(), "a duplicate in a pack");
}

/// Returns an RPC of a kind from 15 to 23.
fn rpc(kind: u8, signed: bool, from: u32, topic: &str, number: u16) -> Bytes {
    let name = || Some(topic.to_owned());
    let message = |number| message(signed, from, topic, number);
    let id = |number| policy(from, signed).message_id(&message(number));
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
            // The largest one represents all that are too large.
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
