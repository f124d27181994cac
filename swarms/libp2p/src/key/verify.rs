//! Verification of signatures, by the type of the key.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256K1_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P521_SHA256_ASN1,
    ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};

use super::{KeyError, KeyType};

/// Object identifiers in DER that name the curve of an ECDSA key.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];

/// Maximum length of a signature in bytes: that of an RSA key of 8192 bits.
const MAX_SIGNATURE: usize = 1024;
/// Bytes of a `SubjectPublicKeyInfo` in which the curve is named.
const CURVE_WITHIN: usize = 40;

pub(super) fn verify(
    key_type: KeyType,
    data: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), KeyError> {
    let algorithm: &'static dyn VerificationAlgorithm = match key_type {
        KeyType::Ed25519 => &ED25519,
        KeyType::Secp256k1 => &ECDSA_P256K1_SHA256_ASN1,
        KeyType::Rsa => &RSA_PKCS1_2048_8192_SHA256,
        KeyType::Ecdsa => match curve(data) {
            Some(curve) => curve,
            None => return Err(KeyError::BadSignature),
        },
    };
    if signature.len() > MAX_SIGNATURE {
        return Err(KeyError::BadSignature);
    }
    UnparsedPublicKey::new(algorithm, data)
        .verify(message, signature)
        .map_err(|_| KeyError::BadSignature)
}

/// Returns the algorithm of the curve that a key names. The algorithm parses the key again, and refuses any
/// other curve than its own.
fn curve(spki: &[u8]) -> Option<&'static dyn VerificationAlgorithm> {
    let head = spki.get(..CURVE_WITHIN).unwrap_or(spki);
    let names = |oid: &[u8]| head.windows(oid.len()).any(|window| window == oid);
    Some(if names(P256) {
        &ECDSA_P256_SHA256_ASN1
    } else if names(P384) {
        &ECDSA_P384_SHA256_ASN1
    } else if names(P521) {
        &ECDSA_P521_SHA256_ASN1
    } else {
        return None;
    })
}
