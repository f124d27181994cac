//! The Kademlia engine in the simulator.

use std::sync::Arc;
use std::time::Duration;

use p2p::{PeerId, Result};
use p2p_protocols::kademlia::{
    Config, Distance, Engine, Event, Failure, OpId, Outcome, RequestId, Rules, Transmit,
};
use p2p_swarmtest::sim::{self, SimAddr};

use super::overlay::{Overlay, Said};

/// Number of nodes that a lookup finds: the paper's *k*.
const K: usize = 20;

pub(super) struct Node(Engine<SimAddr>);

impl Overlay for Node {
    type Rules = Arc<Rules<SimAddr>>;

    const APART: Duration = Duration::from_millis(20);
    const SETTLES: Duration = Duration::from_secs(20);
    const FINDS: &str = "all of the nearest 20 nodes";

    fn rules() -> Self::Rules {
        let config = Config {
            unproven_ids: true,
            ..Config::default()
        };
        let parse = |text: &str| text.parse().ok();
        Arc::new(Rules::new(config, parse, |_: &PeerId, _: &[u8]| true))
    }

    fn new(rules: &Self::Rules, id: PeerId, now: Duration, seed: u64) -> Self {
        Self(Engine::new(id, rules.clone(), now, seed))
    }

    fn id(&self) -> PeerId {
        self.0.id()
    }

    fn has_joined(&self) -> bool {
        self.0.contacts().next().is_some()
    }

    fn join(&mut self, now: Duration, contact: SimAddr) -> Result<OpId> {
        self.0.join(now, &[contact])
    }

    fn look_up(&mut self, now: Duration, key: PeerId) -> Result<OpId> {
        self.0.find_node(now, key)
    }

    fn put(&mut self, now: Duration, key: PeerId, value: &[u8]) -> Result<OpId> {
        self.0.put(now, key, value, Duration::from_hours(24))
    }

    fn get(&mut self, now: Duration, key: PeerId) -> Result<OpId> {
        self.0.get(now, key)
    }

    fn right(members: &[PeerId], asker: &PeerId, key: &PeerId) -> Vec<PeerId> {
        let mut others: Vec<PeerId> = members.iter().filter(|id| *id != asker).copied().collect();
        let by_distance = |id: &PeerId| Distance::between(key, id);
        if others.len() > K {
            others.select_nth_unstable_by_key(K, by_distance);
            others.truncate(K);
        }
        others.sort_by_key(by_distance);
        others
    }
}

impl sim::Engine for Node {
    type Event = Said;

    fn handle_request(&mut self, now: Duration, from: SimAddr, request: &[u8]) -> Option<Vec<u8>> {
        self.0.handle_request(now, &from, request).ok()
    }

    fn handle_answer(&mut self, now: Duration, id: u64, answer: Result<&[u8], sim::Failure>) {
        let id = RequestId(id);
        match answer {
            Ok(answer) => self.0.handle_answer(now, id, answer),
            Err(sim::Failure::TimedOut) => self.0.handle_failure(now, id, Failure::Unreachable),
            Err(sim::Failure::Rejected) => self.0.handle_failure(now, id, Failure::Rejected),
        }
    }

    fn handle_timeout(&mut self, now: Duration) {
        self.0.handle_timeout(now);
    }

    fn poll_transmit(&mut self) -> Option<sim::Transmit> {
        let Transmit { to: dst, id, request } = self.0.poll_transmit()?;
        Some(sim::Transmit::Ask {
            dst,
            id: id.0,
            request,
        })
    }

    fn poll_timeout(&self) -> Option<Duration> {
        Some(self.0.poll_timeout())
    }

    fn poll_event(&mut self) -> Option<Said> {
        loop {
            let Event::Done {
                op,
                outcome,
                progress,
            } = self.0.poll_event()?
            else {
                continue;
            };
            return Some(match outcome {
                Outcome::Nodes(nodes) => Said::Found {
                    op,
                    nodes: nodes.iter().map(|node| node.id).collect(),
                    hops: progress.hops,
                },
                Outcome::Record(record) => Said::Got {
                    op,
                    there: record.is_some(),
                },
                Outcome::Kept { copies } => Said::Kept {
                    op,
                    somewhere: copies > 0,
                },
                Outcome::Joined { .. } | Outcome::Located { .. } | Outcome::Providers(_) => continue,
            });
        }
    }
}
