//! The error type of all discoveries.

use std::io;
use std::time::Duration;

use p2p_formats::record::RecordError;

/// The result of a fallible discovery call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. After any error the discovery remains usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is invalid. Nothing changed.
    #[error("invalid {what}: {reason}")]
    Invalid {
        /// What is invalid.
        what: &'static str,
        /// What is wrong, and where.
        reason: Box<str>,
    },
    /// Announcing is not supported: a fixed list, or a tracker that was opened without a key.
    #[error("announcing is not supported: {0}")]
    ReadOnly(&'static str),
    /// A limit is reached. Nothing changed; wait until something expires, or raise the limit.
    #[error("the limit of {limit} {what} is reached")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Data of another node is invalid. Nothing changed.
    #[error("{what} is garbled: at byte {at}, {reason}")]
    Garbled {
        /// What was read.
        what: &'static str,
        /// Byte position of the error.
        at: usize,
        /// What is wrong there.
        reason: Box<str>,
    },
    /// A signed record of another node is invalid.
    #[error("a signed record is invalid")]
    Record(#[from] RecordError),
    /// Other writers changed the cell at each attempt. Nothing changed; retry later.
    #[error("other writers changed the cell {attempts} times in a row")]
    Contended {
        /// Number of attempts.
        attempts: usize,
    },
    /// The server refused the request. Nothing changed.
    #[error("the server refused with status {status}: {reason}")]
    Refused {
        /// Status code of the response (RFC 9110, section 15).
        status: u16,
        /// The first 200 characters of the response.
        reason: Box<str>,
    },
    /// The call timed out. It is unknown whether it was done.
    #[error("{doing} took longer than {} s", limit.as_secs_f64())]
    TimedOut {
        /// What was awaited.
        doing: &'static str,
        /// The timeout.
        limit: Duration,
    },
    /// The operating system or the network failed.
    #[error("{doing} failed")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The swarm of the discovery failed.
    #[error("the swarm failed")]
    Swarm(#[from] p2p::Error),
    /// Each of several discoveries failed.
    #[error("all {} discoveries failed; the first error: {}", .0.len(), first(.0))]
    All(Box<[Error]>),
}

fn first(errors: &[Error]) -> String {
    errors.first().map_or_else(String::new, ToString::to_string)
}

impl Error {
    /// Creates [`Error::Invalid`] for `what` with `reason`.
    pub fn invalid(what: &'static str, reason: impl Into<Box<str>>) -> Self {
        let reason = reason.into();
        Error::Invalid { what, reason }
    }

    /// Creates [`Error::Garbled`] for `what` at byte `at` with `reason`.
    pub fn garbled(what: &'static str, at: usize, reason: impl Into<Box<str>>) -> Self {
        let reason = reason.into();
        Error::Garbled { what, at, reason }
    }

    /// Converts an I/O error into [`Error::Io`] with a description of the operation.
    pub fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Error::Io { doing, source }
    }
}
