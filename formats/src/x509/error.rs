//! Errors of keys and signatures.

use std::ops::RangeInclusive;

use super::ObjectIdentifier;

/// The reason for which a key cannot be parsed or loaded, or a signature is invalid. No state changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The encoding exceeds the maximum length.
    #[error("a key of {len} bytes exceeds the limit of {max} bytes")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The maximum length in bytes.
        max: usize,
    },
    /// The bytes are not the DER of a key.
    #[error("not a key in DER: at byte {at}, expected {expected}")]
    Der {
        /// Offset of the first invalid byte in the input.
        at: usize,
        /// The syntax that was expected there.
        expected: &'static str,
    },
    /// The text is not PEM.
    #[error("not a key in PEM: {reason}")]
    Pem {
        /// The cause.
        reason: Box<str>,
    },
    /// The PEM block is not a key.
    #[error("a PEM block of {found:?} is not a key; expected {expected:?}")]
    PemLabel {
        /// The label of the block.
        found: Box<str>,
        /// The label of a key.
        expected: &'static str,
    },
    /// The algorithm is not in the registry.
    #[error("no algorithm {0} is registered")]
    UnknownAlgorithm(ObjectIdentifier),
    /// The key is for another algorithm.
    #[error("the key is for algorithm {found}, not {expected}")]
    WrongAlgorithm {
        /// The key's algorithm.
        found: ObjectIdentifier,
        /// The algorithm that was to load it.
        expected: ObjectIdentifier,
    },
    /// The length of the key is invalid for its algorithm.
    #[error("a key of {len} bytes is invalid for algorithm {algorithm}, which has keys of {} to {} bytes", allowed.start(), allowed.end())]
    KeySize {
        /// The key's algorithm.
        algorithm: ObjectIdentifier,
        /// The length of the key in bytes.
        len: usize,
        /// The valid lengths in bytes.
        allowed: RangeInclusive<usize>,
    },
    /// The key has a valid length, but its algorithm rejects it.
    #[error("the bytes are not a valid key of algorithm {0}")]
    Rejected(ObjectIdentifier),
    /// The signature is not by this key over this message.
    #[error("the signature is not valid")]
    BadSignature,
}

impl From<KeyError> for p2p::Error {
    fn from(error: KeyError) -> Self {
        p2p::Error::invalid("key", error.to_string())
    }
}
