//! A network of engines in virtual time: a queue of events.
//!
//! Each run follows from its seed. Requests and answers take 20 to 80 ms; messages to absent nodes are lost.

#![allow(dead_code, reason = "each test and the bench uses a part")]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, PeerId};
use p2p_protocols::kademlia::wire::{Answer, Ask, MAX_NODES, Message, Node};
use p2p_protocols::kademlia::{
    Config, Counts, Distance, Engine, Event, Failure, Key, OpId, Outcome, Progress, RequestId, Rules,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The address of a node. Its id follows from its number, as it would from a key; a false address leads to no
/// node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) number: u32,
    pub(crate) is_false: bool,
    pub(crate) id: PeerId,
    pub(crate) socket: SocketAddr,
}

impl Place {
    /// Returns the address of a node. Numbers below 2^24 are in one private network; others are public
    /// addresses.
    pub(crate) fn new(number: u32) -> Self {
        let ip = if number < 1 << 24 {
            number | 10 << 24
        } else {
            number
        };
        Self {
            number,
            is_false: false,
            id: id(u64::from(number)),
            socket: SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), 1),
        }
    }

    /// Returns one of several false addresses of that node; 0 is the true one.
    pub(crate) fn wrong(number: u32, falsehood: u16) -> Self {
        let mut place = Self::new(number);
        place.is_false = falsehood > 0;
        place.socket.set_port(1 + falsehood);
        place
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let falsehood = usize::from(self.socket.port()) - 1;
        write!(f, "{}{}", self.number, "?".repeat(falsehood))
    }
}

impl Addr for Place {
    fn peer_id(&self) -> Option<PeerId> {
        Some(self.id)
    }

    fn socket_addr(&self) -> Option<SocketAddr> {
        Some(self.socket)
    }
}

/// Returns an id that looks random (`SplitMix64`).
pub(crate) fn id(number: u64) -> PeerId {
    let mut bytes = [0; 32];
    for (at, chunk) in (1_u64..).zip(bytes.chunks_mut(8)) {
        let mut z = (number * 4 + at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(z ^ (z >> 31)).to_be_bytes());
    }
    PeerId::new(bytes)
}

/// Accepts records with a version: any bytes, the first of which is the version.
struct Versioned;

impl p2p_protocols::kademlia::Validator for Versioned {
    fn is_valid(&self, _: &Key, value: &[u8]) -> bool {
        value.first().is_some_and(|version| *version != BAD)
    }

    fn supersedes(&self, _: &Key, new: &[u8], old: &[u8]) -> bool {
        new > old
    }
}

/// A version that no valid record has.
pub(crate) const BAD: u8 = 0xff;

pub(crate) fn rules(config: &Config) -> Arc<Rules<Place>> {
    let parse = |text: &str| {
        let number = text.trim_end_matches('?');
        let falsehood = u16::try_from(text.len() - number.len()).ok()?;
        Some(Place::wrong(number.parse().ok()?, falsehood))
    };
    Arc::new(Rules::new(*config, parse, Versioned))
}

/// The lies of a hostile node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// It names the hostile nodes nearest to the target, and has no record.
    Friends,
    /// It names non-existent nodes very near to the target.
    Inventions,
    /// It names the right nodes at false addresses.
    Addresses,
    /// It names each of the right nodes three times, at three different false addresses.
    Thrice,
    /// It never answers.
    Silence,
}

enum Happening {
    Request(u32, Place, RequestId, Vec<u8>),
    Answer(u32, RequestId, Vec<u8>),
    Failure(u32, RequestId, Failure),
    Wake(u32),
}

/// An event, ordered by time. It is moved in the queue, so it is small.
struct Due {
    when: (Duration, u64),
    happening: Box<Happening>,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.when.cmp(&other.when)
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.when == other.when
    }
}

impl Eq for Due {}

pub(crate) struct Net {
    pub(crate) now: Duration,
    pub(crate) rng: StdRng,
    pub(crate) engines: HashMap<u32, Box<Engine<Place>>>,
    /// Numbers of the live nodes, including hostile ones.
    pub(crate) live: Vec<u32>,
    pub(crate) hostile: HashMap<u32, Lie>,
    pub(crate) done: HashMap<(u32, OpId), (Outcome<Place>, Progress)>,
    /// Set only if it is watched, because it takes more memory than the engines.
    pub(crate) progress: HashMap<(u32, OpId), Vec<Progress>>,
    pub(crate) watch: bool,
    /// Delivered requests, and the bytes of these and of their answers.
    pub(crate) traffic: (u64, u64),
    rules: Arc<Rules<Place>>,
    queue: BinaryHeap<Reverse<Due>>,
    wakes: HashMap<u32, Duration>,
    sequence: u64,
    next: u32,
}

