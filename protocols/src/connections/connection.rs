//! One connection, and one peer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::event::Direction;
use crate::overlay::Prefix;

/// A connection, from its admission to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub(super) u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A connection whose handshake is in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) direction: Direction,
    pub(super) prefix: Option<Prefix>,
    pub(super) since: Duration,
    pub(super) deadline: Duration,
}

/// An open connection.
#[derive(Clone, Debug)]
pub(super) struct Connection<P> {
    pub(super) peer: P,
    pub(super) direction: Direction,
    pub(super) prefix: Option<Prefix>,
    pub(super) since: Duration,
    pub(super) streams: usize,
    /// Protocols that keep it open.
    pub(super) keep_alive: BTreeSet<String>,
    /// When it was opened, a stream was opened or closed, or its last other reason to stay ended.
    pub(super) used: Duration,
    /// The time at which it is closed because nothing needs it.
    pub(super) idle_until: Option<Duration>,
}

/// A peer with connections, tags or protections.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerState {
    /// Its connections, the oldest first.
    pub(super) connections: Vec<ConnId>,
    pub(super) tags: BTreeMap<String, i64>,
    pub(super) protections: BTreeSet<String>,
}

impl PeerState {
    /// Returns the sum of its tags.
    pub(super) fn value(&self) -> i64 {
        self.tags
            .values()
            .fold(0, |sum, value| sum.saturating_add(*value))
    }

    pub(super) fn is_protected(&self) -> bool {
        !self.protections.is_empty()
    }

    pub(super) fn is_marked(&self) -> bool {
        !self.tags.is_empty() || !self.protections.is_empty()
    }
}

/// The state of an open connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info<P> {
    /// The connection.
    pub id: ConnId,
    /// The peer.
    pub peer: P,
    /// The side that opened it.
    pub direction: Direction,
    /// When it was opened.
    pub since: Duration,
    /// Number of open streams.
    pub streams: usize,
    /// The sum of the peer's tags.
    pub value: i64,
    /// Whether the peer is protected.
    pub is_protected: bool,
}
