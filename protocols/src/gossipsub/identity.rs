//! libp2p peer ids of Ed25519 keys, which identify the authors of messages.
//!
//! libp2p specification, peer-ids: an Ed25519 key's protobuf has 36 bytes and is short enough to use the
//! identity hash, so the id contains the key. Deliberately absent: ids of other algorithms, which do not
//! contain it.

use std::fmt;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

/// Length of an Ed25519 key in bytes.
const KEY: usize = 32;
/// The header of the identity multihash of 36 bytes, and of the protobuf in it: key type 1 (Ed25519), and a
/// key of 32 bytes.
const HEAD: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Length of an author's id in bytes.
pub(super) const AUTHOR: usize = HEAD.len() + KEY;

/// The libp2p peer id of an Ed25519 key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Author([u8; AUTHOR]);

impl Author {
    /// Creates the id of a key.
    pub fn new(key: &[u8; KEY]) -> Self {
        let mut id = [0; AUTHOR];
        let (head, rest) = id.split_at_mut(HEAD.len());
        head.copy_from_slice(&HEAD);
        rest.copy_from_slice(key);
        Self(id)
    }

    /// Parses an id; returns `None` if it is not the id of an Ed25519 key.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let key = bytes.strip_prefix(&HEAD)?;
        Some(Self::new(key.try_into().ok()?))
    }

    /// Returns the bytes of the id.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the key in libp2p's protobuf encoding.
    pub fn encoded_key(&self) -> &[u8] {
        self.0.get(2..).unwrap_or_default()
    }

    /// Returns the key.
    pub fn key(&self) -> &[u8] {
        self.0.get(HEAD.len()..).unwrap_or_default()
    }

    /// Returns whether the owner of the key signed these bytes.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.key())
            .verify(message, signature)
            .is_ok()
    }
}

impl AsRef<[u8]> for Author {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Author(")?;
        self.key().iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}
