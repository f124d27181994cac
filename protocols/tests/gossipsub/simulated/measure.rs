//! Measurements: which nodes got which messages, when and how often, and the state of meshes and scores.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use p2p_protocols::gossipsub::Counts;
use p2p_swarmtest::sim::SimAddr;
use p2p_swarmtest::topology::Topology;

use super::TOPIC;
use super::network::Network;

/// The propagation of some messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// Number of pairs of a message and an honest node that should get it.
    pub(crate) due: usize,
    /// Delays of the deliveries, sorted.
    pub(crate) latencies: Vec<Duration>,
    /// Delays of the shortest paths among honest nodes, sorted: a lower bound.
    pub(crate) bounds: Vec<Duration>,
    /// Number of copies of each message that each node received, sorted.
    pub(crate) copies: Vec<u32>,
    /// Messages that were delivered twice, which must not happen.
    pub(crate) twice: u32,
    /// Bytes that honest nodes sent since the start.
    pub(crate) message_bytes: u64,
    pub(crate) control_bytes: u64,
}

/// The state of the meshes of honest nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    /// Mesh neighbours of all attacked nodes together.
    pub(crate) honest: usize,
    pub(crate) sybils: usize,
    /// The smallest number of honest neighbours of a node.
    pub(crate) least_honest: usize,
    /// The largest number of Sybils in one mesh.
    pub(crate) most_sybils: usize,
    /// Whether each mesh has more honest nodes than Sybils.
    pub(crate) has_majority: bool,
    /// Mean scores of honest nodes and of Sybils, as seen by the honest nodes that are connected to them.
    pub(crate) honest_score: f64,
    pub(crate) sybil_score: f64,
    /// The fraction of honest nodes with a negative score.
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

    /// Returns the percentage of deliveries.
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

/// Returns the value that this percentage of the sorted list does not exceed.
fn percentile(sorted: &[Duration], percent: f64) -> Duration {
    let at = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

/// Returns the number of hops from one node to each; infinite for unreachable nodes.
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

    /// Returns the fraction of Sybils in the meshes.
    pub(crate) fn sybil_share(&self) -> f64 {
        self.sybils as f64 / (self.sybils + self.honest).max(1) as f64
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

impl Network {
    /// Returns a counter's sum over all honest nodes.
    pub(crate) fn sum(&self, count: impl Fn(Counts) -> u64) -> u64 {
        self.honest().map(|node| count(node.engine.counts())).sum()
    }

    /// Returns the mesh degrees of honest nodes, sorted.
    pub(crate) fn degrees(&self) -> Vec<usize> {
        let mut degrees: Vec<usize> = self
            .honest()
            .map(|node| node.engine.mesh(TOPIC).count())
            .collect();
        degrees.sort_unstable();
        degrees
    }

    /// Returns the number of heartbeats after the start of the attack until the meshes first met a condition.
    fn first(&self, is_so: impl Fn(&Sample) -> bool) -> Option<u64> {
        let mut since = self
            .samples
            .iter()
            .filter(|sample| sample.at > self.plan.attack_at);
        let first = since.find(|sample| is_so(sample))?;
        Some(first.at.saturating_sub(self.plan.attack_at).as_secs())
    }

    /// Returns the number of heartbeats until no Sybil was in any mesh. Sybils that were in none may try
    /// later.
    pub(crate) fn sybils_out(&self) -> Option<u64> {
        self.first(|sample| sample.sybils == 0)
    }

    /// Returns the number of heartbeats until Sybils had less than this fraction of the mesh links for the
    /// first time, and until they had so for as long as messages were sent.
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

    /// Returns the number of heartbeats until each mesh had more honest nodes than Sybils.
    pub(crate) fn honest_majority(&self) -> Option<u64> {
        self.first(|sample| sample.has_majority)
    }
}
