//! Message ids. Short ids are stored inline, so a copy needs no allocation.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

use super::identity::AUTHOR;
use super::wire::SEQNO;

/// Maximum length of an inline id: an author and a sequence number, which is longer than a hash.
const SHORT: usize = AUTHOR + SEQNO;

/// The id of a message in one network. Ids of up to 46 bytes are stored inline; clones of longer ones share
/// memory.
#[derive(Clone)]
pub struct MessageId(Name);

#[derive(Clone)]
enum Name {
    /// The length of the id, and a buffer that starts with it.
    Short(u8, [u8; SHORT]),
    Long(Bytes),
}

impl MessageId {
    /// Copies an id from its bytes.
    pub fn copy_from_slice(bytes: &[u8]) -> Self {
        let mut short = [0; SHORT];
        match (short.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(into), Ok(len)) => {
                into.copy_from_slice(bytes);
                Self(Name::Short(len, short))
            }
            _ => Self(Name::Long(Bytes::copy_from_slice(bytes))),
        }
    }

    /// Returns the bytes of the id as a buffer.
    pub fn to_bytes(&self) -> Bytes {
        match &self.0 {
            Name::Short(..) => Bytes::copy_from_slice(self),
            Name::Long(bytes) => bytes.clone(),
        }
    }
}

impl Deref for MessageId {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Name::Short(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Name::Long(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for MessageId {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for MessageId {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl From<&[u8]> for MessageId {
    fn from(bytes: &[u8]) -> Self {
        Self::copy_from_slice(bytes)
    }
}

impl From<Vec<u8>> for MessageId {
    fn from(bytes: Vec<u8>) -> Self {
        Self::copy_from_slice(&bytes)
    }
}

/// Copies the bytes, so that the id does not keep the received buffer alive.
impl From<Bytes> for MessageId {
    fn from(bytes: Bytes) -> Self {
        Self::copy_from_slice(&bytes)
    }
}

impl From<MessageId> for Bytes {
    fn from(id: MessageId) -> Self {
        id.to_bytes()
    }
}

impl PartialEq for MessageId {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for MessageId {}

impl PartialOrd for MessageId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for MessageId {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

/// Equal to the hash of the bytes, because tables are also looked up by bytes.
impl Hash for MessageId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageId(")?;
        self.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;

    #[test]
    fn an_id_equals_its_bytes_for_any_length() {
        let all: Vec<Vec<u8>> = (0..300_usize).map(|len| vec![len as u8; len]).collect();
        let ids: Vec<MessageId> = all.iter().map(|bytes| bytes.clone().into()).collect();
        let (set, tree): (HashSet<_>, BTreeSet<_>) =
            (ids.iter().cloned().collect(), ids.iter().cloned().collect());
        for (bytes, id) in all.iter().zip(&ids) {
            assert_eq!((&**id, &*id.to_bytes()), (&**bytes, &**bytes));
            assert!(set.contains(&**bytes) && tree.contains(&**bytes));
        }
        let sorted: BTreeSet<_> = all.iter().map(Vec::as_slice).collect();
        assert!(tree.iter().map(|id| &**id).eq(sorted));
    }
}
