//! Parameters of the specifications, under their names, and bounds.

use std::time::Duration;

use p2p::{Error, Result};

use super::queue::Priority;
use super::score_params::ScoreConfig;
use super::wire::Limits;

/// When a message of others is delivered and passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    /// As soon as the signature policy takes it.
    Automatic,
    /// When the application says so, with [`Engine::validate`](super::Engine::validate).
    Application,
}

/// What may wait for one peer at most, and for how long. See [`Counts::queue_dropped`](super::Counts).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Bytes of all that waits; the oldest of the least important leaves. Default: 4 MiB.
    pub bytes: usize,
    /// RPCs with subscriptions, GRAFT, PRUNE and IDONTWANT; the oldest leaves. They do not age. Default: 256.
    pub control: usize,
    /// This node's own messages; the oldest leaves. Default: 1024.
    pub own: usize,
    /// How old they may become. Default: 5 s.
    pub own_age: Duration,
    /// Messages of others; the oldest leaves. Default: 1024.
    pub forwarded: usize,
    /// How old they may become. Default: 1 s.
    pub forwarded_age: Duration,
    /// IHAVE and IWANT; the oldest leaves. Default: 64.
    pub gossip: usize,
    /// How old they may become. Default: 1 s.
    pub gossip_age: Duration,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            bytes: 4 << 20,
            control: 256,
            own: 1024,
            own_age: Duration::from_secs(5),
            forwarded: 1024,
            forwarded_age: Duration::from_secs(1),
            gossip: 64,
            gossip_age: Duration::from_secs(1),
        }
    }
}

impl QueueConfig {
    /// How many of this priority may wait, and how long.
    pub(super) fn lane(&self, priority: Priority) -> (usize, Duration) {
        match priority {
            Priority::Control => (self.control, Duration::MAX),
            Priority::Own => (self.own, self.own_age),
            Priority::Forwarded => (self.forwarded, self.forwarded_age),
            Priority::Gossip => (self.gossip, self.gossip_age),
        }
    }
}

