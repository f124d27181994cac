//! How a node of a gossip network behaves, and what it keeps at most.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use p2p_formats::x509::{Fingerprint, shake256};
use p2p_protocols::gossipsub::wire::Message;
use p2p_protocols::gossipsub::{Author, Config, MessageId, Topic, Verdict, Version};

use crate::inbox::Limits;

/// What the application says of a message of a topic, given its author, where messages are signed, and its data.
pub type Validator = Arc<dyn Fn(&Topic, Option<&Author>, &[u8]) -> Verdict + Send + Sync>;

/// Names messages; see [`Engine::set_message_id`](p2p_protocols::gossipsub::Engine::set_message_id).
pub type NameMessage = Arc<dyn Fn(&Message) -> MessageId + Send + Sync>;

/// How a [`GossipSwarm`](super::GossipSwarm) behaves, and what it keeps at most.
#[derive(Clone)]
pub struct GossipConfig {
    /// The router. Its `direct`, `validation` and `peer_idle` are set by what is said here, and its `limits.rpc` is cut to
    /// the MTU below. A longer `limits.topic` leaves less for payloads.
    pub engine: Config,
    /// Messages that wait for the reader. At the limit one of the author with the most is dropped and counted as
    /// [`Reason::QueueFull`](p2p::Reason::QueueFull). Default: 1024 messages, 4 MiB.
    pub messages: Limits,
    /// Events that wait for the reader. At the limit the oldest is dropped and counted. Default: 1024.
    pub events: usize,
    /// Messages that are pulled from below at a time. More cost more memory while they are looked at, fewer cost more
    /// calls. Default: 64.
    pub batch: usize,
    /// RPCs that leave for one peer as one batch, each with as many messages as [`pack`](Config::pack) lets. Default: 64.
    pub burst: usize,
    /// For how long nothing may be heard of a peer before it is none any more. Peers say something every
    /// [`announce_every`](Config::announce_every) at least. Default: 6 min.
    pub peer_idle: Duration,
    /// Whether whoever sends an RPC becomes a peer, up to [`max_peers`](Config::max_peers). Without, only those that were
    /// added by hand are listened to. Default: yes.
    pub accept_peers: bool,
    /// What peers are taken to speak. Default: gossipsub 1.2.
    pub version: Version,
    /// How long `close` waits until goodbyes have left, where nothing else waits. Default: 100 ms.
    pub farewell: Duration,
    /// How long `close` waits, in total, until what was published before has left for the peers that it waits for. What
    /// has not by then is dropped and counted as [`Reason::Closed`](p2p::Reason::Closed). Default: 2 s.
    pub linger: Duration,
    /// Which [`PeerId`](p2p::PeerId) a key of an author has: that of P2PKE or that of QUIC. The same at all nodes.
    /// Default: that of P2PKE.
    pub fingerprint: Fingerprint,
    /// Decides about each message before it is delivered and passed on. It must not take long. Default: none, the
    /// signature policy decides.
    pub validator: Option<Validator>,
    /// Names messages, the same at all nodes. Default: by author and number, or by the hash of the data where messages
    /// are not signed.
    pub message_id: Option<NameMessage>,
}

impl Default for GossipConfig {
    fn default() -> Self {
        Self {
            engine: Config::default(),
            messages: Limits::default(),
            events: 1024,
            batch: 64,
            burst: 64,
            peer_idle: Duration::from_mins(6),
            accept_peers: true,
            version: Version::V1_2,
            farewell: Duration::from_millis(100),
            linger: Duration::from_secs(2),
            fingerprint: shake256,
            validator: None,
            message_id: None,
        }
    }
}

impl GossipConfig {
    /// A node of floodsub: each message goes to all subscribers.
    pub fn floodsub() -> Self {
        let mut config = Self::default();
        config.engine.floodsub = true;
        config.version = Version::Floodsub;
        config
    }

    /// Decides about each message before it is delivered and passed on.
    #[must_use]
    pub fn validator(
        mut self,
        validator: impl Fn(&Topic, Option<&Author>, &[u8]) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        self.validator = Some(Arc::new(validator));
        self
    }
}

impl fmt::Debug for GossipConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GossipConfig")
            .field("engine", &self.engine)
            .field("messages", &self.messages)
            .field("events", &self.events)
            .field("peer_idle", &self.peer_idle)
            .field("accept_peers", &self.accept_peers)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
