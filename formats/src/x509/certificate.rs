//! Self-signed certificates: a public key in the envelope that TLS requires.
//!
//! [`certify`] writes a certificate; [`certified_key`] reads one and verifies that its own key signed it.
//!
//! Deliberately absent: chains, names, extensions, revocation, and validity periods. The identity of a peer
//! is the hash of its key, so a certificate adds nothing: a written one never expires and is deterministic,
//! and all other contents of a read one are ignored once its signature is verified.

use ::der::{Tag, TagNumber};

use super::der::Elements;
use super::{KeyError, PublicKey, Registry, Signer, sha3_256, write_certificate};

/// Maximum length in bytes of a certificate to read.
pub const MAX_CERTIFICATE_DER: usize = 8192;

/// The reason for refusing a certificate. No state changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The certificate exceeds the maximum length.
    #[error("a certificate of {len} bytes exceeds the limit of {max} bytes")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The maximum length in bytes.
        max: usize,
    },
    /// The bytes are not the DER of a certificate.
    #[error("not a certificate in DER: at byte {at}, expected {expected}")]
    Der {
        /// Offset of the first invalid byte in the certificate.
        at: usize,
        /// The syntax that was expected there.
        expected: &'static str,
    },
    /// The algorithm of its key is not registered, or the key did not sign the certificate.
    #[error("the certificate's key: {0}")]
    Key(#[source] KeyError),
}

/// Creates a certificate of `signer`'s key, signed by that key, in DER.
///
/// It has X.509 version 3, no names and no extensions, and does not expire (RFC 5280, 4.1.2.5). The signature
/// algorithm has the identifier of the key, as RFC 8410 specifies for Ed25519.
pub fn certify(signer: &dyn Signer) -> Vec<u8> {
    let key = signer.public_key();
    // The key's hash makes the serial number as unique as the key.
    let id = sha3_256(key);
    let serial = *id.as_bytes().first_chunk::<16>().unwrap_or(&[0; 16]);
    write_certificate(key.as_der(), key.algorithm(), serial, &[], |body| {
        signer.sign(body)
    })
}

/// Refuses a certificate that exceeds the maximum length.
pub(super) fn check_len(certificate: &[u8]) -> Result<(), CertificateError> {
    let (len, max) = (certificate.len(), MAX_CERTIFICATE_DER);
    if len > max {
        return Err(CertificateError::TooLong { len, max });
    }
    Ok(())
}

/// Returns the key of `certificate` after verifying that this key signed the certificate.
///
/// Lengths, structure and the algorithm are checked before any public-key operation. The other contents of
/// the certificate are ignored, including its validity period.
///
/// # Errors
/// Any [`CertificateError`]; a certificate signed by another key is [`KeyError::BadSignature`].
pub fn certified_key(certificate: &[u8], registry: &Registry) -> Result<PublicKey, CertificateError> {
    check_len(certificate)?;
    let mut outer = Elements::new(certificate, 0, "a certificate").map_err(structure)?;
    let mut envelope = outer.enter(Tag::Sequence, "a certificate").map_err(structure)?;
    let signed = raw(&mut envelope)?;
    let mut signed_at = Elements::new(signed.bytes, signed.at, "the signed part").map_err(structure)?;
    let mut body = signed_at
        .enter(Tag::Sequence, "the signed part")
        .map_err(structure)?;
    let outer_algorithm = envelope.algorithm().map_err(structure)?;
    let signature = envelope.bit_string().map_err(structure)?;
    if !envelope.is_finished() || !outer.is_finished() {
        let at = if envelope.is_finished() {
            outer.at()
        } else {
            envelope.at()
        };
        return Err(CertificateError::Der {
            at,
            expected: "the end",
        });
    }

    let version = Tag::ContextSpecific {
        constructed: true,
        number: TagNumber(0),
    };
    if body.next_tag() == Some(version) {
        raw(&mut body)?;
    }
    body.expect(Tag::Integer, "a serial number").map_err(structure)?;
    let algorithm_at = body.at();
    if body.algorithm().map_err(structure)? != outer_algorithm {
        return Err(CertificateError::Der {
            at: algorithm_at,
            expected: "the same signature algorithm as in the envelope",
        });
    }
    for expected in ["an issuer", "a validity period", "a subject"] {
        body.expect(Tag::Sequence, expected).map_err(structure)?;
    }
    let key = raw(&mut body)?;
    let key = PublicKey::from_der(key.bytes).map_err(|error| match error {
        KeyError::Der { at, expected } => CertificateError::Der {
            at: at + key.at,
            expected,
        },
        other => CertificateError::Key(other),
    })?;
    registry
        .verifier(&key)
        .and_then(|verifier| verifier.verify(signed.bytes, &signature))
        .map_err(CertificateError::Key)?;
    Ok(key)
}

/// One element with its tag and length, and its offset.
struct Raw<'a> {
    bytes: &'a [u8],
    at: usize,
}

fn raw<'a>(elements: &mut Elements<'a>) -> Result<Raw<'a>, CertificateError> {
    let at = elements.at();
    elements.tlv().map(|bytes| Raw { bytes, at }).map_err(structure)
}

pub(super) fn structure(error: KeyError) -> CertificateError {
    match error {
        KeyError::Der { at, expected } => CertificateError::Der { at, expected },
        other => CertificateError::Key(other),
    }
}
