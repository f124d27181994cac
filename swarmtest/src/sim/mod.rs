//! A deterministic simulator of whole networks: thousands of engines in virtual time.
//!
//! A [`Simulation`] holds engines with [`SimAddr`] as their addresses, one event queue, and virtual time. An
//! engine needs no adapter: the contract is that of [`p2p::engine`], which drivers of swarms use as well, and
//! which the engines of `p2p-protocols` implement. [`Links`] connect the
//! nodes: latency (sampled, or from a matrix), jitter, loss and bandwidth. Nodes join and leave by calls, by
//! script ([`Simulation::at`]) or at random ([`Churn`]); [partitions](Simulation::partition) cut the network
//! and heal. Engines tell (one way) and ask: the other engine responds at once, and the asker receives the
//! response or a [`Failure`].
//!
//! One seed determines everything: two runs of the same program have the same [`trace`](Simulation::trace).
//! Packets are counted: sent = delivered + dropped + [in flight](Simulation::in_flight).
//!
//! ```
//! use std::time::Duration;
//! use p2p_swarmtest::sim::{Config, Engine, SimAddr, Simulation, Transmit};
//!
//! /// Passes on each number that it has not seen, one higher, to the next node of a ring.
//! struct Relay { next: SimAddr, out: Option<Transmit<SimAddr>>, seen: Option<u8> }
//!
//! impl Relay {
//!     fn send(&mut self, number: u8) {
//!         self.out = Some(Transmit::Tell { to: self.next, payload: vec![number] });
//!     }
//! }
//!
//! impl Engine for Relay {
//!     type Addr = SimAddr;
//!     type Event = u8;
//!     fn handle_message(&mut self, _now: Duration, _from: &SimAddr, payload: &[u8]) {
//!         self.seen = payload.first().copied();
//!         self.send(payload[0] + 1);
//!     }
//!     fn poll_transmit(&mut self, _now: Duration) -> Option<Transmit<SimAddr>> { self.out.take() }
//!     fn poll_event(&mut self) -> Option<u8> { self.seen.take() }
//! }
//!
//! let mut sim = Simulation::new(Config { seed: 7, ..Config::default() });
//! for node in 0..10 {
//!     sim.add(Relay { next: SimAddr((node + 1) % 10), out: None, seen: None });
//! }
//! sim.act(SimAddr(0), |relay, _now| relay.send(0));
//! sim.run_until(Duration::from_secs(1)); // links take 50 ms unless the configuration says otherwise
//! let (at, node, number) = sim.events().last().unwrap();
//! assert_eq!((at, node, number), (Duration::from_secs(1), SimAddr(0), 19));
//! assert_eq!(sim.counters().sent, sim.counters().delivered + sim.in_flight());
//! ```
//!
//! Numbers from a [`Distribution`] with logarithms depend on the machine's mathematical library; with constant or
//! uniform ones a seed means the same on every machine.
//!
//! Deliberately absent: duplication and corruption (the `faulty` swarm has them), MTUs, CPU time of nodes, and threads.

mod addr;
mod churn;
mod distribution;
mod link;
mod mix;
mod queue;
mod simulation;

pub use addr::SimAddr;
pub use churn::{Arrival, Churn};
pub use distribution::Distribution;
pub use link::{Latency, Links, Matrix, Uplink};
pub use p2p::engine::{Engine, Failure, RequestEngine, RequestId, RequestTransmit, Transmit};
pub use simulation::{Asks, Config, Simulation};
