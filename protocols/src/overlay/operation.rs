//! Operations of an engine, as seen by its driver.

use p2p::PeerId;

/// Identifies an operation of the application. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub(crate) u64);

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
