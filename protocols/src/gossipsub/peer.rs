//! The state of a peer: its version, its subscriptions, and its queue.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::BuildHasher;
use std::time::Duration;

use p2p::{Addr, PeerId};

use super::admission::Usage;
use super::identity::Author;
use super::queue::Queue;
use super::seen::Seen;
use super::topic::Topic;
use super::wire::PeerInfo;

/// The key of a peer of this engine until it leaves. Keys are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PeerKey(pub(super) u64);

/// The protocol version of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// `/floodsub/1.0.0`: gets every message of its topics, and nothing else.
    Floodsub,
    /// `/meshsub/1.0.0`: meshes and gossip.
    V1_0,
    /// `/meshsub/1.1.0`: also peer exchange and backoff.
    V1_1,
    /// `/meshsub/1.2.0`: also IDONTWANT.
    V1_2,
}

impl Version {
    /// All versions, the newest first: the order in which they are offered.
    pub const ALL: [Self; 4] = [Self::V1_2, Self::V1_1, Self::V1_0, Self::Floodsub];

    /// Returns the protocol id.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Floodsub => "/floodsub/1.0.0",
            Self::V1_0 => "/meshsub/1.0.0",
            Self::V1_1 => "/meshsub/1.1.0",
            Self::V1_2 => "/meshsub/1.2.0",
        }
    }

    /// Parses a protocol id.
    pub fn from_protocol(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.protocol() == id)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.protocol())
    }
}

/// Properties of a peer's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The protocol version of the peer.
    pub version: Version,
    /// Whether this node initiated the connection: an attacker has less influence on the choice of outbound
    /// peers.
    pub outbound: bool,
    /// The information about this peer for peer exchanges. Without it, without an id in it, or if it exceeds
    /// [`Limits`](super::wire::Limits), other nodes are not told of this peer.
    pub info: Option<PeerInfo>,
}

/// Identifies a peer across connections: by its id, if its address authenticates one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Identity<A> {
    Id(PeerId),
    Addr(A),
}

impl<A: Addr> Identity<A> {
    pub(super) fn new(addr: &A) -> Self {
        addr.peer_id().map_or_else(|| Self::Addr(addr.clone()), Self::Id)
    }
}

#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "the flags are independent")]
pub(super) struct Peer<A> {
    pub(super) addr: A,
    pub(super) identity: Identity<A>,
    pub(super) version: Version,
    pub(super) outbound: bool,
    pub(super) info: Option<PeerInfo>,
    pub(super) explicit: bool,
    pub(super) topics: BTreeSet<Topic>,
    pub(super) queue: Queue,
    /// Whether it accepts more RPCs now.
    pub(super) writable: bool,
    /// Whether it is in the list of peers with a nonempty queue.
    pub(super) ready: bool,
    /// The limits that it has used since the last heartbeat.
    pub(super) usage: Usage,
    /// The time at which it became a peer.
    pub(super) since: Duration,
    /// Whether it announced that it accepts direct messages: see [`Event::Introduced`](super::Event).
    pub(super) takes_direct: bool,
    /// The author id that it claims.
    pub(super) author: Option<Author>,
    /// The time of its last RPC, or at which it became a peer.
    pub(super) heard: Duration,
    /// Whether it has sent hello.
    pub(super) met: bool,
    /// Whether its hello was answered since the last heartbeat.
    pub(super) answered: bool,
    /// Heartbeats since it became a peer, if hellos are enabled.
    pub(super) beats: u32,
    /// Messages that it does not want, by [`hash_of`] their ids: ids have any length, and a peer may name
    /// many. A collision, with a probability of one in 2^64, costs this peer one copy.
    pub(super) dont_send: Seen<u64, ()>,
}

impl<A> Peer<A> {
    /// Returns whether it has meshes.
    pub(super) fn is_router(&self) -> bool {
        self.version > Version::Floodsub
    }

    /// Returns whether it will soon get what is queued for it now: it accepts more, and its queue has at most
    /// `waiting` bytes.
    pub(super) fn takes_at_once(&self, waiting: usize) -> bool {
        self.writable && self.queue.len().1 <= waiting
    }
}

/// Returns the hash of a message's id in [`Peer::dont_send`]. `hasher` has the node's random seed, so that
/// other nodes cannot find collisions.
pub(super) fn hash_of(hasher: &impl BuildHasher, id: &[u8]) -> u64 {
    hasher.hash_one(id)
}
