//! Limits and intervals.

use std::time::Duration;

use crate::overlay::EngineConfig;

/// Upper bound of the bytes in a message around a record's value or its lists of nodes.
pub(super) const FRAME: usize = 128;

/// Limits, intervals and policies of an [`Engine`](super::Engine).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Length of the successor list: *r* of the paper (section 5.3), at most 64. The ring stays connected as
    /// long as each node has a live successor in its list; with 2·log2 N of them, also when half of all nodes
    /// fail at once. Default: 20.
    pub successors: usize,
    /// Nodes that keep a record: its key's successor and the nodes after it. At most `successors` + 1.
    /// Default: 3.
    pub copies: usize,
    /// Whether to accept an id that the sender's address does not authenticate. Use it only among trusted
    /// nodes: any node can then claim any id. A source with an IP address gets an answer only after it has
    /// returned a token sent to that address, so a node sends a forged source fewer bytes than it received.
    /// Default: no.
    pub unproven_ids: bool,

    /// Timeout of a request. A request that only one node can answer is sent a second time; a node that
    /// misses both timeouts is forgotten. Default: 5 s.
    pub request_timeout: Duration,
    /// Interval of stabilization, in which the node asks its successor for its neighbours; jittered by a
    /// quarter. Default: 10 s.
    pub stabilize_every: Duration,
    /// Interval at which a finger is fixed, jittered by a quarter: the node asks the old finger whether it
    /// still is the finger, and otherwise looks it up. The first round of all fingers runs without pauses.
    /// Default: 10 s.
    pub fix_fingers_every: Duration,

    /// Interval at which this node looks up its own place through its bootstrap nodes, jittered by a quarter.
    /// This merges the rings that a partition left behind, as long as one of the bootstrap nodes is alive.
    /// Default: 2 min.
    pub rejoin_every: Duration,

    /// Concurrent operations of the application; a further one is an error. Default: 64.
    pub operations: usize,
    /// Requests of one lookup in total; at the limit it ends. Default: 64.
    pub lookup_requests: usize,
    /// Nodes nearer to a key that an answer names. A higher value finds more ways around dead nodes. At most
    /// 64. Default: 8.
    pub nearer: usize,
    /// Bootstrap addresses that one join asks; further ones are ignored. Default: 16.
    pub bootstraps: usize,
    /// Attempts of a join before it fails: nodes that are joining themselves accept no others. Default: 5.
    pub join_tries: u32,
    /// Pause between the first and the second attempt of a join; it doubles for each later one, up to one
    /// minute. A lookup that runs out of nodes to ask after a failure is tried once more after the first
    /// pause. Default: 1 s.
    pub retry_pause: Duration,

    /// Maximum bytes of a request or an answer. The layer that carries the asks must have this MTU. Answers
    /// name as many nodes as fit. At least 1024. Default: 16 KiB.
    pub message: usize,
    /// Maximum bytes of a record's value; longer values are refused. At most [`message`](Self::message) less
    /// 128. Default: 8 KiB.
    pub value: usize,
    /// Records kept, own ones and copies. At the limit, a record of this node's own range evicts copies,
    /// those farthest from the range first, and then a record of the network that has the most if its own
    /// network has fewer. A copy evicts a copy of the network that has the most if its own network has fewer.
    /// All other records are refused. Default: 4096.
    pub records: usize,
    /// Total bytes of their values, with the same eviction. Default: 8 MiB.
    pub record_bytes: usize,
    /// Records kept from one network, or from one node if its network is unknown, because ids cost nothing;
    /// further ones are refused. Default: 2048.
    pub records_per_source: usize,
    /// Maximum lifetime of a record; a longer one is shortened to this. Default: 24 h.
    pub record_ttl: Duration,
    /// Interval at which all own records are copied to the successors even if nothing has changed. A copy
    /// that was not renewed for three intervals goes back to its key's successor. Default: 10 min.
    pub replicate_every: Duration,
    /// Copies in flight to other nodes. Default: 32.
    pub replicate_batch: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            successors: 20,
            copies: 3,
            unproven_ids: false,
            request_timeout: Duration::from_secs(5),
            stabilize_every: Duration::from_secs(10),
            fix_fingers_every: Duration::from_secs(10),
            rejoin_every: Duration::from_mins(2),
            operations: 64,
            lookup_requests: 64,
            nearer: 8,
            bootstraps: 16,
            join_tries: 5,
            retry_pause: Duration::from_secs(1),
            message: 16 << 10,
            value: 8 << 10,
            records: 4096,
            record_bytes: 8 << 20,
            records_per_source: 2048,
            record_ttl: Duration::from_hours(24),
            replicate_every: Duration::from_mins(10),
            replicate_batch: 32,
        }
    }
}

impl EngineConfig for Config {
    fn clamped(self) -> Self {
        let most = super::wire::MAX_NODES;
        let tick = Duration::from_millis(1);
        let successors = self.successors.clamp(1, most);
        let message = self.message.max(1024);
        Self {
            successors,
            copies: self.copies.clamp(1, successors + 1),
            request_timeout: self.request_timeout.max(tick),
            stabilize_every: self.stabilize_every.max(tick),
            fix_fingers_every: self.fix_fingers_every.max(tick),
            rejoin_every: self.rejoin_every.max(tick),
            lookup_requests: self.lookup_requests.max(1),
            nearer: self.nearer.clamp(1, most),
            message,
            value: self.value.min(message - FRAME),
            replicate_every: self.replicate_every.max(tick),
            replicate_batch: self.replicate_batch.max(1),
            ..self
        }
    }
}

/// What all engines of one ring share.
pub type Rules<A> = crate::overlay::Rules<A, Config>;
