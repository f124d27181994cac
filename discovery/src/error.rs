//! The one flat error of every discovery: what went wrong, where, and what to do about it.

use std::io;
use std::time::Duration;

use p2p_formats::record::RecordError;

/// What every fallible call of a discovery returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. After any of them the discovery works on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is not what it must be. Nothing changed.
    #[error("invalid {what}: {reason}")]
    Invalid {
        /// What is invalid.
        what: &'static str,
        /// What is wrong with it, and where.
        reason: Box<str>,
    },
    /// Nothing can be announced here: a list that is fixed, or a tracker that was opened without a key.
    #[error("nothing can be announced here: {0}")]
    ReadOnly(&'static str),
    /// A limit is reached. Nothing changed; wait until something expires, or raise the limit.
    #[error("the limit of {limit} {what} is reached")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much of it is allowed.
        limit: usize,
    },
    /// What others wrote is not what it must be. Nothing changed.
    #[error("{what} is garbled: at byte {at}, {reason}")]
    Garbled {
        /// What was read.
        what: &'static str,
        /// Where in it.
        at: usize,
        /// What is wrong there.
        reason: Box<str>,
    },
    /// A signed record that others wrote is not to be relied on.
    #[error("a record is not to be relied on")]
    Record(#[from] RecordError),
    /// Others changed the cell each time, before this could. Nothing changed; try again later.
    #[error("others changed the cell {attempts} times in a row")]
    Contended {
        /// How often it was tried.
        attempts: usize,
    },
    /// The server answered that it will not. Nothing changed.
    #[error("the server refused with status {status}: {reason}")]
    Refused {
        /// The status of its answer (RFC 9110, section 15).
        status: u16,
        /// What it said, the first 200 characters.
        reason: Box<str>,
    },
    /// It took too long. Whether it was done is unknown.
    #[error("{doing} took longer than {} s", limit.as_secs_f64())]
    TimedOut {
        /// What was waited for.
        doing: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The operating system or the network refused.
    #[error("{doing} failed")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// The swarm that carries the discovery failed.
    #[error("the swarm failed")]
    Swarm(#[from] p2p::Error),
    /// Each of several discoveries failed.
    #[error("each of {} ways failed; the first: {}", .0.len(), first(.0))]
    All(Box<[Error]>),
}

fn first(errors: &[Error]) -> String {
    errors.first().map_or_else(String::new, ToString::to_string)
}

impl Error {
    /// [`Error::Invalid`] for a `what`, because of `reason`.
    pub fn invalid(what: &'static str, reason: impl Into<Box<str>>) -> Self {
        let reason = reason.into();
        Error::Invalid { what, reason }
    }

    /// [`Error::Garbled`] for a `what`, at byte `at`, because of `reason`.
    pub fn garbled(what: &'static str, at: usize, reason: impl Into<Box<str>>) -> Self {
        let reason = reason.into();
        Error::Garbled { what, at, reason }
    }

    /// Turns an I/O error into [`Error::Io`], saying what was being done.
    pub fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Error::Io { doing, source }
    }
}
