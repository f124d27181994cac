//! Some nodes, a medium under the control of the test, and a virtual clock.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use p2p::{Packet, PeerId};
use p2p_formats::x509::PrivateKey;
use p2p_protocols::p2pke::{Config, Endpoint, Error, Event, Local, Sealed, wire};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn key(node: u32) -> PrivateKey {
    let mut seed = [0x5a; 32];
    seed[..4].copy_from_slice(&node.to_be_bytes());
    PrivateKey::ed25519(&seed)
}

pub(crate) fn local(node: u32, config: Config) -> Local {
    Local::new(&key(node), config).expect("a good key")
}

/// A node, as a driver would hold it. Its address is its index.
pub(crate) struct Node {
    pub(crate) endpoint: Endpoint<u32>,
    pub(crate) rng: StdRng,
    pub(crate) inbox: Vec<(u32, Vec<u8>)>,
    pub(crate) failed: Vec<(u32, Error)>,
    /// Messages that wait for a session.
    waiting: Vec<(u32, Vec<u8>)>,
}

impl Node {
    pub(crate) fn id(&self) -> PeerId {
        self.endpoint.local().id()
    }
}

pub(crate) struct Net {
    pub(crate) now: Duration,
    pub(crate) nodes: Vec<Node>,
    /// Packets in flight: source, destination, bytes.
    pub(crate) wire: VecDeque<(u32, u32, Vec<u8>)>,
    /// All packets that were ever sent, with their times.
    pub(crate) log: Vec<(u32, u32, Vec<u8>)>,
    pub(crate) times: Vec<Duration>,
    /// Percentage of lost packets.
    pub(crate) loss: u32,
    /// Whether each packet arrives twice.
    pub(crate) duplicate: bool,
    rng: StdRng,
}

impl Net {
    pub(crate) fn new(nodes: u32, seed: u64, config: &Config) -> Self {
        println!("seed {seed}");
        Self::quiet(nodes, seed, config)
    }

