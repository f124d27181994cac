//! What a node says of itself and of its neighbours: a bounded stream, of which the oldest is dropped.

use std::collections::VecDeque;

use p2p_protocols::gossipsub::{Refused, Topic};

/// What happened at a [`GossipSwarm`](super::GossipSwarm).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GossipEvent<A> {
    /// Somebody became a peer.
    Joined {
        /// The peer.
        peer: A,
        /// Whether this node turned to it, and not the other way round.
        outbound: bool,
    },
    /// A peer is none any more.
    Left {
        /// The peer.
        peer: A,
        /// Why.
        why: Departure,
    },
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
    /// A peer came into the mesh of a topic.
    Grafted {
        /// The peer.
        peer: A,
        /// The topic.
        topic: Topic,
    },
    /// A peer left the mesh of a topic.
    Pruned {
        /// The peer.
        peer: A,
        /// The topic.
        topic: Topic,
    },
    /// Something of a peer's was refused.
    Rejected {
        /// Who sent it.
        peer: A,
        /// Why.
        reason: Refused,
    },
    /// A peer of good standing names others of a topic, whom this node may [add](super::GossipSwarm::add_peer). Their
    /// addresses are claimed, not proven.
    PeerExchange {
        /// Who names them.
        peer: A,
        /// The topic.
        topic: Topic,
        /// Where they are.
        peers: Vec<A>,
    },
}

/// Why a peer is none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Departure {
    /// It said so, nothing was heard of it for long, or it made room for another one.
    Gone,
    /// It cannot be reached.
    Unreachable,
    /// This node's own wish.
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

    /// Drops all, also what comes later.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.queue.clear();
    }

    /// How many were dropped because nobody read them.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}
