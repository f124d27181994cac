//! A network from a plan: its connections, its schedule, and its publishers.

use std::collections::HashMap;
use std::time::Duration;

use p2p_protocols::gossipsub::{Config, Connection, ScoreConfig, Version};
use p2p_swarmtest::sim::{self, Distribution, Latency, SimAddr, Simulation};
use p2p_swarmtest::topology::Topology;
use rand::rngs::StdRng;
use rand::seq::{SliceRandom as _, index};
use rand::{RngExt as _, SeedableRng as _};

use super::TOPIC;
use super::measure::{Measured, Sample};
use super::node::{Honest, Node, data};
use super::sybil::{Attack, Sybil};

/// The plan of a network.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Number of honest nodes.
    pub(crate) nodes: usize,
    /// Number of connections of each honest node to others: a random regular graph with random directions.
    pub(crate) degree: usize,
    /// One-way latency of all links.
    pub(crate) latency: Duration,
    /// The fraction of the latency that is added at random.
    pub(crate) jitter: f64,
    /// The fraction of RPCs that are lost.
    pub(crate) loss: f64,
    /// Upload rate of an honest node in bytes per second; `None` means unlimited.
    pub(crate) uplink: Option<u64>,
    /// Number of honest nodes that publish; the others only receive.
    pub(crate) publishers: usize,
    /// Configuration of the honest nodes.
    pub(crate) config: Config,
    /// The number of attackers, their attack, and its start; they connect before all others.
    pub(crate) sybils: usize,
    /// Number of honest nodes that each attacker connects to.
    pub(crate) sybil_degree: usize,
    /// Whether all attackers connect only to the last honest node, which joins when the attack starts.
    pub(crate) eclipse: bool,
    pub(crate) attack: Attack,
    pub(crate) attack_at: Duration,
    /// Seeds everything.
    pub(crate) seed: u64,
}

impl Plan {
    /// Returns a plan with the default configuration, eight connections for each node, links of 100 ms, and
    /// no attackers.
    pub(crate) fn new(nodes: usize, seed: u64) -> Self {
        Self {
            nodes,
            degree: 8,
            latency: Duration::from_millis(100),
            jitter: 0.0,
            loss: 0.0,
            uplink: None,
            publishers: nodes,
            config: Config::default(),
            sybils: 0,
            sybil_degree: 0,
            eclipse: false,
            attack: Attack::Drop,
            attack_at: Duration::ZERO,
            seed,
        }
    }

    /// Returns a plan as in the paper's evaluation, with ten Sybils for each node, so that each node has
    /// twenty connections to honest nodes and two hundred to Sybils.
    pub(crate) fn attacked(nodes: usize, seed: u64, attack: Attack, at: Duration) -> Self {
        Self {
            degree: 20.min(nodes - 2),
            jitter: 0.1,
            config: expecting(RATE),
            sybils: 10 * nodes,
            sybil_degree: 20.min(nodes),
            attack,
            attack_at: at,
            ..Self::new(nodes, seed)
        }
    }
}

impl Plan {
    /// Returns the testbed of the paper's evaluation, with this number of honest nodes instead of a thousand:
    /// a tenth of them publish, links take 25 ms, each honest node connects to twenty others, and four times
    /// as many Sybils connect to twenty each. Each publisher has the rate of the evaluation: 120 messages per
    /// second from a hundred.
    ///
    /// Source: github.com/libp2p/gossipsub-hardening, `scripts/configs/1k-attack-*.json`.
    pub(crate) fn testbed(nodes: usize, seed: u64, config: Config, at: Duration) -> Self {
        Self {
            degree: 40.min(nodes - 2),
            latency: Duration::from_millis(25),
            publishers: nodes.div_ceil(10),
            config,
            sybils: 4 * nodes,
            ..Self::attacked(nodes, seed, Attack::Drop, at)
        }
    }

    /// Returns the message rate in [`testbed`](Self::testbed), per second.
    pub(crate) fn testbed_rate(nodes: usize) -> f64 {
        0.12 * nodes as f64
    }
}

/// Returns the routers of the same evaluation before gossipsub v1.1: without scores, quotas, flood
/// publishing, adaptive gossip and opportunistic grafting.
pub(crate) fn unprotected() -> Config {
    Config {
        score: None,
        flood_publish: false,
        gossip_factor: 0.0,
        d_out: 0,
        ..evaluated()
    }
}

