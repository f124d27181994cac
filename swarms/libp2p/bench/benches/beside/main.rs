#![expect(clippy::cast_precision_loss, reason = "rates are shown rounded")]
//! Hosts beside rust-libp2p, and beside quinn used directly.
//!
//! `cargo bench --manifest-path swarms/libp2p/bench/Cargo.toml [-- NAME… rounds=N]`. Both ends are in one runtime, of
//! one thread or of two workers; each side counts with the better of the two. Rounds alternate; each line has the
//! medians, and the ratio is the median of each round's ratio.
//!
//! TLS of all three is by aws-lc-rs, and its key exchange X25519MLKEM768. Ours and quinn take AES-128-GCM; rust-libp2p
//! prefers ChaCha20-Poly1305, which cannot be changed. Noise is ChaCha20-Poly1305: by aws-lc-rs in ours, by ring in
//! rust-libp2p.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use p2p_formats::x509::PrivateKey;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use self::plain::Datagrams;

mod memory;
mod ours;
mod peer;
#[path = "../../../../benches/secure/plain.rs"]
mod plain;
mod quinn_stream;

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(400);
/// The start of a round is not counted: handshakes, and windows that grow.
const WARM_UP: Duration = Duration::from_millis(250);
/// The weight of a byte.
const GBIT: f64 = 8e-9;
/// Bytes that a stream of bulk data writes and reads at once.
const CHUNK: usize = 64 << 10;
/// Length of a request and of a response in bytes.
const ASK: usize = 64;

/// How nodes are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Quic,
    /// TCP, Noise and yamux.
    Tcp,
}

impl Way {
    fn place(self) -> &'static str {
        match self {
            Self::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
            Self::Tcp => "/ip4/127.0.0.1/tcp/0",
        }
    }
}

/// One round with this many workers: its deliveries per second.
type Side = Box<dyn Fn(usize) -> f64>;

/// A name, both sides, and the weight of a delivery.
type Bench = (String, Side, Side, f64);

fn side<F: Future<Output = ()> + Send + 'static>(
    work: impl Fn(Arc<AtomicU64>) -> F + Copy + 'static,
) -> Side {
    Box::new(move |workers| rate(workers, work))
}

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let rounds = words
        .iter()
        .find_map(|word| word.strip_prefix("rounds=")?.parse().ok());
    let rounds = rounds.unwrap_or(ROUNDS);
    let only = words
        .iter()
        .find(|word| ["ours", "peer"].contains(&word.as_str()));
    let chosen: Vec<_> = words
        .iter()
        .filter(|word| !word.contains('=') && Some(*word) != only)
        .collect();
    let is_chosen = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| *chosen == name);
    for (name, ours, peer, unit) in benches() {
        if !is_chosen(&name) {
            continue;
        }
        match only.map(String::as_str) {
            Some("ours") => cost(&name, rounds, &ours, unit),
            Some(_) => cost(&name, rounds, &peer, unit),
            None => compare(&name, rounds, &ours, &peer, unit),
        }
    }
    for (way, name) in [(Way::Quic, "quic_memory"), (Way::Tcp, "tcp_memory")] {
        if is_chosen(name) {
            memory::compare(name, way);
        }
    }
}

fn benches() -> Vec<Bench> {
    let mut benches: Vec<Bench> = Vec::new();
    for (peer, datagrams) in [("quinn", Datagrams::Default), ("quinn_long", Datagrams::Long)] {
        let quinn = || side(move |count| quinn_stream::bulk(datagrams, count));
        benches.push((
            format!("quic_swarm_gbit_{peer}"),
            side(ours::messages),
            quinn(),
            GBIT,
        ));
        let ours = side(ours::bulk_of_chunks);
        benches.push((format!("quic_stream_gbit_{peer}"), ours, quinn(), GBIT));
    }
    for (way, name) in [(Way::Quic, "quic"), (Way::Tcp, "tcp")] {
        benches.push((
            format!("{name}_stream_gbit"),
            side(move |count| ours::bulk(way, count)),
            side(move |count| peer::bulk(way, count)),
            GBIT,
        ));
        for in_flight in [1, 64] {
            benches.push((
                format!("{name}_ask_{in_flight}"),
                side(move |count| ours::asks(way, in_flight, count)),
                side(move |count| peer::asks(way, in_flight, count)),
                1.0,
            ));
        }
        benches.push((
            format!("{name}_stream_ask_1"),
            side(move |count| ours::stream_asks(way, count)),
            side(move |count| peer::stream_asks(way, count)),
            1.0,
        ));
        benches.push((
            format!("{name}_handshakes"),
            side(move |count| ours::handshakes(way, count)),
            side(move |count| peer::handshakes(way, count)),
            1.0,
        ));
    }
    benches
}

