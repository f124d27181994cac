//! Chord engines in the simulator, and checks of the whole ring.

#![allow(dead_code)] // Each test crate that includes this module uses a part of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use p2p::PeerId;
use p2p_protocols::chord::{Config, Engine, Event, Found, OpError, OpId, Outcome, Rules, distance};
use p2p_swarmtest::sim::{self, SimAddr, Simulation};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A ring of engines, and randomness for its requests.
pub(crate) struct Ring {
    pub(crate) sim: Simulation<Engine<SimAddr>>,
    pub(crate) rules: Arc<Rules<SimAddr>>,
    pub(crate) random: StdRng,
}

/// The results of many lookups.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lookups {
    pub(crate) asked: usize,
    /// Lookups that found the right node.
    pub(crate) right: usize,
    /// Lookups that found another node.
    pub(crate) wrong: usize,
    /// Lookups that found no node.
    pub(crate) failed: usize,
    hops: usize,
    timeouts: usize,
}

impl std::ops::AddAssign for Lookups {
    fn add_assign(&mut self, other: Self) {
        self.asked += other.asked;
        self.right += other.right;
        self.wrong += other.wrong;
        self.failed += other.failed;
        self.hops += other.hops;
        self.timeouts += other.timeouts;
    }
}

#[allow(clippy::cast_precision_loss)] // Counts far below 2^52.
impl Lookups {
    pub(crate) fn mean_hops(&self) -> f64 {
        self.hops as f64 / self.asked as f64
    }

    pub(crate) fn mean_timeouts(&self) -> f64 {
        self.timeouts as f64 / self.asked as f64
    }
}

pub(crate) fn rules(config: Config) -> Arc<Rules<SimAddr>> {
    let config = Config {
        unproven_ids: true,
        ..config
    };
    let parse = |text: &str| text.parse().ok();
    Arc::new(Rules::new(config, parse, |_: &PeerId, value: &[u8]| {
        value != b"forbidden"
    }))
}

