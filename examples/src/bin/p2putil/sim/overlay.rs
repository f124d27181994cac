//! What the simulation needs of an overlay's engine beyond the contract of engines.

use std::time::Duration;

use p2p::{PeerId, Result};
use p2p_protocols::overlay::OpId;
use p2p_swarms::overlay::{Given, NewEngine, RecordEngine};
use p2p_swarmtest::sim::{Engine, SimAddr};

/// The events of an engine.
pub(super) type EngineEvent<E> = <E as Engine>::Event;

/// An engine of an overlay in the simulator.
pub(super) trait Overlay: Engine<Addr = SimAddr> + RecordEngine<SimAddr> {
    /// Interval between joins while the network is built.
    const APART: Duration;
    /// How long the network settles after that.
    const SETTLES: Duration;
    /// The result of a lookup in the terms of the paper.
    const FINDS: &str;

    fn id(&self) -> PeerId;
    /// Returns whether an event ends an operation. The simulation keeps no others.
    fn is_end(event: &EngineEvent<Self>) -> bool;
    /// Converts the end of an operation that the simulation began.
    fn ended(event: EngineEvent<Self>) -> Option<Ended>;
    /// Returns whether it knows other nodes.
    fn has_joined(&self) -> bool;
    fn join(&mut self, now: Duration, contact: SimAddr) -> Result<OpId>;
    fn look_up(&mut self, now: Duration, key: PeerId) -> Result<OpId>;
    fn put(&mut self, now: Duration, key: PeerId, value: &[u8]) -> Result<OpId>;
    fn get(&mut self, now: Duration, key: PeerId) -> Result<OpId>;
    /// Returns the correct result of a lookup by `asker`, the nearest first; `members` are all nodes that are
    /// up, in order.
    fn right(members: &[PeerId], asker: &PeerId, key: &PeerId) -> Vec<PeerId>;
}

/// Creates an engine that accepts every record.
pub(super) fn engine<O: Overlay>(id: PeerId, now: Duration, seed: u64) -> O {
    let mut config = O::Config::default();
    let given = Given {
        unproven_ids: true,
        message: usize::MAX,
    };
    O::restrict(&mut config, given);
    O::create(NewEngine {
        id,
        config,
        parse: Box::new(|text| text.parse().ok()),
        validator: Box::new(|_: &PeerId, _: &[u8]| true),
        now,
        seed,
    })
}

/// The end of an operation.
#[derive(Debug)]
pub(super) enum Ended {
    /// A lookup ended.
    Found {
        op: OpId,
        /// The nearest first; `None` is the asking node itself.
        nodes: Vec<Option<PeerId>>,
        hops: usize,
    },
    /// A record was read, or not.
    Got { op: OpId, there: bool },
    /// A record was stored, or not.
    Kept { op: OpId, somewhere: bool },
    /// An operation failed.
    Failed { op: OpId },
}

impl Ended {
    pub(super) fn op(&self) -> OpId {
        match self {
            Ended::Found { op, .. }
            | Ended::Got { op, .. }
            | Ended::Kept { op, .. }
            | Ended::Failed { op } => *op,
        }
    }
}