/// Prints the rate of one side in one thread, and the processor time of a unit, which other load changes less: for
/// profilers, and for changes that are too small for rounds.
fn cost(name: &str, rounds: usize, side: &Side, unit: f64) {
    let rounds = (0..rounds).map(|_| {
        let from = processor_time();
        let rate = unit * side(1);
        let used = processor_time() - from;
        (rate, used / (rate * (WARM_UP + ROUND).as_secs_f64()))
    });
    let rounds: Vec<_> = rounds.collect();
    let rate = median(rounds.iter().map(|(rate, _)| *rate));
    let cost = median(rounds.iter().map(|(_, cost)| *cost));
    println!("name={name} rate={rate:.2} processor_seconds={cost:.7}");
}

/// Returns the seconds for which this thread has run.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds: f64 = stat
        .split(' ')
        .next()
        .and_then(|text| text.parse().ok())
        .expect("a number");
    nanoseconds / 1e9
}

fn compare(name: &str, rounds: usize, ours: &Side, peer: &Side, unit: f64) {
    const SIDES: usize = 4;
    let sides: [(&Side, usize); SIDES] = [(ours, 1), (peer, 1), (ours, 2), (peer, 2)];
    let rounds: Vec<[f64; SIDES]> = (0..rounds)
        .map(|round| {
            let mut rates = [0.0; SIDES];
            for turn in 0..SIDES {
                let at = (turn + round) % SIDES;
                let (side, workers) = sides[at];
                rates[at] = unit * side(workers);
            }
            rates
        })
        .collect();
    let of = |at: usize| median(rounds.iter().map(|round| round[at]));
    let better = |one: usize, two: usize| if of(one) >= of(two) { one } else { two };
    let (ours, peer) = (better(0, 2), better(1, 3));
    let ratio = median(rounds.iter().map(|round| round[ours] / round[peer]));
    println!(
        "name={name} ours={:.2} peer={:.2} ratio={ratio:.3} ours_1_2={:.2},{:.2} peer_1_2={:.2},{:.2}",
        of(ours),
        of(peer),
        of(0),
        of(2),
        of(1),
        of(3)
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn runtime(workers: usize) -> Runtime {
    let mut builder = match workers {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let builder = builder.worker_threads(workers).enable_all();
    builder.build().expect("a runtime")
}

/// Runs `work` in a task that counts deliveries until the round ends; returns the rate.
fn rate<F: Future<Output = ()> + Send + 'static>(
    workers: usize,
    work: impl FnOnce(Arc<AtomicU64>) -> F,
) -> f64 {
    let runtime = runtime(workers);
    let count = Arc::new(AtomicU64::new(0));
    let _work = runtime.spawn(work(count.clone()));
    let rate = runtime.block_on(async {
        tokio::time::sleep(WARM_UP).await;
        let (from, start) = (count.load(Relaxed), Instant::now());
        tokio::time::sleep(ROUND).await;
        (count.load(Relaxed) - from) as f64 / start.elapsed().as_secs_f64()
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    rate
}

/// Runs each of `futures` in a task until the round ends.
async fn all<F: Future<Output = ()> + Send + 'static>(futures: impl Iterator<Item = F>) {
    let mut tasks: JoinSet<()> = futures.collect();
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no panic");
    }
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::ed25519(&[seed; 32])
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}