/// Message rate of a network under attack, per second.
pub(crate) const RATE: f64 = 5.0;

/// Returns the same routers with scores that expect this message rate.
pub(crate) fn expecting(rate: f64) -> Config {
    Config {
        score: Some(ScoreConfig::expecting(rate)),
        ..evaluated()
    }
}

/// Returns the routers of the paper's evaluation: libp2p/gossipsub-hardening,
/// `scripts/configs/1k-attack-*.json`.
pub(crate) fn evaluated() -> Config {
    Config {
        d: 8,
        d_lo: 6,
        d_hi: 12,
        d_score: 6,
        d_lazy: 12,
        score: Some(ScoreConfig::evaluated()),
        ..Config::default()
    }
}

/// A network; see the [module](super).
pub(crate) struct Network {
    pub(crate) plan: Plan,
    pub(crate) sim: Simulation<Node>,
    /// The connections of the honest nodes.
    pub(crate) topology: Topology,
    /// The publisher and the time of each message.
    pub(crate) published: Vec<(SimAddr, Duration)>,
    /// One sample for each second.
    pub(crate) samples: Vec<Sample>,
    /// For how many consecutive seconds an attacking Sybil has been in the mesh of an honest node.
    stays: HashMap<(SimAddr, SimAddr), u64>,
    /// The maximum of these.
    pub(crate) longest_stay: u64,
    /// The first message that is measured.
    first: usize,
    random: StdRng,
}

impl Network {
    /// Creates a network in which all nodes are connected and subscribed; nothing has arrived yet.
    pub(crate) fn new(plan: Plan) -> Self {
        let mut config = sim::Config {
            seed: plan.seed,
            ..sim::Config::default()
        };
        config.links.latency = Latency::PerPacket(Distribution::Constant(plan.latency));
        config.links.loss = plan.loss;
        let jitter = plan.latency.mul_f64(plan.jitter);
        config.links.jitter = (!jitter.is_zero()).then_some(Distribution::Uniform(Duration::ZERO, jitter));
        let topology = Topology::random_regular(plan.nodes, plan.degree, plan.seed).expect("a graph");
        let mut network = Self {
            sim: Simulation::new(config),
            topology,
            published: Vec::new(),
            samples: Vec::new(),
            stays: HashMap::new(),
            longest_stay: 0,
            first: 0,
            random: StdRng::seed_from_u64(plan.seed),
            plan,
        };
        network.add_nodes();
        let all = 0..network.plan.nodes - usize::from(network.plan.eclipse);
        if !network.plan.eclipse {
            network.connect_sybils();
        }
        let mut edges: Vec<(usize, usize)> = network.topology.edges().collect();
        edges.retain(|(one, other)| all.contains(one) && all.contains(other));
        edges.shuffle(&mut network.random);
        for (one, other) in edges {
            let turned = network.random.random();
            let (from, to) = if turned { (other, one) } else { (one, other) };
            network.connect(addr(from), addr(to));
        }
        all.for_each(|node| network.subscribe(node));
        network
    }

    /// Adds the last node; the Sybils connect to it before it has connected to any node.
    fn join(&mut self) {
        let joiner = self.plan.nodes - 1;
        self.connect_sybils();
        let others: Vec<usize> = self.topology.neighbours(joiner).collect();
        for other in others {
            self.connect(addr(joiner), addr(other));
        }
        self.subscribe(joiner);
    }

    fn subscribe(&mut self, node: usize) {
        self.sim.act(addr(node), |node, now| {
            if let Some(node) = node.honest_mut() {
                node.engine.subscribe(now, TOPIC).expect("a topic");
            }
        });
    }

    fn add_nodes(&mut self) {
        let plan = &self.plan;
        for at in 0..plan.nodes + plan.sybils {
            let seed = self.sim.seed(addr(at));
            let node = if at < plan.nodes {
                Node::Honest(Box::new(Honest::new(plan.config.clone(), plan.uplink, seed)))
            } else {
                Node::Sybil(Box::new(Sybil::new(plan.attack, plan.attack_at, seed)))
            };
            self.sim.add(node);
        }
    }

    fn connect_sybils(&mut self) {
        for sybil in self.plan.nodes..self.plan.nodes + self.plan.sybils {
            let victims: Vec<usize> = if self.plan.eclipse {
                vec![self.plan.nodes - 1]
            } else {
                index::sample(&mut self.random, self.plan.nodes, self.plan.sybil_degree).into_vec()
            };
            for victim in victims {
                self.connect(addr(sybil), addr(victim));
            }
        }
    }

