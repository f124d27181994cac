//! A network of gossipsub engines in virtual time. Each run follows from its seed.
//!
//! A copy takes 20 to 80 ms; on links with a rate, each node sends one RPC after another. After each step of
//! a node, the invariants of its meshes and of its RPCs are checked.

#![allow(dead_code, reason = "each test uses a part")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use p2p::{Addr, PeerId};
use p2p_formats::x509::{PrivateKey, Registry};
use p2p_protocols::gossipsub::wire::{ControlMessage, Limits, Rpc};
use p2p_protocols::gossipsub::{Config, Connection, Engine, Event, Received, Signing, Version};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// The address of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Node(pub(crate) u32);

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Addr for Node {
    fn peer_id(&self) -> Option<PeerId> {
        let mut id = [1; 32];
        id[..4].copy_from_slice(&self.0.to_be_bytes());
        Some(PeerId::new(id))
    }

    /// Nodes from 2^24 on share one address for each 2^8.
    fn socket_addr(&self) -> Option<SocketAddr> {
        let ip = IpAddr::V4(Ipv4Addr::from(self.0 & 0xffff_ff00));
        (self.0 >= 1 << 24).then(|| SocketAddr::new(ip, 1))
    }
}

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) fn signing(number: u32) -> Signing {
    let mut seed = [3; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let key = PrivateKey::ed25519(&seed);
    Signing::strict(Arc::from(Registry::default().signer(&key).expect("a key"))).expect("ed25519")
}

pub(crate) fn connection(version: Version, outbound: bool) -> Connection {
    Connection {
        version,
        outbound,
        info: None,
    }
}

/// Returns the engine of one node, with `peers` inbound peers, numbered from 1, that have subscribed to the
/// topic "t", as it has.
pub(crate) fn alone(config: Config, signing: Signing, peers: u32) -> Engine<Node> {
    let mut engine = Engine::new(config, signing, 0, Duration::ZERO, 5).expect("a configuration");
    for number in 1..=peers {
        add(&mut engine, Duration::ZERO, number, false);
    }
    engine.subscribe(Duration::ZERO, "t").expect("a topic");
    engine
}

pub(crate) fn add(engine: &mut Engine<Node>, now: Duration, number: u32, outbound: bool) {
    let (peer, connection) = (Node(number), connection(Version::V1_2, outbound));
    engine.add_peer(now, &peer, connection).expect("room");
    // A subscription to "t".
    engine.handle_rpc(now, &peer, &Bytes::from_static(b"\x0a\x05\x08\x01\x12\x01t"));
}

/// Returns the RPCs that an engine sends, with their destinations.
pub(crate) fn sent(engine: &mut Engine<Node>, now: Duration) -> Vec<(u32, Rpc)> {
    std::iter::from_fn(|| engine.poll_transmit(now))
        .map(|transmit| {
            (
                transmit.to.0,
                Rpc::parse(&transmit.rpc, &Limits::default()).expect("an RPC"),
            )
        })
        .collect()
}

/// Returns the messages of the sent RPCs, packed in any way.
pub(crate) fn messages(sent: Vec<(u32, Rpc)>) -> Vec<(u32, Bytes)> {
    let each = |(to, rpc): (u32, Rpc)| rpc.publish.into_iter().map(move |message| (to, message));
    sent.into_iter().flat_map(each).collect()
}

pub(crate) fn events(engine: &mut Engine<Node>) -> Vec<Event<Node>> {
    std::iter::from_fn(|| engine.poll_event()).collect()
}

/// Runs heartbeats until this time.
pub(crate) fn beat(engine: &mut Engine<Node>, until: Duration) {
    while engine.poll_timeout() <= until {
        engine.handle_timeout(engine.poll_timeout());
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Arrive { to: u32, from: u32, rpc: Bytes },
    Timer { at: u32 },
    Uplink { at: u32 },
}

pub(crate) struct Net {
    pub(crate) engines: Vec<Engine<Node>>,
    pub(crate) versions: Vec<Version>,
    pub(crate) now: Duration,
    pub(crate) loss: f64,
    /// Upload rate of a node in bytes per second; 0 means unlimited.
    pub(crate) rate: f64,
    /// Number of times that each node received each message.
    pub(crate) got: Vec<BTreeMap<Bytes, usize>>,
    pub(crate) rng: StdRng,
    steps: BinaryHeap<Reverse<(Duration, u64, Step)>>,
    busy: Vec<Duration>,
    count: u64,
}

impl Net {
    pub(crate) fn new(nodes: u32, seed: u64, config: &Config, signed: bool) -> Self {
        eprintln!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let engines = (0..nodes).map(|number| {
            let signing = if signed {
                signing(number)
            } else {
                Signing::StrictNoSign
            };
            let seed = rng.random();
            Engine::new(config.clone(), signing, 0, Duration::ZERO, seed).expect("a configuration")
        });
        let engines: Vec<_> = engines.collect();
        let mut net = Self {
            engines,
            versions: vec![Version::V1_2; nodes as usize],
            now: Duration::ZERO,
            loss: 0.0,
            rate: 0.0,
            got: vec![BTreeMap::new(); nodes as usize],
            rng,
            steps: BinaryHeap::new(),
            busy: vec![Duration::ZERO; nodes as usize],
            count: 0,
        };
        for at in 0..nodes {
            let due = net.engines[at as usize].poll_timeout();
            net.push(due, Step::Timer { at });
        }
        net
    }

    /// Connects `one` to `other`.
    pub(crate) fn connect(&mut self, one: u32, other: u32) {
        for (at, peer, outbound) in [(one, other, true), (other, one, false)] {
            let connection = connection(self.versions[peer as usize], outbound);
            let engine = &mut self.engines[at as usize];
            engine.add_peer(self.now, &Node(peer), connection).expect("room");
        }
        self.settle(one);
        self.settle(other);
    }

    /// Connects each node to `each` others.
    pub(crate) fn connect_all(&mut self, each: usize) {
        let nodes = self.engines.len() as u32;
        for one in 0..nodes {
            let mut others: Vec<u32> = (0..nodes).filter(|other| *other != one).collect();
            others.shuffle(&mut self.rng);
            for other in others.into_iter().take(each) {
                if !self.engines[one as usize].peers().any(|peer| peer.0 == other) {
                    self.connect(one, other);
                }
            }
        }
    }

    pub(crate) fn subscribe_all(&mut self, topic: &str) {
        for at in 0..self.engines.len() as u32 {
            self.engines[at as usize]
                .subscribe(self.now, topic)
                .expect("a topic");
            self.settle(at);
        }
    }

    pub(crate) fn publish(&mut self, at: u32, topic: &str, data: &Bytes) {
        self.engines[at as usize]
            .publish(self.now, topic, data.clone())
            .expect("published");
        self.settle(at);
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(Reverse((at, ..))) = self.steps.peek()
            && *at <= until
            && let Some(Reverse((now, _, step))) = self.steps.pop()
        {
            self.now = now;
            match step {
                Step::Arrive { to, from, rpc } => {
                    self.engines[to as usize].handle_rpc(now, &Node(from), &rpc);
                    self.settle(to);
                }
                Step::Timer { at } => {
                    let engine = &mut self.engines[at as usize];
                    engine.handle_timeout(now);
                    let most = engine.config().d_hi;
                    let topics: Vec<_> = engine.subscriptions().cloned().collect();
                    assert!(
                        topics.iter().all(|topic| engine.mesh(topic).count() <= most),
                        "beyond d_hi"
                    );
                    let due = engine.poll_timeout();
                    self.push(due, Step::Timer { at });
                    self.settle(at);
                }
                Step::Uplink { at } => self.settle(at),
            }
        }
        self.now = until;
    }

    /// Sends a node's RPCs, records its events, and checks its meshes.
    pub(crate) fn settle(&mut self, at: u32) {
        self.send(at);
        let engine = &mut self.engines[at as usize];
        while let Some(event) = engine.poll_event() {
            if let Event::Message(Received { data, .. }) = event {
                *self.got[at as usize].entry(data).or_default() += 1;
            }
        }
        for topic in engine.subscriptions() {
            for peer in engine.mesh(topic) {
                assert_ne!(peer.0, at, "a node in its own mesh");
                assert!(
                    engine.subscribers(topic).any(|other| other == peer),
                    "no subscriber"
                );
                assert_ne!(self.versions[peer.0 as usize], Version::Floodsub);
            }
        }
    }

    fn send(&mut self, at: u32) {
        while self.rate <= 0.0 || self.busy[at as usize] <= self.now {
            let Some(transmit) = self.engines[at as usize].poll_transmit(self.now) else {
                return;
            };
            let limits = self.engines[at as usize].config().limits;
            self.check(transmit.to.0, &transmit.rpc, &limits);
            let mut delay = ms(self.rng.random_range(20..80));
            if self.rate > 0.0 {
                let takes = Duration::from_secs(1).mul_f64(f64::from(transmit.rpc.len() as u32) / self.rate);
                self.busy[at as usize] = self.now + takes;
                delay += takes;
                self.push(self.now + takes, Step::Uplink { at });
            }
            if self.loss == 0.0 || !self.rng.random_bool(self.loss) {
                let (to, from, rpc) = (transmit.to.0, at, transmit.rpc);
                self.push(self.now + delay, Step::Arrive { to, from, rpc });
            }
        }
    }

    /// Checks that an RPC contains only what the version of its destination knows, and stays within the
    /// limits.
    fn check(&self, to: u32, rpc: &Bytes, limits: &Limits) {
        let rpc = Rpc::parse(rpc, limits).expect("an RPC within the limits");
        let (version, control) = (self.versions[to as usize], rpc.control.unwrap_or_default());
        if version < Version::V1_2 {
            assert!(control.idontwant.is_empty());
        }
        if version < Version::V1_1 {
            assert!(
                control
                    .prune
                    .iter()
                    .all(|prune| prune.peers.is_empty() && prune.backoff.is_none())
            );
        }
        if version == Version::Floodsub {
            assert_eq!(control, ControlMessage::default());
        }
    }

    fn push(&mut self, at: Duration, step: Step) {
        self.count += 1;
        self.steps.push(Reverse((at, self.count, step)));
    }

    /// Checks that every node except the publisher received each of these messages once.
    pub(crate) fn assert_delivered(&self, messages: &[(u32, Bytes)]) {
        for (at, got) in self.got.iter().enumerate() {
            for (from, data) in messages {
                let times = got.get(data).copied().unwrap_or(0);
                let due = usize::from(at != *from as usize);
                assert_eq!(
                    times,
                    due,
                    "node {at} of what {from} published: {:?}",
                    &data[..data.len().min(16)]
                );
            }
        }
    }
}
