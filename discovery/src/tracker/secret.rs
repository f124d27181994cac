//! What the members of a tracker share, and what follows from it: a key, the cell's id, the right to write there.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as TEXT;
use zeroize::Zeroizing;

use crate::{Error, Result};

/// 32 bytes that all members of a tracker know, and nobody else.
///
/// Its text is 43 characters of base64 for URLs (RFC 4648, section 5). It is wiped when it is dropped, and `Debug` does
/// not show it. What follows from it does so by HKDF with SHA-256 (RFC 5869), under a label for each use.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// The secret with these bytes, which must come from a good source of randomness.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A new secret, from the system's randomness.
    pub fn random() -> Self {
        Self::new(rand::random())
    }

    /// Where the cell is, among others.
    pub fn cell_id(&self) -> CellId {
        self.write_token().cell_id()
    }

    /// The right to read and write the cell at a server.
    pub fn write_token(&self) -> WriteToken {
        WriteToken(self.derive(b"p2p tracker 1 write"))
    }

    /// The key that values are sealed with.
    pub(super) fn sealing_key(&self) -> Zeroizing<[u8; 32]> {
        self.derive(b"p2p tracker 1 seal")
    }

    fn derive(&self, label: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        let secret = Salt::new(HKDF_SHA256, b"").extract(&*self.0);
        // No output of one hash's length is too long.
        let filled = secret
            .expand(&[label], HKDF_SHA256)
            .and_then(|output| output.fill(&mut *key));
        debug_assert!(filled.is_ok());
        key
    }

    /// The secret as text, for a token that its holder may see.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(TEXT.encode(*self.0))
    }
}

impl FromStr for Secret {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(Self(read("secret", text)?))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a cell is at a server: the hash of the token that its holders show there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellId([u8; 32]);

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&TEXT.encode(self.0))
    }
}

impl fmt::Debug for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CellId({self})")
    }
}

impl FromStr for CellId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(Self(*read("cell id", text)?))
    }
}

/// What a holder shows a server: it opens one cell, and tells nothing of what is in there.
#[derive(Clone)]
pub struct WriteToken(Zeroizing<[u8; 32]>);

impl WriteToken {
    /// The cell that it opens.
    pub fn cell_id(&self) -> CellId {
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, &*self.0).as_ref());
        CellId(id)
    }

    /// The token as text.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(TEXT.encode(*self.0))
    }
}

impl FromStr for WriteToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(Self(read("token", text)?))
    }
}

impl fmt::Debug for WriteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteToken(…)")
    }
}

/// 32 bytes in their one spelling; the error does not repeat what may be a secret.
fn read(what: &'static str, text: &str) -> Result<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    let reason = match TEXT.decode_slice(text, &mut *bytes) {
        Ok(32) => return Ok(bytes),
        Ok(len) => format!("it has {len} bytes, and 32 are expected"),
        Err(base64::DecodeSliceError::OutputSliceTooSmall) => {
            format!("it has {} characters, and 43 are expected", text.len())
        }
        Err(base64::DecodeSliceError::DecodeError(error)) => {
            format!("43 letters, digits, '-' and '_' are expected: {error}")
        }
    };
    Err(Error::invalid(what, reason))
}
