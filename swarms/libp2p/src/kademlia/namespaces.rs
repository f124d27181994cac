//! Validators of records by the namespace of their keys.

use std::collections::BTreeMap;
use std::fmt;

use multiaddr::PeerId;
use p2p_protocols::kademlia::{Key, Validator};

use crate::key::PublicKey;

/// The validators of records, by namespace: a key begins with `/NAME/`, and `NAME` selects the validator.
///
/// A record in a namespace without a validator is refused, and so is a record whose key has no namespace. By default there
/// is one namespace, `pk`: the key is `/pk/` and the bytes of a peer id, and the value is the public key with this id.
/// Records of `ipns` are refused unless the program adds a validator, since they are signed and expire.
///
/// ```
/// use p2p_libp2p::kademlia::{Key, Namespaces, Validator};
///
/// /// Counters, of which the greatest counts.
/// struct Counter;
///
/// impl Validator for Counter {
///     fn is_valid(&self, _: &Key, value: &[u8]) -> bool {
///         value.len() == 8
///     }
///     fn supersedes(&self, _: &Key, new: &[u8], old: &[u8]) -> bool {
///         new > old
///     }
/// }
///
/// let namespaces = Namespaces::default().with("counter", Counter);
/// let key = Key::hashed(p2p::PeerId::ZERO, *b"/counter/visits");
/// assert!(namespaces.is_valid(&key, &[0; 8]));
/// assert!(!namespaces.is_valid(&key, b"one"));
/// ```
pub struct Namespaces(BTreeMap<String, Box<dyn Validator>>);

impl Namespaces {
    /// Creates a set without namespaces, which refuses all records.
    pub fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds a namespace, or replaces its validator. The name has no slash.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, validator: impl Validator + 'static) -> Self {
        self.0.insert(name.into(), Box::new(validator));
        self
    }

    fn of(&self, key: &Key) -> Option<&dyn Validator> {
        let name = split(key.bytes())?.0;
        let name = str::from_utf8(name).ok()?;
        self.0.get(name).map(|validator| &**validator)
    }
}

impl Default for Namespaces {
    fn default() -> Self {
        Self::none().with("pk", PublicKeys)
    }
}

impl Validator for Namespaces {
    fn is_valid(&self, key: &Key, value: &[u8]) -> bool {
        self.of(key)
            .is_some_and(|validator| validator.is_valid(key, value))
    }

    fn supersedes(&self, key: &Key, new: &[u8], old: &[u8]) -> bool {
        self.of(key)
            .is_some_and(|validator| validator.supersedes(key, new, old))
    }
}

impl fmt::Debug for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Splits a key into its namespace and the rest.
fn split(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let key = key.strip_prefix(b"/")?;
    let end = key.iter().position(|byte| *byte == b'/')?;
    Some((key.get(..end)?, key.get(end + 1..)?))
}

/// Public keys by peer id. All valid values of a key are equal.
struct PublicKeys;

impl Validator for PublicKeys {
    fn is_valid(&self, key: &Key, value: &[u8]) -> bool {
        let id = split(key.bytes()).and_then(|(_, id)| PeerId::from_bytes(id).ok());
        let proven = PublicKey::decode(value).map(|key| key.peer_id()).ok();
        id.is_some() && id == proven
    }
}

#[cfg(test)]
mod tests {
    use p2p_formats::x509::PrivateKey;

    use super::*;
    use crate::key::Keypair;

    fn key(bytes: &[u8]) -> Key {
        Key::hashed(p2p::PeerId::ZERO, bytes)
    }

    #[test]
    fn a_public_key_is_valid_under_its_own_id_only() {
        let keypair = |seed| Keypair::new(&PrivateKey::ed25519(&[seed; 32])).expect("an Ed25519 key");
        let (ours, theirs) = (keypair(1), keypair(2));
        let namespaces = Namespaces::default();
        let of = |prefix: &[u8], id: PeerId| key(&[prefix, &id.to_bytes()].concat());
        let value = ours.public().encode();
        assert!(namespaces.is_valid(&of(b"/pk/", ours.peer_id()), value));
        assert!(!namespaces.is_valid(&of(b"/pk/", theirs.peer_id()), value));
        assert!(!namespaces.is_valid(&of(b"/ipns/", ours.peer_id()), value));
        assert!(!namespaces.is_valid(&of(b"pk/", ours.peer_id()), value));
        assert!(!namespaces.is_valid(&of(b"/pk/", ours.peer_id()), b""));
        assert!(!Namespaces::none().is_valid(&of(b"/pk/", ours.peer_id()), value));
    }

    #[test]
    fn keys_without_a_namespace_have_no_validator() {
        let namespaces = Namespaces::default().with("", |_: &p2p::PeerId, _: &[u8]| true);
        for bytes in [&b""[..], b"/", b"/pk", b"pk/", b"a", b"/\xff/a"] {
            assert!(!namespaces.is_valid(&key(bytes), b""), "{bytes:?}");
        }
        assert!(namespaces.is_valid(&key(b"//a"), b""));
    }
}