/// How an [`Engine`](super::Engine) behaves, and what it keeps at most.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, most of them by the name that a specification gives it"
)]
pub struct Config {
    /// `D`, peers wanted in a mesh. More is faster and costs more copies. Default: 6.
    pub d: usize,
    /// `D_lo`, below which the heartbeat grafts. Default: 4.
    pub d_lo: usize,
    /// `D_hi`, beyond which it prunes, and from which on only outbound peers may graft. Default: 12.
    pub d_hi: usize,
    /// `D_score`, of those kept when pruning, how many by their score; the others by chance. Default: 4.
    pub d_score: usize,
    /// `D_out`, outbound peers of a mesh at least: below `d_lo` and at most half of `d`. Default: 2.
    pub d_out: usize,
    /// `D_lazy`, peers that gossip goes to at least. Default: 6.
    pub d_lazy: usize,
    /// `GossipFactor`, the part of the peers outside the mesh that gossip goes to. Default: 0.25.
    pub gossip_factor: f64,
    /// `heartbeat_interval`. Default: 1 s.
    pub heartbeat_interval: Duration,
    /// `fanout_ttl`, how long a topic's fanout is kept after the last message. Default: 60 s.
    pub fanout_ttl: Duration,
    /// `mcache_len`, heartbeats for which messages are kept for those who ask. Default: 5.
    pub mcache_len: usize,
    /// `mcache_gossip`, heartbeats for which they are gossiped about. Default: 3.
    pub mcache_gossip: usize,
    /// `seen_ttl`, for how long a message is known again; after that it is a new one. Default: 2 min.
    pub seen_ttl: Duration,
    /// `PruneBackoff`. Default: 1 min.
    pub prune_backoff: Duration,
    /// `UnsubscribeBackoff`. Default: 10 s.
    pub unsubscribe_backoff: Duration,
    /// `FloodPublish`, whether own messages go to all subscribers, not to the mesh alone. Default: yes.
    pub flood_publish: bool,
    /// Whether a PRUNE names other peers. Default: yes.
    pub peer_exchange: bool,
    /// Peers that a PRUNE names, and that are taken of one; further ones are ignored. Default: 16.
    pub prune_peers: usize,
    /// Heartbeats between checks for opportunistic grafting. Default: 60.
    pub opportunistic_graft_ticks: u64,
    /// Peers that it grafts. Default: 2.
    pub opportunistic_graft_peers: usize,
    /// A GRAFT within this time after the PRUNE counts twice as misbehaviour. Default: 10 s.
    pub graft_flood_threshold: Duration,
    /// RPCs with IHAVE that are looked at of a peer in a heartbeat; further ones are ignored. Default: 10.
    pub max_ihave_messages: usize,
    /// Ids in an IHAVE, and ids asked of one peer in a heartbeat; further ones are ignored. Default: 5000.
    pub max_ihave_length: usize,
    /// How long a peer that was asked by IWANT has; then it is misbehaviour. Default: 3 s.
    pub iwant_followup_time: Duration,
    /// How often a peer gets one message by IWANT. Default: 3.
    pub gossip_retransmission: u32,
    /// `max_idontwant_messages`, ids in IDONTWANT that are heeded of a peer in a heartbeat. Default: 1000.
    pub max_idontwant_messages: usize,
    /// Bytes of data from which on IDONTWANT is sent. Below, it costs more than it saves, and a peer that gets the message
    /// itself at once, within [`pack`](Self::pack) bytes, is told nothing else. Default: 1024.
    pub idontwant_threshold: usize,
    /// Heartbeats for which an IDONTWANT of others holds. Default: 3.
    pub idontwant_ttl: u32,
    /// How often an explicit peer that is not connected is asked for. Default: 5 min.
    pub direct_connect_every: Duration,
    /// How often subscriptions and GRAFTs are said again, which only matters where RPCs are lost. Not below
    /// `prune_backoff`. Default: 2 min.
    pub announce_every: Duration,
    /// Whether the router floods: each message to all subscribers, and nothing else. Default: no.
    pub floodsub: bool,
    /// Whether peers introduce themselves to one another, take messages for them alone, say subscriptions again soon, and
    /// gossip to those in the mesh where there are fewer than `d_lazy` others: an extension of this library for media
    /// without connections, on which RPCs may get lost. Others pass over it. Default: no.
    pub direct: bool,
    /// For how long nothing may be heard of a peer before it is none any more. Where there are connections, their end
    /// says more. Default: for ever.
    pub peer_idle: Duration,
    /// Topics that this node spoke of and did not subscribe to, of which it takes answers; the oldest are forgotten.
    /// Default: 256.
    pub max_spoken: usize,
    /// Who decides whether a message is delivered. Default: the signature policy.
    pub validation: Validation,
    /// How long the application has for that; then the message is ignored. Default: 30 s.
    pub validation_timeout: Duration,
    /// Messages that wait for it; the oldest is ignored. Default: 4096.
    pub max_validating: usize,

