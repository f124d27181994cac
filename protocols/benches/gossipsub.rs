//! The cost of a message in a gossipsub engine: publishing, receiving, and its signature compared with other
//! libraries.
//!
//! `cargo bench -p p2p-protocols --bench gossipsub [-- NAME…]`, with the names `unsigned`, `signed`,
//! `signatures`. One thread, messages of 1 KiB, two nodes; a figure is the median of the rounds in
//! nanoseconds per message.

#![allow(
    clippy::cast_precision_loss,
    reason = "counts are far below 2^52, and figures have few digits"
)]

use std::fmt;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use bytes::Bytes;
use p2p::Addr;
use p2p_formats::x509::{PrivateKey, Registry};
use p2p_protocols::gossipsub::{Config, Connection, Engine, Event, Signing, Version};

const LEN: usize = 1024;
const ROUNDS: usize = 9;
const MESSAGES: u64 = 20_000;
const SIGNATURES: u64 = 2_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Node(u8);

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Addr for Node {}

fn signing(number: u8) -> Signing {
    let key = PrivateKey::ed25519(&[number; 32]);
    Signing::strict(Arc::from(Registry::default().signer(&key).expect("a key"))).expect("ed25519")
}

fn engine(number: u8, signed: bool) -> Engine<Node> {
    let policy = if signed {
        signing(number)
    } else {
        Signing::StrictNoSign
    };
    let seed = u64::from(number);
    Engine::new(Config::default(), policy, 0, Duration::ZERO, seed).expect("a configuration")
}

fn payload(number: u64) -> Bytes {
    let mut data = vec![0; LEN];
    data[..8].copy_from_slice(&number.to_be_bytes());
    data.into()
}

/// Two engines in each other's mesh.
struct Pair {
    engines: [Engine<Node>; 2],
    now: Duration,
    published: u64,
}

impl Pair {
    fn new(signed: bool) -> Self {
        let engines = [engine(0, signed), engine(1, signed)];
        let mut pair = Self {
            engines,
            now: Duration::ZERO,
            published: 0,
        };
        for at in 0..2 {
            let (peer, connection) = (
                Node(1 - at),
                Connection {
                    version: Version::V1_2,
                    outbound: at == 0,
                    info: None,
                },
            );
            let engine = &mut pair.engines[usize::from(at)];
            engine.add_peer(pair.now, &peer, connection).expect("room");
            engine.subscribe(pair.now, "bench").expect("a topic");
        }
        pair.pass(Duration::from_secs(3));
        assert!(
            pair.engines
                .iter()
                .all(|engine| engine.mesh("bench").count() == 1)
        );
        pair
    }

    /// Advances the time, and delivers all RPCs of both nodes.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_millis(10);
            for at in 0..2 {
                if self.engines[at].poll_timeout() <= self.now {
                    self.engines[at].handle_timeout(self.now);
                }
                while let Some(transmit) = self.engines[at].poll_transmit(self.now) {
                    self.engines[1 - at].handle_rpc(self.now, &Node(at as u8), &transmit.rpc);
                }
                while self.engines[at].poll_event().is_some() {}
            }
        }
    }

    /// Returns the nanoseconds for publishing and for receiving.
    fn messages(&mut self, count: u64) -> [f64; 2] {
        let mut times = [Duration::ZERO; 2];
        let [one, other] = &mut self.engines;
        for _ in 0..count / 100 {
            let data: Vec<Bytes> = (0..100).map(|at| payload(self.published + at)).collect();
            self.published += 100;
            let start = Instant::now();
            let rpcs: Vec<Bytes> = data
                .into_iter()
                .map(|data| {
                    one.publish(self.now, "bench", data).expect("published");
                    one.poll_transmit(self.now).expect("a copy").rpc
                })
                .collect();
            times[0] += start.elapsed();
            let start = Instant::now();
            for rpc in rpcs {
                other.handle_rpc(self.now, &Node(0), &rpc);
                let event = other.poll_event();
                assert!(matches!(event, Some(Event::Message(received)) if received.data.len() == LEN));
                assert!(other.poll_transmit(self.now).is_none());
            }
            times[1] += start.elapsed();
        }
        self.pass(Duration::from_secs(1));
        times.map(|time| time.as_nanos() as f64 / count as f64)
    }
}

fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn engines(signed: bool) {
    let mut pair = Pair::new(signed);
    let count = if signed { SIGNATURES } else { MESSAGES };
    let rounds: Vec<[f64; 2]> = (0..ROUNDS).map(|_| pair.messages(count)).collect();
    let name = if signed { "signed" } else { "unsigned" };
    for (at, what) in ["publish", "receive"].into_iter().enumerate() {
        let ns = median(rounds.iter().map(|round| round[at]));
        println!("name=gossipsub_{what}_{name} ours={ns:.0} unit=ns");
    }
}

/// Returns the nanoseconds per call.
fn time(mut call: impl FnMut(u64)) -> f64 {
    let start = Instant::now();
    (0..SIGNATURES).for_each(&mut call);
    start.elapsed().as_nanos() as f64 / SIGNATURES as f64
}

fn signatures() {
    let seed = [5; 32];
    let data: Vec<Bytes> = (0..64).map(payload).collect();
    let message = |at: u64| &data[at as usize % 64];
    let lc = Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes");
    let ring = ring::signature::Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes");
    let dalek = libp2p_identity::Keypair::ed25519_from_bytes(seed).expect("32 bytes");
    let public =
        *<&[u8; 32]>::try_from(aws_lc_rs::signature::KeyPair::public_key(&lc).as_ref()).expect("32 bytes");
    let signatures: Vec<_> = data.iter().map(|data| lc.sign(data)).collect();
    let signature = |at: u64| signatures[at as usize % 64].as_ref();
    let (mut sign, mut verify) = ([const { Vec::new() }; 3], [const { Vec::new() }; 3]);
    for _ in 0..ROUNDS {
        sign[0].push(time(|at| {
            black_box(lc.sign(message(at)).as_ref());
        }));
        sign[1].push(time(|at| {
            black_box(ring.sign(message(at)).as_ref());
        }));
        sign[2].push(time(|at| {
            black_box(&dalek.sign(message(at)).expect("signed"));
        }));
        verify[0].push(time(|at| {
            UnparsedPublicKey::new(&ED25519, &public)
                .verify(message(at), signature(at))
                .expect("good");
        }));
        verify[1].push(time(|at| {
            let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &public);
            key.verify(message(at), signature(at)).expect("good");
        }));
        // Its point is decompressed once; the two others do it each time.
        let key = dalek.public();
        verify[2].push(time(|at| assert!(key.verify(message(at), signature(at)))));
    }
    for (what, figures) in [("sign", sign), ("verify", verify)] {
        let [lc, ring, dalek] = figures.map(median);
        println!("name=gossipsub_{what} ours={lc:.0} ring={ring:.0} dalek={dalek:.0} unit=ns");
    }
}

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    if wanted("unsigned") {
        engines(false);
    }
    if wanted("signed") {
        engines(true);
    }
    if wanted("signatures") {
        signatures();
    }
}
