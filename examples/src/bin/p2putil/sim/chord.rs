//! The Chord engine in the simulator.

use std::time::Duration;

use p2p::{PeerId, Result};
use p2p_protocols::chord::{Engine, Event, Found, OpId, Outcome};
use p2p_swarmtest::sim::SimAddr;

use super::overlay::{Ended, Overlay};

impl Overlay for Engine<SimAddr> {
    const APART: Duration = Duration::from_millis(200);
    /// Several rounds of stabilization, and one of fingers.
    const SETTLES: Duration = Duration::from_secs(400);
    const FINDS: &str = "the key's successor";

    fn id(&self) -> PeerId {
        Engine::id(self)
    }

    fn is_end(event: &Event<SimAddr>) -> bool {
        matches!(event, Event::Done { .. })
    }

    fn ended(event: Event<SimAddr>) -> Option<Ended> {
        let Event::Done { op, outcome } = event else {
            return None;
        };
        Some(match outcome {
            Ok(Outcome::Found(Found { owner, hops, .. })) => Ended::Found {
                op,
                nodes: vec![owner.map(|owner| owner.id)],
                hops,
            },
            Ok(Outcome::Value(value)) => Ended::Got {
                op,
                there: value.is_some(),
            },
            Ok(Outcome::Stored) => Ended::Kept { op, somewhere: true },
            Ok(Outcome::Joined(_) | Outcome::Located { .. } | Outcome::Left) => return None,
            Err(_) => Ended::Failed { op },
        })
    }

    fn has_joined(&self) -> bool {
        !self.successors().is_empty()
    }

    fn join(&mut self, now: Duration, contact: SimAddr) -> Result<OpId> {
        Engine::join(self, now, &[contact])
    }

    fn look_up(&mut self, now: Duration, key: PeerId) -> Result<OpId> {
        self.lookup(now, key)
    }

    fn put(&mut self, now: Duration, key: PeerId, value: &[u8]) -> Result<OpId> {
        Engine::put(self, now, key, value, Duration::from_hours(24))
    }

    fn get(&mut self, now: Duration, key: PeerId) -> Result<OpId> {
        Engine::get(self, now, key)
    }

    fn right(members: &[PeerId], _: &PeerId, key: &PeerId) -> Vec<PeerId> {
        let at = members.partition_point(|id| id < key);
        members.get(at).or(members.first()).copied().into_iter().collect()
    }
}
