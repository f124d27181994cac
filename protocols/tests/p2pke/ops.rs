//! Two nodes and the path between them, with any sequence of steps: no data is delivered that was not sent,
//! or twice, and in the end both sides can communicate.
//!
//! Property tests and a fuzz target use the same steps.

#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeSet;

use p2p_protocols::p2pke::Config;

use super::net::{self, Net, millis, secs};

/// The next step. Numbers are taken modulo the number of nodes, packets or bytes.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Connect(u8),
    /// A caller expects another peer there.
    ConnectWrongly(u8, u8),
    /// Callers leave: those that expect the peer, or all.
    Release(u8, bool),
    /// An attacker sends a no-session notice for the packet with this counter.
    Hint(u8, u8),
    Tell(u8),
    Rekey(u8),
    /// The packet at this position of the queue arrives.
    Arrive(u16),
    /// It arrives, and a copy stays in flight.
    Repeat(u16),
    Lose(u16),
    /// A packet of any time arrives at a node, as if from the other.
    Replay(u16, u8),
    /// The same with some bytes changed, and up to an eighth of it removed.
    Mangle(u16, u8, Vec<(u16, u8)>, u8),
    /// Any bytes after a small counter arrive.
    Garbage(u8, u8, Vec<u8>),
    /// Milliseconds pass.
    Pass(u32),
    Restart(u8),
}

/// Two nodes, and their sent data that was not delivered yet.
pub(crate) struct World {
    pub(crate) net: Net,
    config: Config,
    said: [BTreeSet<Vec<u8>>; 2],
    count: usize,
}

fn side(number: u8) -> u32 {
    u32::from(number % 2)
}

fn place(number: u16, len: usize) -> usize {
    usize::from(number) % len.max(1)
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let config = Config {
            rekey_after_messages: 7,
            hello_rate_per_source: 1000,
            ..Config::default()
        };
        Self {
            net: Net::quiet(2, seed, &config),
            config,
            said: [BTreeSet::new(), BTreeSet::new()],
            count: 0,
        }
    }

    /// Delivers a packet and checks its contents: they were sent by the other node, and not delivered before.
    fn deliver(&mut self, from: u32, to: u32, bytes: &[u8]) {
        if let Ok(Some(data)) = self.net.deliver(from, to, bytes) {
            assert!(
                self.said[from as usize].remove(&data),
                "{data:?} was not sent, or was delivered before"
            );
        }
        self.net.collect();
    }

    pub(crate) fn step(&mut self, op: Op) {
        self.count += 1;
        match op {
            Op::Connect(node) => self.net.connect(side(node), 1 - side(node)),
            Op::ConnectWrongly(node, id) => {
                let (now, at) = (self.net.now, 1 - side(node));
                let node = &mut self.net.nodes[side(node) as usize];
                let wrong = net::local(1000 + u32::from(id), Config::default()).id();
                let _ = node.endpoint.connect(now, &at, Some(wrong), &mut node.rng);
            }
            Op::Release(node, all) => {
                let (at, node) = (1 - side(node), side(node) as usize);
                let expected = self.net.nodes[at as usize].id();
                self.net.nodes[node]
                    .endpoint
                    .release(&at, (!all).then_some(expected));
            }
            Op::Hint(to, counter) => {
                let hint = p2p_protocols::p2pke::wire::no_session(u32::from(counter % 32));
                self.deliver(1 - side(to), side(to), &hint);
            }
            Op::Tell(node) => {
                let (data, from) = (format!("message {}", self.count).into_bytes(), side(node));
                self.net.tell(from, 1 - from, &data);
                self.said[from as usize].insert(data);
                self.net.log.extend(self.net.wire.back().cloned());
            }
            Op::Rekey(node) => self.net.rekey(side(node), 1 - side(node)),
            Op::Arrive(at) => {
                if let Some((from, to, bytes)) = self.net.wire.remove(place(at, self.net.wire.len())) {
                    self.deliver(from, to, &bytes);
                }
            }
            Op::Repeat(at) => {
                if let Some((from, to, bytes)) = self.net.wire.get(place(at, self.net.wire.len())).cloned() {
                    self.deliver(from, to, &bytes);
                }
            }
            Op::Lose(at) => {
                self.net.wire.remove(place(at, self.net.wire.len()));
            }
            Op::Replay(at, to) => {
                if let Some((_, _, bytes)) = self.net.log.get(place(at, self.net.log.len())).cloned() {
                    self.deliver(1 - side(to), side(to), &bytes);
                }
            }
            Op::Mangle(at, to, changes, cut) => {
                if let Some((_, _, mut bytes)) = self.net.log.get(place(at, self.net.log.len())).cloned() {
                    let len = bytes.len();
                    for (at, byte) in changes {
                        bytes[place(at, len)] ^= byte;
                    }
                    bytes.truncate(len - len * usize::from(cut) / (8 * 256));
                    self.deliver(1 - side(to), side(to), &bytes);
                }
            }
            Op::Garbage(to, counter, body) => {
                let bytes = [&u32::from(counter % 20).to_be_bytes()[..], &body].concat();
                self.deliver(1 - side(to), side(to), &bytes);
            }
            Op::Pass(time) => {
                self.net.now += millis(time.into());
                for node in &mut self.net.nodes {
                    node.endpoint.handle_timeout(self.net.now, &mut node.rng);
                }
            }
            Op::Restart(node) => {
                // The data that waited there will never be sent.
                let local = net::local(side(node), self.config.clone());
                self.net.replace(side(node), local);
            }
        }
        self.net.collect();
        assert!(self.net.nodes.iter().all(|node| node.endpoint.channels() <= 1));
    }

    /// From here on every packet arrives. A forgotten node learns of it from the other's silence.
    pub(crate) fn finish(mut self) {
        self.net.wire.clear();
        self.net.run_for(secs(35));
        for node in 0..2 {
            self.net.tell(node, 1 - node, b"in the end");
            self.net.run_for(secs(5));
            let inbox = &self.net.nodes[1 - node as usize].inbox;
            let (from, data) = inbox.last().expect("it arrives");
            assert_eq!((*from, &data[..]), (node, &b"in the end"[..]));
        }
    }
}
