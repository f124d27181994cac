//! The contract of a simulated node: an engine, which decides and does no I/O.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use p2p::{Addr, Error};

/// The address of a simulated node: its index, in the order in which the nodes were added.
///
/// Its text is `sim:` and the index in decimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SimAddr(pub u32);

impl SimAddr {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

impl Addr for SimAddr {}

impl fmt::Display for SimAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sim:{}", self.0)
    }
}

impl FromStr for SimAddr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let Some(digits) = text.strip_prefix("sim:") else {
            return Err(Error::addr(text, 0, "a simulated address must begin with `sim:`"));
        };
        let index = digits
            .parse()
            .map_err(|_| Error::addr(text, 4, "the index of a node must be a decimal number below 2^32"))?;
        // One canonical text: no sign and no leading zeros.
        if SimAddr(index).to_string() == text {
            Ok(SimAddr(index))
        } else {
            Err(Error::addr(
                text,
                4,
                "an index must not have a sign or leading zeros",
            ))
        }
    }
}

/// A transmission of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// A one-way message. The sender does not learn whether it arrived.
    Tell {
        /// The destination.
        dst: SimAddr,
        /// The payload.
        payload: Vec<u8>,
    },
    /// A request. Exactly one [`handle_answer`](Engine::handle_answer) with this `id` follows, unless the
    /// asker stops first.
    Ask {
        /// The node to ask.
        dst: SimAddr,
        /// The engine's identifier of the ask; the simulator only returns it.
        id: u64,
        /// The request.
        request: Vec<u8>,
    },
}

/// Why an ask got no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No response in time: the request or the response was lost, cut off or too slow, or there is no node.
    TimedOut,
    /// The other engine rejected it ([`handle_request`](Engine::handle_request) returned `None`).
    Rejected,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::TimedOut => "no response arrived in time",
            Failure::Rejected => "the ask was rejected",
        })
    }
}

impl std::error::Error for Failure {}

/// One simulated node: takes bytes and the time, and returns transmissions and timeouts.
///
/// `now` is the virtual time since the start of the simulation; it is monotonic. Randomness is the engine's
/// own, from a seed given at its creation ([`Simulation::seed`](super::Simulation::seed) returns one for each
/// node).
///
/// After each `handle_*` the simulator drains [`poll_transmit`](Self::poll_transmit) and
/// [`poll_event`](Self::poll_event) and then reads [`poll_timeout`](Self::poll_timeout). All methods except
/// `poll_transmit` and `poll_event` have a default: an engine that only tells implements `handle_message`,
/// one that only asks `handle_request` and `handle_answer`.
pub trait Engine {
    /// The events that the node reports to the owner of the simulation.
    type Event;

    /// Processes a tell.
    fn handle_message(&mut self, now: Duration, from: SimAddr, payload: &[u8]) {
        let _ = (now, from, payload);
    }

    /// Serves an ask; returns the response, or `None` to reject it.
    fn handle_request(&mut self, now: Duration, from: SimAddr, request: &[u8]) -> Option<Vec<u8>> {
        let _ = (now, from, request);
        None
    }

    /// Processes the result of the ask with this id.
    fn handle_answer(&mut self, now: Duration, id: u64, answer: Result<&[u8], Failure>) {
        let _ = (now, id, answer);
    }

    /// Processes an expired timeout of [`poll_timeout`](Self::poll_timeout).
    fn handle_timeout(&mut self, now: Duration) {
        let _ = now;
    }

    /// Called before the node stops, so that it can announce its departure; it runs on for
    /// [`Config::leaving`](super::Config::leaving).
    fn handle_leave(&mut self, now: Duration) {
        let _ = now;
    }

    /// Returns the next transmission.
    fn poll_transmit(&mut self) -> Option<Transmit>;

    /// Returns the time at which [`handle_timeout`](Self::handle_timeout) is due.
    fn poll_timeout(&self) -> Option<Duration> {
        None
    }

    /// Returns the next event.
    fn poll_event(&mut self) -> Option<Self::Event> {
        None
    }
}
