//! The value of a tracker's cell: records that are encrypted together.
//!
//! The format is a version byte (1), a nonce of 12 bytes, the records encrypted with AES-256-GCM-SIV (RFC
//! 8452), which tolerates a repeated nonce, and a tag of 16 bytes. The associated data is `p2p tracker value`
//! and the version. The plaintext is each record as postcard's `&[u8]` with its length in front, then zeros
//! up to a multiple of 1 KiB.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use p2p_formats::record::MAX_RECORD;

use super::Secret;
use crate::{Error, Result};

/// Maximum number of records in a value.
pub const MAX_RECORDS: usize = 1024;

const VERSION: u8 = 1;
const TAG_LEN: usize = 16;
const HEAD_LEN: usize = 1 + NONCE_LEN;
/// The length of a value is padded to a multiple of this.
const STEP: usize = 1024;
const AAD: &[u8] = b"p2p tracker value\x01";

const WHAT: &str = "a tracker's value";

/// Encrypts records for the holders of this secret.
///
/// # Errors
/// Returns [`Error::Limit`] with more than [`MAX_RECORDS`], and [`Error::Invalid`] with an empty record.
pub fn seal_value(secret: &Secret, records: &[&[u8]]) -> Result<Vec<u8>> {
    if records.len() > MAX_RECORDS {
        let what = "announcements in the tracker";
        return Err(Error::Limit {
            what,
            limit: MAX_RECORDS,
        });
    }
    if records.iter().any(|record| record.is_empty()) {
        return Err(Error::invalid("record", "it is empty"));
    }
    let nonce: [u8; NONCE_LEN] = rand::random();
    let mut value = vec![VERSION];
    value.extend_from_slice(&nonce);
    for record in records {
        value = postcard::to_extend(record, value)
            .map_err(|error| Error::invalid("record", error.to_string()))?;
    }
    value.resize((value.len() + TAG_LEN).next_multiple_of(STEP) - TAG_LEN, 0);
    let (_, inside) = value.split_at_mut(HEAD_LEN);
    let tag =
        key(secret)?.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(AAD), inside);
    let tag = tag.map_err(|_| Error::invalid("value", "it cannot be encrypted"))?;
    value.extend_from_slice(tag.as_ref());
    Ok(value)
}

/// Decrypts a value with this secret. The empty value has no records.
///
/// # Errors
/// Returns [`Error::Garbled`] if it was not encrypted with this secret, has too many records, or other
/// contents.
pub fn open_value(secret: &Secret, value: &[u8]) -> Result<Vec<Vec<u8>>> {
    let garbled = |at, reason: &str| Error::garbled(WHAT, at, reason);
    match value.first() {
        None => return Ok(Vec::new()),
        Some(&VERSION) => {}
        Some(found) => {
            let reason = format!("its version is {found}, expected {VERSION}");
            return Err(Error::garbled(WHAT, 0, reason));
        }
    }
    let head = value.split_at_checked(HEAD_LEN);
    let (head, sealed) = head.ok_or_else(|| garbled(value.len(), "it is truncated"))?;
    let nonce = head.last_chunk().ok_or_else(|| garbled(1, "it is truncated"))?;
    let mut inside = sealed.to_vec();
    let opened =
        key(secret)?.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(AAD), &mut inside);
    let opened =
        opened.map_err(|_| garbled(HEAD_LEN, "it was not encrypted with this secret, or was changed"))?;
    let len = opened.len();
    let mut records = Vec::new();
    let mut rest: &[u8] = opened;
    loop {
        let at = HEAD_LEN + len - rest.len();
        // Only padding is left, or nothing.
        if rest.first().is_none_or(|byte| *byte == 0) {
            return match rest.iter().position(|byte| *byte != 0) {
                None => Ok(records),
                Some(found) => Err(garbled(at + found, "there is data behind the last record")),
            };
        }
        let (record, behind): (&[u8], _) = postcard::take_from_bytes(rest)
            .map_err(|error| Error::garbled(WHAT, at, format!("expected a record: {error}")))?;
        if record.len() > MAX_RECORD || records.len() == MAX_RECORDS {
            return Err(garbled(at, "there are more or longer records than permitted"));
        }
        records.push(record.to_vec());
        rest = behind;
    }
}

fn key(secret: &Secret) -> Result<LessSafeKey> {
    let key = UnboundKey::new(&AES_256_GCM_SIV, &*secret.sealing_key());
    let key = key.map_err(|_| Error::invalid("secret", "no key can be derived from it"))?;
    Ok(LessSafeKey::new(key))
}
