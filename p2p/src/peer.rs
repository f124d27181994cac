//! The identity of a node: 32 bytes, usually the hash of its public key.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet::Alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};

use crate::{Error, Result};

/// The identity of a node: 32 bytes.
///
/// Its text is 43 characters of base64 without padding, in an alphabet that is ordered as in ASCII, so that
/// texts sort as the bytes do. Parsing accepts only this spelling: trailing bits must be zero.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

const ALPHABET: &str = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";

const TEXT: GeneralPurpose = match Alphabet::new(ALPHABET) {
    Ok(alphabet) => GeneralPurpose::new(&alphabet, NO_PAD),
    Err(_) => panic!("64 distinct printable characters"),
};

/// Length of a [`PeerId`] in text form, in characters.
const TEXT_LEN: usize = 43;

impl PeerId {
    /// The id of zero bytes only. No node has it.
    pub const ZERO: PeerId = PeerId([0; 32]);

    /// Creates an id from its bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for PeerId {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for PeerId {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; TEXT_LEN];
        let len = TEXT.encode_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.pad(
            text.get(..len)
                .and_then(|text| std::str::from_utf8(text).ok())
                .ok_or(fmt::Error)?,
        )
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

impl FromStr for PeerId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        use base64::DecodeSliceError;
        if let Some((at, found)) = text.char_indices().find(|(_, found)| !ALPHABET.contains(*found)) {
            return Err(Error::addr(
                text,
                at,
                format!("{found:?} does not occur in a peer id"),
            ));
        }
        if text.len() != TEXT_LEN {
            let reason = format!(
                "a peer id has {TEXT_LEN} characters, this text has {}",
                text.len()
            );
            return Err(Error::addr(text, text.len().min(TEXT_LEN), reason));
        }
        let mut bytes = [0; 32];
        match TEXT.decode_slice(text, &mut bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(DecodeSliceError::DecodeError(_) | DecodeSliceError::OutputSliceTooSmall) => {
                Err(Error::addr(
                    text,
                    TEXT_LEN - 1,
                    "the last character has bits beyond the 256 of a peer id",
                ))
            }
        }
    }
}
