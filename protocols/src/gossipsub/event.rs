//! Events, transmits and counters.

use bytes::Bytes;

use super::identity::Author;
use super::message_id::MessageId;
use super::queue::Dropped;
use super::signing::PolicyError;
use super::topic::Topic;
use super::wire::{PeerInfo, WireError};

/// An RPC to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit<A> {
    /// The destination.
    pub to: A,
    /// The bytes. If a message is alone in its RPC, all copies of it share them.
    pub rpc: Bytes,
}

/// RPCs to one peer, each as a list of parts: the RPC is the concatenation of its parts. So messages that are
/// sent together are copied once, into the packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcBatch {
    pub(super) parts: Vec<Bytes>,
    /// The number of parts after which each RPC ends.
    pub(super) ends: Vec<usize>,
}

impl RpcBatch {
    /// Iterates over the parts of each RPC. An RPC has at least one part, and more than one only if all are
    /// messages.
    pub fn rpcs(&self) -> impl Iterator<Item = &[Bytes]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let ranges = starts.zip(&self.ends);
        ranges.map(|(start, end)| self.parts.get(start..*end).unwrap_or_default())
    }

    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.ends.clear();
    }

    /// Ends an RPC, if parts were added since the last one. Returns whether there is one.
    pub(super) fn end(&mut self) -> bool {
        let (end, last) = (self.parts.len(), self.ends.last().copied().unwrap_or(0));
        if end > last {
            self.ends.push(end);
        }
        end > last
    }
}

/// A received message: of a subscribed topic, or for this node only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received<A> {
    /// The message id.
    pub id: MessageId,
    /// The topic.
    pub topic: Topic,
    /// The peer that forwarded it.
    pub via: A,
    /// The author, authenticated by the signature; `None` if messages are not signed.
    pub author: Option<Author>,
    /// The data.
    pub data: Bytes,
}

/// The reason for refusing a message of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The message cannot be parsed.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The message violates the signature policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The application rejected the message.
    #[error("the application rejected the message")]
    Application,
}

/// An event of an [`Engine`](super::Engine).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<A> {
    /// A message of a subscribed topic. Each message is reported once.
    Message(Received<A>),
    /// A message that waits for a decision by [`Engine::validate`](super::Engine::validate). If the
    /// application accepts it, this event was its delivery: no other event follows.
    Validate(Received<A>),
    /// A peer subscribed to a topic.
    Subscribed {
        /// The peer.
        peer: A,
        /// The topic.
        topic: Topic,
    },
    /// A peer unsubscribed from a topic.
    Unsubscribed {
        /// The peer.
        peer: A,
        /// The topic.
        topic: Topic,
    },
    /// A peer joined a mesh.
    Grafted {
        /// The peer.
        peer: A,
        /// The topic.
        topic: Topic,
    },
    /// A peer left a mesh.
    Pruned {
        /// The peer.
        peer: A,
        /// The topic.
        topic: Topic,
    },
    /// A message was refused.
    Rejected {
        /// The peer that sent it.
        peer: A,
        /// The reason.
        reason: Refused,
    },
    /// A trusted peer named other peers of a topic, for this node to connect to.
    PeerExchange {
        /// The peer that named them.
        peer: A,
        /// The topic.
        topic: Topic,
        /// The named peers, at most [`Config::prune_peers`](super::Config::prune_peers). Their records are
        /// not verified.
        peers: Vec<PeerInfo>,
    },
    /// A message for this node only, from a peer.
    Direct(Received<A>),
    /// A peer announced that it accepts direct messages, with its author id if messages are signed. The id is
    /// claimed, not authenticated.
    Introduced {
        /// The peer.
        peer: A,
        /// The author id that it claims.
        author: Option<Author>,
    },
    /// A peer was removed: it left, was silent for [`Config::peer_idle`](super::Config), or was replaced by
    /// another one ([`Config::max_inbound`](super::Config)).
    Left {
        /// The peer.
        peer: A,
    },
    /// An explicit peer is not connected; the application should connect it.
    Connect {
        /// The peer.
        peer: A,
    },
}

/// The application's decision about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageAcceptance {
    /// Forward the message.
    Accept,
    /// Drop the message without a penalty.
    Ignore,
    /// Drop the message and penalise the peers that sent it (P4).
    Reject,
}

/// The result of publishing a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The message id.
    pub id: MessageId,
    /// Number of peers that it is sent to. If zero, the message is only kept for IWANT requests.
    pub peers: usize,
}

/// Counters of an engine since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// RPCs received, of all kinds.
    pub rpcs: u64,
    /// RPCs ignored because their source is not a peer.
    pub strangers: u64,
    /// RPCs ignored because their sender is graylisted.
    pub graylisted: u64,
    /// RPCs that cannot be parsed or exceed a limit.
    pub malformed: u64,
    /// Valid messages received for the first time.
    pub delivered: u64,
    /// Duplicate messages received.
    pub duplicates: u64,
    /// Messages refused by the signature policy or the application.
    pub rejected: u64,
    /// Messages that the application ignored, or did not decide about in time.
    pub ignored: u64,
    /// Messages of topics without a subscription.
    pub unrequested: u64,
    /// Messages of this node that returned to it.
    pub own: u64,
    /// Messages published by this node.
    pub published: u64,
    /// Published messages that were sent to no peer.
    pub unheard: u64,
    /// Direct messages sent.
    pub told: u64,
    /// Valid direct messages received for the first time.
    pub direct: u64,
    /// Copies of messages queued for peers.
    pub copies: u64,
    /// Message ids requested with IWANT.
    pub iwant_sent: u64,
    /// Messages sent in answer to IWANT.
    pub iwant_served: u64,
    /// IHAVE messages ignored because of a limit or a low score of the sender.
    pub ihave_ignored: u64,
    /// Requested messages that a peer did not send in time.
    pub broken_promises: u64,
    /// IDONTWANT sent.
    pub idontwant_sent: u64,
    /// Ids in IDONTWANT that were ignored because of the limit.
    pub idontwant_ignored: u64,
    /// GRAFTs refused.
    pub graft_refused: u64,
    /// Peers in peer exchanges that were ignored.
    pub exchange_ignored: u64,
    /// Subscriptions that were ignored because of a limit.
    pub subscriptions_ignored: u64,
    /// RPCs dropped from a queue: no room, too old, or unwanted.
    pub queue_dropped: u64,
    /// Dropped RPCs that were messages.
    pub messages_dropped: u64,
    /// Messages forgotten before [`Config::seen_ttl`](super::Config), which could be delivered twice.
    pub seen_evicted: u64,
    /// Inbound peers that were replaced by others.
    pub peers_evicted: u64,
    /// Greetings that were not sent to peers that reconnected too often.
    pub greetings_withheld: u64,
}

impl Counts {
    pub(super) fn dropped(&mut self, dropped: Dropped) {
        self.queue_dropped += dropped.rpcs;
        self.messages_dropped += dropped.messages;
    }
}
