//! Other nodes: what they speak, what they want, and what waits for them.

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

/// A peer of this engine, as long as it stays. None is ever used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PeerKey(pub(super) u64);

/// What a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// `/floodsub/1.0.0`: it gets every message of its topics, and nothing else.
    Floodsub,
    /// `/meshsub/1.0.0`: meshes and gossip.
    V1_0,
    /// `/meshsub/1.1.0`: also peer exchange and backoff.
    V1_1,
    /// `/meshsub/1.2.0`: also IDONTWANT.
    V1_2,
}

impl Version {
    /// All of them, the newest first: the order in which they are offered.
    pub const ALL: [Self; 4] = [Self::V1_2, Self::V1_1, Self::V1_0, Self::Floodsub];

    /// The protocol's id.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Floodsub => "/floodsub/1.0.0",
            Self::V1_0 => "/meshsub/1.0.0",
            Self::V1_1 => "/meshsub/1.1.0",
            Self::V1_2 => "/meshsub/1.2.0",
        }
    }

    /// What has this id.
    pub fn from_protocol(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.protocol() == id)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.protocol())
    }
}

/// How a peer came to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// What it speaks.
    pub version: Version,
    /// Whether this node turned to it, and not the other way round: such peers are harder for others to choose.
    pub outbound: bool,
    /// What others are told of it in a peer exchange. Without, or without an id, or if it is longer than
    /// [`Limits`](super::wire::Limits) allow, they are not told of it.
    pub info: Option<PeerInfo>,
}

/// Names a peer across connections: by its id, if its address proves one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Who<A> {
    Id(PeerId),
    Addr(A),
}

impl<A: Addr> Who<A> {
    pub(super) fn new(addr: &A) -> Self {
        addr.peer_id().map_or_else(|| Self::Addr(addr.clone()), Self::Id)
    }
}

#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "they are independent of one another"
)]
pub(super) struct Peer<A> {
    pub(super) addr: A,
    pub(super) who: Who<A>,
    pub(super) version: Version,
    pub(super) outbound: bool,
    pub(super) info: Option<PeerInfo>,
    pub(super) explicit: bool,
    pub(super) topics: BTreeSet<Topic>,
    pub(super) queue: Queue,
    /// Whether it takes more at present.
    pub(super) writable: bool,
    /// Whether it is among those that something waits for.
    pub(super) ready: bool,
    /// What it had of its limits since the last heartbeat.
    pub(super) usage: Usage,
    /// When it became a peer.
    pub(super) since: Duration,
    /// Whether it said that it takes direct messages: see [`Event::Introduced`](super::Event).
    pub(super) takes_direct: bool,
    /// Who it says that it is.
    pub(super) author: Option<Author>,
    /// When it was heard of last, or became a peer.
    pub(super) heard: Duration,
    /// Whether it said hello.
    pub(super) met: bool,
    /// Whether its hello was answered since the last heartbeat.
    pub(super) answered: bool,
    /// Heartbeats since it became a peer, where peers say hello.
    pub(super) beats: u32,
    /// Messages that it need not get, by [`hash_of`] their ids: they are of any length, and a peer may name many. That one in 2^64
    /// is taken for another costs that peer a copy.
    pub(super) dont_send: Seen<u64, ()>,
}

impl<A> Peer<A> {
    /// Whether it has meshes.
    pub(super) fn is_router(&self) -> bool {
        self.version > Version::Floodsub
    }

    /// Whether it gets what is queued for it now before long: it takes more, and no more than these bytes wait for it.
    pub(super) fn takes_at_once(&self, waiting: usize) -> bool {
        self.writable && self.queue.len().1 <= waiting
    }
}

/// A message's id in [`Peer::dont_send`]. `hasher` is the node's own, so that others do not know what hashes alike.
pub(super) fn hash_of(hasher: &impl BuildHasher, id: &[u8]) -> u64 {
    hasher.hash_one(id)
}
