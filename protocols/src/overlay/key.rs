//! Keys of nodes, records and providers.

use std::sync::Arc;

use p2p::PeerId;

/// A key: its place in the id space, and its bytes.
///
/// In the networks of this framework the bytes of a key are its place. Other networks hash keys: in libp2p's, the place
/// of a key is the SHA-256 hash of its bytes, and messages carry the bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    id: PeerId,
    bytes: Option<Arc<[u8]>>,
}

impl Key {
    /// Creates a key from its place and the bytes of which the place is the hash. The caller hashes.
    pub fn hashed(id: PeerId, bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = Some(bytes.into());
        Self { id, bytes }
    }

    /// Returns the place in the id space, which distances are measured to.
    pub fn id(&self) -> &PeerId {
        &self.id
    }

    /// Returns the bytes of the key: those that were hashed, or else the place itself.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or(self.id.as_bytes())
    }

    /// Returns the bytes of the key that are held beside its place.
    pub(crate) fn preimage(&self) -> Option<&Arc<[u8]>> {
        self.bytes.as_ref()
    }

    /// Creates a key from its parts.
    pub(crate) fn from_parts(id: PeerId, bytes: Option<Arc<[u8]>>) -> Self {
        Self { id, bytes }
    }
}

impl From<PeerId> for Key {
    fn from(id: PeerId) -> Self {
        Self { id, bytes: None }
    }
}
