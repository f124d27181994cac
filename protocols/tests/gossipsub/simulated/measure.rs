//! What messages did: who got them, when, and how often; and how meshes and scores were meanwhile.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use p2p_protocols::gossipsub::Counts;
use p2p_swarmtest::sim::SimAddr;
use p2p_swarmtest::topology::Topology;

use super::TOPIC;
use super::network::Network;

/// What became of some messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// Pairs of a message and an honest node that should get it.
    pub(crate) due: usize,
    /// How long it took for those who got it, in order.
    pub(crate) latencies: Vec<Duration>,
    /// How long the shortest ways among honest nodes are, in order: nothing can be faster.
    pub(crate) bounds: Vec<Duration>,
    /// How often each node was sent each message, in order.
    pub(crate) copies: Vec<u32>,
    /// Messages that were delivered twice, which must not be.
    pub(crate) twice: u32,
    /// Bytes that honest nodes sent, since the beginning.
    pub(crate) message_bytes: u64,
    pub(crate) control_bytes: u64,
}

/// How the meshes of honest nodes are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    /// Neighbours in meshes, of those who are attacked all together.
    pub(crate) honest: usize,
    pub(crate) sybils: usize,
    /// The fewest honest neighbours that a node has.
    pub(crate) least_honest: usize,
    /// The most Sybils in one mesh.
    pub(crate) most_sybils: usize,
    /// Whether each mesh has more honest nodes than Sybils.
    pub(crate) has_majority: bool,
    /// Mean scores of the honest and of the Sybils, as honest nodes see those that they are connected to.
    pub(crate) honest_score: f64,
    pub(crate) sybil_score: f64,
    /// The share of the honest whose score is negative.
    pub(crate) honest_negative: f64,
}

impl Measured {
    pub(super) fn of(network: &Network, messages: Range<usize>) -> Self {
        let mut measured = Self::default();
        let mut distances: HashMap<SimAddr, Vec<usize>> = HashMap::new();
        for number in messages {
            let (by, at) = network.published[number];
            let distances = distances
                .entry(by)
                .or_insert_with(|| distances_from(&network.topology, by.0 as usize));
            for (node, honest) in network.honest().enumerate() {
                if node == by.0 as usize {
                    continue;
                }
                measured.due += 1;
                if let Some(Some(got)) = honest.got.get(number) {
                    measured.latencies.push(got.saturating_sub(at));
                }
                measured
                    .copies
                    .push(honest.copies.get(number).copied().unwrap_or(0));
                if distances[node] < usize::MAX {
                    measured
                        .bounds
                        .push(network.plan.latency * distances[node] as u32);
                }
            }
        }
        measured.latencies.sort_unstable();
        measured.bounds.sort_unstable();
        measured.copies.sort_unstable();
        for honest in network.honest() {
            measured.twice += honest.twice;
            measured.message_bytes += honest.message_bytes;
            measured.control_bytes += honest.control_bytes;
        }
        measured
    }

    /// The share that was delivered, in percent.
    pub(crate) fn delivered(&self) -> f64 {
        100.0 * self.latencies.len() as f64 / self.due.max(1) as f64
    }

    pub(crate) fn latency(&self, percent: f64) -> Duration {
        percentile(&self.latencies, percent)
    }

    pub(crate) fn bound(&self, percent: f64) -> Duration {
        percentile(&self.bounds, percent)
    }

    pub(crate) fn mean_copies(&self) -> f64 {
        let sum: u32 = self.copies.iter().sum();
        f64::from(sum) / self.copies.len().max(1) as f64
    }
}

