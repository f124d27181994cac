//! The registry of signature algorithms: it loads keys from bytes for signing and verification.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::sync::Arc;

#[cfg(feature = "ciphers")]
use super::Ed25519;
use super::{KeyError, ObjectIdentifier, PrivateKey, PublicKey};

/// A loaded private key.
pub trait Signer: Debug + Send + Sync {
    /// Returns the corresponding public key.
    fn public_key(&self) -> &PublicKey;

    /// Signs a message.
    fn sign(&self, message: &[u8]) -> Vec<u8>;
}

/// A loaded public key.
pub trait Verifier: Debug + Send + Sync {
    /// Verifies that `signature` is a signature of `message` by this key.
    ///
    /// # Errors
    /// [`KeyError::BadSignature`], also for a signature of invalid length.
    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError>;
}

/// A signature algorithm: its identifier, the lengths of its keys, and how they are loaded.
///
/// The lengths bound the work that a remote peer can cause: a registry refuses other lengths before the
/// algorithm processes them.
pub trait Algorithm: Debug + Send + Sync {
    /// Returns the object identifier of the algorithm.
    fn oid(&self) -> ObjectIdentifier;

    /// Returns the valid lengths of a public key in bytes.
    fn public_key_len(&self) -> RangeInclusive<usize>;

    /// Returns the valid lengths of a private key in bytes.
    fn private_key_len(&self) -> RangeInclusive<usize>;

    /// Loads a public key of this algorithm and of valid length.
    fn verifier(&self, key: &PublicKey) -> Result<Box<dyn Verifier>, KeyError>;

    /// Loads a private key of this algorithm and of valid length.
    fn signer(&self, key: &PrivateKey) -> Result<Box<dyn Signer>, KeyError>;
}

/// The signature algorithms of a node. The default, of the feature `ciphers`, has Ed25519.
#[derive(Clone, Debug)]
pub struct Registry {
    algorithms: BTreeMap<ObjectIdentifier, Arc<dyn Algorithm>>,
}

impl Registry {
    /// Creates a registry without algorithms.
    pub fn empty() -> Self {
        Self {
            algorithms: BTreeMap::new(),
        }
    }

    /// Adds an algorithm; replaces one with the same identifier.
    #[must_use]
    pub fn with(mut self, algorithm: impl Algorithm + 'static) -> Self {
        self.algorithms.insert(algorithm.oid(), Arc::new(algorithm));
        self
    }

    /// Iterates over the identifiers of the algorithms.
    pub fn algorithms(&self) -> impl Iterator<Item = ObjectIdentifier> {
        self.algorithms.keys().copied()
    }

    /// Loads a public key.
    ///
    /// # Errors
    /// [`UnknownAlgorithm`](KeyError::UnknownAlgorithm), [`KeySize`](KeyError::KeySize), or an error of the
    /// algorithm.
    pub fn verifier(&self, key: &PublicKey) -> Result<Box<dyn Verifier>, KeyError> {
        let algorithm = self.find(key.algorithm())?;
        check_len(key.algorithm(), key.key_bytes().len(), algorithm.public_key_len())?;
        algorithm.verifier(key)
    }

    /// Loads a private key.
    ///
    /// # Errors
    /// [`UnknownAlgorithm`](KeyError::UnknownAlgorithm), [`KeySize`](KeyError::KeySize), or an error of the
    /// algorithm.
    pub fn signer(&self, key: &PrivateKey) -> Result<Box<dyn Signer>, KeyError> {
        let algorithm = self.find(key.algorithm())?;
        check_len(key.algorithm(), key.secret().len(), algorithm.private_key_len())?;
        algorithm.signer(key)
    }

    fn find(&self, oid: ObjectIdentifier) -> Result<&dyn Algorithm, KeyError> {
        self.algorithms
            .get(&oid)
            .map(|algorithm| &**algorithm)
            .ok_or(KeyError::UnknownAlgorithm(oid))
    }
}

#[cfg(feature = "ciphers")]
impl Default for Registry {
    fn default() -> Self {
        Self::empty().with(Ed25519)
    }
}

fn check_len(
    algorithm: ObjectIdentifier,
    len: usize,
    allowed: RangeInclusive<usize>,
) -> Result<(), KeyError> {
    if allowed.contains(&len) {
        Ok(())
    } else {
        Err(KeyError::KeySize {
            algorithm,
            len,
            allowed,
        })
    }
}
