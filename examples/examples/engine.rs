//! One engine, first in a simulation, then on UDP: nodes find the largest of their numbers.
//!
//! `cargo run --example engine`

use std::time::Duration;

use p2p::engine::{Engine, RequestId, Transmit};
use p2p::{Rejection, Result};
use p2p_swarms::{SwarmExt as _, UdpSwarm, drive};
use p2p_swarmtest::sim::{Config, SimAddr, Simulation};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Interval between the requests of a node.
const EVERY: Duration = Duration::from_millis(100);

/// A node that knows the addresses of others, and asks a random one at intervals for the largest number that it
/// knows.
struct Largest<A> {
    known: u64,
    others: Vec<A>,
    random: StdRng,
    next: Duration,
    asked: u64,
    request: Option<Transmit<A>>,
    news: Option<u64>,
}

impl<A: Clone> Largest<A> {
    /// Creates a node with a random number that follows from `seed`.
    fn new(others: Vec<A>, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let known = random.random();
        Self {
            known,
            others,
            next: EVERY.mul_f64(random.random_range(0.0..1.0)),
            random,
            asked: 0,
            request: None,
            news: Some(known),
        }
    }
}

impl<A: Clone> Engine for Largest<A> {
    type Addr = A;
    /// A larger number than before.
    type Event = u64;

    fn handle_request(&mut self, _now: Duration, _from: &A, _request: &[u8]) -> Result<Vec<u8>, Rejection> {
        Ok(self.known.to_be_bytes().to_vec())
    }

    fn handle_answer(&mut self, _now: Duration, _id: RequestId, answer: &[u8]) {
        // An answer of another length is ignored.
        let number = answer.try_into().map_or(0, u64::from_be_bytes);
        if number > self.known {
            self.known = number;
            self.news = Some(number);
        }
    }

    fn handle_timeout(&mut self, now: Duration) {
        self.next = now + EVERY;
        self.asked += 1;
        if self.others.is_empty() {
            return;
        }
        let other = self.random.random_range(0..self.others.len());
        self.request = self.others.get(other).map(|to| Transmit::Ask {
            to: to.clone(),
            id: RequestId(self.asked),
            request: Vec::new(),
        });
    }

    fn poll_transmit(&mut self, _now: Duration) -> Option<Transmit<A>> {
        self.request.take()
    }

    fn poll_event(&mut self) -> Option<u64> {
        self.news.take()
    }

    fn poll_timeout(&self) -> Option<Duration> {
        Some(self.next)
    }
}

/// The result of a run: the largest number at each node, and the time until no node learned another.
struct Found {
    largest: Vec<u64>,
    took: Duration,
}

/// Runs the engine in a simulation.
fn simulated(nodes: u32) -> Found {
    let mut sim = Simulation::new(Config::default());
    let addrs: Vec<SimAddr> = (0..nodes).map(SimAddr).collect();
    for seed in 0..nodes.into() {
        sim.add(Largest::new(addrs.clone(), seed));
    }
    sim.run_for(Duration::from_secs(5));
    let last = sim.events().last();
    Found {
        largest: sim.nodes().map(|(_, node)| node.known).collect(),
        took: last.map(|(at, ..)| at).unwrap_or_default(),
    }
}

/// Runs the engine on UDP, on this machine.
async fn over_udp(nodes: u32) -> Result<Found> {
    let mut swarms = Vec::new();
    for _ in 0..nodes {
        swarms.push(UdpSwarm::bind(([127, 0, 0, 1], 0).into())?.mbapp(1024));
    }
    let addrs = swarms
        .iter()
        .map(p2p::Swarm::local_addr)
        .collect::<Result<Vec<_>>>()?;
    let mut running = Vec::new();
    for (seed, swarm) in (0..).zip(swarms) {
        running.push(drive(Largest::new(addrs.clone(), seed), swarm)?);
    }
    // This program knows the result, and waits for each node to find it.
    let largest = (0..nodes.into())
        .map(|seed| Largest::new(addrs.clone(), seed).known)
        .max();
    let (mut found, mut took) = (Vec::new(), Duration::ZERO);
    for node in running.iter().filter(|_| largest.is_some()) {
        let mut last = None;
        while last != largest {
            last = Some(node.event().await?);
        }
        found.extend(last);
        took = took.max(node.now());
    }
    Ok(Found { largest: found, took })
}

#[tokio::main]
async fn main() -> Result<()> {
    let show = |name: &str, found: &Found| {
        let largest = found.largest.iter().max().copied().unwrap_or_default();
        let knowing = found.largest.iter().filter(|number| **number == largest).count();
        println!(
            "{name:11} {knowing} of {} nodes know {largest} after {:.2?}",
            found.largest.len(),
            found.took
        );
    };
    show("simulation:", &simulated(1_000));
    // The same nodes twice: only the medium differs.
    let in_simulation = simulated(32);
    show("simulation:", &in_simulation);
    let on_udp = over_udp(32).await?;
    show("UDP:", &on_udp);
    assert_eq!(
        in_simulation.largest, on_udp.largest,
        "the same engine finds the same"
    );
    Ok(())
}

#[test]
fn it_runs() -> Result<()> {
    main()
}
