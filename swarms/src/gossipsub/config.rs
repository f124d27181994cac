//! Configuration of a gossip node: behaviour and bounds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use p2p::PeerId;
use p2p_formats::x509::{Fingerprint, shake256};
use p2p_protocols::gossipsub::wire::Message;
use p2p_protocols::gossipsub::{Author, Config, MessageAcceptance, MessageId, Topic, Version};

use crate::inbox::Limits;

/// Decides whether a message is accepted, given its topic, its author (where messages are signed), and its
/// data.
pub type Validator = Arc<dyn Fn(&Topic, Option<&Author>, &[u8]) -> MessageAcceptance + Send + Sync>;

/// Computes message ids; see [`Engine::set_message_id`](p2p_protocols::gossipsub::Engine::set_message_id).
pub type NameMessage = Arc<dyn Fn(&Message) -> MessageId + Send + Sync>;

/// Configuration of a [`GossipSwarm`](super::GossipSwarm).
#[derive(Clone)]
pub struct GossipConfig {
    /// Configuration of the router. The other fields of this struct determine its `validation` and `peer_idle`,
    /// `limits.rpc` and `send.rpc` are reduced to the MTU below, and `direct` is set, except on a medium with
    /// connections. A longer `limits.topic` leaves less for payloads.
    pub engine: Config,
    /// Messages that wait for the reader. At the limit one of the author with the most is dropped and counted as
    /// [`DropReason::QueueFull`](p2p::DropReason::QueueFull). Default: 1024 messages, 4 MiB.
    pub messages: Limits,
    /// Maximum number of events that wait for the reader. At the bound the oldest is dropped and counted.
    /// Default: 1024.
    pub events: usize,
    /// Maximum number of messages that are received from below at a time. A larger number costs memory while
    /// a batch is processed, a smaller one costs more calls. Default: 64.
    pub batch: usize,
    /// Maximum number of RPCs that are sent to one peer as one batch, each with as many messages as
    /// [`pack`](Config::pack) permits. Default: 64.
    pub burst: usize,
    /// Time after which a silent peer is removed. Peers send at least every
    /// [`announce_every`](Config::announce_every). Default: 6 min.
    pub peer_idle: Duration,
    /// Whether a node that sends an RPC becomes a peer, up to [`max_peers`](Config::max_peers). If not, RPCs
    /// of nodes that were not added are dropped. Default: yes.
    pub accept_peers: bool,
    /// The protocol version that peers are assumed to support. Default: gossipsub 1.2.
    pub version: Version,
    /// How long `close` waits until goodbyes were sent, if no messages are queued. Default: 100 ms.
    pub goodbye_timeout: Duration,
    /// How long `close` waits in total until published messages were sent to the peers that they are queued
    /// for. The remaining ones are dropped and counted as [`DropReason::Closed`](p2p::DropReason::Closed). Default: 2
    /// s.
    pub linger: Duration,
    /// Derives the [`PeerId`](p2p::PeerId) of an author's key, as P2PKE or QUIC does. Must be the same at all
    /// nodes. Default: that of P2PKE.
    pub fingerprint: Fingerprint,
    /// Derives the [`PeerId`](p2p::PeerId) of an author whose key is not Ed25519, where such authors are
    /// [accepted](super::Signing::verifying). Default: none, so the source of such a message is the neighbour that
    /// forwarded it.
    pub other_ids: Option<fn(&Author) -> PeerId>,
    /// Decides on each message before it is delivered and forwarded. It must return quickly. Default: none,
    /// only the signature policy applies.
    pub validator: Option<Validator>,
    /// Computes message ids. Must be the same at all nodes. Default: author and sequence number, or the hash
    /// of the data where messages are not signed.
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
            goodbye_timeout: Duration::from_millis(100),
            linger: Duration::from_secs(2),
            fingerprint: shake256,
            other_ids: None,
            validator: None,
            message_id: None,
        }
    }
}

impl GossipConfig {
    /// Returns the configuration of a floodsub node: each message is sent to all subscribers.
    pub fn floodsub() -> Self {
        let mut config = Self::default();
        config.engine.floodsub = true;
        config.version = Version::Floodsub;
        config
    }

    /// Sets the validator, which decides on each message before it is delivered and forwarded.
    #[must_use]
    pub fn validator(
        mut self,
        validator: impl Fn(&Topic, Option<&Author>, &[u8]) -> MessageAcceptance + Send + Sync + 'static,
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
