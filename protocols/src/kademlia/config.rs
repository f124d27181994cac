//! Bounds and times.

use std::time::Duration;

use crate::overlay::Validator;

/// Bytes of a message around a record's value or a list of nodes, and more than that.
pub(super) const FRAME: usize = 64;

/// How an [`Engine`](super::Engine) behaves, and what it keeps at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Contacts of a bucket, nodes in an answer, and copies of a record: *k* of the paper. At most 64.
    /// A full bucket keeps the contacts that it has, as long as they answer; newcomers wait. Default: 20.
    pub k: usize,
    /// Contacts that answered and wait for a place in a full bucket. While all of these have been heard of within
    /// [`ask_after`](Self::ask_after), further newcomers are ignored; else the oldest goes. Default: 4.
    pub waiting: usize,
    /// Requests of one lookup in flight, shared by its paths; each path has at least one: *α* of the paper.
    /// More finds its way round dead nodes faster, and asks more nodes in vain. Default: 3.
    pub alpha: usize,
    /// Paths of a lookup that have no node in common (*d* of S/Kademlia, section 4.4). Who lies leads one of
    /// them astray. Default: 3.
    pub paths: usize,
    /// Requests of one lookup in total, an equal part for each path. It ends with what it has then.
    /// Default: 180.
    pub lookup_requests: usize,
    /// Nodes that one lookup remembers; the farthest that were not asked are forgotten. Default: 512.
    pub lookup_nodes: usize,
    /// Nodes of one network (see [`Prefix`](super::Prefix)) that one lookup asks or has answers of; others are not asked.
    /// One host of a private network has eight times as many, here and in all limits for each prefix. Default: 8.
    pub lookup_per_prefix: usize,
    /// Contacts of one network in one bucket, with those that wait; others are refused. Default: 2.
    pub bucket_per_prefix: usize,
    /// Contacts of one network in all buckets; others are refused. Default: 10.
    pub table_per_prefix: usize,
    /// After how many failed asks in a row a contact gives its place to one that waits. Until then, from its first
    /// failure on, it is not named to others. Default: 2.
    pub failures: u8,
    /// Whether to believe an id that the sender's address does not prove. Only among friends: any node can claim any id
    /// then. A source with an IP address gets an answer only once it has shown by a token that it receives at that
    /// address, so a node sends a forged source fewer bytes than came in its name. Default: no.
    pub unproven_ids: bool,

    /// Whether this node serves others. One that does not, and refuses their requests, gets into no bucket: for those who
    /// come to ask something and leave again, whom nobody should look for afterwards. Default: yes.
    pub serves: bool,

    /// How long an answer is waited for. Default: 5 s.
    pub request_timeout: Duration,
    /// A contact not heard of for so long is asked whether it lives: by and by, and when a newcomer wants its place.
    /// Default: 10 min.
    pub ask_after: Duration,
    /// A bucket in which nothing was looked up for so long is refreshed by a lookup. Default: 1 h.
    pub refresh_every: Duration,
    /// How often all that is slow is done: expiry, refreshing, publishing again. Default: 30 s.
    pub upkeep_every: Duration,
    /// Asks in flight for whether newcomers live; one network gets a quarter of these, one host of a private network half.
    /// While there are so many, newcomers are ignored. Contacts that are silent have as many of their own. Default: 16.
    pub checks: usize,

    /// Operations of the application at a time; a further one is an error. Default: 64.
    pub operations: usize,
    /// Lookups at a time for refreshing and publishing again; others wait for the next upkeep. Default: 4.
    pub upkeep_operations: usize,
    /// Addresses that one join asks; further ones are ignored. Default: 16.
    pub bootstraps: usize,
    /// Records that [`get`](super::Engine::get) compares, from as many nodes; the best is the result. Default: 3.
    pub quorum: usize,

    /// Bytes of a request or an answer at most, which the asks below must carry. Answers name as many nodes as fit.
    /// At least 512. Default: 16 KiB.
    pub message: usize,
    /// Bytes of a record's value at most; longer ones are refused. At most [`message`](Self::message) less 64.
    /// Default: 8 KiB.
    pub value: usize,
    /// Records kept for others. At the limit the newest of those farthest from this node's id leaves, or the newest of the
    /// network that has the most.
    /// Default: 1024.
    pub records: usize,
    /// Bytes of their values. As above. Default: 2 MiB.
    pub record_bytes: usize,
    /// Records kept for one network, or one node where that is unknown; further ones are refused. Default: 256.
    pub records_per_source: usize,
    /// For how long a record is kept without being published again; more is cut down to this. Default: 24 h.
    pub record_ttl: Duration,
    /// How often a record that is kept is copied to the nodes that are nearest by then, unless somebody else has
    /// just done so. Default: 10 min.
    pub replicate_every: Duration,
    /// How often this node publishes its own records and what it provides. Default: 8 h.
    pub republish_every: Duration,
    /// Own records, and keys provided, at most; a further one is an error. Default: 1024 of each.
    pub published: usize,

    /// Keys of which providers are kept. At the limit the newest of those farthest from this node's id leaves, or the newest
    /// of the network that was first to provide the most.
    /// Default: 1024.
    pub provider_keys: usize,
    /// Providers kept for a key. At the limit a newcomer takes a place of the network that has the most, or else one by
    /// chance among the half that came last; the half that came first stays. Default: 20, at most 64.
    pub providers_per_key: usize,
    /// Providers of one network for a key; others are refused. Default: 4.
    pub providers_per_prefix: usize,
    /// Keys that one network, or one node where that is unknown, provides; further ones are refused.
    /// Default: 256.
    pub provided_per_source: usize,
    /// For how long a provider is kept without saying so again; more is cut down to this. Default: 24 h.
    pub provider_ttl: Duration,
    /// Providers that a lookup wants to know before it ends early, each named by two nodes; of more those that most nodes
    /// name are the result. Default: 20.
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

impl Config {
    /// The same with every number in the range where it means something.
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

/// What engines of one network have in common.
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
