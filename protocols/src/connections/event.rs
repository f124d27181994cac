//! Actions, events, reasons and errors.

use std::time::Duration;

use super::connection::ConnId;

/// The side that opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The peer.
    Inbound,
    /// This node.
    Outbound,
}

/// A task for the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Close a connection, pending or open. It no longer counts, and nothing more about it must be reported.
    Close {
        /// The connection.
        id: ConnId,
        /// The reason.
        reason: CloseReason,
    },
}

/// The reason for which a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer closed it.
    #[error("the peer closed the connection")]
    Remote,
    /// The program closed it.
    #[error("this node closed the connection")]
    Local,
    /// The transport failed, or the peer violated a protocol.
    #[error("the connection failed")]
    Failed,
    /// Nothing arrived from the peer for too long.
    #[error("the peer did not answer")]
    TimedOut,
    /// Nothing needed it for [`Config::idle_timeout`](super::Config).
    #[error("nothing needed the connection")]
    Idle,
    /// Too many connections were open.
    #[error("too many connections were open")]
    Trimmed,
    /// Another network, this node, or a protected peer needed its place.
    #[error("another connection needed the place")]
    Displaced,
    /// The handshake took longer than [`Config::handshake_timeout`](super::Config).
    #[error("the handshake took too long")]
    HandshakeTimedOut,
}

/// An event of [`Connections`](super::Connections).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<P> {
    /// A connection is open.
    Connected {
        /// The connection.
        id: ConnId,
        /// The peer.
        peer: P,
        /// The side that opened it.
        direction: Direction,
        /// Whether it is the only connection of this peer.
        is_first: bool,
    },
    /// An open connection ended.
    Disconnected {
        /// The connection.
        id: ConnId,
        /// The peer.
        peer: P,
        /// The reason.
        reason: CloseReason,
        /// Whether it was the last connection of this peer.
        is_last: bool,
    },
}

/// A reason for which a connection is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenReason {
    /// This many streams are open.
    Streams(usize),
    /// The peer is protected, under this name.
    Protected(String),
    /// The peer has tags; their positive sum.
    Tagged(i64),
    /// A protocol asked to keep it open.
    KeepAlive(String),
    /// It is too young to be trimmed. This does not keep an idle connection open.
    Grace {
        /// The end of this period.
        until: Duration,
    },
    /// Nothing needs it.
    Idle {
        /// The time at which it is closed, unless it is used.
        until: Duration,
    },
}

/// The limit at which a connection is refused. No state changed, except that a connection that was refused
/// after its handshake is no longer pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Too many connections are pending.
    #[error("the limit of {limit} pending connections is reached")]
    Pending {
        /// The limit.
        limit: usize,
    },
    /// Too many connections from one network are pending.
    #[error("the limit of {limit} pending connections from one network is reached")]
    PendingPerPrefix {
        /// The limit.
        limit: usize,
    },
    /// Too many connections are open.
    #[error("the limit of {limit} connections is reached")]
    Connections {
        /// The limit.
        limit: usize,
    },
    /// Peers have opened too many connections.
    #[error("the limit of {limit} inbound connections is reached")]
    Inbound {
        /// The limit.
        limit: usize,
    },
    /// Too many connections with this peer are open.
    #[error("the limit of {limit} connections with one peer is reached")]
    PerPeer {
        /// The limit.
        limit: usize,
    },
    /// Peers in this network have opened too many connections.
    #[error("the limit of {limit} connections from one network is reached")]
    PerPrefix {
        /// The limit.
        limit: usize,
    },
    /// The connection is not pending: it was displaced, took too long, or is reported twice.
    #[error("the connection is no longer pending")]
    NotPending,
}

/// A limit on tags, protections or protocols that keep a connection open is reached. No state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the limit of {limit} {what} is reached")]
pub struct Full {
    /// The limited resource.
    pub what: &'static str,
    /// The limit.
    pub limit: usize,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were opened.
    pub established: u64,
    /// Connections that were refused before their handshake.
    pub refused_pending: u64,
    /// Connections that were refused after their handshake.
    pub refused: u64,
    /// Pending connections that were displaced.
    pub displaced_pending: u64,
    /// Open connections that were displaced.
    pub displaced: u64,
    /// Pending connections whose handshake took too long.
    pub handshake_timeouts: u64,
    /// Open connections that were trimmed.
    pub trimmed: u64,
    /// Open connections that were closed because nothing needed them.
    pub idle: u64,
}
