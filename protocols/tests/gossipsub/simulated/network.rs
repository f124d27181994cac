//! A network by plan: who is connected to whom, when, and who publishes.

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

/// What a network is like.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Honest nodes.
    pub(crate) nodes: usize,
    /// Connections of each among them: a random regular graph, whose edges have a direction by chance.
    pub(crate) degree: usize,
    /// One way, of all links.
    pub(crate) latency: Duration,
    /// The share of it that a packet may take longer, by chance.
    pub(crate) jitter: f64,
    /// The share of RPCs that are lost.
    pub(crate) loss: f64,
    /// Bytes a second that an honest node sends. Without, any number.
    pub(crate) uplink: Option<u64>,
    /// Honest nodes that publish; the others only want to hear.
    pub(crate) publishers: usize,
    /// Of the honest ones.
    pub(crate) config: Config,
    /// Those who attack, how, and from when on; they are connected before all others.
    pub(crate) sybils: usize,
    /// Honest nodes that each of them turns to.
    pub(crate) sybil_degree: usize,
    /// Whether all of them turn to the last honest node alone, which comes only when the attack begins.
    pub(crate) eclipse: bool,
    pub(crate) attack: Attack,
    pub(crate) attack_at: Duration,
    /// Decides everything.
    pub(crate) seed: u64,
}

impl Plan {
    /// Nodes of the default configuration with eight connections each, links of 100 ms, and no attackers.
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

    /// Nodes as in the paper's evaluation, with ten Sybils for each, so that each node has twenty connections to honest
    /// nodes and two hundred to Sybils.
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
    /// The testbed of the paper's evaluation, with so many honest nodes in place of a thousand: a tenth of them publish,
    /// links take 25 ms, each honest node turns to twenty others, and four times as many Sybils to twenty each. Each
    /// publisher says as much as theirs: 120 messages a second of a hundred.
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

    /// Messages a second in [`testbed`](Self::testbed).
    pub(crate) fn testbed_rate(nodes: usize) -> f64 {
        0.12 * nodes as f64
    }
}

/// The routers of the same evaluation before it brought about gossipsub v1.1: without scores, quotas, flood publishing,
/// adaptive gossip and opportunistic grafting.
pub(crate) fn unprotected() -> Config {
    Config {
        score: None,
        flood_publish: false,
        gossip_factor: 0.0,
        d_out: 0,
        ..evaluated()
    }
}

/// Messages a second of a network under attack.
pub(crate) const RATE: f64 = 5.0;

/// The same routers with scores that expect so many messages a second.
pub(crate) fn expecting(rate: f64) -> Config {
    Config {
        score: Some(ScoreConfig::expecting(rate)),
        ..evaluated()
    }
}

/// The routers of the paper's evaluation: libp2p/gossipsub-hardening, `scripts/configs/1k-attack-*.json`.
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

/// See the [module](super).
pub(crate) struct Network {
    pub(crate) plan: Plan,
    pub(crate) sim: Simulation<Node>,
    /// Of the honest nodes.
    pub(crate) topology: Topology,
    /// Who published which message, and when.
    pub(crate) published: Vec<(SimAddr, Duration)>,
    /// One for each second.
    pub(crate) samples: Vec<Sample>,
    /// For how many seconds on end a Sybil that attacks has been in the mesh of an honest node.
    stays: HashMap<(SimAddr, SimAddr), u64>,
    /// The most of them.
    pub(crate) longest_stay: u64,
    /// Messages before this one do not count.
    first: usize,
    random: StdRng,
}

impl Network {
    /// All are connected and have subscribed; nothing has arrived yet.
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

    /// The last node comes, and the Sybils turn to it before it has turned to anybody.
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
                node.at(now).subscribe(now, TOPIC).expect("a topic");
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

    /// `from` turns to `to`.
    fn connect(&mut self, from: SimAddr, to: SimAddr) {
        for (at, peer, outbound) in [(from, to, true), (to, from, false)] {
            self.sim.act(at, |node, now| match node {
                Node::Honest(node) => {
                    let connection = Connection {
                        version: Version::V1_2,
                        outbound,
                        info: None,
                    };
                    // A node that is full refuses.
                    let _ = node.at(now).add_peer(now, &peer, connection);
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

    /// Whether Sybils turn to this honest node.
    pub(crate) fn is_attacked(&self, node: usize) -> bool {
        !self.plan.eclipse || node == self.plan.nodes - 1
    }

    pub(crate) fn is_honest(&self, addr: SimAddr) -> bool {
        (addr.0 as usize) < self.plan.nodes
    }

    /// Lets time pass, and looks at all meshes each second.
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

    /// The network under its attack: so many messages a second from the beginning until `until`, each by another honest
    /// node; and then, while the last ones arrive, as long as gossip needs.
    pub(crate) fn under_attack(plan: Plan, rate: f64, until: Duration, size: usize) -> Self {
        let mut network = Self::new(plan);
        network.run(Duration::from_secs(1));
        // A node that comes late could not have got what was published before.
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

    /// So many messages, one after the other, each by another of the first `publishers` nodes.
    pub(crate) fn publish_all(&mut self, count: usize, publishers: usize, every: Duration, size: usize) {
        for message in 0..count {
            self.publish(message % publishers, size);
            self.run(every);
        }
    }

    /// From now on it counts what happens.
    pub(crate) fn measure_from_here(&mut self) {
        self.first = self.published.len();
    }

    /// What became of the messages since [`measure_from_here`](Self::measure_from_here).
    pub(crate) fn measure(&self) -> Measured {
        Measured::of(self, self.first..self.published.len())
    }
}

pub(super) fn addr(node: usize) -> SimAddr {
    SimAddr(node as u32)
}