    /// Peers; further ones are refused. Default: 1024.
    pub max_peers: usize,
    /// Peers of these that turned to this node (inbound), so that those whom it turns to itself find room however many
    /// crowd in. At the limit a newcomer takes the place of the lowest scored inbound peer of the network (IPv4 /24, IPv6
    /// /48) with the most of them, if its own has fewer. Among networks with equally many, and where addresses are not of
    /// IP, it takes that of one that has been here for 10 heartbeats, is in no mesh and has no score above 0, up to a 64th
    /// of the limit in a heartbeat. Otherwise it is refused. Default: 768.
    pub max_inbound: usize,
    /// Inbound peers with one id that their addresses prove; for a further one, that which was silent for the longest time
    /// leaves. Default: 4.
    pub max_inbound_per_identity: usize,
    /// Inbound peers of one public network (IPv4 /24, IPv6 /48); more for a private address and for loopback, see
    /// [`Prefix::limit`](crate::overlay::Prefix::limit). At the limit as at that of `max_inbound`. Default: 256.
    pub max_inbound_per_prefix: usize,
    /// Topics known through others; further ones are ignored. A quarter more is for peers that this node turned to itself, and the
    /// peers of one network (see [`Prefix`](crate::overlay::Prefix)) name a quarter at most. Default: 4096.
    pub max_topics: usize,
    /// Topics of one peer; further ones are ignored. Default: 128.
    pub max_topics_per_peer: usize,
    /// Messages in the message cache; the oldest leave. Default: 4096.
    pub max_cached: usize,
    /// Their bytes. Default: 32 MiB.
    pub max_cached_bytes: usize,
    /// Messages that are known again; the oldest are forgotten. Default: 65536.
    pub max_seen: usize,
    /// Backoffs; the one that ends first is forgotten. Default: 16384.
    pub max_backoffs: usize,
    /// The longest backoff that others may set; more is cut down to this. Default: 1 h.
    pub max_backoff: Duration,
    /// What waits for one peer.
    pub queue: QueueConfig,
    /// Bytes of messages that leave together as one RPC, if they wait for a peer at the same time; not beyond `limits.rpc`,
    /// nor more messages than `limits.messages`, since others are taken to have the same limits. More is less work for
    /// each message. But where the medium below cuts what is long into fragments, all messages of an RPC are lost with
    /// any of these, so more than a datagram is for media that lose nothing. At 0 each message leaves alone. Default:
    /// 1200, about a datagram.
    pub pack: usize,
    /// What one RPC may have.
    pub limits: Limits,
    /// How peers are scored. Without, all scores are zero.
    pub score: Option<ScoreConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            d: 6,
            d_lo: 4,
            d_hi: 12,
            d_score: 4,
            d_out: 2,
            d_lazy: 6,
            gossip_factor: 0.25,
            heartbeat_interval: Duration::from_secs(1),
            fanout_ttl: Duration::from_mins(1),
            mcache_len: 5,
            mcache_gossip: 3,
            seen_ttl: Duration::from_mins(2),
            prune_backoff: Duration::from_mins(1),
            unsubscribe_backoff: Duration::from_secs(10),
            flood_publish: true,
            peer_exchange: true,
            prune_peers: 16,
            opportunistic_graft_ticks: 60,
            opportunistic_graft_peers: 2,
            graft_flood_threshold: Duration::from_secs(10),
            max_ihave_messages: 10,
            max_ihave_length: 5000,
            iwant_followup_time: Duration::from_secs(3),
            gossip_retransmission: 3,
            max_idontwant_messages: 1000,
            idontwant_threshold: 1024,
            idontwant_ttl: 3,
            direct_connect_every: Duration::from_mins(5),
            announce_every: Duration::from_mins(2),
            floodsub: false,
            direct: false,
            peer_idle: Duration::MAX,
            max_spoken: 256,
            validation: Validation::Automatic,
            validation_timeout: Duration::from_secs(30),
            max_validating: 4096,
            max_peers: 1024,
            max_inbound: 768,
            max_inbound_per_identity: 4,
            max_inbound_per_prefix: 256,
            max_topics: 4096,
            max_topics_per_peer: 128,
            max_cached: 4096,
            max_cached_bytes: 32 << 20,
            max_seen: 1 << 16,
            max_backoffs: 16384,
            max_backoff: Duration::from_hours(1),
            queue: QueueConfig::default(),
            pack: 1200,
            limits: Limits::default(),
            score: Some(ScoreConfig::default()),
        }
    }
}

impl Config {
    /// Whether the numbers go together as the specifications say.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the first rule that is broken.
    pub fn check(&self) -> Result<()> {
        let rules = [
            (
                self.d_lo <= self.d && self.d <= self.d_hi,
                "d_lo <= d <= d_hi does not hold",
            ),
            (self.d_score <= self.d, "d_score exceeds d"),
            (
                self.d == 0 || (self.d_out < self.d_lo && self.d_out <= self.d / 2),
                "d_out must be below d_lo and at most half of d",
            ),
            (
                (0.0..=1.0).contains(&self.gossip_factor),
                "gossip_factor is not within 0 and 1",
            ),
            (
                self.mcache_gossip <= self.mcache_len && self.mcache_len <= 1024,
                "mcache_gossip exceeds mcache_len, or that exceeds 1024",
            ),
            (
                self.limits
                    .topic
                    .saturating_add(self.limits.id)
                    .saturating_add(64)
                    <= self.limits.rpc,
                "limits.rpc has no room for a topic and an id",
            ),
            (
                self.heartbeat_interval >= Duration::from_millis(1),
                "heartbeat_interval is below 1 ms",
            ),
            (
                self.prune_backoff <= self.max_backoff && self.unsubscribe_backoff <= self.max_backoff,
                "a backoff exceeds max_backoff",
            ),
            (
                self.prune_backoff <= self.announce_every,
                "announce_every is below prune_backoff",
            ),
            (
                self.validation_timeout <= self.seen_ttl,
                "validation_timeout exceeds seen_ttl",
            ),
        ];
        if let Some((_, reason)) = rules.iter().find(|(holds, _)| !holds) {
            return Err(Error::invalid("gossipsub configuration", *reason));
        }
        self.score.as_ref().map_or(Ok(()), ScoreConfig::check)
    }
}
