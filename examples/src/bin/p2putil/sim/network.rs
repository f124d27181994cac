//! A network of simulated nodes with lookups and records.

use std::collections::HashMap;
use std::time::Duration;

use p2p::PeerId;
use p2p_protocols::overlay::OpId;
use p2p_swarmtest::sim::{self, Arrival, Churn, Distribution, SimAddr, Simulation};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::overlay::{self, Ended, EngineEvent, Overlay};

/// Timeout of an operation in virtual time.
const PATIENCE: Duration = Duration::from_mins(2);

/// Mean time until a node that left returns.
const ABSENCE: Duration = Duration::from_mins(1);

pub(super) struct Network<O: Overlay> {
    pub(super) sim: Simulation<O>,
    random: StdRng,
    /// The records that were put and are to be read.
    keys: Vec<PeerId>,
}

/// The results of operations.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) of: usize,
    pub(super) right: usize,
    /// The hops of successful lookups, sorted.
    pub(super) hops: Vec<usize>,
}

impl Tally {
    /// Returns the success rate in percent, or `None` without operations.
    pub(super) fn percent(&self) -> Option<f64> {
        (self.of > 0).then(|| 100.0 * number(self.right) / number(self.of))
    }

    pub(super) fn mean_hops(&self) -> Option<f64> {
        let sum: usize = self.hops.iter().sum();
        (!self.hops.is_empty()).then(|| number(sum) / number(self.hops.len()))
    }

    /// Returns the number of hops that this percentage of the lookups did not exceed.
    pub(super) fn percentile(&self, share: usize) -> Option<usize> {
        let last = self.hops.len().checked_sub(1)?;
        self.hops.get(last * share / 100).copied()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of one run are far below 2⁵²")]
pub(super) fn number(count: usize) -> f64 {
    count as f64
}

/// What is requested of a node, and its deadline.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// All nodes that a lookup of this key should find.
    All(PeerId),
    /// The nearest node.
    First(PeerId),
    /// That a record is stored under this key.
    Put(PeerId),
    /// A record.
    Got,
}

impl<O: Overlay> Network<O> {
    pub(super) fn new(seed: u64, loss: f64) -> Self {
        let mut config = sim::Config {
            seed,
            ..sim::Config::default()
        };
        config.links.loss = loss;
        let mut sim = Simulation::new(config);
        sim.filter_events(O::is_end);
        Self {
            sim,
            random: StdRng::seed_from_u64(seed),
            keys: Vec::new(),
        }
    }

    /// Adds a node that joins through a member.
    pub(super) fn join(&mut self) {
        let (id, seed) = (self.id(), self.sim.seed(self.sim.next_addr()));
        let contact = self.member();
        let mut engine = overlay::engine::<O>(id, self.sim.now(), seed);
        if let Some(contact) = contact {
            // A new node has room for an operation.
            let _ = engine.join(self.sim.now(), contact);
        }
        self.sim.add(engine);
        self.run_for(O::APART);
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        self.sim.run_for(time);
        self.sim.events().for_each(drop);
    }

    fn id(&mut self) -> PeerId {
        PeerId::new(self.random.random())
    }

    /// Returns a random node that is up.
    fn anyone(&mut self) -> Option<SimAddr> {
        let up = self.sim.up();
        let nth = (up > 0).then(|| self.random.random_range(0..up))?;
        self.sim.nodes().nth(nth).map(|(addr, _)| addr)
    }

    /// Returns a random node that has joined; if none has, the first one.
    fn member(&mut self) -> Option<SimAddr> {
        for _ in 0..100 {
            let addr = self.anyone()?;
            if self.sim.engine(addr).is_some_and(O::has_joined) {
                return Some(addr);
            }
        }
        self.sim.nodes().next().map(|(addr, _)| addr)
    }

    fn members(&self) -> Vec<PeerId> {
        let mut members: Vec<PeerId> = self.sim.nodes().map(|(_, node)| node.id()).collect();
        members.sort_unstable();
        members
    }

    /// Puts records; a put that could not be started counts as failed.
    pub(super) fn put(&mut self, records: usize) -> Tally {
        let keys: Vec<PeerId> = (0..records).map(|_| self.id()).collect();
        let mut asked = HashMap::new();
        for key in keys {
            self.begin(&mut asked, Wanted::Put(key), |node, now| {
                node.put(now, key, b"a record").ok()
            });
        }
        let mut tally = self.finish(asked);
        tally.of = records;
        tally
    }

