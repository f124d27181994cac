//! Actions, events and errors.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A call of [`Dialer::dial`](super::Dialer::dial).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub(super) u64);

/// An attempt to connect to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub(super) u64);

/// A task for the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<P, A> {
    /// Connect to this address, and expect this peer there. Report the result with
    /// [`handle_connected`](super::Dialer::handle_connected) or
    /// [`handle_failed`](super::Dialer::handle_failed).
    Start {
        /// The attempt.
        attempt: AttemptId,
        /// The expected peer.
        peer: P,
        /// The address.
        addr: A,
    },
    /// Give up an attempt: it took too long, or its result is no longer needed.
    Abort {
        /// The attempt.
        attempt: AttemptId,
    },
    /// Look up the addresses of a maintained peer, and call [`dial`](super::Dialer::dial).
    Reconnect {
        /// The peer.
        peer: P,
    },
}

/// The result of a dial. Each dial has one, unless it is cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<P, A> {
    /// The peer is connected.
    Connected {
        /// The dial.
        id: DialId,
        /// The peer.
        peer: P,
        /// The attempt that succeeded; `None` if another connection of the peer was first.
        attempt: Option<AttemptId>,
    },
    /// The peer cannot be reached.
    Failed {
        /// The dial.
        id: DialId,
        /// The peer.
        peer: P,
        /// The reason. All dials of the peer share it.
        error: Arc<DialError<A>>,
    },
}

/// The reason for which an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The connection was not opened.
    #[error("{0}")]
    Io(io::ErrorKind),
    /// The attempt took too long.
    #[error("no connection within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// Security or the muxer could not be negotiated.
    #[error("the handshake failed")]
    Handshake,
    /// Another peer answered at this address.
    #[error("another peer is at this address")]
    WrongPeer,
    /// This node refused the connection, because of a limit or a list of denied peers.
    #[error("this node refused the connection")]
    Denied,
    /// It had no connection in a fifth of its time, and other peers waited for one of the
    /// [`Config::attempts`](super::Config::attempts).
    #[error("no connection in time, while other dials waited")]
    Displaced,
    /// No transport of this node can dial the address.
    #[error("no transport for this address")]
    Unsupported,
}

/// The reason for which a peer cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialError<A> {
    /// There is no address that can be dialled.
    NoAddrs,
    /// All attempts failed.
    Failed {
        /// The addresses and the reasons, in the order in which they failed.
        attempts: Vec<(A, Failure)>,
    },
    /// The dial took too long.
    TimedOut {
        /// The limit.
        limit: Duration,
        /// The attempts that had failed by then.
        attempts: Vec<(A, Failure)>,
    },
}

impl<A: fmt::Display> fmt::Display for DialError<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempts = match self {
            Self::NoAddrs => return f.write_str("the peer has no address that can be dialled"),
            Self::Failed { attempts } => {
                f.write_str("no address of the peer can be reached")?;
                attempts
            }
            Self::TimedOut { limit, attempts } => {
                write!(f, "the dial took longer than {} s", limit.as_secs_f64())?;
                attempts
            }
        };
        for (at, (addr, failure)) in attempts.iter().enumerate() {
            let separator = if at == 0 { ": " } else { "; " };
            write!(f, "{separator}{addr}: {failure}")?;
        }
        Ok(())
    }
}

impl<A: fmt::Display + fmt::Debug> std::error::Error for DialError<A> {}

/// A limit of a [`Dialer`](super::Dialer) is reached. No state changed; retry later, or raise the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the limit of {limit} {what} is reached")]
pub struct Full {
    /// The limited resource.
    pub what: &'static str,
    /// The limit.
    pub limit: usize,
}
