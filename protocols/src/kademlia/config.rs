//! Limits and intervals.

use std::time::Duration;

use crate::overlay::EngineConfig;

/// Upper bound of the bytes in a message around a record's value or a list of nodes.
pub(super) const FRAME: usize = 64;

/// Limits, intervals and policies of an [`Engine`](super::Engine).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Contacts in a bucket, nodes in an answer, and copies of a record: *k* of the paper. At most 64. A full
    /// bucket keeps its contacts as long as they answer; newcomers wait. Default: 20.
    pub k: usize,
    /// Contacts that answered and wait for a place in a full bucket. If all of them were heard from within
    /// [`ask_after`](Self::ask_after), further newcomers are ignored; otherwise the oldest is replaced.
    /// Default: 4.
    pub waiting: usize,
    /// Requests in flight for one lookup, shared by its paths; each path has at least one: *α* of the paper.
    /// A higher value passes dead nodes faster, and sends more requests that turn out unnecessary. Default:
    /// 3.
    pub alpha: usize,
    /// Paths of a lookup that have no node in common (*d* of S/Kademlia, section 4.4). A lying node misleads
    /// one path only. Default: 3.
    pub paths: usize,
    /// Requests of one lookup in total, shared equally by the paths. A lookup that reaches the limit ends
    /// with what it has found. Default: 180.
    pub lookup_requests: usize,
    /// Nodes that one lookup remembers; beyond this, the farthest node that was not asked is forgotten.
    /// Default: 512.
    pub lookup_nodes: usize,
    /// Nodes of one network (see [`Prefix`](super::Prefix)) that one lookup asks or has answers from; others
    /// are not asked. A host of a private network has eight times this limit, here and in all limits per
    /// prefix. Default: 8.
    pub lookup_per_prefix: usize,
    /// Contacts of one network in one bucket, including waiting ones; others are refused. Default: 2.
    pub bucket_per_prefix: usize,
    /// Contacts of one network in all buckets; others are refused. Default: 10.
    pub table_per_prefix: usize,
    /// Failed requests in a row after which a contact loses its place to a waiting one. A contact with at
    /// least one failure is not named to others. Default: 2.
    pub failures: u8,
    /// Whether to accept an id that the sender's address does not authenticate. Use it only among trusted
    /// nodes: any node can then claim any id. A source with an IP address gets an answer only after it has
    /// returned a token sent to that address, so a node sends a forged source fewer bytes than it received.
    /// Default: no.
    pub unproven_ids: bool,

    /// Whether this node serves requests. A node that refuses requests is in no bucket; use this for
    /// short-lived clients that others should not look for. Default: yes.
    pub serves: bool,

    /// Timeout of a request. Default: 5 s.
    pub request_timeout: Duration,
    /// Time for which lookups do not ask a node again at an address at which it did not answer. A lookup of
    /// that node does, and so does one that would otherwise have no node to ask. Default: 15 s.
    pub silent_pause: Duration,
    /// A contact that was silent for this long is pinged: in turn by upkeep, and when a newcomer wants its
    /// place. Default: 10 min.
    pub ask_after: Duration,
    /// A bucket without a lookup for this long is refreshed by a lookup. Default: 1 h.
    pub refresh_every: Duration,
    /// Interval of upkeep: expiry, refresh, republishing. Default: 30 s.
    pub upkeep_every: Duration,
    /// Pings in flight to newcomers; one network may have a quarter of them, one host of a private network
    /// half. At the limit, newcomers are ignored. Pings to silent contacts have a separate limit of the same
    /// size. Default: 16.
    pub checks: usize,

    /// Concurrent operations of the application; a further one is an error. Default: 64.
    pub operations: usize,
    /// Concurrent lookups for refresh and republishing; others wait for the next upkeep. Default: 4.
    pub upkeep_operations: usize,
    /// Bootstrap addresses that one join asks; further ones are ignored. Default: 16.
    pub bootstraps: usize,
    /// Records, each from a different node, that [`get`](super::Engine::get) compares; the best one is the
    /// result. Default: 3.
    pub quorum: usize,

    /// Maximum bytes of a request or an answer. The layer that carries the asks must have this MTU. Answers
    /// name as many nodes as fit. At least 512. Default: 16 KiB.
    pub message: usize,
    /// Maximum bytes of a record's value; longer values are refused. At most [`message`](Self::message) less
    /// 64. Default: 8 KiB.
    pub value: usize,
    /// Records kept for other nodes. At the limit, the node evicts the newest of the records farthest from
    /// its id, or the newest of the network that has the most. Default: 1024.
    pub records: usize,
    /// Total bytes of their values, and of their keys where the network hashes keys, with the same eviction. Default: 2 MiB.
    pub record_bytes: usize,
    /// Records kept for one network, or for one node if its network is unknown; further ones are refused.
    /// Default: 256.
    pub records_per_source: usize,
    /// Maximum lifetime of a record that is not republished; a longer one is shortened to this. Default: 24
    /// h.
    pub record_ttl: Duration,
    /// Interval at which a kept record is copied to the nodes that are nearest to its key, unless another
    /// node has just done so. Default: 10 min.
    pub replicate_every: Duration,
    /// Interval at which this node republishes its own records and provider announcements. Default: 8 h.
    pub republish_every: Duration,
    /// Own records, and provided keys, at most; a further one is an error. Default: 1024 of each.
    pub published: usize,

    /// Keys with known providers. At the limit, the node evicts the newest of the keys farthest from its id,
    /// or the newest of the network that was the first provider of the most keys. Default: 1024.
    pub provider_keys: usize,
    /// Providers kept for one key. At the limit, a newcomer replaces a provider of the network that has the
    /// most, or else a random one of the newer half; the older half stays. Default: 20, at most 64.
    pub providers_per_key: usize,
    /// Providers of one network for one key; others are refused. Default: 4.
    pub providers_per_prefix: usize,
    /// Keys that one network provides, or one node if its network is unknown; further ones are refused.
    /// Default: 256.
    pub provided_per_source: usize,
    /// Maximum lifetime of a provider announcement that is not repeated; a longer one is shortened to this.
    /// Default: 24 h.
    pub provider_ttl: Duration,
    /// Providers after which a lookup ends early, each named by two nodes. If more are found, the result is
    /// those that most nodes name. Default: 20.
    pub providers_wanted: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            k: 20,
            waiting: 4,
            alpha: 3,
            paths: 3,
            lookup_requests: 180,
            lookup_nodes: 512,
            lookup_per_prefix: 8,
            bucket_per_prefix: 2,
            table_per_prefix: 10,
            failures: 2,
            unproven_ids: false,
            serves: true,
            request_timeout: Duration::from_secs(5),
            silent_pause: Duration::from_secs(15),
            ask_after: Duration::from_mins(10),
            refresh_every: Duration::from_hours(1),
            upkeep_every: Duration::from_secs(30),
            checks: 16,
            operations: 64,
            upkeep_operations: 4,
            bootstraps: 16,
            quorum: 3,
            message: 16 << 10,
            value: 8 << 10,
            records: 1024,
            record_bytes: 2 << 20,
            records_per_source: 256,
            record_ttl: Duration::from_hours(24),
            replicate_every: Duration::from_mins(10),
            republish_every: Duration::from_hours(8),
            published: 1024,
            provider_keys: 1024,
            providers_per_key: 20,
            providers_per_prefix: 4,
            provided_per_source: 256,
            provider_ttl: Duration::from_hours(24),
            providers_wanted: 20,
        }
    }
}

impl EngineConfig for Config {
    fn clamped(self) -> Self {
        let most = super::wire::MAX_NODES;
        let tick = Duration::from_millis(1);
        let k = self.k.clamp(1, most);
        let paths = self.paths.clamp(1, 16);
        let message = self.message.max(512);
        Self {
            message,
            value: self.value.min(message - FRAME),
            k,
            paths,
            alpha: self.alpha.max(1),
            lookup_requests: self.lookup_requests.max(paths),
            lookup_nodes: self.lookup_nodes.max(k),
            failures: self.failures.max(1),
            request_timeout: self.request_timeout.max(tick),
            refresh_every: self.refresh_every.max(tick),
            upkeep_every: self.upkeep_every.max(tick),
            replicate_every: self.replicate_every.max(tick),
            republish_every: self.republish_every.max(tick),
            quorum: self.quorum.max(1),
            providers_per_key: self.providers_per_key.min(most),
            providers_wanted: self.providers_wanted.max(1),
            ..self
        }
    }
}

/// What all engines of one network share.
pub type Rules<A> = crate::overlay::Rules<A, Config>;