    /// Does the same without printing the seed, for callers that print it themselves.
    pub(crate) fn quiet(nodes: u32, seed: u64, config: &Config) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            now: secs(1_700_000_000),
            nodes: (0..nodes)
                .map(|node| Self::node(local(node, config.clone()), rng.random()))
                .collect(),
            wire: VecDeque::new(),
            log: Vec::new(),
            times: Vec::new(),
            loss: 0,
            duplicate: false,
            rng,
        }
    }

    fn node(local: Local, seed: u64) -> Node {
        let mut rng = StdRng::seed_from_u64(seed);
        Node {
            endpoint: Endpoint::new(Arc::new(local), &mut rng),
            rng,
            inbox: Vec::new(),
            failed: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Restarts a node.
    pub(crate) fn replace(&mut self, node: u32, local: Local) {
        self.nodes[node as usize] = Self::node(local, self.rng.random());
    }

    /// Delivers one packet to a node, as if it came from `from`.
    pub(crate) fn deliver(&mut self, from: u32, to: u32, bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let Some(node) = self.nodes.get_mut(to as usize) else {
            return Ok(None);
        };
        let packet = Packet::from(bytes);
        let opened = node.endpoint.handle(self.now, &from, packet, &mut node.rng)?;
        Ok(opened.map(|(peer, packet)| {
            assert!(Some(peer) == node.endpoint.path(&from).map(|path| path.peer()));
            node.inbox.push((from, packet.to_vec()));
            packet.to_vec()
        }))
    }

    /// Moves the nodes' packets to the medium, and processes events.
    pub(crate) fn collect(&mut self) {
        for (from, node) in (0..).zip(&mut self.nodes) {
            while let Some((to, packet)) = node.endpoint.poll_transmit() {
                self.wire.push_back((from, to, packet.to_vec()));
                self.log.push((from, to, packet.to_vec()));
                self.times.push(self.now);
            }
            while let Some((addr, event)) = node.endpoint.poll_event() {
                match event {
                    Event::Failed { error, .. } => node.failed.push((addr, error)),
                    Event::Established(path) => {
                        for (_, data) in node.waiting.extract_if(.., |(to, _)| *to == addr) {
                            let mut packet = Packet::from(data);
                            let sealed = path.seal(self.now, &mut packet);
                            assert!(sealed.is_ok(), "{sealed:?}");
                            self.wire.push_back((from, addr, packet.to_vec()));
                        }
                    }
                    Event::Changed(_) | Event::Expired => {}
                }
            }
        }
    }

    /// Advances the time, and delivers everything at once.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.collect();
            if let Some((from, to, bytes)) = self.wire.pop_front() {
                if self.rng.random_range(0..100) < self.loss {
                    continue;
                }
                let _ = self.deliver(from, to, &bytes);
                if self.duplicate {
                    let _ = self.deliver(from, to, &bytes);
                }
                continue;
            }
            let next = self
                .nodes
                .iter()
                .filter_map(|node| node.endpoint.poll_timeout())
                .min();
            match next {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ => break,
            }
            for node in &mut self.nodes {
                node.endpoint.handle_timeout(self.now, &mut node.rng);
            }
        }
        self.now = end;
    }

    pub(crate) fn connect(&mut self, from: u32, to: u32) {
        let expected = shake(to);
        let node = &mut self.nodes[from as usize];
        let _ = node
            .endpoint
            .connect(self.now, &to, Some(expected), &mut node.rng);
    }

    /// Opens a channel and checks that it carries data.
    pub(crate) fn establish(&mut self, from: u32, to: u32) {
        self.connect(from, to);
        self.run_for(secs(3));
        self.exchange(from, to);
    }

    /// Checks that both sides have a session and can read each other's data.
    pub(crate) fn exchange(&mut self, one: u32, two: u32) {
        for (from, to) in [(one, two), (two, one)] {
            let (_, packet) = self.seal(from, to, b"exchange").expect("established");
            assert_eq!(self.open(to, from, &packet), Ok(b"exchange".to_vec()));
        }
    }

    pub(crate) fn seal(&mut self, from: u32, to: u32, data: &[u8]) -> Result<(Sealed, Vec<u8>), Error> {
        let mut packet = Packet::from(data);
        let path = self.nodes[from as usize]
            .endpoint
            .path(&to)
            .ok_or(Error::NoSession)?;
        let sealed = path.seal(self.now, &mut packet)?;
        Ok((sealed, packet.to_vec()))
    }

    pub(crate) fn open(&mut self, at: u32, from: u32, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let mut packet = Packet::from(bytes);
        let path = self.nodes[at as usize]
            .endpoint
            .path(&from)
            .ok_or(Error::NoSession)?;
        path.open(self.now, &mut packet)?;
        Ok(packet.to_vec())
    }

    /// Sends a message as a driver does: rekeys when it is due, opens if necessary.
    pub(crate) fn tell(&mut self, from: u32, to: u32, data: &[u8]) {
        let Ok((sealed, packet)) = self.seal(from, to, data) else {
            self.nodes[from as usize].waiting.push((to, data.to_vec()));
            return self.connect(from, to);
        };
        self.wire.push_back((from, to, packet));
        if sealed == Sealed::RekeyDue {
            self.rekey(from, to);
        }
    }

    pub(crate) fn rekey(&mut self, from: u32, to: u32) {
        let node = &mut self.nodes[from as usize];
        assert_eq!(node.endpoint.rekey(self.now, &to, &mut node.rng), Ok(()));
    }

    /// Returns the number of confirmed handshakes, as seen on the medium.
    pub(crate) fn handshakes(&self) -> usize {
        let mut done: Vec<_> = self
            .log
            .iter()
            .filter(|(_, _, packet)| wire::counter(packet) == Some(3))
            .filter(|(_, _, packet)| wire::parse_no_session(packet).is_none())
            .collect();
        done.dedup();
        done.len()
    }

    /// Returns the expiry of the session between two nodes.
    pub(crate) fn expires(&self, one: u32, two: u32) -> Duration {
        let path = self.nodes[one as usize].endpoint.path(&two);
        path.expect("established").expires()
    }
}

fn shake(node: u32) -> PeerId {
    local(node, Config::default()).id()
}

/// Returns a hello from `from` to `to` without sending it.
pub(crate) fn hello_of(net: &mut Net, from: u32, to: u32) -> Vec<u8> {
    let mut node = Net::node(local(from, Config::default()), net.rng.random());
    let now = net.now;
    let pending = node.endpoint.connect(now, &to, None, &mut node.rng);
    assert!(pending.is_ok_and(|path| path.is_none()));
    node.endpoint.poll_transmit().expect("a hello").1.to_vec()
}