impl Net {
    pub(crate) fn new(seed: u64, config: &Config) -> Self {
        println!("seed {seed}");
        Self {
            now: Duration::ZERO,
            rng: StdRng::seed_from_u64(seed),
            engines: HashMap::new(),
            live: Vec::new(),
            hostile: HashMap::new(),
            done: HashMap::new(),
            progress: HashMap::new(),
            watch: false,
            traffic: (0, 0),
            rules: rules(config),
            queue: BinaryHeap::new(),
            wakes: HashMap::new(),
            sequence: 0,
            next: 1,
        }
    }

    /// Creates a network of `count` nodes that joined one after another, each through three live nodes.
    pub(crate) fn joined(seed: u64, count: usize, config: &Config) -> Self {
        let mut net = Self::new(seed, config);
        for _ in 0..count {
            let number = net.add();
            net.join(number);
            net.run_for(Duration::from_millis(50));
        }
        net.run_for(Duration::from_secs(30));
        net
    }

    /// Adds a node without contacts.
    pub(crate) fn add(&mut self) -> u32 {
        let number = self.next;
        self.next += 1;
        self.add_as(number);
        number
    }

    pub(crate) fn add_as(&mut self, number: u32) {
        let seed = self.rng.random();
        let place = Place::new(number);
        let engine = Engine::new(place.id, self.rules.clone(), self.now, seed);
        self.engines.insert(number, Box::new(engine));
        self.live.push(number);
        self.settle(number);
    }

    pub(crate) fn remove(&mut self, number: u32) {
        self.engines.remove(&number);
        self.live.retain(|other| *other != number);
        self.wakes.remove(&number);
    }

    pub(crate) fn random(&mut self) -> u32 {
        self.live[self.rng.random_range(0..self.live.len())]
    }

    pub(crate) fn join(&mut self, number: u32) -> OpId {
        let others = self.live.len() > 1;
        let mut bootstraps = Vec::new();
        while others && bootstraps.len() < 3 {
            let other = self.random();
            // The first one is honest: a node that is told of liars only is in their network and in no other.
            if other != number && !(bootstraps.is_empty() && self.hostile.contains_key(&other)) {
                bootstraps.push(Place::new(other));
            }
        }
        self.with(number, |engine, now| engine.join(now, &bootstraps).expect("room"))
    }

    /// Performs an action on a node, and processes its effects.
    pub(crate) fn with<T>(&mut self, number: u32, work: impl FnOnce(&mut Engine<Place>, Duration) -> T) -> T {
        let engine = self.engines.get_mut(&number).expect("a node of this number");
        let result = work(engine, self.now);
        self.settle(number);
        result
    }

    pub(crate) fn outcome(&self, number: u32, op: OpId) -> Option<&(Outcome<Place>, Progress)> {
        self.done.get(&(number, op))
    }

    /// Runs until this operation is done.
    pub(crate) fn finish(&mut self, number: u32, op: OpId) -> (Outcome<Place>, Progress) {
        let limit = self.now + Duration::from_mins(10);
        while !self.done.contains_key(&(number, op)) {
            assert!(self.step(limit), "an operation that does not end");
        }
        self.done[&(number, op)].clone()
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    /// Returns the `count` nodes nearest to an id, without one, among those that `which` accepts.
    pub(crate) fn nearest(
        &self,
        target: &PeerId,
        count: usize,
        but: u32,
        which: impl Fn(u32) -> bool,
    ) -> Vec<PeerId> {
        let others = self.live.iter().filter(|node| **node != but && which(**node));
        let mut ids: Vec<_> = others.map(|node| id(u64::from(*node))).collect();
        let key = |id: &PeerId| Distance::between(target, id);
        if ids.len() > count {
            ids.select_nth_unstable_by_key(count, key);
            ids.truncate(count);
        }
        ids.sort_by_key(key);
        ids
    }

    pub(crate) fn counts(&self, number: u32) -> Counts {
        self.engines[&number].counts()
    }

    fn later(&mut self, at: Duration, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse(Due {
            when: (at, self.sequence),
            happening: Box::new(happening),
        }));
    }

    fn latency(&mut self) -> Duration {
        self.now + Duration::from_micros(self.rng.random_range(20_000..80_000))
    }

    /// Processes the transmits, events and timeout of a node.
    fn settle(&mut self, number: u32) {
        let Some(mut engine) = self.engines.remove(&number) else {
            return;
        };
        while let Some(transmit) = engine.poll_transmit() {
            let at = self.latency();
            self.later(
                at,
                Happening::Request(number, transmit.to, transmit.id, transmit.request),
            );
        }
        while let Some(event) = engine.poll_event() {
            match event {
                Event::Progress { op, progress } => {
                    if self.watch {
                        self.progress.entry((number, op)).or_default().push(progress);
                    }
                }
                Event::Done {
                    op,
                    outcome,
                    progress,
                } => {
                    self.done.insert((number, op), (outcome, progress));
                }
            }
        }
        let timeout = engine.poll_timeout();
        self.engines.insert(number, engine);
        if self.wakes.get(&number).is_none_or(|at| timeout < *at) {
            self.wakes.insert(number, timeout);
            self.later(timeout, Happening::Wake(number));
        }
    }