    /// Looks up random keys from random nodes. If `all` is set, every node found must be correct, otherwise
    /// the first one.
    pub(super) fn look_up(&mut self, count: usize, all: bool) -> Tally {
        let mut asked = HashMap::new();
        for _ in 0..count {
            let key = self.id();
            let wanted = if all { Wanted::All(key) } else { Wanted::First(key) };
            self.begin(&mut asked, wanted, |node, now| node.look_up(now, key).ok());
        }
        self.finish(asked)
    }

    /// Reads random records from random nodes; none if none was put.
    pub(super) fn get(&mut self, count: usize) -> Tally {
        let mut asked = HashMap::new();
        for _ in 0..count.min(self.keys.len() * count) {
            let key = self.keys[self.random.random_range(0..self.keys.len())];
            self.begin(&mut asked, Wanted::Got, |node, now| node.get(now, key).ok());
        }
        self.finish(asked)
    }

    /// Starts an operation at a random node, and advances the time by a millisecond.
    fn begin(
        &mut self,
        asked: &mut HashMap<(SimAddr, OpId), (PeerId, Wanted)>,
        wanted: Wanted,
        begin: impl FnOnce(&mut O, Duration) -> Option<OpId>,
    ) {
        let Some(addr) = self.member() else { return };
        let operation = self.sim.act(addr, |node, now| (node.id(), begin(node, now)));
        if let Some((id, Some(op))) = operation {
            asked.insert((addr, op), (id, wanted));
        }
        self.sim.run_for(Duration::from_millis(1));
    }

    /// Waits for operations. Operations of nodes that leave are not counted.
    fn finish(&mut self, mut asked: HashMap<(SimAddr, OpId), (PeerId, Wanted)>) -> Tally {
        let mut tally = Tally::default();
        let end = self.sim.now() + PATIENCE;
        while !asked.is_empty() && self.sim.now() < end {
            let members = self.members();
            let events: Vec<(SimAddr, EngineEvent<O>)> =
                self.sim.events().map(|(_, addr, event)| (addr, event)).collect();
            for (addr, event) in events {
                let Some(ended) = O::ended(event) else { continue };
                let Some((id, wanted)) = asked.remove(&(addr, ended.op())) else {
                    continue;
                };
                let is_right = match (wanted, &ended) {
                    (Wanted::All(key), Ended::Found { nodes, .. }) => {
                        let found = nodes.iter().map(|node| node.unwrap_or(id));
                        found.eq(O::right(&members, &id, &key))
                    }
                    (Wanted::First(key), Ended::Found { nodes, .. }) => {
                        let first = nodes.first().map(|node| node.unwrap_or(id));
                        first.as_ref() == O::right(&members, &id, &key).first()
                    }
                    (Wanted::Put(key), Ended::Kept { somewhere: true, .. }) => {
                        self.keys.push(key);
                        true
                    }
                    (Wanted::Got, Ended::Got { there, .. }) => *there,
                    _ => false,
                };
                tally.of += 1;
                tally.right += usize::from(is_right);
                if let Ended::Found { hops, .. } = ended {
                    tally.hops.push(hops);
                }
            }
            let sim = &self.sim;
            let is_there = |addr, id| sim.engine(addr).is_some_and(|node| node.id() == id);
            asked.retain(|(addr, _), (id, _)| is_there(*addr, *id));
            self.sim.run_for(Duration::from_millis(100));
        }
        tally.of += asked.len();
        tally.hops.sort_unstable();
        tally
    }

    /// Stops this percentage of the nodes at the same time, without notice.
    pub(super) fn fail(&mut self, percent: usize) {
        let mut up: Vec<SimAddr> = self.sim.nodes().map(|(addr, _)| addr).collect();
        for _ in 0..up.len() * percent / 100 {
            let nth = self.random.random_range(0..up.len());
            self.sim.fail(up.swap_remove(nth));
        }
    }

    /// Starts churn: session times have the given median, and nodes return after a mean of one minute as new
    /// nodes.
    pub(super) fn churn(&mut self, median: Duration) {
        let churn = Churn {
            session: Distribution::Exponential {
                mean: median.div_f64(std::f64::consts::LN_2),
            },
            absence: Distribution::Exponential { mean: ABSENCE },
            announced: 0.0,
            until: Duration::MAX,
        };
        let mut random = StdRng::from_rng(&mut self.random);
        self.sim.churn(churn, move |arrival: Arrival| {
            let id = PeerId::new(random.random());
            let mut engine = overlay::engine::<O>(id, arrival.now, arrival.seed);
            if let Some(contact) = arrival.contact {
                let _ = engine.join(arrival.now, contact);
            }
            engine
        });
    }
}
