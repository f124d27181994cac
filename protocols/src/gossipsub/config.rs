//! Parameters of the specifications, with their names, and limits.

use std::time::Duration;

use p2p::{Error, Result};

use super::queue::Priority;
use super::score_params::ScoreConfig;
use super::wire::Limits;

/// The condition for delivering and forwarding a message of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    /// The signature policy accepts it.
    Automatic,
    /// The application accepts it with [`Engine::validate`](super::Engine::validate).
    Application,
}

/// Limits of the queue of one peer. [`Counts::queue_dropped`](super::Counts) counts what is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Bytes of the whole queue; beyond this, the oldest item of the lowest priority is dropped. Default: 4
    /// MiB.
    pub bytes: usize,
    /// RPCs with subscriptions, GRAFT, PRUNE and IDONTWANT; beyond this, the oldest is dropped. They do not
    /// expire. Default: 256.
    pub control: usize,
    /// This node's own messages; beyond this, the oldest is dropped. Default: 1024.
    pub own: usize,
    /// Age at which they are dropped. Default: 5 s.
    pub own_age: Duration,
    /// Messages of other nodes; beyond this, the oldest is dropped. Default: 1024.
    pub forwarded: usize,
    /// Age at which they are dropped. Default: 1 s.
    pub forwarded_age: Duration,
    /// IHAVE and IWANT; beyond this, the oldest is dropped. Default: 64.
    pub gossip: usize,
    /// Age at which they are dropped. Default: 1 s.
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
    /// Returns the maximum length and age of the lane of this priority.
    pub(super) fn lane(&self, priority: Priority) -> (usize, Duration) {
        match priority {
            Priority::Control => (self.control, Duration::MAX),
            Priority::Own => (self.own, self.own_age),
            Priority::Forwarded => (self.forwarded, self.forwarded_age),
            Priority::Gossip => (self.gossip, self.gossip_age),
        }
    }
}

/// Limits of the RPCs that this node sends, where other implementations accept less than [`Limits`]. None is above that of
/// [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendLimits {
    /// Bytes of an RPC, and so of an own message with its overhead. Default: 1 MiB.
    pub rpc: usize,
    /// Bytes of an RPC without messages: what does not fit leaves in another one, or is left out of gossip. Default: 1
    /// MiB.
    pub control: usize,
    /// Subscriptions in an RPC. Default: 1024.
    pub subscriptions: usize,
    /// Messages in an RPC. Default: 4096.
    pub messages: usize,
}

impl Default for SendLimits {
    fn default() -> Self {
        let Limits {
            rpc,
            subscriptions,
            messages,
            ..
        } = Limits::default();
        Self {
            rpc,
            control: rpc,
            subscriptions,
            messages,
        }
    }
}

impl SendLimits {
    /// Limits that rust-, go-, js- and py-libp2p accept by default. The smallest are those of rust-libp2p: 64 KiB of an
    /// RPC, 16 KiB of its subscriptions and control messages, 100 subscriptions, and 500 messages.
    pub const LIBP2P: Self = Self {
        rpc: 64 << 10,
        control: 16 << 10,
        subscriptions: 100,
        messages: 500,
    };

    /// Returns these limits, none above that of `limits`.
    fn within(self, limits: &Limits) -> Self {
        let rpc = self.rpc.min(limits.rpc);
        Self {
            rpc,
            control: self.control.min(rpc),
            subscriptions: self.subscriptions.min(limits.subscriptions),
            messages: self.messages.min(limits.messages),
        }
    }
}

