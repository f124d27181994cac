//! Events of a node: a bounded queue that drops the oldest event when it is full.

use std::collections::VecDeque;

use p2p_protocols::gossipsub::{Refused, Topic};

/// An event of a [`GossipSwarm`](super::GossipSwarm).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GossipEvent<A> {
    /// A node became a peer.
    Joined {
        /// The peer.
        peer: A,
        /// Whether this node initiated the contact.
        outbound: bool,
    },
    /// A peer was removed.
    Left {
        /// The peer.
        peer: A,
        /// The reason.
        why: Departure,
    },
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
    /// A peer was added to the mesh of a topic.
    Grafted {
        /// The peer.
        peer: A,
        /// The topic.
        topic: Topic,
    },
    /// A peer was removed from the mesh of a topic.
    Pruned {
        /// The peer.
        peer: A,
        /// The topic.
        topic: Topic,
    },
    /// A message or RPC of a peer was rejected.
    Rejected {
        /// The peer.
        peer: A,
        /// The reason.
        reason: Refused,
    },
    /// A peer of good standing names other nodes of a topic, which this node may
    /// [add](super::GossipSwarm::add_peer). Their addresses are claimed, not proven.
    PeerExchange {
        /// The peer that names them.
        peer: A,
        /// The topic.
        topic: Topic,
        /// Their addresses.
        peers: Vec<A>,
    },
}

/// Why a peer was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Departure {
    /// It sent a goodbye, was silent for too long, or made room for another peer.
    Gone,
    /// It cannot be reached.
    Unreachable,
    /// This node removed it.
    Removed,
}

/// Events that wait for their reader.
#[derive(Debug)]
pub(super) struct Events<A> {
    queue: VecDeque<GossipEvent<A>>,
    max: usize,
    dropped: u64,
    closed: bool,
}

impl<A> Events<A> {
    pub(super) fn new(max: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            max: max.max(1),
            dropped: 0,
            closed: false,
        }
    }

    pub(super) fn push(&mut self, event: GossipEvent<A>) {
        if self.closed {
            return;
        }
        if self.queue.len() >= self.max {
            self.queue.pop_front();
            self.dropped += 1;
        }
        self.queue.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<GossipEvent<A>> {
        self.queue.pop_front()
    }

    /// Drops all current and later events.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.queue.clear();
    }

    /// Returns the number of events that were dropped because the queue was full.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}
