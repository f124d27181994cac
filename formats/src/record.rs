//! Signed records: a statement as bytes, with the key of whoever says it and the signature over both.
//!
//! What the statement is about is not in the record: writer and reader name the same *context*, a text such as
//! `p2p discovery announcement 1`, and a record that was signed for one context is not valid in another.
//!
//! # Encoding
//! A version byte (1), the length of the key as a varint, the key as its canonical `SubjectPublicKeyInfo` in DER, the
//! length of the payload as a varint, the payload, and the signature, which takes the rest. Lengths are in the shortest
//! form, so one record has one encoding. What is signed is `p2p signed record` and a zero byte; then context, key and
//! payload, each behind its length as a varint.
//!
//! # Security
//! Required of the caller: a context for each purpose; a time or a number in the payload where an old record must not
//! pass for a new one. Provided: nothing of a record is given out before its signature was checked; sizes are checked
//! before any of that. Not provided: secrecy, freshness.

use p2p::PeerId;

use crate::varint;
use crate::x509::{Fingerprint, KeyError, MAX_KEY_DER, PublicKey, Registry, Signer};

/// The first byte of a record.
pub const RECORD_VERSION: u8 = 1;
/// Bytes of a payload at most.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// Bytes of a signature at most: enough for ML-DSA-87.
const MAX_SIGNATURE: usize = 8 << 10;
/// Bytes of a record at most.
pub const MAX_RECORD: usize = 1 + 2 * varint::MAX_LEN + MAX_KEY_DER + MAX_PAYLOAD + MAX_SIGNATURE;

const PREFIX: &[u8] = b"p2p signed record\0";

/// Why bytes are no record that can be relied on, or why none was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It is longer than any record may be; nothing of it was looked at.
    #[error("{what} of {len} bytes is longer than the {max} bytes that are accepted")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Its bytes.
        len: usize,
        /// Bytes that are accepted.
        max: usize,
    },
    /// It is of another version, or no record at all.
    #[error("the record has version {found}, and {RECORD_VERSION} is understood")]
    Version {
        /// Its first byte.
        found: u8,
    },
    /// The bytes stop making sense.
    #[error("not a record: at byte {at}, expected {expected}")]
    Malformed {
        /// Where in the record.
        at: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// The key is none, or none that the registry knows.
    #[error("the key at byte {at} of the record cannot be used")]
    Key {
        /// Where in the record the key begins.
        at: usize,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The signature is not by this key over this payload in this context.
    #[error("the signature at byte {at} of the record is not valid")]
    BadSignature {
        /// Where in the record the signature begins.
        at: usize,
    },
}

/// A record whose signature was found to be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRecord<'a> {
    key: PublicKey,
    payload: &'a [u8],
}

impl<'a> SignedRecord<'a> {
    /// Signs a payload in a context, and writes the record.
    ///
    /// # Errors
    /// [`RecordError::TooLong`] with a payload of more than [`MAX_PAYLOAD`] bytes, or a signature longer than any is.
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

    /// Reads a record that was signed in this context, and checks its signature.
    ///
    /// # Errors
    /// Every [`RecordError`].
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

    /// Who signed it.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The id of whoever signed it.
    pub fn signer(&self, fingerprint: Fingerprint) -> PeerId {
        fingerprint(&self.key)
    }

    /// What was signed.
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

/// The field behind the length at `at`, and where it ends.
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
    let field = field.ok_or(malformed(record.len(), "more bytes, as the length before says"))?;
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
