//! What an overlay asks of its engine: where a node is, which node is next on the way there, and what to send for that.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use p2p::{Addr, PeerId, Rejection, Result};

/// An engine that finds nodes by id. It has no clock, lock, task or socket.
///
/// After each call the driver empties [`poll_transmit`](Self::poll_transmit) and [`poll_event`](Self::poll_event), and
/// looks at [`poll_timeout`](Self::poll_timeout).
pub trait Router<A: Addr>: Debug + Send + Sized + 'static {
    /// The names of the counters: messages, requests, what is passed on for others, requests of the engine.
    const LAYERS: [&'static str; 4];

    /// An operation under way.
    type OpId: Copy + Eq + Hash + Debug + Send + Sync;
    /// A request in flight.
    type RequestId: Copy + Debug + Send;
    /// What an operation ends with.
    type Outcome: Debug + Send;
    /// How far an operation is.
    type Progress: Copy + Default + Debug + Send + Sync;

    /// Begins to find one node, and to make sure that it answers.
    ///
    /// # Errors
    /// [`Error::Limit`](p2p::Error::Limit) with too many operations.
    fn locate(&mut self, now: Duration, id: PeerId) -> Result<Self::OpId>;

    /// What such an operation came to.
    fn located(outcome: Self::Outcome) -> Located<A>;

    /// The node that is nearer to `id` than this one, by the measure of this overlay: the next one on the way there.
    fn next_hop(&self, id: &PeerId) -> Option<(PeerId, A)>;

    /// Gives an operation up.
    fn cancel(&mut self, op: Self::OpId);

    /// Serves a request of another node.
    ///
    /// # Errors
    /// Why it does not.
    fn handle_request(&mut self, now: Duration, from: &A, request: &[u8]) -> Result<Vec<u8>, Rejection>;

    /// Takes what came of a request.
    fn handle_answer(&mut self, now: Duration, id: Self::RequestId, answer: Result<&[u8], Failure>);

    /// Does what time asks for.
    fn handle_timeout(&mut self, now: Duration);

    /// The next request to be asked.
    fn poll_transmit(&mut self) -> Option<Transmit<A, Self::RequestId>>;

    /// What became of an operation.
    fn poll_event(&mut self) -> Option<Event<A, Self>>;

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    fn poll_timeout(&self) -> Option<Duration>;

    /// How long an answer is waited for.
    fn request_timeout(&self) -> Duration;
}

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<A> {
    /// Where it has just answered.
    pub addr: Option<A>,
    /// Who knows it, if it did not answer.
    pub named_by: Vec<A>,
}

/// A request to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit<A, I> {
    /// Whom.
    pub to: A,
    /// The engine's name for it.
    pub id: I,
    /// The request.
    pub request: Vec<u8>,
}

/// Why a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Nobody answered.
    Unreachable,
    /// The node answered that it will not.
    Rejected,
}

/// What became of an operation.
#[derive(Debug)]
pub enum Event<A: Addr, R: Router<A>> {
    /// It got on.
    Progress(R::OpId, R::Progress),
    /// It is over.
    Done(R::OpId, R::Outcome),
}
