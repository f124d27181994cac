//! The cost of layers over the bare base: the latency of a single round trip, and the goodput of long
//! messages.
//!
//! `cargo bench -p p2p-swarms --bench layers [-- NAME…]`. Both sides are in one thread, and alternate in one
//! run of many short rounds. A figure is the median of the rounds; `fastest` is the fastest round of each
//! side, which other processes disturb least.

#![expect(clippy::cast_precision_loss, reason = "counts are far below 2⁵²")]

use std::time::{Duration, Instant};

use p2p::{Addr, Message, Swarm};
use p2p_swarms::{Faults, SwarmExt as _, UdpSwarm};
use passing::{Driven, Tasked};

mod passing;

const ROUNDS: usize = 3001;
/// Round trips in a round: fewer than a scheduler time slice.
const TRIPS: u32 = 40;
/// Messages of 64 KiB in a round, likewise.
const MESSAGES: usize = 6;

fn udp() -> UdpSwarm {
    UdpSwarm::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port")
}

/// Sends one message of 64 bytes back and forth, `count` times; returns the time of one round trip.
async fn round_trips<A: Addr>([a, b]: &[impl Swarm<A>; 2], count: u32) -> Duration {
    let to = b.local_addrs().remove(0);
    let mut packet = a.packet(&[7; 64]);
    let start = Instant::now();
    for _ in 0..count {
        a.tell(&to, packet).await.expect("it fits");
        let there = b.receive().await.expect("open");
        b.tell(&there.src, there.payload).await.expect("it fits");
        packet = a.receive().await.expect("open").payload;
    }
    start.elapsed() / count
}

/// Sends bursts of `burst` new messages of `len` bytes, and reads each before the next; returns bytes per
/// second.
async fn goodput<A: Addr>([a, b]: &[impl Swarm<A>; 2], len: usize, burst: usize, bursts: usize) -> f64 {
    let to = b.local_addrs().remove(0);
    let payload = vec![7; len];
    let mut batch = Vec::new();
    let mut received: Vec<Message<A>> = Vec::new();
    let start = Instant::now();
    for _ in 0..bursts {
        batch.extend((0..burst).map(|_| (to.clone(), a.packet(&payload))));
        a.tell_batch(&mut batch).await.expect("it fits");
        while received.len() < burst {
            b.receive_batch(&mut received, burst).await.expect("open");
        }
        assert!(received.drain(..).all(|message| message.payload.len() == len));
    }
    (bursts * burst * len) as f64 / start.elapsed().as_secs_f64()
}

/// The results of the rounds of both sides, in order.
struct Rounds {
    name: &'static str,
    ours: Vec<f64>,
    peer: Vec<f64>,
}

impl Rounds {
    fn new(name: &'static str) -> Self {
        let (ours, peer) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
        Self { name, ours, peer }
    }

    /// Microseconds; lower is better.
    fn print_latency(self) {
        let (name, fastest) = (
            self.name,
            (best(&self.ours, f64::min), best(&self.peer, f64::min)),
        );
        let (ours, peer) = (median(self.ours), median(self.peer));
        println!(
            "name={name} ours={ours:.2} peer={peer:.2} ratio={:.2} unit=us added={:.2} fastest_added={:.2}",
            ours / peer,
            ours - peer,
            fastest.0 - fastest.1
        );
    }

    /// Megabytes per second; higher is better.
    fn print_goodput(self) {
        let (name, fastest) = (
            self.name,
            (best(&self.ours, f64::max), best(&self.peer, f64::max)),
        );
        let (ours, peer) = (median(self.ours), median(self.peer));
        println!(
            "name={name} ours={ours:.0} peer={peer:.0} ratio={:.2} unit=MB/s fastest_ratio={:.2}",
            ours / peer,
            fastest.0 / fastest.1
        );
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn best(figures: &[f64], better: fn(f64, f64) -> f64) -> f64 {
    figures.iter().copied().fold(f64::NAN, better)
}

async fn latency<A: Addr>(name: &'static str, stack: [impl Swarm<A>; 2]) {
    let bare = [udp(), udp()];
    let mut rounds = Rounds::new(name);
    for _ in 0..ROUNDS {
        rounds
            .peer
            .push(round_trips(&bare, TRIPS).await.as_secs_f64() * 1e6);
        rounds
            .ours
            .push(round_trips(&stack, TRIPS).await.as_secs_f64() * 1e6);
    }
    rounds.print_latency();
}

async fn throughput(name: &'static str) {
    let bare = [udp(), udp()];
    let stack = [udp(), udp()].map(|udp| udp.fragment(64 << 10));
    let mut rounds = Rounds::new(name);
    for _ in 0..ROUNDS {
        rounds.peer.push(goodput(&bare, 1200, 54, MESSAGES).await / 1e6);
        rounds
            .ours
            .push(goodput(&stack, 64 << 10, 1, MESSAGES).await / 1e6);
    }
    rounds.print_goodput();
}

/// Three layers that only receive and pass on: polled by their callers, against a task for each.
async fn driven_against_tasks(name: &'static str) {
    let driven = [udp(), udp()].map(|udp| Driven::new(Driven::new(Driven::new(udp))));
    let tasked = [udp(), udp()].map(|udp| Tasked::new(Tasked::new(Tasked::new(udp))));
    let mut rounds = Rounds::new(name);
    for _ in 0..ROUNDS {
        rounds
            .peer
            .push(round_trips(&tasked, TRIPS).await.as_secs_f64() * 1e6);
        rounds
            .ours
            .push(round_trips(&driven, TRIPS).await.as_secs_f64() * 1e6);
    }
    rounds.print_latency();
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    let name = "udp_faulty_round_trip";
    if wanted(name) {
        let faults = Faults::seeded(1);
        latency(name, [udp(), udp()].map(|udp| udp.faulty(faults.clone()))).await;
    }
    let name = "udp_frag_round_trip";
    if wanted(name) {
        latency(name, [udp(), udp()].map(|udp| udp.fragment(64 << 10))).await;
    }
    let name = "udp_mux_round_trip";
    if wanted(name) {
        let stack = [udp(), udp()].map(|udp| udp.mux().open("bench").expect("new"));
        latency(name, stack).await;
    }
    let name = "udp_frag_mux_round_trip";
    if wanted(name) {
        let stack = [udp(), udp()].map(|udp| udp.fragment(64 << 10).mux().open("bench").expect("new"));
        latency(name, stack).await;
    }
    let name = "udp_faulty_frag_mux_round_trip";
    if wanted(name) {
        let faults = Faults::seeded(1);
        let stack = [udp(), udp()].map(|udp| {
            let frag = udp.faulty(faults.clone()).fragment(64 << 10);
            frag.mux().open("bench").expect("new")
        });
        latency(name, stack).await;
    }
    let name = "three_driven_layers_round_trip";
    if wanted(name) {
        driven_against_tasks(name).await;
    }
    let name = "three_driven_layers_round_trip_2_workers";
    if wanted(name) {
        let on_workers = || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async { tokio::spawn(driven_against_tasks(name)).await })
        };
        // A runtime cannot be started within another one.
        let ended = std::thread::spawn(on_workers).join().expect("no panic");
        ended.expect("no panic");
    }
    let name = "frag_64k_over_udp";
    if wanted(name) {
        throughput(name).await;
    }
}
