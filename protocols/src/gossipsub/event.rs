//! What comes out beside RPCs: messages, changes and counts.

use bytes::Bytes;

use super::identity::Author;
use super::message_id::MessageId;
use super::queue::Dropped;
use super::signing::PolicyError;
use super::topic::Topic;
use super::wire::{PeerInfo, WireError};

/// An RPC to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit<A> {
    /// To whom.
    pub to: A,
    /// Its bytes. All copies of one message that is alone in its RPC share them.
    pub rpc: Bytes,
}

/// RPCs to one peer, each in parts: one after the other, its parts are the RPC. So messages that leave together are
/// copied once, to where they are sent from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Burst {
    pub(super) parts: Vec<Bytes>,
    /// After how many parts each RPC ends.
    pub(super) ends: Vec<usize>,
}

impl Burst {
    /// The RPCs' parts. Each RPC has one at least, and only one unless all are messages.
    pub fn rpcs(&self) -> impl Iterator<Item = &[Bytes]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let ranges = starts.zip(&self.ends);
        ranges.map(|(start, end)| self.parts.get(start..*end).unwrap_or_default())
    }

    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.ends.clear();
    }

    /// Ends an RPC, unless nothing came since the last one. Whether there is one.
    pub(super) fn end(&mut self) -> bool {
        let (end, last) = (self.parts.len(), self.ends.last().copied().unwrap_or(0));
        if end > last {
            self.ends.push(end);
        }
        end > last
    }
}

/// A message of a topic that this node subscribed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received<A> {
    /// Its id.
    pub id: MessageId,
    /// Its topic.
    pub topic: Topic,
    /// Who passed it on.
    pub via: A,
    /// Its author, whom its signature proves; nothing where nobody signs.
    pub author: Option<Author>,
    /// What it says.
    pub data: Bytes,
}

/// Why a message of others is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The bytes are no message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The signature policy does not take it.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The application rejected it.
    #[error("the application rejected it")]
    Application,
}

/// What an [`Engine`](super::Engine) says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<A> {
    /// A message, once.
    Message(Received<A>),
    /// A message that [`Engine::validate`](super::Engine::validate) should say what to do with. If that is to
    /// accept it, this was its delivery: there is no other event.
    Validate(Received<A>),
    /// A peer wants a topic.
    Subscribed {
        /// The peer.
        peer: A,
        /// The topic.
        topic: Topic,
    },
    /// A peer no longer wants a topic.
    Unsubscribed {
        /// The peer.
        peer: A,
        /// The topic.
        topic: Topic,
    },
    /// A peer came into a mesh.
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
        /// Who sent it.
        peer: A,
        /// Why.
        reason: Refused,
    },
    /// A trusted peer names others of a topic that this node may turn to.
    PeerExchange {
        /// Who names them.
        peer: A,
        /// The topic.
        topic: Topic,
        /// At most [`Config::prune_peers`](super::Config::prune_peers). Their records are not checked yet.
        peers: Vec<PeerInfo>,
    },
    /// A message for this node alone, from a peer.
    Direct(Received<A>),
    /// A peer says that it takes direct messages, and who it is, where messages are signed. It is claimed, not proven.
    Introduced {
        /// The peer.
        peer: A,
        /// Who it says that it is.
        author: Option<Author>,
    },
    /// A peer is none any more: it said so, nothing was heard of it for [`Config::peer_idle`](super::Config), or it made
    /// room for another one ([`Config::max_inbound`](super::Config)).
    Left {
        /// The peer.
        peer: A,
    },
    /// An explicit peer is not there and should be turned to.
    Connect {
        /// The peer.
        peer: A,
    },
}

/// What the application says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is passed on.
    Accept,
    /// It is not passed on, and nobody is blamed.
    Ignore,
    /// It is not passed on, and whoever sent it is scored for it (P4).
    Reject,
}

/// What was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The message's id.
    pub id: MessageId,
    /// To how many peers it is being sent. With none, it is kept for those who ask.
    pub peers: usize,
}

/// What an engine has done and refused since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// RPCs that came, of all kinds.
    pub rpcs: u64,
    /// RPCs of addresses that are no peers, and so ignored.
    pub strangers: u64,
    /// RPCs of graylisted peers, and so ignored.
    pub graylisted: u64,
    /// RPCs that could not be read or were beyond a limit.
    pub malformed: u64,
    /// Messages that came for the first time and were valid.
    pub delivered: u64,
    /// Messages that came again.
    pub duplicates: u64,
    /// Messages refused by the policy or the application.
    pub rejected: u64,
    /// Messages that the application ignored, or did not say anything about in time.
    pub ignored: u64,
    /// Messages of topics that this node did not subscribe to.
    pub unrequested: u64,
    /// Messages of this node that came back.
    pub own: u64,
    /// Messages that this node published.
    pub published: u64,
    /// Of these, those that went to nobody.
    pub unheard: u64,
    /// Direct messages that this node sent.
    pub told: u64,
    /// Direct messages that came for the first time and were valid.
    pub direct: u64,
    /// Copies of messages that were queued for peers.
    pub copies: u64,
    /// Messages that were asked of others.
    pub iwant_sent: u64,
    /// Messages that were sent to who asked.
    pub iwant_served: u64,
    /// IHAVE that were ignored, being too many or from peers of too low a score.
    pub ihave_ignored: u64,
    /// Messages that were asked of a peer and did not come in time.
    pub broken_promises: u64,
    /// IDONTWANT sent.
    pub idontwant_sent: u64,
    /// Ids in IDONTWANT beyond the limit, and so ignored.
    pub idontwant_ignored: u64,
    /// GRAFTs refused.
    pub graft_refused: u64,
    /// Peers in exchanges that were ignored.
    pub exchange_ignored: u64,
    /// Subscriptions beyond a limit, and so ignored.
    pub subscriptions_ignored: u64,
    /// RPCs that left a queue unsent: no room, too old, or no longer wanted.
    pub queue_dropped: u64,
    /// Of these, those that were messages.
    pub messages_dropped: u64,
    /// Messages forgotten early, which could be delivered twice.
    pub seen_evicted: u64,
    /// Inbound peers that made room for others.
    pub peers_evicted: u64,
    /// Greetings that were not sent to peers that left and came back too often.
    pub greetings_withheld: u64,
}

impl Counts {
    pub(super) fn dropped(&mut self, dropped: Dropped) {
        self.queue_dropped += dropped.rpcs;
        self.messages_dropped += dropped.messages;
    }
}
