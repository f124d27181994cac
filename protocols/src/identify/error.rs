//! Errors of reading and writing.

/// The reason for which a stream is not an identification. Nothing of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The length in front of a message is no varint.
    #[error("the length of message {message} is not a varint")]
    Length {
        /// The number of the message in its stream, from 0.
        message: usize,
    },
    /// A message is too long.
    #[error("message {message} has {len} bytes, more than {max}")]
    TooLong {
        /// The number of the message in its stream, from 0.
        message: usize,
        /// Its length in bytes.
        len: u64,
        /// The limit in bytes.
        max: usize,
    },
    /// A stream has too many messages.
    #[error("the stream has more than {max} messages")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// A message is not protobuf, or a field has the wrong type.
    #[error("message {message} is not protobuf of this schema: the field at byte {at} is malformed")]
    Malformed {
        /// The number of the message in its stream, from 0.
        message: usize,
        /// Offset of the field in its message, in bytes.
        at: usize,
    },
    /// A text is not UTF-8.
    #[error("message {message}: {what} at byte {at} is not UTF-8")]
    Text {
        /// The field.
        what: &'static str,
        /// The number of the message in its stream, from 0.
        message: usize,
        /// Offset of the field in its message, in bytes.
        at: usize,
    },
    /// The stream ended within a message.
    #[error("the stream ended within message {message}")]
    Truncated {
        /// The number of the message in its stream, from 0.
        message: usize,
    },
    /// The stream ended before its first message.
    #[error("the stream has no message")]
    Empty,
}

/// The fields that are always sent exceed the limit of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error(
    "the key, versions and observed address need {len} bytes, more than {max}: shorten the agent version"
)]
pub struct EncodeError {
    /// Their length in bytes.
    pub len: usize,
    /// The limit in bytes.
    pub max: usize,
}

/// A peer claims another public key than the one that its connection proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the peer claims another public key than the one that it has proven")]
pub struct KeyMismatch;
