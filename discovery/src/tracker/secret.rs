//! The shared secret of a tracker, and its derived values: the encryption key, the cell's id, and the write
//! token.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as TEXT;
use zeroize::Zeroizing;

use crate::{Error, Result};

/// A secret of 32 bytes that all members of a tracker share.
///
/// Its text is 43 characters of URL-safe base64 (RFC 4648, section 5). It is wiped on drop, and `Debug` does
/// not show it. Values are derived from it by HKDF with SHA-256 (RFC 5869), with a label for each use.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// Creates the secret with these bytes, which must come from a good source of randomness.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Creates a random secret.
    pub fn random() -> Self {
        Self::new(rand::random())
    }

    /// Returns the id of the cell.
    pub fn cell_id(&self) -> CellId {
        self.write_token().cell_id()
    }

    /// Returns the token for reading and writing the cell at a server.
    pub fn write_token(&self) -> WriteToken {
        WriteToken(self.derive(b"p2p tracker 1 write"))
    }

    /// Returns the key that values are encrypted with.
    pub(super) fn sealing_key(&self) -> Zeroizing<[u8; 32]> {
        self.derive(b"p2p tracker 1 seal")
    }

    fn derive(&self, label: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        let secret = Salt::new(HKDF_SHA256, b"").extract(&*self.0);
        // An output of the hash's length is never too long.
        let filled = secret
            .expand(&[label], HKDF_SHA256)
            .and_then(|output| output.fill(&mut *key));
        debug_assert!(filled.is_ok());
        key
    }

    /// Returns the secret as text, for a token that its holder may see.
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

/// The id of a cell at a server: the hash of its write token.
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

/// The token that a client shows to a server: it gives access to one cell, and reveals nothing about its
/// contents.
#[derive(Clone)]
pub struct WriteToken(Zeroizing<[u8; 32]>);

impl WriteToken {
    /// Returns the id of its cell.
    pub fn cell_id(&self) -> CellId {
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, &*self.0).as_ref());
        CellId(id)
    }

    /// Returns the token as text.
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

/// Parses 32 bytes in their canonical text form; the error does not repeat the text, which may be secret.
fn read(what: &'static str, text: &str) -> Result<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    let reason = match TEXT.decode_slice(text, &mut *bytes) {
        Ok(32) => return Ok(bytes),
        Ok(len) => format!("it has {len} bytes, expected 32"),
        Err(base64::DecodeSliceError::OutputSliceTooSmall) => {
            format!("it has {} characters, expected 43", text.len())
        }
        Err(base64::DecodeSliceError::DecodeError(error)) => {
            format!("expected 43 letters, digits, '-' and '_': {error}")
        }
    };
    Err(Error::invalid(what, reason))
}