    /// Processes the next event, if it happens by then.
    fn step(&mut self, until: Duration) -> bool {
        if self.queue.peek().is_none_or(|Reverse(due)| due.when.0 > until) {
            return false;
        }
        let Some(Reverse(due)) = self.queue.pop() else {
            return false;
        };
        let at = due.when.0;
        self.now = self.now.max(at);
        match *due.happening {
            Happening::Request(from, to, id, request) => self.request(from, &to, id, &request),
            Happening::Answer(to, id, answer) => {
                if self.engines.contains_key(&to) {
                    self.with(to, |engine, now| engine.handle_answer(now, id, &answer));
                }
            }
            Happening::Failure(to, id, failure) => {
                if self.engines.contains_key(&to) {
                    self.with(to, |engine, now| engine.handle_failure(now, id, failure));
                }
            }
            Happening::Wake(number) => {
                // An earlier wake-up was requested meanwhile, or the node has left.
                if self.wakes.get(&number) == Some(&at) {
                    self.wakes.remove(&number);
                    self.with(number, Engine::handle_timeout);
                }
            }
        }
        true
    }

    fn request(&mut self, from: u32, to: &Place, id: RequestId, request: &[u8]) {
        let lie = self.hostile.get(&to.number).copied();
        if to.is_false || !self.engines.contains_key(&to.number) || lie == Some(Lie::Silence) {
            return;
        }
        let source = Place::new(from);
        let honest = self.with(to.number, |engine, now| {
            engine.handle_request(now, &source, request)
        });
        let answer = match lie {
            Some(lie) => self.lie(lie, to.number, request).map_or(honest, Ok),
            None => honest,
        };
        self.traffic.0 += 1;
        self.traffic.1 += (request.len() + answer.as_ref().map_or(0, Vec::len)) as u64;
        let at = self.latency();
        let happening = match answer {
            Ok(answer) => Happening::Answer(from, id, answer),
            Err(_) => Happening::Failure(from, id, Failure::Rejected),
        };
        self.later(at, happening);
    }

    /// Returns a hostile node's answer to a request; to some requests it answers like others.
    fn lie(&mut self, lie: Lie, number: u32, request: &[u8]) -> Option<Vec<u8>> {
        let request = Message::<Ask<'_>>::parse(request)?;
        let (target, wants_providers) = match request.body {
            Ask::FindNode(target) | Ask::Get(target) => (target, false),
            Ask::Providers(target) => (target, true),
            Ask::Put { .. } | Ask::Provide { .. } => {
                return Some(Message::new(*id_of(number).as_bytes(), Answer::Kept).emit());
            }
            Ask::Ping => return None,
        };
        let target = PeerId::new(target);
        let named: Vec<u32> = match lie {
            Lie::Friends => {
                let mut friends: Vec<u32> = self.hostile.keys().copied().collect();
                friends.sort_by_cached_key(|friend| Distance::between(&target, &id_of(*friend)));
                friends.into_iter().take(20).collect()
            }
            Lie::Addresses | Lie::Thrice => {
                let mut others: Vec<u32> = self.live.iter().copied().filter(|node| *node != number).collect();
                others.sort_by_cached_key(|node| Distance::between(&target, &id_of(*node)));
                others.truncate(20);
                others
            }
            Lie::Inventions | Lie::Silence => {
                let mut inventions: Vec<u32> = (0..400)
                    .map(|_| self.rng.random_range(1 << 22..1 << 23))
                    .collect();
                inventions.sort_by_cached_key(|node| Distance::between(&target, &id_of(*node)));
                inventions.into_iter().take(20).collect()
            }
        };
        let falsehoods = match lie {
            Lie::Addresses => 1..=1,
            Lie::Thrice => {
                let own = 1 + 3 * (number % 40) as u16;
                own..=own + 2
            }
            Lie::Friends | Lie::Inventions | Lie::Silence => 0..=0,
        };
        let node = |number: u32, falsehood| Node {
            id: *id_of(number).as_bytes(),
            addr: Place::wrong(number, falsehood).to_string().into(),
        };
        let nodes = named
            .into_iter()
            .flat_map(|number| falsehoods.clone().map(move |falsehood| node(number, falsehood)));
        let nodes = nodes.take(MAX_NODES).collect();
        let answer = if wants_providers {
            Answer::Providers {
                providers: Vec::new(),
                nodes,
            }
        } else {
            Answer::Nodes(nodes)
        };
        Some(Message::new(*id_of(number).as_bytes(), answer).emit())
    }
}

/// Returns the id of the node with this number.
fn id_of(number: u32) -> PeerId {
    id(u64::from(number))
}
