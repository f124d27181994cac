//! What can be wrong with a key or a signature.

use std::ops::RangeInclusive;

use super::ObjectIdentifier;

/// Why a key was not read or not loaded, or a signature not accepted. No state changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The encoding is longer than any key that is accepted.
    #[error("a key of {len} bytes is longer than the {max} bytes that are accepted")]
    TooLong {
        /// Bytes that were given.
        len: usize,
        /// Bytes that are accepted.
        max: usize,
    },
    /// The bytes are not the DER of a key.
    #[error("not a key in DER: at byte {at}, expected {expected}")]
    Der {
        /// Where in the input the encoding stops making sense.
        at: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// The text is not PEM.
    #[error("not a key in PEM: {reason}")]
    Pem {
        /// What is wrong with the text.
        reason: Box<str>,
    },
    /// The PEM block holds something else.
    #[error("a PEM block of {found:?} is not a key; expected {expected:?}")]
    PemLabel {
        /// The label of the block.
        found: Box<str>,
        /// The label of a key.
        expected: &'static str,
    },
    /// No algorithm of this name is in the registry.
    #[error("no algorithm {0} is registered")]
    UnknownAlgorithm(ObjectIdentifier),
    /// The key is for another algorithm.
    #[error("the key is for algorithm {found}, not {expected}")]
    WrongAlgorithm {
        /// The key's algorithm.
        found: ObjectIdentifier,
        /// The algorithm that was asked to load it.
        expected: ObjectIdentifier,
    },
    /// The key's size is not one of its algorithm.
    #[error("a key of {len} bytes is none of algorithm {algorithm}, whose keys have {} to {} bytes", allowed.start(), allowed.end())]
    KeySize {
        /// The key's algorithm.
        algorithm: ObjectIdentifier,
        /// Bytes of the key.
        len: usize,
        /// Bytes that keys of this algorithm have.
        allowed: RangeInclusive<usize>,
    },
    /// The key has the right size and yet is none of its algorithm.
    #[error("the bytes are no key of algorithm {0}")]
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
