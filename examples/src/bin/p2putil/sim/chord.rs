//! The Chord engine in the simulator.

use std::sync::Arc;
use std::time::Duration;

use p2p::{PeerId, Result};
use p2p_protocols::chord::{
    Config, Engine, Event, Failure, Found, OpId, Outcome, RequestId, Rules, Transmit,
};
use p2p_swarmtest::sim::{self, SimAddr};

use super::overlay::{Overlay, Said};

pub(super) struct Node(Engine<SimAddr>);

impl Overlay for Node {
    type Rules = Arc<Rules<SimAddr>>;

    const APART: Duration = Duration::from_millis(200);
    /// Several rounds of stabilization, and one of fingers.
    const SETTLES: Duration = Duration::from_secs(400);
    const FINDS: &str = "the key's successor";

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
        !self.0.successors().is_empty()
    }

    fn join(&mut self, now: Duration, contact: SimAddr) -> Result<OpId> {
        self.0.join(now, &[contact])
    }

    fn look_up(&mut self, now: Duration, key: PeerId) -> Result<OpId> {
        self.0.lookup(now, key)
    }

    fn put(&mut self, now: Duration, key: PeerId, value: &[u8]) -> Result<OpId> {
        self.0.put(now, key, value, Duration::from_hours(24))
    }

    fn get(&mut self, now: Duration, key: PeerId) -> Result<OpId> {
        self.0.get(now, key)
    }

    fn right(members: &[PeerId], _: &PeerId, key: &PeerId) -> Vec<PeerId> {
        let at = members.partition_point(|id| id < key);
        members.get(at).or(members.first()).copied().into_iter().collect()
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

    fn handle_leave(&mut self, now: Duration) {
        // A node that is already leaving continues.
        let _ = self.0.leave(now);
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
        self.0.poll_timeout()
    }

    fn poll_event(&mut self) -> Option<Said> {
        loop {
            let Event::Done { op, outcome } = self.0.poll_event()? else {
                continue;
            };
            return Some(match outcome {
                Ok(Outcome::Found(Found { owner, hops, .. })) => Said::Found {
                    op,
                    nodes: vec![owner.map_or(self.0.id(), |owner| owner.id)],
                    hops,
                },
                Ok(Outcome::Value(value)) => Said::Got {
                    op,
                    there: value.is_some(),
                },
                Ok(Outcome::Stored) => Said::Kept { op, somewhere: true },
                Ok(Outcome::Joined(_) | Outcome::Located { .. } | Outcome::Left) => continue,
                Err(_) => Said::Failed { op },
            });
        }
    }
}
