//! What the simulator runs: an engine, which decides and does no I/O.

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
            return Err(Error::addr(text, 0, "a simulated address begins with `sim:`"));
        };
        let index = digits
            .parse()
            .map_err(|_| Error::addr(text, 4, "the index of a node is a decimal number below 2^32"))?;
        // One spelling alone: no sign and no leading zeros.
        if SimAddr(index).to_string() == text {
            Ok(SimAddr(index))
        } else {
            Err(Error::addr(text, 4, "an index has no sign and no leading zeros"))
        }
    }
}

/// What an engine wants sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// A message one way. The sender does not learn whether it arrived.
    Tell {
        /// To whom.
        dst: SimAddr,
        /// What.
        payload: Vec<u8>,
    },
    /// A request. Exactly one [`handle_answer`](Engine::handle_answer) with this `id` follows, unless the asker stops first.
    Ask {
        /// Of whom.
        dst: SimAddr,
        /// The engine's own name for the ask; the simulator only hands it back.
        id: u64,
        /// What.
        request: Vec<u8>,
    },
}

/// Why an ask got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Nothing came in time: the request or its answer was lost, cut off, too slow, or there is no node.
    TimedOut,
    /// The other engine refused ([`handle_request`](Engine::handle_request) gave `None`).
    Rejected,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::TimedOut => "no answer came in time",
            Failure::Rejected => "the ask was rejected",
        })
    }
}

impl std::error::Error for Failure {}

/// One simulated node: takes bytes and the time, and says what it wants sent and when it wants to be woken.
///
/// `now` is the virtual time since the simulation began; it never runs backwards. Randomness is the engine's own, from a
/// seed that it was made with ([`Simulation::seed`](super::Simulation::seed) gives one for each node).
///
/// After each `handle_*` the simulator drains [`poll_transmit`](Self::poll_transmit) and
/// [`poll_event`](Self::poll_event) and then looks at [`poll_timeout`](Self::poll_timeout).
/// Everything but the polls and the handler of an engine's own traffic has a default: an engine that only tells
/// implements `handle_message` alone, one that only asks `handle_request` and `handle_answer`.
pub trait Engine {
    /// What the node reports to the owner of the simulation.
    type Event;

    /// A tell arrived.
    fn handle_message(&mut self, now: Duration, from: SimAddr, payload: &[u8]) {
        let _ = (now, from, payload);
    }

    /// An ask arrived; the response, or `None` to reject it.
    fn handle_request(&mut self, now: Duration, from: SimAddr, request: &[u8]) -> Option<Vec<u8>> {
        let _ = (now, from, request);
        None
    }

    /// The ask with this id is over.
    fn handle_answer(&mut self, now: Duration, id: u64, answer: Result<&[u8], Failure>) {
        let _ = (now, id, answer);
    }

    /// The time that [`poll_timeout`](Self::poll_timeout) gave has come.
    fn handle_timeout(&mut self, now: Duration) {
        let _ = now;
    }

    /// The node is about to stop and may say goodbye; it runs on for [`Config::leaving`](super::Config::leaving).
    fn handle_leave(&mut self, now: Duration) {
        let _ = now;
    }

    /// The next thing to send.
    fn poll_transmit(&mut self) -> Option<Transmit>;

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    fn poll_timeout(&self) -> Option<Duration> {
        None
    }

    /// The next event.
    fn poll_event(&mut self) -> Option<Self::Event> {
        None
    }
}
