//! libp2p peer ids, which identify the authors of messages.
//!
//! libp2p specification, peer-ids: an id is a multihash of the author's key in its protobuf encoding. An Ed25519 key has 36
//! bytes in it, and is short enough for the identity hash, so its id contains it. Keys of other algorithms are verified by a
//! function of the application ([`VerifyAuthor`]): their ids are SHA-256 where the key is longer than 42 bytes.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

use super::wire::MAX_FROM;

/// Length of an Ed25519 key in bytes.
const KEY: usize = 32;
/// The header of the identity multihash of 36 bytes, and of the protobuf in it: key type 1 (Ed25519), and a
/// key of 32 bytes.
const HEAD: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Length of the id of an author with an Ed25519 key in bytes.
pub(super) const AUTHOR: usize = HEAD.len() + KEY;

/// The header of a multihash of SHA-256.
const SHA2_256: [u8; 2] = [0x12, 0x20];

/// Verifies the signature of an author whose key is not Ed25519, given the author, the key of the message if it has one, the
/// signed bytes and the signature. The key must be the author's.
pub type VerifyAuthor = Arc<dyn Fn(&Author, Option<&[u8]>, &[u8], &[u8]) -> bool + Send + Sync>;

/// The libp2p peer id of an author, of at most [`MAX_FROM`] bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Author {
    /// Ends with zeros.
    id: [u8; MAX_FROM],
    len: u8,
}

impl Author {
    /// Creates the id of an Ed25519 key.
    pub fn new(key: &[u8; KEY]) -> Self {
        let mut id = [0; MAX_FROM];
        let (head, rest) = id.split_at_mut(HEAD.len());
        head.copy_from_slice(&HEAD);
        if let Some(place) = rest.get_mut(..KEY) {
            place.copy_from_slice(key);
        }
        let len = AUTHOR as u8;
        Self { id, len }
    }

    /// Parses an id; returns `None` if it is not the id of an Ed25519 key.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let key = bytes.strip_prefix(&HEAD)?;
        Some(Self::new(key.try_into().ok()?))
    }

    /// Parses the id of a key of any algorithm: a multihash of SHA-256, or an identity multihash.
    pub fn from_peer_id(bytes: &[u8]) -> Option<Self> {
        let is_hash = bytes.strip_prefix(&SHA2_256).is_some_and(|hash| hash.len() == 32);
        let is_key = matches!(bytes, [0, len, key @ ..] if !key.is_empty() && usize::from(*len) == key.len());
        if !is_hash && !is_key {
            return None;
        }
        let mut id = [0; MAX_FROM];
        id.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let len = u8::try_from(bytes.len()).ok()?;
        Some(Self { id, len })
    }

    /// Returns the bytes of the id.
    pub fn as_bytes(&self) -> &[u8] {
        self.id.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Returns the key in libp2p's protobuf encoding, if the id contains it.
    pub fn encoded_key(&self) -> Option<&[u8]> {
        let [0, _, key @ ..] = self.as_bytes() else {
            return None;
        };
        Some(key)
    }

    /// Returns the key, if it is an Ed25519 key.
    pub fn key(&self) -> Option<&[u8]> {
        self.as_bytes().strip_prefix(&HEAD)
    }

    /// Returns whether the owner of an Ed25519 key signed these bytes.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key().is_some_and(|key| {
            UnparsedPublicKey::new(&ED25519, key)
                .verify(message, signature)
                .is_ok()
        })
    }
}

impl AsRef<[u8]> for Author {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Author(")?;
        let shown = self.key().unwrap_or(self.as_bytes());
        shown.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}
