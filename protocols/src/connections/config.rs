//! Limits and times.

use std::time::Duration;

/// Limits and times of [`Connections`](super::Connections).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Inbound connections whose handshake is in progress. At the limit, the oldest one of the network with
    /// the most is displaced by a network with fewer, or the new one is refused. Default: 256.
    pub pending_inbound: usize,
    /// Pending inbound connections of one network, with a similar rule. Default: 32.
    pub pending_per_prefix: usize,
    /// Connections that this node is opening; a further one is refused. Default: 160.
    pub pending_outbound: usize,
    /// Open connections. A further one is refused, unless this node opened it or its peer is protected: then
    /// the least useful inbound one is displaced. Default: 1024.
    pub connections: usize,
    /// Open connections that peers opened. At the limit, a network with fewer displaces the least useful one
    /// of the network with the most, or the new one is refused. Default: 768.
    pub inbound: usize,
    /// Open connections with one peer; a further one is refused. Default: 8.
    pub per_peer: usize,
    /// Open connections that the peers of one network opened; a further one is refused. Default: 64.
    pub per_prefix: usize,
    /// Number of open connections above which some are closed. Default: 192.
    pub high_water: usize,
    /// Number of open connections down to which they are closed. Default: 160.
    pub low_water: usize,
    /// Age below which a connection is not trimmed. Default: 1 min.
    pub grace: Duration,
    /// Time after which a connection is closed that nothing needs. Shorter times cost more handshakes;
    /// `Duration::MAX` leaves idle connections open. Default: 10 s.
    pub idle_timeout: Duration,
    /// Time after which a pending connection is closed. Default: 15 s.
    pub handshake_timeout: Duration,
    /// Peers with tags or protections; a further one is an error. Default: 4096.
    pub marked_peers: usize,
    /// Tags and protections of one peer, and protocols that keep one connection alive; a further one is an
    /// error. Default: 64.
    pub marks: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pending_inbound: 256,
            pending_per_prefix: 32,
            pending_outbound: 160,
            connections: 1024,
            inbound: 768,
            per_peer: 8,
            per_prefix: 64,
            high_water: 192,
            low_water: 160,
            grace: Duration::from_mins(1),
            idle_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(15),
            marked_peers: 4096,
            marks: 64,
        }
    }
}
