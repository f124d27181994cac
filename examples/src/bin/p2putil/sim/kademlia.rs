//! The Kademlia engine in the simulator.

use std::time::Duration;

use p2p::{PeerId, Result};
use p2p_protocols::kademlia::{Distance, Engine, Event, OpId, Outcome};
use p2p_swarmtest::sim::SimAddr;

use super::overlay::{Ended, Overlay};

/// Number of nodes that a lookup finds: the paper's *k*.
const K: usize = 20;

impl Overlay for Engine<SimAddr> {
    const APART: Duration = Duration::from_millis(20);
    const SETTLES: Duration = Duration::from_secs(20);
    const FINDS: &str = "all of the nearest 20 nodes";

    fn id(&self) -> PeerId {
        Engine::id(self)
    }

    fn is_end(event: &Event<SimAddr>) -> bool {
        matches!(event, Event::Done { .. })
    }

    fn ended(event: Event<SimAddr>) -> Option<Ended> {
        let Event::Done {
            op,
            outcome,
            progress,
        } = event
        else {
            return None;
        };
        Some(match outcome {
            Outcome::Nodes(nodes) => Ended::Found {
                op,
                nodes: nodes.iter().map(|node| Some(node.id)).collect(),
                hops: progress.hops,
            },
            Outcome::Record(record) => Ended::Got {
                op,
                there: record.is_some(),
            },
            Outcome::Kept { copies } => Ended::Kept {
                op,
                somewhere: copies > 0,
            },
            Outcome::Joined { .. } | Outcome::Located { .. } | Outcome::Providers(_) => return None,
        })
    }

    fn has_joined(&self) -> bool {
        self.contacts().next().is_some()
    }

    fn join(&mut self, now: Duration, contact: SimAddr) -> Result<OpId> {
        Engine::join(self, now, &[contact])
    }

    fn look_up(&mut self, now: Duration, key: PeerId) -> Result<OpId> {
        self.find_node(now, key)
    }

    fn put(&mut self, now: Duration, key: PeerId, value: &[u8]) -> Result<OpId> {
        Engine::put(self, now, key, value, Duration::from_hours(24))
    }

    fn get(&mut self, now: Duration, key: PeerId) -> Result<OpId> {
        Engine::get(self, now, key)
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
