//! What the simulation wants of an overlay's engine, whichever it is.

use std::time::Duration;

use p2p::{PeerId, Result};
use p2p_protocols::overlay::OpId;
use p2p_swarmtest::sim::{Engine, SimAddr};

/// A node of an overlay under the simulator.
pub(super) trait Overlay: Engine<Event = Said> + Sized + 'static {
    /// What nodes of one network have in common.
    type Rules: Clone + 'static;

    /// How far apart in time nodes join while the network is made.
    const APART: Duration;
    /// How long the network settles then.
    const SETTLES: Duration;
    /// What its paper calls what a lookup finds.
    const FINDS: &str;

    fn rules() -> Self::Rules;
    fn new(rules: &Self::Rules, id: PeerId, now: Duration, seed: u64) -> Self;
    fn id(&self) -> PeerId;
    /// Whether it knows others.
    fn has_joined(&self) -> bool;
    fn join(&mut self, now: Duration, contact: SimAddr) -> Result<OpId>;
    fn look_up(&mut self, now: Duration, key: PeerId) -> Result<OpId>;
    fn put(&mut self, now: Duration, key: PeerId, value: &[u8]) -> Result<OpId>;
    fn get(&mut self, now: Duration, key: PeerId) -> Result<OpId>;
    /// What a lookup by `asker` finds if all goes well, the nearest first; `members` are all that are up, in order.
    fn right(members: &[PeerId], asker: &PeerId, key: &PeerId) -> Vec<PeerId>;
}

/// What a node said, of what the simulation wants to know.
#[derive(Debug)]
pub(super) enum Said {
    /// A lookup is over.
    Found {
        op: OpId,
        nodes: Vec<PeerId>,
        hops: usize,
    },
    /// A record was read, or not.
    Got { op: OpId, there: bool },
    /// A record is kept somewhere, or not.
    Kept { op: OpId, somewhere: bool },
    /// An operation failed.
    Failed { op: OpId },
}

impl Said {
    pub(super) fn op(&self) -> OpId {
        match self {
            Said::Found { op, .. } | Said::Got { op, .. } | Said::Kept { op, .. } | Said::Failed { op } => {
                *op
            }
        }
    }
}
