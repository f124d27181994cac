//! Ed25519 (RFC 8032, RFC 8410).

use super::ObjectIdentifier;

#[cfg(feature = "ciphers")]
mod signatures;

/// The algorithm Ed25519, pure, without context.
#[derive(Clone, Copy, Debug)]
pub struct Ed25519;

impl Ed25519 {
    /// The object identifier of the algorithm.
    pub const OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
}
