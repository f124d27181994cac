//! Inputs and outputs of the engine besides datagrams.

use std::time::Duration;

use p2p::{DropReason, Message, Packet, Rejection};

use super::wire::Key;

/// The time of two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since any fixed moment; monotonic.
    pub elapsed: Duration,
    /// Milliseconds since the Unix epoch. It may jump; it is sent in headers, and no timer uses it.
    pub unix_ms: u64,
}

/// Identifies an ask of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AskId(pub(super) Key);

/// Identifies an ask of another node, which this node answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeId<A> {
    pub(super) src: A,
    pub(super) key: Key,
}

/// An event of an engine.
#[derive(Debug)]
pub enum Event<A> {
    /// A tell arrived.
    Told(Message<A>),
    /// A new ask arrived; answer it with [`Engine::respond`](super::Engine::respond).
    Asked {
        /// Identifies the ask for the response.
        id: ServeId<A>,
        /// The request.
        message: Message<A>,
        /// The time at which the asking node stops waiting.
        until: Duration,
    },
    /// An ask of this node ended. Each ask that was not cancelled gets exactly one of these events.
    Answered {
        /// The ask.
        id: AskId,
        /// Its result.
        answer: Answer,
    },
    /// A drop, to be counted.
    Dropped {
        /// The source.
        src: A,
        /// The dropped item.
        what: What,
        /// The reason.
        reason: DropReason,
    },
}

/// The result of an ask.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// A response.
    Response(Packet),
    /// A rejection by the peer.
    Rejected(Rejection),
    /// No answer within this timeout.
    TimedOut(Duration),
}

/// The kind of a dropped item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A tell, complete or not.
    Tell,
    /// An ask that had not run.
    Ask,
    /// A single datagram: a part, a duplicate, or a reply to no pending ask.
    Datagram,
}