impl Ring {
    /// Creates a ring without nodes.
    pub(crate) fn new(seed: u64, config: Config) -> Self {
        println!("seed={seed}");
        let mut sim = Simulation::new(sim::Config {
            seed,
            ..sim::Config::default()
        });
        // Storing progress events would take more memory than the nodes do.
        sim.filter_events(|event| !matches!(event, Event::Progress { .. }));
        Self {
            sim,
            rules: rules(config),
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Creates a ring of `nodes` nodes that joined one after another through random nodes, and settled.
    pub(crate) fn of(seed: u64, config: Config, nodes: usize) -> Self {
        let mut ring = Self::new(seed, config);
        for _ in 0..nodes {
            ring.join();
            ring.sim.run_for(Duration::from_millis(200));
        }
        ring.settle();
        ring
    }

    /// Adds a node with a random id that joins through a random node.
    pub(crate) fn join(&mut self) -> SimAddr {
        let contact = self.member();
        self.join_by(contact)
    }

    /// Adds a node that joins through `contact`.
    pub(crate) fn join_by(&mut self, contact: Option<SimAddr>) -> SimAddr {
        let id = PeerId::new(self.random.random());
        self.join_as(id, contact)
    }

    /// Adds a node with this id that joins through `contact`.
    pub(crate) fn join_as(&mut self, id: PeerId, contact: Option<SimAddr>) -> SimAddr {
        let seed = self.sim.seed(self.sim.next_addr());
        let mut engine = Engine::new(id, self.rules.clone(), self.sim.now(), seed);
        if let Some(contact) = contact {
            engine.join(self.sim.now(), &[contact]).unwrap();
        }
        self.sim.add(engine)
    }

    /// Creates a ring of `nodes` nodes that join at an interval of `every`; it is correct once
    /// [`check`](Self::check) succeeds.
    pub(crate) fn crowd(seed: u64, config: Config, nodes: usize, every: Duration) -> Self {
        let mut ring = Self::new(seed, config);
        for number in 0..nodes {
            // The last nodes have not joined yet.
            let known = u32::try_from(number.saturating_sub(100) / 2).unwrap();
            let contact = (number > 0).then(|| SimAddr(ring.random.random_range(0..=known)));
            ring.join_by(contact);
            ring.sim.run_for(every);
        }
        ring
    }

    /// Runs until every table is correct, for at most `rounds` rounds of stabilization. Returns whether all
    /// are correct.
    pub(crate) fn stabilize(&mut self, rounds: u32) -> bool {
        let round = self.rules.config().stabilize_every;
        for _ in 0..rounds {
            if self.check().is_ok() {
                break;
            }
            self.rejoin();
            self.sim.run_for(round);
            self.sim.events().for_each(drop);
        }
        self.check().is_ok()
    }

    /// Runs some rounds of stabilization, and one round of fingers.
    pub(crate) fn settle(&mut self) {
        self.sim.run_for(400 * SECOND);
        self.sim.events().for_each(drop);
    }

    /// Lets isolated nodes join again through a node that is not isolated.
    pub(crate) fn rejoin(&mut self) {
        let is_alone = |(addr, node): (SimAddr, &Engine<SimAddr>)| {
            (node.successors().is_empty() && !node.is_joining()).then_some(addr)
        };
        let alone: Vec<SimAddr> = self.sim.nodes().filter_map(is_alone).collect();
        for addr in alone {
            if let Some(contact) = self.member().filter(|contact| *contact != addr) {
                self.sim
                    .act(addr, |node, now| node.join(now, &[contact]).unwrap());
            }
        }
    }

    /// Returns a random live node.
    pub(crate) fn anyone(&mut self) -> Option<SimAddr> {
        let up = self.sim.up();
        let nth = (up > 0).then(|| self.random.random_range(0..up))?;
        self.sim.nodes().nth(nth).map(|(addr, _)| addr)
    }

    /// Returns a random node on the ring; the first node while there is no ring.
    pub(crate) fn member(&mut self) -> Option<SimAddr> {
        let on_ring =
            |(addr, node): (SimAddr, &Engine<SimAddr>)| (!node.successors().is_empty()).then_some(addr);
        let members: Vec<SimAddr> = self.sim.nodes().filter_map(on_ring).collect();
        if members.is_empty() {
            return self.sim.nodes().next().map(|(addr, _)| addr);
        }
        Some(members[self.random.random_range(0..members.len())])
    }

    /// Stops this percentage of the nodes at the same moment.
    pub(crate) fn fail(&mut self, percent: usize) {
        let mut up: Vec<SimAddr> = self.sim.nodes().map(|(addr, _)| addr).collect();
        for _ in 0..up.len() * percent / 100 {
            let nth = self.random.random_range(0..up.len());
            self.sim.fail(up.swap_remove(nth));
        }
    }

    /// Returns all live nodes, in the order of the circle.
    pub(crate) fn members(&self) -> Vec<(PeerId, SimAddr)> {
        let mut members: Vec<_> = self.sim.nodes().map(|(addr, node)| (node.id(), addr)).collect();
        members.sort_unstable();
        members
    }

    /// Checks that every node has the right predecessor, successor list and fingers. Returns the fault
    /// otherwise.
    pub(crate) fn check(&self) -> Result<(), String> {
        let members = self.members();
        let count = members.len();
        for (at, (id, addr)) in members.iter().enumerate() {
            let engine = self.sim.engine(*addr).unwrap();
            let nth = |steps: usize| members[(at + steps) % count].0;
            let after: Vec<PeerId> = (1..count).take(self.rules.config().successors).map(nth).collect();
            let successors: Vec<PeerId> = engine.successors().iter().map(|node| node.id).collect();
            if successors != after {
                let at = successors
                    .iter()
                    .zip(&after)
                    .position(|(found, right)| found != right);
                return Err(format!(
                    "{addr}: of {} successors that should be {}, {at:?} is the first wrong one",
                    successors.len(),
                    after.len()
                ));
            }
            let before = (count > 1).then(|| nth(count - 1));
            let predecessor = engine.predecessor().map(|node| node.id);
            if predecessor != before {
                return Err(format!(
                    "{addr}: the predecessor is {predecessor:?}, not {before:?}"
                ));
            }
            for (bit, finger) in engine.fingers() {
                let start = power_after(id, *bit);
                let right = owner(&members, &start).0;
                if finger.id != right {
                    return Err(format!("{addr}: finger {bit} is {:?}, not {right:?}", finger.id));
                }
            }
        }
        Ok(())
    }

    /// Looks up random keys from random nodes, some at a time.
    pub(crate) fn lookups(&mut self, count: usize) -> Lookups {
        self.lookups_every(count, Duration::from_millis(1))
    }

    /// Looks up random keys from random nodes, at this interval.
    pub(crate) fn lookups_every(&mut self, count: usize, every: Duration) -> Lookups {
        let members = self.members();
        let mut sum = Lookups::default();
        let mut asked: HashMap<(SimAddr, OpId), (PeerId, PeerId)> = HashMap::new();
        self.sim.events().for_each(drop);
        for _ in 0..count {
            let (id, from) = members[self.random.random_range(0..members.len())];
            let key = PeerId::new(self.random.random());
            let op = self.sim.act(from, |node, now| node.lookup(now, key).unwrap());
            if let Some(op) = op {
                asked.insert((from, op), (id, key));
            }
            self.sim.run_for(every);
        }
        for _ in 0..100 {
            for (_, from, event) in self.sim.events() {
                let Event::Done { op, outcome } = event else {
                    continue;
                };
                let Some((_, key)) = asked.remove(&(from, op)) else {
                    continue;
                };
                let (right_id, right_addr) = owner(&members, &key);
                match outcome {
                    Ok(Outcome::Found(Found { owner, hops, failed })) => {
                        let is_right = match owner {
                            Some(owner) => owner.id == right_id && owner.addr == right_addr,
                            None => from == right_addr,
                        };
                        sum.right += usize::from(is_right);
                        sum.wrong += usize::from(!is_right);
                        sum.hops += hops;
                        sum.timeouts += failed;
                    }
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => sum.failed += 1,
                }
            }
            // The lookups of a stopped node end with it.
            let sim = &self.sim;
            let lives = |addr, id| sim.engine(addr).is_some_and(|node| node.id() == id);
            asked.retain(|(from, _), (id, _)| lives(*from, *id));
            if asked.is_empty() {
                sum.asked = sum.right + sum.wrong + sum.failed;
                return sum;
            }
            self.sim.run_for(SECOND);
        }
        panic!("{} lookups do not end", asked.len());
    }

    /// Runs an operation of one node to its end, for at most a minute.
    pub(crate) fn run(
        &mut self,
        node: SimAddr,
        begin: impl FnOnce(&mut Engine<SimAddr>, Duration) -> p2p::Result<OpId>,
    ) -> Result<Outcome<SimAddr>, OpError> {
        let op = self.sim.act(node, |engine, now| begin(engine, now).unwrap());
        let wanted = op.unwrap();
        for _ in 0..600 {
            let done = self.sim.events().find_map(|(_, addr, event)| match event {
                Event::Done { op, outcome } if addr == node && op == wanted => Some(outcome),
                _ => None,
            });
            if let Some(outcome) = done {
                return outcome;
            }
            self.sim.run_for(SECOND / 10);
        }
        panic!("the operation does not end");
    }
}

/// Returns the member that succeeds a key.
pub(crate) fn owner(members: &[(PeerId, SimAddr)], key: &PeerId) -> (PeerId, SimAddr) {
    let at = members.partition_point(|(id, _)| id < key);
    members[at % members.len()]
}

/// Returns the id that is 2 to the power of `bit` after an id, by means of the distance with that one bit.
fn power_after(id: &PeerId, bit: u8) -> PeerId {
    let mut power = [0; 32];
    power[31 - usize::from(bit / 8)] = 1 << (bit % 8);
    // id + p = id - (0 - p)
    let minus = distance::forward(&power, &[0; 32]);
    PeerId::new(distance::forward(&minus, id.as_bytes()))
}