/// So many percent are at most this long.
fn percentile(sorted: &[Duration], percent: f64) -> Duration {
    let at = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

/// Steps from one node to each; without an end for those out of reach.
fn distances_from(topology: &Topology, start: usize) -> Vec<usize> {
    let mut distances = vec![usize::MAX; topology.len()];
    distances[start] = 0;
    let mut waiting = VecDeque::from([start]);
    while let Some(node) = waiting.pop_front() {
        for next in topology.neighbours(node) {
            if distances[next] == usize::MAX {
                distances[next] = distances[node] + 1;
                waiting.push_back(next);
            }
        }
    }
    distances
}

impl Sample {
    pub(super) fn of(network: &Network) -> Self {
        let now = network.sim.now();
        let mut sample = Self {
            at: now,
            least_honest: usize::MAX,
            has_majority: true,
            ..Self::default()
        };
        let (mut honest, mut sybils, mut negative) = (Vec::new(), Vec::new(), 0);
        for (number, node) in network.honest().enumerate() {
            let of_mesh = node.engine.mesh(TOPIC).filter(|peer| network.is_honest(**peer));
            let (friends, all) = (of_mesh.count(), node.engine.mesh(TOPIC).count());
            if network.is_attacked(number) {
                sample.honest += friends;
                sample.sybils += all - friends;
                sample.least_honest = sample.least_honest.min(friends);
                sample.has_majority &= all < 2 * friends;
                sample.most_sybils = sample.most_sybils.max(all - friends);
            }
            for peer in node.engine.peers() {
                let score = node.engine.score(now, peer);
                if network.is_honest(*peer) {
                    honest.push(score);
                    negative += usize::from(score < 0.0);
                } else {
                    sybils.push(score);
                }
            }
        }
        sample.honest_negative = negative as f64 / honest.len().max(1) as f64;
        sample.honest_score = mean(&honest);
        sample.sybil_score = mean(&sybils);
        sample
    }

    /// The share of Sybils in the meshes.
    pub(crate) fn sybil_share(&self) -> f64 {
        self.sybils as f64 / (self.sybils + self.honest).max(1) as f64
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

impl Network {
    /// A count of all honest nodes together.
    pub(crate) fn sum(&self, count: impl Fn(Counts) -> u64) -> u64 {
        self.honest().map(|node| count(node.engine.counts())).sum()
    }

    /// How many neighbours each honest node has in its mesh, in order.
    pub(crate) fn degrees(&self) -> Vec<usize> {
        let mut degrees: Vec<usize> = self
            .honest()
            .map(|node| node.engine.mesh(TOPIC).count())
            .collect();
        degrees.sort_unstable();
        degrees
    }

    /// Heartbeats after the attack began until this was so of the meshes for the first time.
    fn first(&self, is_so: impl Fn(&Sample) -> bool) -> Option<u64> {
        let mut since = self
            .samples
            .iter()
            .filter(|sample| sample.at > self.plan.attack_at);
        let first = since.find(|sample| is_so(sample))?;
        Some(first.at.saturating_sub(self.plan.attack_at).as_secs())
    }

    /// Heartbeats until no Sybil was in any mesh. Others, which had not been in one, may try later.
    pub(crate) fn sybils_out(&self) -> Option<u64> {
        self.first(|sample| sample.sybils == 0)
    }

    /// Heartbeats until Sybils held less than this share of the links of meshes, for the first time, and until they did for
    /// as long as there were messages.
    pub(crate) fn sybils_below(&self, share: f64) -> (Option<u64>, Option<u64>) {
        let begin = self.plan.attack_at;
        let end = self.published.last().map_or(begin, |(_, at)| *at);
        let counts = |sample: &&Sample| sample.at > begin && sample.at <= end;
        let first = self.first(|sample| sample.sybil_share() < share);
        let last = self
            .samples
            .iter()
            .filter(counts)
            .rfind(|sample| sample.sybil_share() >= share);
        let last = last.map_or(0, |last| last.at.saturating_sub(begin).as_secs());
        (
            first,
            (last + 1 < end.saturating_sub(begin).as_secs()).then_some(last + 1),
        )
    }

    /// Heartbeats until each mesh had more honest nodes than Sybils.
    pub(crate) fn honest_majority(&self) -> Option<u64> {
        self.first(|sample| sample.has_majority)
    }
}
