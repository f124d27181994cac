//! The contract of an engine: a node's part of a protocol, which takes bytes and the time, and returns
//! transmissions, events and a timeout.
//!
//! An engine does no I/O, so the same engine runs in a simulation (`p2p_swarmtest::sim`) and on a swarm
//! (`p2p_swarms::drive`). There are two contracts:
//!
//! - An [`Engine`] tells (one way) and asks (a request with an answer).
//! - A [`RequestEngine`] only asks, as the engines of overlays do. Each one is an [`Engine`] as well.
//!
//! # Driving an engine
//! After each `handle_*` the driver sends what `poll_transmit` returns, takes the events that `poll_event`
//! returns, and sets a timer to `poll_timeout`. Each request that an engine sends gets exactly one
//! `handle_answer` or `handle_failure` with its [`RequestId`], unless the driver stops first.
//!
//! `now` is the time since an instant that the driver chose; it is monotonic. An engine has its own randomness,
//! from a seed given at its creation.
//!
//! # Example
//! A node that passes on each number that it receives, one higher, until 3:
//!
//! ```
//! use std::time::Duration;
//! use p2p::engine::{Engine, Transmit};
//!
//! struct Relay<A> { next: A, out: Option<Transmit<A>> }
//!
//! impl<A: Clone> Engine for Relay<A> {
//!     type Addr = A;
//!     type Event = ();
//!
//!     fn handle_message(&mut self, _now: Duration, _from: &A, payload: &[u8]) {
//!         let Some(number) = payload.first().filter(|number| **number < 3) else { return };
//!         self.out = Some(Transmit::Tell { to: self.next.clone(), payload: vec![number + 1] });
//!     }
//!     fn poll_transmit(&mut self, _now: Duration) -> Option<Transmit<A>> { self.out.take() }
//! }
//!
//! let mut relay = Relay { next: "b", out: None };
//! relay.handle_message(Duration::ZERO, &"a", &[1]);
//! let sent = relay.poll_transmit(Duration::ZERO);
//! assert_eq!(sent, Some(Transmit::Tell { to: "b", payload: vec![2] }));
//! ```
//!
//! Deliberately absent: drivers, and the addresses of a medium.

use std::fmt;
use std::time::Duration;

use crate::Rejection;

/// Identifies a request of an engine. The engine chooses it, and never reuses it; the driver only returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A request to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestTransmit<A> {
    /// The node to ask.
    pub to: A,
    /// The id to pass with the answer or the failure.
    pub id: RequestId,
    /// The encoded request.
    pub request: Vec<u8>,
}

/// A transmission of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit<A> {
    /// A one-way message. The sender does not learn whether it arrived.
    Tell {
        /// The destination.
        to: A,
        /// The payload.
        payload: Vec<u8>,
    },
    /// A request.
    Ask {
        /// The node to ask.
        to: A,
        /// The id to pass with the answer or the failure.
        id: RequestId,
        /// The encoded request.
        request: Vec<u8>,
    },
}

impl<A> From<RequestTransmit<A>> for Transmit<A> {
    fn from(RequestTransmit { to, id, request }: RequestTransmit<A>) -> Self {
        Self::Ask { to, id, request }
    }
}

/// The reason for which a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No route, or no answer in time.
    Unreachable,
    /// The node rejected the request.
    Rejected,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "no answer arrived in time",
            Self::Rejected => "the node rejected the request",
        })
    }
}

impl std::error::Error for Failure {}

/// One node's part of a protocol that tells and asks; see the [module](self).
///
/// All methods except [`poll_transmit`](Self::poll_transmit) have a default: an engine that only tells
/// implements `handle_message`, one that only asks `handle_request`, `handle_answer` and `handle_failure`.
pub trait Engine {
    /// The addresses of nodes.
    type Addr;
    /// The events that the node reports to its application.
    type Event;

    /// Processes a message.
    fn handle_message(&mut self, now: Duration, from: &Self::Addr, payload: &[u8]) {
        let _ = (now, from, payload);
    }

