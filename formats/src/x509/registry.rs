//! Which algorithms a node knows: from keys as bytes to keys that sign and verify.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{Ed25519, KeyError, ObjectIdentifier, PrivateKey, PublicKey};

/// A private key that is loaded.
pub trait Signer: Debug + Send + Sync {
    /// The public key that belongs to it.
    fn public_key(&self) -> &PublicKey;

    /// Signs a message.
    fn sign(&self, message: &[u8]) -> Vec<u8>;
}

/// A public key that is loaded.
pub trait Verifier: Debug + Send + Sync {
    /// Checks that `signature` is by this key's owner, over `message`.
    ///
    /// # Errors
    /// [`KeyError::BadSignature`], also for a signature of a wrong size.
    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError>;
}

/// A signature algorithm: how its keys are named, how long they are, how they are loaded.
///
/// The lengths are bounds on what strangers may make this node compute: a registry refuses anything else before
/// the algorithm sees it.
pub trait Algorithm: Debug + Send + Sync {
    /// The name of the algorithm in keys.
    fn oid(&self) -> ObjectIdentifier;

    /// Bytes that a public key has.
    fn public_key_len(&self) -> RangeInclusive<usize>;

    /// Bytes that a private key has.
    fn private_key_len(&self) -> RangeInclusive<usize>;

    /// Loads a public key, whose algorithm and length are right.
    fn verifier(&self, key: &PublicKey) -> Result<Box<dyn Verifier>, KeyError>;

    /// Loads a private key, whose algorithm and length are right.
    fn signer(&self, key: &PrivateKey) -> Result<Box<dyn Signer>, KeyError>;
}

/// The algorithms that a node knows. The default knows Ed25519.
#[derive(Clone, Debug)]
pub struct Registry {
    algorithms: BTreeMap<ObjectIdentifier, Arc<dyn Algorithm>>,
}

impl Registry {
    /// A registry that knows nothing yet.
    pub fn empty() -> Self {
        Self {
            algorithms: BTreeMap::new(),
        }
    }

    /// Adds an algorithm; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, algorithm: impl Algorithm + 'static) -> Self {
        self.algorithms.insert(algorithm.oid(), Arc::new(algorithm));
        self
    }

    /// The names of the algorithms.
    pub fn algorithms(&self) -> impl Iterator<Item = ObjectIdentifier> {
        self.algorithms.keys().copied()
    }

    /// Loads a public key.
    ///
    /// # Errors
    /// [`UnknownAlgorithm`](KeyError::UnknownAlgorithm), [`KeySize`](KeyError::KeySize), or what the algorithm
    /// finds wrong.
    pub fn verifier(&self, key: &PublicKey) -> Result<Box<dyn Verifier>, KeyError> {
        let algorithm = self.find(key.algorithm())?;
        check_len(key.algorithm(), key.key_bytes().len(), algorithm.public_key_len())?;
        algorithm.verifier(key)
    }

    /// Loads a private key.
    ///
    /// # Errors
    /// [`UnknownAlgorithm`](KeyError::UnknownAlgorithm), [`KeySize`](KeyError::KeySize), or what the algorithm
    /// finds wrong.
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