    /// Connects `from` to `to`.
    fn connect(&mut self, from: SimAddr, to: SimAddr) {
        for (at, peer, outbound) in [(from, to, true), (to, from, false)] {
            self.sim.act(at, |node, now| match node {
                Node::Honest(node) => {
                    let connection = Connection {
                        version: Version::V1_2,
                        outbound,
                        info: None,
                    };
                    // A full node refuses.
                    let _ = node.engine.add_peer(now, &peer, connection);
                }
                Node::Sybil(sybil) => sybil.connect(peer),
            });
        }
    }

    pub(crate) fn honest(&self) -> impl Iterator<Item = &Honest> {
        self.sim.nodes().filter_map(|(_, node)| node.honest())
    }

    pub(crate) fn node(&self, at: usize) -> &Honest {
        let node = self.sim.engine(addr(at)).expect("it is up");
        node.honest().expect("it is honest")
    }

    /// Returns whether Sybils connect to this honest node.
    pub(crate) fn is_attacked(&self, node: usize) -> bool {
        !self.plan.eclipse || node == self.plan.nodes - 1
    }

    pub(crate) fn is_honest(&self, addr: SimAddr) -> bool {
        (addr.0 as usize) < self.plan.nodes
    }

    /// Advances the time, and samples all meshes each second.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.sim.now() + time;
        while self.sim.now() < end {
            let second = Duration::from_secs(self.sim.now().as_secs() + 1);
            self.sim.run_until(second.min(end));
            if self.sim.now() == second {
                self.look();
            }
            if self.plan.eclipse && self.sim.now() == self.plan.attack_at {
                self.join();
            }
        }
    }

    fn look(&mut self) {
        self.samples.push(Sample::of(self));
        if self.sim.now() <= self.plan.attack_at {
            return;
        }
        let mut stays = HashMap::new();
        for (node, honest) in self.honest().enumerate() {
            for peer in honest.engine.mesh(TOPIC).filter(|peer| !self.is_honest(**peer)) {
                let link = (addr(node), *peer);
                stays.insert(link, self.stays.get(&link).copied().unwrap_or(0) + 1);
            }
        }
        self.longest_stay = stays.values().copied().fold(self.longest_stay, u64::max);
        self.stays = stays;
    }

    pub(crate) fn publish(&mut self, by: usize, size: usize) {
        let by = addr(by);
        let data = data(self.published.len() as u32, by, size);
        self.published.push((by, self.sim.now()));
        self.sim.act(by, |node, now| {
            if let Some(node) = node.honest_mut() {
                node.publish(now, data);
            }
        });
    }

    /// Runs the network under its attack: `rate` messages per second until `until`, each from another honest
    /// node; then waits for the last ones for as long as gossip needs.
    pub(crate) fn under_attack(plan: Plan, rate: f64, until: Duration, size: usize) -> Self {
        let mut network = Self::new(plan);
        network.run(Duration::from_secs(1));
        // A node that joins late could not have received earlier messages.
        let publishers = network.plan.nodes - usize::from(network.plan.eclipse);
        let publishers = publishers.min(network.plan.publishers);
        let every = Duration::from_secs_f64(1.0 / rate);
        while network.sim.now() < until {
            if network.sim.now() < network.plan.attack_at {
                network.measure_from_here();
            }
            network.publish(network.published.len() % publishers, size);
            network.run(every);
        }
        network.run(Duration::from_secs(8));
        network
    }

    /// Publishes `count` messages one after another, each from another of the first `publishers` nodes.
    pub(crate) fn publish_all(&mut self, count: usize, publishers: usize, every: Duration, size: usize) {
        for message in 0..count {
            self.publish(message % publishers, size);
            self.run(every);
        }
    }

    /// Starts the measurement.
    pub(crate) fn measure_from_here(&mut self) {
        self.first = self.published.len();
    }

    /// Returns the propagation of the messages since [`measure_from_here`](Self::measure_from_here).
    pub(crate) fn measure(&self) -> Measured {
        Measured::of(self, self.first..self.published.len())
    }
}

pub(super) fn addr(node: usize) -> SimAddr {
    SimAddr(node as u32)
}
