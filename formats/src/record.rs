//! Signed records: a payload, its signer's key, and a signature over both.
//!
//! The subject of the payload is not in the record: the signer and the reader use the same *context*, a text
//! such as `p2p discovery announcement 1`, and a record that is signed for one context is invalid in another.
//!
//! # Encoding
//! A version byte (1), the length of the key as a varint, the key as its canonical `SubjectPublicKeyInfo` in
//! DER, the length of the payload as a varint, the payload, and the signature, which takes the rest. Lengths
//! are in the shortest form, so a record has exactly one encoding. The signed bytes are `p2p signed record`
//! and a zero byte, followed by context, key and payload, each after its length as a varint.
//!
//! # Limits
//! [`MAX_PAYLOAD`] and [`MAX_RECORD`]; both are checked before anything else.
//!
//! # Security
//! Required of the caller: a different context for each purpose; a time or a number in the payload if an old
//! record must not be accepted as a new one. Provided: nothing of a record is returned before its signature
//! is verified. Not provided: secrecy, freshness.

use p2p::PeerId;

use crate::varint;
use crate::x509::{Fingerprint, KeyError, MAX_KEY_DER, PublicKey, Registry, Signer};

/// The first byte of a record.
pub const RECORD_VERSION: u8 = 1;
/// Maximum length of a payload in bytes.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// Maximum length of a signature in bytes: enough for ML-DSA-87.
const MAX_SIGNATURE: usize = 8 << 10;
/// Maximum length of a record in bytes.
pub const MAX_RECORD: usize = 1 + 2 * varint::MAX_LEN + MAX_KEY_DER + MAX_PAYLOAD + MAX_SIGNATURE;

const PREFIX: &[u8] = b"p2p signed record\0";

/// The reason for which a record is invalid, or cannot be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The record, or a part of it, exceeds its maximum length; nothing was parsed.
    #[error("{what} of {len} bytes exceeds the limit of {max} bytes")]
    TooLong {
        /// The part that is too long.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The maximum length in bytes.
        max: usize,
    },
    /// The version is unknown, or the bytes are not a record.
    #[error("the record has version {found}; only version {RECORD_VERSION} is supported")]
    Version {
        /// The first byte.
        found: u8,
    },
    /// The bytes are not a record.
    #[error("not a record: at byte {at}, expected {expected}")]
    Malformed {
        /// Offset of the first invalid byte in the record.
        at: usize,
        /// The syntax that was expected there.
        expected: &'static str,
    },
    /// The key is invalid, or its algorithm is not registered.
    #[error("the key at byte {at} of the record cannot be used")]
    Key {
        /// Offset of the key in the record.
        at: usize,
        /// The cause.
        source: KeyError,
    },
    /// The signature is not by this key over this payload in this context.
    #[error("the signature at byte {at} of the record is not valid")]
    BadSignature {
        /// Offset of the signature in the record.
        at: usize,
    },
}

/// A record with a verified signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRecord<'a> {
    key: PublicKey,
    payload: &'a [u8],
}

impl<'a> SignedRecord<'a> {
    /// Signs a payload in a context. Returns the encoded record.
    ///
    /// # Errors
    /// [`RecordError::TooLong`] for a payload of more than [`MAX_PAYLOAD`] bytes, or for a signature of
    /// excessive length.
    pub fn sign(signer: &dyn Signer, context: &str, payload: &[u8]) -> Result<Vec<u8>, RecordError> {
        check_len("a payload", payload.len(), MAX_PAYLOAD)?;
        let key = signer.public_key();
        let signature = signer.sign(&signed(context, key, payload));
        check_len("a signature", signature.len(), MAX_SIGNATURE)?;
        let mut record = vec![RECORD_VERSION];
        push_field(&mut record, key.as_der());
        push_field(&mut record, payload);
        record.extend_from_slice(&signature);
        Ok(record)
    }

    /// Parses a record that was signed in this context, and verifies its signature.
    ///
    /// # Errors
    /// Any [`RecordError`].
    pub fn open(record: &'a [u8], context: &str, registry: &Registry) -> Result<Self, RecordError> {
        check_len("a record", record.len(), MAX_RECORD)?;
        match record.first() {
            Some(&RECORD_VERSION) => {}
            Some(&found) => return Err(RecordError::Version { found }),
            None => return Err(malformed(0, "a version")),
        }
        let (der, key_end) = read_field(record, 1, MAX_KEY_DER, "a key")?;
        let (payload, at) = read_field(record, key_end, MAX_PAYLOAD, "a payload")?;
        let signature = record.get(at..).unwrap_or_default();
        if signature.is_empty() || signature.len() > MAX_SIGNATURE {
            return Err(malformed(at, "a signature"));
        }
        let key_at = key_end - der.len();
        let bad_key = |source| RecordError::Key { at: key_at, source };
        let key = PublicKey::from_der(der).map_err(bad_key)?;
        if key.as_der() != der {
            return Err(malformed(key_at, "a key in its canonical form"));
        }
        let verifier = registry.verifier(&key).map_err(bad_key)?;
        let valid = verifier.verify(&signed(context, &key, payload), signature);
        valid.map_err(|_| RecordError::BadSignature { at })?;
        Ok(Self { key, payload })
    }

    /// Returns the signer's key.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Returns the signer's id.
    pub fn signer(&self, fingerprint: Fingerprint) -> PeerId {
        fingerprint(&self.key)
    }

    /// Returns the signed payload.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

impl From<RecordError> for p2p::Error {
    fn from(error: RecordError) -> Self {
        p2p::Error::invalid("record", error.to_string())
    }
}

fn signed(context: &str, key: &PublicKey, payload: &[u8]) -> Vec<u8> {
    let mut message = PREFIX.to_vec();
    for field in [context.as_bytes(), key.as_der(), payload] {
        push_field(&mut message, field);
    }
    message
}

fn push_field(out: &mut Vec<u8>, field: &[u8]) {
    out.extend_from_slice(varint::write(field.len() as u64, &mut [0; varint::MAX_LEN]));
    out.extend_from_slice(field);
}

/// Reads a length-prefixed field at `at`. Returns the field and its end.
fn read_field<'a>(
    record: &'a [u8],
    at: usize,
    max: usize,
    what: &'static str,
) -> Result<(&'a [u8], usize), RecordError> {
    let rest = record.get(at..).unwrap_or_default();
    let (len, used) = varint::read(rest).map_err(|_| malformed(at, "a length"))?;
    if used != varint::len(len) {
        return Err(malformed(at, "a length in its shortest form"));
    }
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    check_len(what, len, max)?;
    let start = at + used;
    let field = record.get(start..start + len);
    let field = field.ok_or(malformed(
        record.len(),
        "more bytes, according to the length before",
    ))?;
    Ok((field, start + len))
}

fn malformed(at: usize, expected: &'static str) -> RecordError {
    RecordError::Malformed { at, expected }
}

fn check_len(what: &'static str, len: usize, max: usize) -> Result<(), RecordError> {
    if len <= max {
        Ok(())
    } else {
        Err(RecordError::TooLong { what, len, max })
    }
}
