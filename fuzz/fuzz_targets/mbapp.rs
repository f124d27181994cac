//! Any sequence of asks and datagrams between two nodes: each ask ends once, its handler runs at most once,
//! and its response is the right one, unless datagrams were forged; state is bounded and expires.
#![no_main]
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use p2p::{Headroom, Message, Packet, Rejection};
use p2p_fuzz::Steps;
use p2p_protocols::mbapp::{Answer, AskId, Config, Engine, Event, HEADER, Limits, Now, ServeId};

const INNER_MTU: usize = 100;
const MTU: usize = 2000;
/// Maximum number of datagrams in flight; further ones are lost.
const MOST: usize = 2000;
/// Maximum delay of a datagram. An ask is remembered for a second longer after its deadline.
const DELAY: Duration = Duration::from_secs(14);

const LIMITS: Limits = Limits {
    asks: 8,
    part_bytes: 60_000,
    source_part_bytes: 30_000,
    source_messages: 8,
    timeout: Duration::from_secs(10),
    reply_bytes: 60_000,
    source_reply_bytes: 30_000,
    source_replies: 16,
    peers: 8,
};

/// Numbers are taken modulo the number of nodes, datagrams or asks.
#[derive(Arbitrary, Debug)]
enum Step {
    Tell {
        node: u8,
        len: u16,
    },
    Ask {
        node: u8,
        len: u16,
        millis: u16,
    },
    Cancel {
        node: u8,
        nth: u8,
    },
    Respond {
        nth: u8,
        rejects: bool,
    },
    Arrive {
        at: u16,
    },
    Repeat {
        at: u16,
    },
    Lose {
        at: u16,
    },
    Mangle {
        at: u16,
        byte: u8,
        bits: u8,
    },
    /// A header of a valid form with arbitrary contents.
    Forge {
        node: u8,
        header: [u8; HEADER],
        body: u8,
    },
    Raw {
        node: u8,
        bytes: Vec<u8>,
    },
    Wait {
        millis: u32,
    },
}

struct World {
    now: Duration,
    engines: [Engine<u8>; 2],
    /// Destination, bytes, and time of sending.
    wire: Vec<(u8, Vec<u8>, Duration)>,
    asked: [HashMap<AskId, Vec<u8>>; 2],
    serving: Vec<(u8, ServeId<u8>, Vec<u8>)>,
    ran: HashMap<Vec<u8>, u32>,
    count: u32,
    /// Whether datagrams were forged or modified in flight, which only a secure layer would detect.
    forged: bool,
}

/// Returns the data of a request or tell: a unique number, and bytes derived from it.
fn text(number: u32, len: u16) -> Vec<u8> {
    let len = usize::from(len) % (MTU - 4);
    let bytes = (0..len).map(|at| (number as usize * 31 + at) as u8);
    number.to_be_bytes().into_iter().chain(bytes).collect()
}

/// Returns the handler's response to a request: longer or shorter than it.
fn response(request: &[u8]) -> Vec<u8> {
    let len = (request.len() * 7919) % MTU;
    request.iter().rev().copied().cycle().take(len).collect()
}

impl World {
    fn new() -> Self {
        let config = Config {
            mtu: MTU,
            limits: LIMITS,
            ..Config::default()
        };
        let engine = |seed| Engine::new(config, INNER_MTU, Headroom::new(8, 4), seed);
        Self {
            now: Duration::ZERO,
            engines: [engine(0), engine(1)],
            wire: Vec::new(),
            asked: [HashMap::new(), HashMap::new()],
            serving: Vec::new(),
            ran: HashMap::new(),
            count: 0,
            forged: false,
        }
    }

    fn clock(&self) -> Now {
        Now {
            elapsed: self.now,
            unix_ms: 1_700_000_000_000 + self.now.as_millis() as u64,
        }
    }

    fn engine(&mut self, node: u8) -> &mut Engine<u8> {
        &mut self.engines[usize::from(node)]
    }

    /// Takes the engines' transmits, and processes their events.
    fn drain(&mut self) {
        for node in 0..2 {
            while let Some((dst, packet)) = self.engine(node).poll_transmit() {
                assert_eq!(dst, 1 - node);
                assert!(packet.len() <= INNER_MTU);
                if self.wire.len() < MOST {
                    self.wire.push((dst, packet.to_vec(), self.now));
                }
            }
            while let Some(event) = self.engine(node).poll_event() {
                match event {
                    Event::Told(message) => assert!(message.payload.len() <= MTU),
                    Event::Asked { id, message, .. } => {
                        assert!(message.payload.len() <= MTU);
                        let ran = self.ran.entry(message.payload.to_vec()).or_default();
                        *ran += 1;
                        assert!(*ran == 1 || self.forged, "a handler ran again");
                        self.serving.push((node, id, message.payload.to_vec()));
                    }
                    Event::Answered { id, answer } => {
                        let request = self.asked[usize::from(node)]
                            .remove(&id)
                            .expect("one end for each ask");
                        if let Answer::Response(packet) = answer {
                            assert!(
                                *packet == *response(&request) || self.forged,
                                "another's response"
                            );
                        }
                    }
                    Event::Dropped { .. } => {}
                }
            }
            let engine = self.engine(node);
            assert!(engine.pending() <= LIMITS.asks);
            assert!(
                engine.held() <= LIMITS.part_bytes + LIMITS.reply_bytes,
                "{}",
                engine.held()
            );
        }
    }