/// Parameters and limits of an [`Engine`](super::Engine).
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the switches are independent, and most have the name that a specification gives them"
)]
pub struct Config {
    /// `D`, the desired number of peers in a mesh. A higher value is faster and sends more copies. Default:
    /// 6.
    pub d: usize,
    /// `D_lo`; a mesh below it is extended by the heartbeat. Default: 4.
    pub d_lo: usize,
    /// `D_hi`; a mesh above it is pruned by the heartbeat, and accepts only outbound peers. Default: 12.
    pub d_hi: usize,
    /// `D_score`, the number of peers that a pruned mesh keeps by score; the others are random. Default: 4.
    pub d_score: usize,
    /// `D_out`, the minimum number of outbound peers in a mesh: below `d_lo` and at most half of `d`.
    /// Default: 2.
    pub d_out: usize,
    /// `D_lazy`, the minimum number of peers that gossip goes to. Default: 6.
    pub d_lazy: usize,
    /// `GossipFactor`, the fraction of the peers outside the mesh that gossip goes to. Default: 0.25.
    pub gossip_factor: f64,
    /// `heartbeat_interval`. Default: 1 s.
    pub heartbeat_interval: Duration,
    /// `fanout_ttl`, the time after the last message for which the fanout of a topic is kept. Default: 60 s.
    pub fanout_ttl: Duration,
    /// `mcache_len`, heartbeats for which messages are kept for IWANT requests. Default: 5.
    pub mcache_len: usize,
    /// `mcache_gossip`, heartbeats for which messages are announced in IHAVE. Default: 3.
    pub mcache_gossip: usize,
    /// `seen_ttl`, the time for which a message is recognised as a duplicate; after that it counts as new.
    /// Default: 2 min.
    pub seen_ttl: Duration,
    /// `PruneBackoff`. Default: 1 min.
    pub prune_backoff: Duration,
    /// `UnsubscribeBackoff`. Default: 10 s.
    pub unsubscribe_backoff: Duration,
    /// `FloodPublish`, whether own messages go to all subscribers instead of the mesh only. Default: yes.
    pub flood_publish: bool,
    /// Whether PRUNE names other peers. Default: yes.
    pub peer_exchange: bool,
    /// Number of peers that a PRUNE names, and that are accepted from one; further ones are ignored. Default:
    /// 16.
    pub prune_peers: usize,
    /// Heartbeats between checks for opportunistic grafting. Default: 60.
    pub opportunistic_graft_ticks: u64,
    /// Number of peers that it grafts. Default: 2.
    pub opportunistic_graft_peers: usize,
    /// A GRAFT within this time after a PRUNE counts twice as misbehaviour. Default: 10 s.
    pub graft_flood_threshold: Duration,
    /// RPCs with IHAVE that are processed for one peer in one heartbeat; further ones are ignored. Default:
    /// 10.
    pub max_ihave_messages: usize,
    /// Ids in one IHAVE, and ids requested from one peer in one heartbeat; further ones are ignored. Default:
    /// 5000.
    pub max_ihave_length: usize,
    /// Time in which a peer must answer an IWANT; after that it counts as misbehaviour. Default: 3 s.
    pub iwant_followup_time: Duration,
    /// Number of times that one peer gets one message by IWANT. Default: 3.
    pub gossip_retransmission: u32,
    /// `max_idontwant_messages`, ids in IDONTWANT that are honoured for one peer in one heartbeat. Default:
    /// 1000.
    pub max_idontwant_messages: usize,
    /// Minimum size of the data in bytes for which IDONTWANT is sent. Below it, IDONTWANT costs more than it
    /// saves. A peer that gets the message itself at once, within [`pack`](Self::pack) bytes, gets no
    /// IDONTWANT. Default: 1024.
    pub idontwant_threshold: usize,
    /// Heartbeats for which a received IDONTWANT is valid. Default: 3.
    pub idontwant_ttl: u32,
    /// Interval at which the application is asked to connect an absent explicit peer. Default: 5 min.
    pub direct_connect_every: Duration,
    /// Interval at which subscriptions and GRAFTs are repeated, which matters only if RPCs get lost. Not
    /// below `prune_backoff`. Default: 2 min.
    pub announce_every: Duration,
    /// Whether the router uses floodsub: it sends each message to all subscribers, and nothing else. Default:
    /// no.
    pub floodsub: bool,
    /// Whether peers introduce themselves to one another, accept direct messages, repeat changed
    /// subscriptions soon, and send gossip to mesh peers if there are fewer than `d_lazy` others: an
    /// extension of this library for media without connections, on which RPCs may get lost. Other
    /// implementations ignore it. Default: no.
    pub direct: bool,
    /// Time without a message after which a peer is removed. With connections, their end is a better signal.
    /// Default: never.
    pub peer_idle: Duration,
    /// Topics that this node sent to without a subscription, for which direct answers are accepted; beyond
    /// this, the oldest is forgotten. Default: 256.
    pub max_spoken: usize,
    /// The condition for delivering a message. Default: the signature policy.
    pub validation: Validation,
    /// Time that the application has for a decision; after that, the message is ignored. Default: 30 s.
    pub validation_timeout: Duration,
    /// Messages that wait for a decision; beyond this, one of the network and peer that delivered most of them
    /// is ignored. Default: 4096.
    pub max_validating: usize,