    /// Serves a request and returns the answer.
    ///
    /// # Errors
    /// Returns the reason for rejecting it.
    fn handle_request(
        &mut self,
        now: Duration,
        from: &Self::Addr,
        request: &[u8],
    ) -> Result<Vec<u8>, Rejection> {
        let _ = (now, from, request);
        Err(Rejection::DROPPED)
    }

    /// Processes the answer to a request.
    fn handle_answer(&mut self, now: Duration, id: RequestId, answer: &[u8]) {
        let _ = (now, id, answer);
    }

    /// Processes the failure of a request.
    fn handle_failure(&mut self, now: Duration, id: RequestId, why: Failure) {
        let _ = (now, id, why);
    }

    /// Processes an expired timeout of [`poll_timeout`](Self::poll_timeout).
    fn handle_timeout(&mut self, now: Duration) {
        let _ = now;
    }

    /// Called some time before the node stops, so that it can announce its departure.
    fn handle_leave(&mut self, now: Duration) {
        let _ = now;
    }

    /// Returns the next transmission.
    fn poll_transmit(&mut self, now: Duration) -> Option<Transmit<Self::Addr>>;

    /// Returns the next event.
    fn poll_event(&mut self) -> Option<Self::Event> {
        None
    }

    /// Returns the time at which [`handle_timeout`](Self::handle_timeout) is due.
    fn poll_timeout(&self) -> Option<Duration> {
        None
    }
}

/// One node's part of a protocol that only asks; see the [module](self).
///
/// The engine fails its requests after a timeout of its own, also if the driver has a longer one.
pub trait RequestEngine {
    /// The addresses of nodes.
    type Addr;
    /// The events that the node reports to its application.
    type Event;

    /// Serves a request and returns the answer.
    ///
    /// # Errors
    /// Returns the reason for rejecting it.
    fn handle_request(
        &mut self,
        now: Duration,
        from: &Self::Addr,
        request: &[u8],
    ) -> Result<Vec<u8>, Rejection>;

    /// Processes the answer to a request. Ignores an answer to a request that is not in flight.
    fn handle_answer(&mut self, now: Duration, id: RequestId, answer: &[u8]);

    /// Processes the failure of a request. Ignores a failure of a request that is not in flight.
    fn handle_failure(&mut self, now: Duration, id: RequestId, why: Failure);

    /// Processes an expired timeout of [`poll_timeout`](Self::poll_timeout).
    fn handle_timeout(&mut self, now: Duration);

    /// Called some time before the node stops, so that it can announce its departure.
    fn handle_leave(&mut self, now: Duration) {
        let _ = now;
    }

    /// Returns the next request to send.
    fn poll_transmit(&mut self, now: Duration) -> Option<RequestTransmit<Self::Addr>>;

    /// Returns the next event.
    fn poll_event(&mut self) -> Option<Self::Event>;

    /// Returns the time at which [`handle_timeout`](Self::handle_timeout) is due.
    fn poll_timeout(&self) -> Option<Duration>;

    /// Returns the number of requests in flight.
    fn in_flight(&self) -> usize;
}

impl<E: RequestEngine> Engine for E {
    type Addr = E::Addr;
    type Event = E::Event;

    fn handle_request(
        &mut self,
        now: Duration,
        from: &E::Addr,
        request: &[u8],
    ) -> Result<Vec<u8>, Rejection> {
        RequestEngine::handle_request(self, now, from, request)
    }

    fn handle_answer(&mut self, now: Duration, id: RequestId, answer: &[u8]) {
        RequestEngine::handle_answer(self, now, id, answer);
    }

    fn handle_failure(&mut self, now: Duration, id: RequestId, why: Failure) {
        RequestEngine::handle_failure(self, now, id, why);
    }

    fn handle_timeout(&mut self, now: Duration) {
        RequestEngine::handle_timeout(self, now);
    }

    fn handle_leave(&mut self, now: Duration) {
        RequestEngine::handle_leave(self, now);
    }

    fn poll_transmit(&mut self, now: Duration) -> Option<Transmit<E::Addr>> {
        RequestEngine::poll_transmit(self, now).map(Transmit::from)
    }

    fn poll_event(&mut self) -> Option<E::Event> {
        RequestEngine::poll_event(self)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        RequestEngine::poll_timeout(self)
    }
}
