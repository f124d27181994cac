//! Keys as bytes with an algorithm's name; nothing here computes with them.

use std::fmt;
use std::hash::{Hash, Hasher};

use ::der::pem::{self, LineEnding};
use bytes::Bytes;
use zeroize::Zeroizing;

use super::{Ed25519, KeyError, ObjectIdentifier, der};

/// Bytes of a key's DER at most: enough for RSA of 16384 bits and for ML-DSA-87, with room to spare.
///
/// Anything longer is refused before it is parsed.
pub const MAX_KEY_DER: usize = 4096;

/// Bytes of a key's PEM at most, with text around it.
const MAX_KEY_PEM: usize = 4 * MAX_KEY_DER;

const PUBLIC_LABEL: &str = "PUBLIC KEY";
const PRIVATE_LABEL: &str = "PRIVATE KEY";

/// A public key of any algorithm. Clones share one buffer.
///
/// As bytes (`AsRef<[u8]>`) it is its canonical `SubjectPublicKeyInfo` in DER, without algorithm parameters.
#[derive(Clone)]
pub struct PublicKey {
    algorithm: ObjectIdentifier,
    /// The canonical DER, which ends with the key's own bytes.
    der: Bytes,
    /// Bytes of the key itself.
    len: usize,
}

impl PublicKey {
    /// The key with these bytes, as its algorithm writes them.
    ///
    /// # Errors
    /// [`KeyError::TooLong`] if its DER would exceed [`MAX_KEY_DER`]. Whether the bytes are a key is seen when
    /// a [`Registry`](super::Registry) loads it.
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

    /// Reads a `SubjectPublicKeyInfo`. Parameters are dropped; see the [module](super) for what that means.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let (algorithm, key) = der::read_spki(der)?;
        Self::new(algorithm, &key)
    }

    /// Reads a PEM block labelled `PUBLIC KEY`.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Self::from_der(&read_pem(text, PUBLIC_LABEL)?)
    }

    /// Writes a PEM block labelled `PUBLIC KEY`.
    pub fn to_pem(&self) -> String {
        std::mem::take(&mut *write_pem(PUBLIC_LABEL, &self.der))
    }

    /// The algorithm that the key is for.
    pub fn algorithm(&self) -> ObjectIdentifier {
        self.algorithm
    }

    /// The key as its algorithm writes it: 32 bytes for Ed25519.
    pub fn key_bytes(&self) -> &[u8] {
        let start = self.der.len().saturating_sub(self.len);
        self.der.get(start..).unwrap_or_default()
    }

    /// The canonical `SubjectPublicKeyInfo` in DER.
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

/// A private key of any algorithm. Its secret is wiped when it is dropped, and not shown by `Debug`.
#[derive(Clone)]
pub struct PrivateKey {
    algorithm: ObjectIdentifier,
    secret: Zeroizing<Vec<u8>>,
}

impl PrivateKey {
    /// The key with this secret, as its algorithm writes it.
    pub fn new(algorithm: ObjectIdentifier, secret: &[u8]) -> Self {
        Self {
            algorithm,
            secret: Zeroizing::new(secret.to_vec()),
        }
    }

    /// The Ed25519 key of this seed, which must come from a good source of randomness.
    pub fn ed25519(seed: &[u8; 32]) -> Self {
        Self::new(Ed25519::OID, seed)
    }

    /// Reads PKCS#8, or the shape of a `SubjectPublicKeyInfo` with the secret in its bit string.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let (algorithm, secret) = der::read_private(der)?;
        Ok(Self { algorithm, secret })
    }

    /// Reads a PEM block labelled `PRIVATE KEY`, with either of the encodings that
    /// [`from_der`](Self::from_der) reads.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Self::from_der(&read_pem(text, PRIVATE_LABEL)?)
    }

    /// Writes a PEM block labelled `PRIVATE KEY` with PKCS#8 in it.
    pub fn to_pem(&self) -> Zeroizing<String> {
        write_pem(PRIVATE_LABEL, &self.to_pkcs8())
    }

    /// Writes PKCS#8, version 1, in DER.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        der::write_pkcs8(self.algorithm, &self.secret)
    }

    /// Writes the shape of a `SubjectPublicKeyInfo` with the secret in its bit string, which is how the Go
    /// library stores private keys.
    pub fn to_bit_string(&self) -> Zeroizing<Vec<u8>> {
        der::write_spki(self.algorithm, &self.secret)
    }

    /// The algorithm that the key is for.
    pub fn algorithm(&self) -> ObjectIdentifier {
        self.algorithm
    }

    /// The secret as its algorithm writes it: the 32 bytes of the seed for Ed25519.
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
            reason: format!("it has no line -----BEGIN {expected}-----").into(),
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
        pem::encode_string(label, LineEnding::LF, der).expect(
            "the label is a constant without forbidden characters, and a key's length fits any count",
        ),
    )
}