    /// Peers; further ones are refused. Default: 1024.
    pub max_peers: usize,
    /// Inbound peers among them, so that outbound peers find room however many nodes connect. At the limit, a
    /// newcomer replaces the inbound peer with the lowest score in the network (IPv4 /24, IPv6 /48) with the
    /// most inbound peers, if its own network has fewer. Among networks with equally many peers, and for
    /// addresses without IP, it replaces a peer that has been connected for 10 heartbeats, is in no mesh and
    /// has no score above 0, for up to a 64th of the limit in one heartbeat. Otherwise it is refused.
    /// Default: 768.
    pub max_inbound: usize,
    /// Inbound peers with one authenticated id; for a further one, the peer that was silent for the longest
    /// time is removed. Default: 4.
    pub max_inbound_per_identity: usize,
    /// Inbound peers of one public network (IPv4 /24, IPv6 /48); more for a private address and for loopback,
    /// see [`Prefix::limit`](crate::overlay::Prefix::limit). At the limit, peers are replaced as with
    /// `max_inbound`. Default: 256.
    pub max_inbound_per_prefix: usize,
    /// Topics that peers named; further ones are ignored. Outbound peers may name a quarter more; the peers
    /// of one network (see [`Prefix`](crate::overlay::Prefix)) may name a quarter at most. Default: 4096.
    pub max_topics: usize,
    /// Topics of one peer; further ones are ignored. Default: 128.
    pub max_topics_per_peer: usize,
    /// Messages in the message cache; beyond this, the oldest are dropped. Default: 4096.
    pub max_cached: usize,
    /// Total bytes of these messages. Default: 32 MiB.
    pub max_cached_bytes: usize,
    /// Messages that are recognised as duplicates; beyond this, the oldest are forgotten. Default: 65536.
    pub max_seen: usize,
    /// Backoffs; beyond this, the one that ends first is forgotten. Default: 16384.
    pub max_backoffs: usize,
    /// Maximum backoff that other nodes may set; a longer one is shortened to this. Default: 1 h.
    pub max_backoff: Duration,
    /// Limits of the queue of one peer.
    pub queue: QueueConfig,
    /// Maximum bytes of messages that are sent together as one RPC if they are queued for one peer at the
    /// same time. Not above `send.rpc`, nor more messages than `send.messages`. A higher value means less work
    /// for each message. But if the medium below splits long messages into fragments, the loss of one fragment
    /// loses all messages of the RPC, so use more than a datagram only on media that lose nothing. With 0, each
    /// message is sent alone. Default: 1200, about a datagram.
    pub pack: usize,
    /// Limits of one RPC that is received.
    pub limits: Limits,
    /// Limits of one RPC that is sent.
    pub send: SendLimits,
    /// Parameters of peer scoring. With `None`, all scores are zero.
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
            send: SendLimits::default(),
            score: Some(ScoreConfig::default()),
        }
    }
}

impl Config {
    /// Returns the limits of RPCs that are sent.
    pub fn send_limits(&self) -> SendLimits {
        self.send.within(&self.limits)
    }

    /// Checks that the parameters are consistent, as the specifications require.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the first violated rule.
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
                "gossip_factor is not between 0 and 1",
            ),
            (
                self.mcache_gossip <= self.mcache_len && self.mcache_len <= 1024,
                "mcache_gossip exceeds mcache_len, or mcache_len exceeds 1024",
            ),
            (
                self.limits
                    .topic
                    .saturating_add(self.limits.id)
                    .saturating_add(64)
                    <= self.send_limits().control,
                "limits.rpc, send.rpc or send.control has no room for a topic and an id",
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
