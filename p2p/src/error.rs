//! The one flat error of every swarm: what went wrong, where, and what to do about it.

use std::io;
use std::time::Duration;

use crate::Rejection;

/// What every fallible call of a swarm returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
///
/// From `tell` it means that the message did not leave. No variant is fatal but [`Error::Closed`]: after
/// any other the swarm works on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The swarm was closed, here or by whoever owns a layer below. Every later call fails like this.
    #[error("the swarm is closed")]
    Closed,
    /// The message is longer than `mtu()` allows; nothing was sent.
    #[error(
        "a message of {size} bytes exceeds the MTU of {mtu} bytes: send less, or put a fragmenting layer on top"
    )]
    MtuExceeded {
        /// Bytes of the message.
        size: usize,
        /// Bytes that this swarm carries at most.
        mtu: usize,
    },
    /// A text is not an address of this swarm.
    #[error("{text:?} is not an address: at byte {at}, {reason}")]
    InvalidAddr {
        /// The text as it was given.
        text: Box<str>,
        /// Byte of `text` where it stops making sense.
        at: usize,
        /// What was expected there.
        reason: Box<str>,
    },
    /// No way to this address is known; nothing was sent.
    #[error("{addr} cannot be reached: {reason}")]
    Unreachable {
        /// The address in text form.
        addr: Box<str>,
        /// Why not.
        reason: Box<str>,
    },
    /// An allow-list forbids this address; nothing was sent.
    #[error("{addr} is not allowed here")]
    Denied {
        /// The address in text form.
        addr: Box<str>,
    },
    /// The ask reached the other side, which answered that it will not respond.
    #[error("the ask was rejected: {0}")]
    Rejected(Rejection),
    /// No answer came in time. Whether the other side acted on the message is unknown.
    #[error("{doing} took longer than {} s", limit.as_secs_f64())]
    TimedOut {
        /// What was waited for.
        doing: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// A configured limit is reached; nothing was sent. Wait, or raise the limit.
    #[error("the limit of {limit} {what} is reached")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much of it is allowed.
        limit: usize,
    },
    /// An argument, a file or a configuration is not what it must be. No state changed.
    #[error("invalid {what}: {reason}")]
    Invalid {
        /// What is invalid.
        what: &'static str,
        /// What is wrong with it, and where.
        reason: Box<str>,
    },
    /// The operating system refused.
    #[error("{doing} failed")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
}

impl Error {
    /// [`Error::InvalidAddr`] for `text`, at byte `at`, because of `reason`.
    pub fn addr(text: &str, at: usize, reason: impl Into<Box<str>>) -> Self {
        Error::InvalidAddr {
            text: text.into(),
            at,
            reason: reason.into(),
        }
    }

    /// [`Error::Invalid`] for a `what`, because of `reason`.
    pub fn invalid(what: &'static str, reason: impl Into<Box<str>>) -> Self {
        Error::Invalid {
            what,
            reason: reason.into(),
        }
    }

    /// [`Error::Unreachable`] for `addr`, because of `reason`.
    pub fn unreachable(addr: &impl ToString, reason: impl Into<Box<str>>) -> Self {
        Error::Unreachable {
            addr: addr.to_string().into(),
            reason: reason.into(),
        }
    }

    /// [`Error::Denied`] for `addr`.
    pub fn denied(addr: &impl ToString) -> Self {
        Error::Denied {
            addr: addr.to_string().into(),
        }
    }

    /// Turns an I/O error into [`Error::Io`], saying what was being done: `.map_err(Error::io("binding"))`.
    pub fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Error::Io { doing, source }
    }

    /// The same error again, for each message of a batch that failed as one.
    ///
    /// [`io::Error`] cannot be cloned; its kind and text are kept.
    #[must_use]
    pub fn again(&self) -> Self {
        match self {
            Error::Closed => Error::Closed,
            Error::MtuExceeded { size, mtu } => Error::MtuExceeded {
                size: *size,
                mtu: *mtu,
            },
            Error::InvalidAddr { text, at, reason } => Error::InvalidAddr {
                text: text.clone(),
                at: *at,
                reason: reason.clone(),
            },
            Error::Unreachable { addr, reason } => Error::Unreachable {
                addr: addr.clone(),
                reason: reason.clone(),
            },
            Error::Denied { addr } => Error::Denied { addr: addr.clone() },
            Error::Rejected(rejection) => Error::Rejected(*rejection),
            Error::TimedOut { doing, limit } => Error::TimedOut { doing, limit: *limit },
            Error::Limit { what, limit } => Error::Limit { what, limit: *limit },
            Error::Invalid { what, reason } => Error::Invalid {
                what,
                reason: reason.clone(),
            },
            Error::Io { doing, source } => Error::Io {
                doing,
                source: io::Error::new(source.kind(), source.to_string()),
            },
        }
    }
}

/// Some messages of a batch did not leave.
#[derive(Debug, thiserror::Error)]
#[error("{refused} messages of a batch did not leave, {sent} did; the first refusal: {first}")]
pub struct BatchError {
    /// Messages that left.
    pub sent: usize,
    /// Messages that did not.
    pub refused: usize,
    /// Why the first of them did not.
    #[source]
    pub first: Error,
}

/// Adds up what became of each message of a batch.
///
/// `sent` and `refused` are called for each message (or for each group that left as one); `finish` gives
/// the result of the whole [`tell_batch`](crate::Swarm::tell_batch).
#[derive(Debug, Default)]
pub struct BatchOutcome {
    sent: usize,
    refused: usize,
    first: Option<Error>,
}

impl BatchOutcome {
    /// `count` messages left.
    pub fn sent(&mut self, count: usize) {
        self.sent += count;
    }

    /// `count` messages did not leave, because of `error`.
    pub fn refused(&mut self, count: usize, error: Error) {
        self.refused += count;
        self.first.get_or_insert(error);
    }

    /// Adds one message's own result.
    pub fn record(&mut self, result: Result<()>) {
        match result {
            Ok(()) => self.sent(1),
            Err(error) => self.refused(1, error),
        }
    }

    /// Adds the result of handing `count` messages on as one batch.
    pub fn record_batch(&mut self, count: usize, result: Result<(), BatchError>) {
        match result {
            Ok(()) => self.sent(count),
            Err(error) => {
                self.sent(error.sent);
                self.refused(error.refused, error.first);
            }
        }
    }

    /// `Ok` if every message left.
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
