//! A signature algorithm that counts verifications and can be set to sign incorrectly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use p2p_formats::x509::{
    Algorithm, Ed25519, KeyError, ObjectIdentifier, PrivateKey, PublicKey, Registry, Signer, Verifier,
};
use p2p_protocols::p2pke::{Config, Local};

use super::net::{Net, key};

/// Ed25519 with a counter of verifications, and with signers that sign correctly a limited number of times.
#[derive(Clone, Debug)]
pub(crate) struct Strange {
    /// Number of verified signatures.
    pub(crate) verified: Arc<AtomicUsize>,
    /// Number of remaining correct signatures.
    pub(crate) good: Arc<AtomicUsize>,
}

impl Default for Strange {
    fn default() -> Self {
        Self {
            verified: Arc::default(),
            good: Arc::new(usize::MAX.into()),
        }
    }
}

#[derive(Debug)]
struct StrangeVerifier(Box<dyn Verifier>, Strange);
#[derive(Debug)]
struct StrangeSigner(Box<dyn Signer>, Strange);

impl Verifier for StrangeVerifier {
    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        self.1.verified.fetch_add(1, Relaxed);
        self.0.verify(message, signature)
    }
}

impl Signer for StrangeSigner {
    fn public_key(&self) -> &PublicKey {
        self.0.public_key()
    }
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut signature = self.0.sign(message);
        if self.1.good.load(Relaxed) == 0 {
            signature[7] ^= 1;
        } else {
            self.1.good.fetch_sub(1, Relaxed);
        }
        signature
    }
}

impl Algorithm for Strange {
    fn oid(&self) -> ObjectIdentifier {
        Ed25519::OID
    }
    fn public_key_len(&self) -> std::ops::RangeInclusive<usize> {
        32..=32
    }
    fn private_key_len(&self) -> std::ops::RangeInclusive<usize> {
        32..=32
    }
    fn verifier(&self, key: &PublicKey) -> Result<Box<dyn Verifier>, KeyError> {
        Ok(Box::new(StrangeVerifier(Ed25519.verifier(key)?, self.clone())))
    }
    fn signer(&self, key: &PrivateKey) -> Result<Box<dyn Signer>, KeyError> {
        Ok(Box::new(StrangeSigner(Ed25519.signer(key)?, self.clone())))
    }
}

impl Strange {
    /// Returns the node with this number, with keys of this algorithm.
    pub(crate) fn local(&self, node: u32) -> Local {
        let registry = Registry::empty().with(self.clone());
        Local::with_registry(&key(node), registry, Config::default()).expect("a good key")
    }
}

/// Replaces this node by one with such a key.
pub(crate) fn strange(net: &mut Net, node: u32) -> Strange {
    let strange = Strange::default();
    net.replace(node, strange.local(node));
    strange
}
