//! Signatures with aws-lc-rs, which signs about twice as fast as the pure Rust libraries.

use std::fmt;
use std::ops::RangeInclusive;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::x509::{Algorithm, Ed25519, KeyError, ObjectIdentifier, PrivateKey, PublicKey, Signer, Verifier};

const KEY_LEN: usize = 32;
const SIGNATURE_LEN: usize = 64;

impl Algorithm for Ed25519 {
    fn oid(&self) -> ObjectIdentifier {
        Self::OID
    }

    fn public_key_len(&self) -> RangeInclusive<usize> {
        KEY_LEN..=KEY_LEN
    }

    fn private_key_len(&self) -> RangeInclusive<usize> {
        KEY_LEN..=KEY_LEN
    }

    fn verifier(&self, key: &PublicKey) -> Result<Box<dyn Verifier>, KeyError> {
        Ok(Box::new(Ed25519Verifier { key: key.clone() }))
    }

    fn signer(&self, key: &PrivateKey) -> Result<Box<dyn Signer>, KeyError> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(key.secret()).map_err(|_| KeyError::Rejected(Self::OID))?;
        let public = PublicKey::new(Self::OID, pair.public_key().as_ref())?;
        Ok(Box::new(Ed25519Signer { pair, public }))
    }
}

struct Ed25519Signer {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl Signer for Ed25519Signer {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for Ed25519Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ed25519Signer")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Ed25519Verifier {
    key: PublicKey,
}

impl Verifier for Ed25519Verifier {
    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        if signature.len() != SIGNATURE_LEN {
            return Err(KeyError::BadSignature);
        }
        UnparsedPublicKey::new(&ED25519, self.key.key_bytes())
            .verify(message, signature)
            .map_err(|_| KeyError::BadSignature)
    }
}
