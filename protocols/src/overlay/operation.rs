//! Operations and requests of an engine, as seen by its driver.

use p2p::PeerId;

/// Identifies an operation of the application. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub(crate) u64);

/// Identifies a request in flight. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A request to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit<A> {
    /// The destination.
    pub to: A,
    /// The id to pass with the answer or the failure.
    pub id: RequestId,
    /// The encoded request.
    pub request: Vec<u8>,
}

/// The reason for which a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No route, or no answer in time.
    Unreachable,
    /// The node rejected the request.
    Rejected,
}

/// The progress of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Requests sent.
    pub asked: usize,
    /// Valid answers received.
    pub answered: usize,
    /// Requests that failed, or got an invalid answer.
    pub failed: usize,
    /// Records or providers found.
    pub found: usize,
    /// Number of nodes asked in sequence to reach the nearest node that has answered so far.
    pub hops: usize,
    /// The nearest node that has answered.
    pub nearest: Option<PeerId>,
}
