//! Operations and requests of an engine, as its driver sees them.

use p2p::PeerId;

/// An operation of the application. None is ever used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub(crate) u64);

/// A request in flight. None is ever used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A request to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit<A> {
    /// Whom to ask.
    pub to: A,
    /// Name this with the answer or the failure.
    pub id: RequestId,
    /// The request.
    pub request: Vec<u8>,
}

/// Why a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Nobody answered: no way there, or no answer in time.
    Unreachable,
    /// The node answered that it will not.
    Rejected,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Requests that left.
    pub asked: usize,
    /// Good answers to them.
    pub answered: usize,
    /// Requests that failed, or got an answer that is none.
    pub failed: usize,
    /// Records or providers found.
    pub found: usize,
    /// How many nodes had to be asked, one after the other, to get an answer from the nearest node so far.
    pub hops: usize,
    /// The nearest node that has answered.
    pub nearest: Option<PeerId>,
}
