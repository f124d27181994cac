//! What an overlay needs of its engine beyond the contract of engines: lookups and next hops.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use p2p::engine::RequestEngine;
use p2p::{Addr, PeerId, Result};

/// An engine that finds nodes by id. The overlay drives it as any [`RequestEngine`].
pub trait Router<A: Addr>: RequestEngine<Addr = A> + Debug + Send + Sized + 'static {
    /// Names of the counters: messages, requests, relayed messages, requests of the engine.
    const LAYERS: [&'static str; 4];

    /// Identifies a running operation.
    type OpId: Copy + Eq + Hash + Debug + Send + Sync;
    /// The result of an operation.
    type Outcome: Debug + Send;
    /// The progress of an operation.
    type Progress: Copy + Default + Debug + Send + Sync;

    /// Starts the lookup of one node, and verifies that it answers.
    ///
    /// # Errors
    /// Returns [`Error::Limit`](p2p::Error::Limit) if too many operations run.
    fn locate(&mut self, now: Duration, id: PeerId) -> Result<Self::OpId>;

    /// Converts the outcome of a lookup.
    fn located(outcome: Self::Outcome) -> Located<A>;

    /// Returns the next hop towards `id`: a node nearer to it than this node, by the distance of this
    /// overlay.
    fn next_hop(&self, id: &PeerId) -> Option<(PeerId, A)>;

    /// Cancels an operation.
    fn cancel(&mut self, op: Self::OpId);

    /// Converts an event of the engine; `None` for one that concerns no operation.
    fn operation_event(
        event: Self::Event,
    ) -> Option<OperationEvent<Self::OpId, Self::Progress, Self::Outcome>>;

    /// Returns the timeout of a request.
    fn request_timeout(&self) -> Duration;
}

/// The location of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<A> {
    /// The address at which it has just answered.
    pub addr: Option<A>,
    /// Nodes that know it, if it did not answer.
    pub named_by: Vec<A>,
}

/// An event of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationEvent<I, P, O> {
    /// The operation made progress.
    Progress(I, P),
    /// The operation ended.
    Done(I, O),
}
