//! Self-signed certificates: a public key in the envelope that TLS wants, and nothing more.
//!
//! [`certify`] writes one, [`certified_key`] reads one and checks that its own key signed it.
//!
//! Deliberately absent: chains, names, extensions, revocation, and validity periods. The peer's identity is the hash of
//! its key, so a certificate has nothing to add: what is written is valid for ever and the same each time, and whatever
//! else stands in a certificate that is read is read over, once the signature over it is good.

use ::der::{Tag, TagNumber};

use super::der::{BIT_STRING, Elements, INTEGER, SEQUENCE, element, write_algorithm};
use super::{KeyError, PublicKey, Registry, Signer, sha3_256};

/// Bytes of a certificate that are read at most.
pub const MAX_CERTIFICATE_DER: usize = 8192;

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT`: where the version stands.
const VERSION: u8 = 0xa0;

/// Why a certificate was not accepted. No state changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// It is longer than any certificate that is read.
    #[error("a certificate of {len} bytes is longer than the {max} bytes that are read")]
    TooLong {
        /// Bytes that were given.
        len: usize,
        /// Bytes that are read.
        max: usize,
    },
    /// The bytes are not the DER of a certificate.
    #[error("not a certificate in DER: at byte {at}, expected {expected}")]
    Der {
        /// Where in the certificate the encoding stops making sense.
        at: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// Its key is of no algorithm that is known here, or it did not sign the certificate.
    #[error("the certificate's key: {0}")]
    Key(#[source] KeyError),
}

/// A certificate of `signer`'s key, signed by it, in DER.
///
/// It has X.509 version 3, no names and no extensions, and does not expire (RFC 5280, 4.1.2.5). The signature algorithm
/// is named by the identifier of the key, as RFC 8410 has it for Ed25519.
pub fn certify(signer: &dyn Signer) -> Vec<u8> {
    let key = signer.public_key();
    let algorithm = write_algorithm(key.algorithm());
    // A serial number is positive and has at most 20 bytes; the key's hash makes it as unique as the key.
    let mut serial = [0; 16];
    let id = sha3_256(key);
    serial.copy_from_slice(id.as_bytes().first_chunk::<16>().unwrap_or(&[0; 16]));
    serial[0] = serial[0] & 0x7f | 0x40;
    let name = element(SEQUENCE, &[]);
    let not_before = element(UTC_TIME, &[b"700101000000Z"]);
    let not_after = element(GENERALIZED_TIME, &[b"99991231235959Z"]);
    let to_be_signed = element(
        SEQUENCE,
        &[
            &element(VERSION, &[&element(INTEGER, &[&[2]])]),
            &element(INTEGER, &[&serial]),
            &algorithm,
            &name,
            &element(SEQUENCE, &[&not_before, &not_after]),
            &name,
            key.as_der(),
        ],
    );
    let signature = element(BIT_STRING, &[&[0], &signer.sign(&to_be_signed)]);
    element(SEQUENCE, &[&to_be_signed, &algorithm, &signature]).to_vec()
}

/// The key that `certificate` is about, after checking that it signed the certificate itself.
///
/// Lengths, structure and the algorithm are checked before any arithmetic on keys. What the certificate says beyond its
/// key is not looked at, validity included.
///
/// # Errors
/// Any [`CertificateError`]; one signed by another key is [`KeyError::BadSignature`].
pub fn certified_key(certificate: &[u8], registry: &Registry) -> Result<PublicKey, CertificateError> {
    if certificate.len() > MAX_CERTIFICATE_DER {
        return Err(CertificateError::TooLong {
            len: certificate.len(),
            max: MAX_CERTIFICATE_DER,
        });
    }
    let mut outer = Elements::new(certificate, 0, "a certificate").map_err(structure)?;
    let mut envelope = outer.enter(Tag::Sequence, "a certificate").map_err(structure)?;
    let signed = raw(&mut envelope)?;
    let mut signed_at = Elements::new(signed.bytes, signed.at, "what is signed").map_err(structure)?;
    let mut body = signed_at
        .enter(Tag::Sequence, "what is signed")
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
            expected: "the signature algorithm that is named outside",
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

/// One element, its tag and length included, and where it stands.
struct Raw<'a> {
    bytes: &'a [u8],
    at: usize,
}

fn raw<'a>(elements: &mut Elements<'a>) -> Result<Raw<'a>, CertificateError> {
    let at = elements.at();
    elements.tlv().map(|bytes| Raw { bytes, at }).map_err(structure)
}

fn structure(error: KeyError) -> CertificateError {
    match error {
        KeyError::Der { at, expected } => CertificateError::Der { at, expected },
        other => CertificateError::Key(other),
    }
}
