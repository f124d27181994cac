//! The contract between an overlay and its engine: lookups, next hops, and requests to send.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use p2p::{Addr, PeerId, Rejection, Result};

/// An engine that finds nodes by id. It has no clock, lock, task or socket.
///
/// After each call the driver drains [`poll_transmit`](Self::poll_transmit) and
/// [`poll_event`](Self::poll_event), and reads [`poll_timeout`](Self::poll_timeout).
pub trait Router<A: Addr>: Debug + Send + Sized + 'static {
    /// Names of the counters: messages, requests, relayed messages, requests of the engine.
    const LAYERS: [&'static str; 4];

    /// Identifies a running operation.
    type OpId: Copy + Eq + Hash + Debug + Send + Sync;
    /// Identifies a request in flight.
    type RequestId: Copy + Debug + Send;
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

    /// Serves a request of another node.
    ///
    /// # Errors
    /// Returns the reason for rejecting it.
    fn handle_request(&mut self, now: Duration, from: &A, request: &[u8]) -> Result<Vec<u8>, Rejection>;

    /// Processes the result of a request.
    fn handle_answer(&mut self, now: Duration, id: Self::RequestId, answer: Result<&[u8], Failure>);

    /// Processes expired timers.
    fn handle_timeout(&mut self, now: Duration);

    /// Returns the next request to send.
    fn poll_transmit(&mut self) -> Option<Transmit<A, Self::RequestId>>;

    /// Returns the next event of an operation.
    fn poll_event(&mut self) -> Option<Event<A, Self>>;

    /// Returns the time at which [`handle_timeout`](Self::handle_timeout) is due.
    fn poll_timeout(&self) -> Option<Duration>;

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

/// A request to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit<A, I> {
    /// The node to ask.
    pub to: A,
    /// The engine's identifier of the request.
    pub id: I,
    /// The encoded request.
    pub request: Vec<u8>,
}

/// Why a request got no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The node did not respond.
    Unreachable,
    /// The node rejected the request.
    Rejected,
}

/// An event of an operation.
#[derive(Debug)]
pub enum Event<A: Addr, R: Router<A>> {
    /// The operation made progress.
    Progress(R::OpId, R::Progress),
    /// The operation ended.
    Done(R::OpId, R::Outcome),
}
