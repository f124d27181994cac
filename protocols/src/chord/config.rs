//! Bounds and times.

use std::time::Duration;

use crate::overlay::Validator;

/// Bytes of a message around a record's value or its lists of nodes, and more than that.
pub(super) const FRAME: usize = 128;

/// How an [`Engine`](super::Engine) behaves, and what it keeps at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Length of the successor list: *r* of the paper (section 5.3), at most 64. The ring holds as long as one of so many
    /// neighbours lives; with 2·log2 N of them, also when half of all nodes fail at once. Default: 20.
    pub successors: usize,
    /// Nodes that keep a record: its key's successor and those after it. At most `successors` + 1. Default: 3.
    pub copies: usize,
    /// Whether to believe an id that the sender's address does not prove. Only among friends: any node can claim any id
    /// then. A source with an IP address gets an answer only once it has shown by a token that it receives at that
    /// address, so a node sends a forged source fewer bytes than came in its name. Default: no.
    pub unproven_ids: bool,

    /// How long an answer is waited for. What only one node can answer is asked a second time; whoever is silent twice is
    /// forgotten. Default: 5 s.
    pub request_timeout: Duration,
    /// How often the successor is asked for its neighbours, give or take a quarter. Default: 10 s.
    pub stabilize_every: Duration,
    /// How often a finger is seen to, give or take a quarter: the node that it was is asked whether it still is, and if not, it
    /// is looked up. The first round of all fingers runs without waiting.
    /// Default: 10 s.
    pub fix_fingers_every: Duration,

    /// How often this node looks its place up by way of those that it has joined by, give or take a quarter. So rings that a
    /// partition has left behind become one again, as long as one of those is there. Default: 2 min.
    pub rejoin_every: Duration,

    /// Operations of the application at a time; a further one is an error. Default: 64.
    pub operations: usize,
    /// Requests of one lookup in total; then it ends. Default: 64.
    pub lookup_requests: usize,
    /// Nodes that an answer names that are nearer to a key. More finds ways round dead nodes. At most 64. Default: 8.
    pub nearer: usize,
    /// Addresses that one join asks; further ones are ignored. Default: 16.
    pub bootstraps: usize,
    /// How often a join is tried before it fails: nodes that are just joining themselves take nobody in. Default: 5.
    pub join_tries: u32,
    /// How long after the first try of a join the second is made; each later one waits twice as long as the one before, a
    /// minute at most. A lookup that knows nobody else to ask, since somebody failed, is tried once more after as long.
    /// Default: 1 s.
    pub retry_pause: Duration,

    /// Bytes of a request or an answer at most, which the asks below must carry. Answers name as many nodes as fit.
    /// At least 1024. Default: 16 KiB.
    pub message: usize,
    /// Bytes of a record's value at most; longer ones are refused. At most [`message`](Self::message) less 128.
    /// Default: 8 KiB.
    pub value: usize,
    /// Records kept, own ones and copies. At the limit others' copies leave for records of this node's own range, those
    /// farthest from it first, and then records of the network that has the most, for one that has fewer; for a copy of a
    /// network with fewer a copy of that network leaves; all else is refused. Default: 4096.
    pub records: usize,
    /// Bytes of their values. As above. Default: 8 MiB.
    pub record_bytes: usize,
    /// Records kept that came from one network, or one node where that is unknown, since ids cost nothing; further ones are
    /// refused. Default: 2048.
    pub records_per_source: usize,
    /// For how long a record is kept at most; more is cut down to this. Default: 24 h.
    pub record_ttl: Duration,
    /// How often all own records are copied to the successors though nothing has changed. A copy that nobody has left here
    /// anew for three times as long goes back to its key's successor. Default: 10 min.
    pub replicate_every: Duration,
    /// Copies that are under way to others at a time. Default: 32.
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

impl Config {
    /// The same with every number in the range where it means something.
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

/// What engines of one ring have in common.
pub type Rules<A> = crate::overlay::Rules<A, Config>;

impl<A> Rules<A> {
    /// `parse` reads an address's text (a swarm's `parse_addr` does); `validator` says which records are good.
    pub fn new(
        config: Config,
        parse: impl Fn(&str) -> Option<A> + Send + Sync + 'static,
        validator: impl Validator + 'static,
    ) -> Self {
        Self::with(config.clamped(), parse, validator)
    }
}