    fn arrive(&mut self, dst: u8, bytes: Vec<u8>) {
        let message = Message {
            src: 1 - dst,
            dst,
            payload: Packet::from(bytes),
        };
        let now = self.clock();
        self.engine(dst).handle_message(now, message);
    }

    fn step(&mut self, step: Step) {
        let now = self.clock();
        let place = |at: u16, len: usize| usize::from(at) % len.max(1);
        match step {
            Step::Tell { node, len } => {
                self.count += 1;
                let (node, text) = (node % 2, text(self.count, len));
                self.engine(node)
                    .tell(now, &(1 - node), Packet::from(text))
                    .expect("it fits");
            }
            Step::Ask { node, len, millis } => {
                self.count += 1;
                let (node, text) = (node % 2, text(self.count, len));
                let timeout = Duration::from_millis(millis.into());
                let asked = self
                    .engine(node)
                    .ask(now, &(1 - node), Packet::from(text.clone()), timeout);
                match asked {
                    Ok(id) => assert!(self.asked[usize::from(node)].insert(id, text).is_none()),
                    Err(error) => assert!(matches!(error, p2p::Error::Limit { .. }), "{error}"),
                }
            }
            Step::Cancel { node, nth } => {
                let asked = &mut self.asked[usize::from(node % 2)];
                let mut ids: Vec<AskId> = asked.keys().copied().collect();
                ids.sort_by_key(|id| asked[id].clone());
                if let Some(id) = ids.get(place(nth.into(), ids.len())) {
                    asked.remove(id);
                    self.engine(node % 2).cancel(*id);
                }
            }
            Step::Respond { nth, rejects } => {
                if !self.serving.is_empty() {
                    let (node, id, request) = self.serving.swap_remove(place(nth.into(), self.serving.len()));
                    let outcome = if rejects {
                        Err(Rejection::BUSY)
                    } else {
                        Ok(Packet::from(response(&request)))
                    };
                    self.engine(node).respond(now, &id, outcome).expect("it fits");
                }
            }
            Step::Arrive { at } => {
                if !self.wire.is_empty() {
                    let (dst, bytes, _) = self.wire.remove(place(at, self.wire.len()));
                    self.arrive(dst, bytes);
                }
            }
            Step::Repeat { at } => {
                if let Some((dst, bytes, _)) = self.wire.get(place(at, self.wire.len())).cloned() {
                    self.arrive(dst, bytes);
                }
            }
            Step::Lose { at } => {
                if !self.wire.is_empty() {
                    self.wire.remove(place(at, self.wire.len()));
                }
            }
            Step::Mangle { at, byte, bits } => {
                let at = place(at, self.wire.len());
                if let Some((_, bytes, _)) = self.wire.get_mut(at)
                    && let Some(byte) = bytes.get_mut(usize::from(byte))
                {
                    self.forged |= bits != 0;
                    *byte ^= bits;
                }
            }
            Step::Forge { node, header, body } => {
                self.forged = true;
                let body = vec![7; usize::from(body) % (INNER_MTU - HEADER)];
                self.arrive(node % 2, [&header[..], &body].concat());
            }
            Step::Raw { node, bytes } => {
                self.forged = true;
                self.arrive(node % 2, bytes);
            }
            Step::Wait { millis } => {
                self.now += Duration::from_millis((millis % 700_000).into());
                self.wire
                    .retain(|(_, _, since)| self.now.saturating_sub(*since) <= DELAY);
                let now = self.clock();
                self.engines
                    .iter_mut()
                    .for_each(|engine| engine.handle_timeout(now));
            }
        }
        self.drain();
    }

    /// Runs until all state has expired.
    fn finish(mut self) {
        for _ in 0..8 {
            self.wire.clear();
            self.now += Duration::from_mins(10);
            let now = self.clock();
            self.engines
                .iter_mut()
                .for_each(|engine| engine.handle_timeout(now));
            self.drain();
        }
        for (engine, asked) in self.engines.iter().zip(&self.asked) {
            assert!(asked.is_empty(), "an ask never ended");
            assert_eq!((engine.pending(), engine.remembered(), engine.held()), (0, 0, 0));
            assert_eq!(engine.poll_timeout(), None);
        }
    }
}

fuzz_target!(|steps: Steps<Step>| {
    let mut world = World::new();
    for step in steps.steps.into_iter().take(1000) {
        world.step(step);
    }
    world.finish();
});
