//! What goes in and out of the engine besides datagrams.

use std::time::Duration;

use p2p::{Message, Packet, Reason, Rejection};

use super::wire::Key;

/// What the clocks show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since any fixed moment; never runs backwards.
    pub elapsed: Duration,
    /// Milliseconds since the Unix epoch. It may jump; peers see it in headers, and nothing waits by it.
    pub unix_ms: u64,
}

/// An ask of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AskId(pub(super) Key);

/// An ask of another node, which this one answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeId<A> {
    pub(super) src: A,
    pub(super) key: Key,
}

/// What came of the datagrams and of time.
#[derive(Debug)]
pub enum Event<A> {
    /// A tell arrived.
    Told(Message<A>),
    /// An ask arrived, for the first time; answer it with [`Engine::respond`](super::Engine::respond).
    Asked {
        /// What the response belongs to.
        id: ServeId<A>,
        /// The request.
        message: Message<A>,
        /// When the asker stops waiting.
        until: Duration,
    },
    /// An ask of this node is over. Each ask that was not cancelled gets one of these.
    Answered {
        /// Which.
        id: AskId,
        /// How it ended.
        answer: Answer,
    },
    /// Something was dropped, to be counted.
    Dropped {
        /// Who sent it.
        src: A,
        /// What it was.
        what: What,
        /// Why.
        reason: Reason,
    },
}

/// How an ask ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// With a response.
    Response(Packet),
    /// The peer will not respond.
    Rejected(Rejection),
    /// Nothing came in time.
    TimedOut(Duration),
}

/// What was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A tell, whole or with some parts missing.
    Tell,
    /// An ask that had not run.
    Ask,
    /// A datagram alone: a part, a duplicate, a reply that nobody waits for.
    Datagram,
}
