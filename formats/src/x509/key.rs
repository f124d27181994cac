//! Keys as bytes with an algorithm identifier; nothing here performs public-key operations.

use std::fmt;
use std::hash::{Hash, Hasher};

use ::der::pem::{self, LineEnding};
use bytes::Bytes;
use zeroize::Zeroizing;

use super::{Ed25519, KeyError, ObjectIdentifier, der};

/// Maximum length of a key's DER in bytes: more than enough for RSA with 16384 bits and for ML-DSA-87.
///
/// A longer encoding is refused without parsing.
pub const MAX_KEY_DER: usize = 4096;

/// Maximum length of a key's PEM in bytes, with surrounding text.
const MAX_KEY_PEM: usize = 4 * MAX_KEY_DER;

const PUBLIC_LABEL: &str = "PUBLIC KEY";
const PRIVATE_LABEL: &str = "PRIVATE KEY";

/// A public key of any algorithm. Clones share one buffer.
///
/// `AsRef<[u8]>` returns its canonical `SubjectPublicKeyInfo` in DER, without algorithm parameters.
#[derive(Clone)]
pub struct PublicKey {
    algorithm: ObjectIdentifier,
    /// The canonical DER, which ends with the raw key.
    der: Bytes,
    /// Length of the raw key in bytes.
    len: usize,
}

impl PublicKey {
    /// Creates a key from its raw bytes, in the encoding of its algorithm.
    ///
    /// # Errors
    /// [`KeyError::TooLong`] if its DER would exceed [`MAX_KEY_DER`]. The bytes are validated when a
    /// [`Registry`](super::Registry) loads the key.
    pub fn new(algorithm: ObjectIdentifier, key: &[u8]) -> Result<Self, KeyError> {
        let der = std::mem::take(&mut *der::write_spki(algorithm, key));
        if der.len() > MAX_KEY_DER {
            return Err(KeyError::TooLong {
                len: der.len(),
                max: MAX_KEY_DER,
            });
        }
        Ok(Self {
            algorithm,
            der: der.into(),
            len: key.len(),
        })
    }

    /// Parses a `SubjectPublicKeyInfo`. Drops algorithm parameters; see the [module](super) for the
    /// consequences.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let (algorithm, key) = der::read_spki(der)?;
        Self::new(algorithm, &key)
    }

    /// Parses a PEM block with the label `PUBLIC KEY`.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Self::from_der(&read_pem(text, PUBLIC_LABEL)?)
    }

    /// Encodes the key as a PEM block with the label `PUBLIC KEY`.
    pub fn to_pem(&self) -> String {
        std::mem::take(&mut *write_pem(PUBLIC_LABEL, &self.der))
    }

    /// Returns the algorithm of the key.
    pub fn algorithm(&self) -> ObjectIdentifier {
        self.algorithm
    }

    /// Returns the raw key in the encoding of its algorithm: 32 bytes for Ed25519.
    pub fn key_bytes(&self) -> &[u8] {
        let start = self.der.len().saturating_sub(self.len);
        self.der.get(start..).unwrap_or_default()
    }

    /// Returns the canonical `SubjectPublicKeyInfo` in DER.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }
}

impl AsRef<[u8]> for PublicKey {
    fn as_ref(&self) -> &[u8] {
        &self.der
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for PublicKey {}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.der.hash(state);
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} ", self.algorithm)?;
        self.key_bytes()
            .iter()
            .take(32)
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(if self.len > 32 { "…)" } else { ")" })
    }
}

/// A private key of any algorithm. Its secret is zeroized when it is dropped, and not shown by `Debug`.
#[derive(Clone)]
pub struct PrivateKey {
    algorithm: ObjectIdentifier,
    secret: Zeroizing<Vec<u8>>,
}

impl PrivateKey {
    /// Creates a key from its secret, in the encoding of its algorithm.
    pub fn new(algorithm: ObjectIdentifier, secret: &[u8]) -> Self {
        Self {
            algorithm,
            secret: Zeroizing::new(secret.to_vec()),
        }
    }

    /// Creates the Ed25519 key of this seed, which must come from a cryptographic source of randomness.
    pub fn ed25519(seed: &[u8; 32]) -> Self {
        Self::new(Ed25519::OID, seed)
    }

    /// Parses PKCS#8, or the structure of a `SubjectPublicKeyInfo` with the secret in its bit string.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let (algorithm, secret) = der::read_private(der)?;
        Ok(Self { algorithm, secret })
    }

    /// Parses a PEM block with the label `PRIVATE KEY`, with one of the encodings that
    /// [`from_der`](Self::from_der) accepts.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Self::from_der(&read_pem(text, PRIVATE_LABEL)?)
    }

    /// Encodes the key as a PEM block with the label `PRIVATE KEY` and PKCS#8 in it.
    pub fn to_pem(&self) -> Zeroizing<String> {
        write_pem(PRIVATE_LABEL, &self.to_pkcs8())
    }

    /// Encodes the key as PKCS#8, version 1, in DER.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        der::write_pkcs8(self.algorithm, &self.secret)
    }

    /// Encodes the key in the structure of a `SubjectPublicKeyInfo` with the secret in its bit string, as the
    /// Go library stores private keys.
    pub fn to_bit_string(&self) -> Zeroizing<Vec<u8>> {
        der::write_spki(self.algorithm, &self.secret)
    }

    /// Returns the algorithm of the key.
    pub fn algorithm(&self) -> ObjectIdentifier {
        self.algorithm
    }

    /// Returns the secret in the encoding of its algorithm: the 32 bytes of the seed for Ed25519.
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

fn read_pem(text: &str, expected: &'static str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    if text.len() > MAX_KEY_PEM {
        return Err(KeyError::TooLong {
            len: text.len(),
            max: MAX_KEY_PEM,
        });
    }
    if !text.contains("-----BEGIN ") {
        return Err(KeyError::Pem {
            reason: format!("there is no line -----BEGIN {expected}-----").into(),
        });
    }
    let (label, der) = pem::decode_vec(text.as_bytes()).map_err(|error| KeyError::Pem {
        reason: error.to_string().into(),
    })?;
    let der = Zeroizing::new(der);
    if label == expected {
        Ok(der)
    } else {
        Err(KeyError::PemLabel {
            found: label.into(),
            expected,
        })
    }
}

fn write_pem(label: &'static str, der: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(
        pem::encode_string(label, LineEnding::LF, der)
            .expect("the label is a valid constant, and the length of a key cannot overflow"),
    )
}
