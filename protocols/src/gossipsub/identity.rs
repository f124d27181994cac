//! libp2p's peer ids of Ed25519 keys, which name the authors of messages.
//!
//! libp2p specification, peer-ids: a key's protobuf of 36 bytes is short enough to be its own hash, so the id says the
//! key. Deliberately absent: ids of other algorithms, which do not.

use std::fmt;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

/// Bytes of an Ed25519 key.
const KEY: usize = 32;
/// The identity multihash of 36 bytes, which are a protobuf: key type 1 (Ed25519), and a key of 32 bytes.
const HEAD: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Bytes of an author's id.
pub(super) const AUTHOR: usize = HEAD.len() + KEY;

/// The libp2p peer id of an Ed25519 key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Author([u8; AUTHOR]);

impl Author {
    /// The id of this key.
    pub fn new(key: &[u8; KEY]) -> Self {
        let mut id = [0; AUTHOR];
        let (head, rest) = id.split_at_mut(HEAD.len());
        head.copy_from_slice(&HEAD);
        rest.copy_from_slice(key);
        Self(id)
    }

    /// The id with these bytes, if it is one of an Ed25519 key.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let key = bytes.strip_prefix(&HEAD)?;
        Some(Self::new(key.try_into().ok()?))
    }

    /// The id's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key as libp2p writes it: a protobuf.
    pub fn encoded_key(&self) -> &[u8] {
        self.0.get(2..).unwrap_or_default()
    }

    /// The key itself.
    pub fn key(&self) -> &[u8] {
        self.0.get(HEAD.len()..).unwrap_or_default()
    }

    /// Whether the key's owner signed these bytes.
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
