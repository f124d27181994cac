//! The flat error type of all swarms: each variant has a cause, a place and a remedy.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::{Addr, Packet, Rejection, Swarm};

/// The result of every fallible call of a swarm.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason for which a call failed.
///
/// An error of `tell` means that the message was not sent. Only [`Error::Closed`] is final; after any other
/// error the swarm keeps working.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The swarm, or a layer below it, is closed. Every later call fails with the same error.
    #[error("the swarm is closed")]
    Closed,
    /// The message is longer than `mtu()` allows; nothing was sent.
    #[error(
        "a message of {size} bytes exceeds the MTU of {mtu} bytes: send less, or put a fragmenting layer on top"
    )]
    MtuExceeded {
        /// Bytes of the message.
        size: usize,
        /// Maximum message size of this swarm, in bytes.
        mtu: usize,
    },
    /// A text is not an address of this swarm.
    #[error("{text:?} is not an address: at byte {at}, {reason}")]
    InvalidAddr {
        /// The invalid text.
        text: Box<str>,
        /// Offset of the first invalid byte in `text`.
        at: usize,
        /// The syntax that was expected there.
        reason: Box<str>,
    },
    /// No route to this address is known; nothing was sent.
    #[error("{addr} cannot be reached: {reason}")]
    Unreachable {
        /// The address in text form.
        addr: Box<str>,
        /// The cause.
        reason: Box<str>,
    },
    /// An allow-list denies this address; nothing was sent.
    #[error("{addr} is not allowed here")]
    Denied {
        /// The address in text form.
        addr: Box<str>,
    },
    /// The ask reached the other node, which refused to respond.
    #[error("the ask was rejected: {0}")]
    Rejected(Rejection),
    /// No answer arrived in time. The other node may have processed the message.
    #[error("{doing} took longer than {} s", limit.as_secs_f64())]
    TimedOut {
        /// The operation that timed out.
        doing: &'static str,
        /// The timeout.
        limit: Duration,
    },
    /// A configured limit is reached; nothing was sent. Retry later, or raise the limit.
    #[error("the limit of {limit} {what} is reached")]
    Limit {
        /// The limited resource.
        what: &'static str,
        /// The value of the limit.
        limit: usize,
    },
    /// An argument, a file or a configuration is invalid. No state changed.
    #[error("invalid {what}: {reason}")]
    Invalid {
        /// The invalid item.
        what: &'static str,
        /// The cause, and its position.
        reason: Box<str>,
    },
    /// A call of the operating system failed.
    #[error("{doing} failed")]
    Io {
        /// The operation that failed.
        doing: &'static str,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },
}

impl Error {
    /// Creates [`Error::InvalidAddr`] for `text`, at byte `at`, because of `reason`.
    pub fn addr(text: &str, at: usize, reason: impl Into<Box<str>>) -> Self {
        Error::InvalidAddr {
            text: text.into(),
            at,
            reason: reason.into(),
        }
    }

    /// Creates [`Error::Invalid`] for `what`, because of `reason`.
    pub fn invalid(what: &'static str, reason: impl Into<Box<str>>) -> Self {
        Error::Invalid {
            what,
            reason: reason.into(),
        }
    }

    /// Creates [`Error::Unreachable`] for `addr`, because of `reason`.
    pub fn unreachable(addr: &impl ToString, reason: impl Into<Box<str>>) -> Self {
        Error::Unreachable {
            addr: addr.to_string().into(),
            reason: reason.into(),
        }
    }

    /// Creates [`Error::Denied`] for `addr`.
    pub fn denied(addr: &impl ToString) -> Self {
        Error::Denied {
            addr: addr.to_string().into(),
        }
    }

    /// Converts an I/O error into [`Error::Io`] with the operation's name: `.map_err(Error::io("binding"))`.
    pub fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Error::Io {
            doing,
            source: Arc::new(source),
        }
    }
}

/// Some messages of a batch were not sent.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{refused} messages of a batch were not sent, {sent} were; first error: {first}")]
pub struct BatchError {
    /// Number of messages that were sent.
    pub sent: usize,
    /// Number of messages that were not sent.
    pub refused: usize,
    /// The error of the first message that was not sent.
    #[source]
    pub first: Error,
}

/// Collects the results of the messages of a batch.
///
/// Call `add_sent` or `add_refused` for each message, or for each group that was sent at once; `finish` returns the
/// result of the whole [`tell_batch`](crate::Swarm::tell_batch).
#[derive(Debug, Default)]
pub struct BatchOutcome {
    sent: usize,
    refused: usize,
    first: Option<Error>,
}

impl BatchOutcome {
    /// Records that `count` messages were sent.
    pub fn add_sent(&mut self, count: usize) {
        self.sent += count;
    }

    /// Records that `count` messages were not sent because of `error`.
    pub fn add_refused(&mut self, count: usize, error: Error) {
        self.refused += count;
        self.first.get_or_insert(error);
    }

    /// Records the result of one message.
    pub fn record(&mut self, result: Result<()>) {
        match result {
            Ok(()) => self.add_sent(1),
            Err(error) => self.add_refused(1, error),
        }
    }

    /// Records the result of sending `count` messages as one batch.
    pub fn record_batch(&mut self, count: usize, result: Result<(), BatchError>) {
        match result {
            Ok(()) => self.add_sent(count),
            Err(error) => {
                self.add_sent(error.sent);
                self.add_refused(error.refused, error.first);
            }
        }
    }

    /// Adds an error, if `checked` is one. Returns whether the message stays in the batch.
    pub fn keep(&mut self, checked: Result<()>) -> bool {
        match checked {
            Ok(()) => true,
            Err(error) => {
                self.add_refused(1, error);
                false
            }
        }
    }

    /// Sends `batch` through `swarm`, unless it is empty, and adds the result. Returns the number of messages that were
    /// sent.
    pub async fn tell<A: Addr, S: Swarm<A>>(&mut self, swarm: &S, batch: &mut Vec<(A, Packet)>) -> usize {
        let count = batch.len();
        if count == 0 {
            return 0;
        }
        let result = swarm.tell_batch(batch).await;
        let sent = result.as_ref().map_or_else(|error| error.sent, |()| count);
        self.record_batch(count, result);
        sent
    }

    /// Returns `Ok` if every message was sent.
    pub fn finish(self) -> Result<(), BatchError> {
        match self.first {
            None => Ok(()),
            Some(first) => Err(BatchError {
                sent: self.sent,
                refused: self.refused,
                first,
            }),
        }
    }
}
