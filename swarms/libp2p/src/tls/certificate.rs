//! Certificates with the libp2p public key extension.

use std::time::Duration;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use p2p::{Error, Result};
use p2p_formats::x509::{
    CertificateExtension, CertificateFields, ObjectIdentifier, read_octet_pair, write_certificate,
    write_octet_pair,
};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::key::{KeyError, Keypair, PublicKey};

/// The identifier of the extension.
pub const EXTENSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.53594.1.1");
/// The prefix of the bytes that the identity signs; the certificate's `SubjectPublicKeyInfo` follows.
pub const SIGNATURE_PREFIX: &[u8] = b"libp2p-tls-handshake:";

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// The reason for refusing a peer's certificate. No state changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The number of certificates is not one.
    #[error("a peer sends one certificate, not {0}")]
    Count(usize),
    /// The bytes are not a certificate.
    #[error("{0}")]
    Encoding(#[from] p2p_formats::x509::CertificateError),
    /// The validity period does not include the current time.
    #[error("the certificate is not valid at this time")]
    Expired,
    /// The certificate's own key did not sign it, or the algorithm is not supported.
    #[error("the certificate is not signed by its own key with a supported algorithm")]
    SelfSignature,
    /// The libp2p extension is missing or occurs more than once.
    #[error("the certificate has {0} libp2p extensions, not one")]
    Extensions(usize),
    /// An extension that is marked critical is unknown.
    #[error("the certificate has the unknown critical extension {0}")]
    Critical(ObjectIdentifier),
    /// The identity in the extension is invalid, or did not sign the certificate's key.
    #[error("the identity in the certificate: {0}")]
    Identity(#[from] KeyError),
}

/// Makes a certificate with a new ECDSA P-256 key for the identity `keypair`. Returns it with its private key.
///
/// # Errors
/// [`Error::Invalid`] if the system gives no randomness.
pub fn generate(keypair: &Keypair) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
    let failed = |_| Error::invalid("certificate", "the system gives no randomness for its key");
    let rng = SystemRandom::new();
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
    let pkcs8 = key.to_pkcs8v1().map_err(failed)?;
    let spki: PublicKeyX509Der<'_> = key.public_key().as_der().map_err(failed)?;
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(failed)?;

    let signature = keypair.sign(&signed_bytes(spki.as_ref()));
    let value = write_octet_pair(keypair.public().encode(), &signature);
    let extension = CertificateExtension {
        oid: EXTENSION,
        critical: false,
        value: &value,
    };
    let mut unsigned = None;
    let certificate =
        write_certificate(
            spki.as_ref(),
            ECDSA_WITH_SHA256,
            serial,
            &[extension],
            |body| match key.sign(&rng, body) {
                Ok(signature) => signature.as_ref().to_vec(),
                Err(error) => {
                    unsigned = Some(error);
                    Vec::new()
                }
            },
        );
    match unsigned {
        Some(error) => Err(failed(error)),
        None => Ok((
            CertificateDer::from(certificate),
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec())),
        )),
    }
}

/// Returns the identity of a certificate after checking everything that the specification requires: one
/// libp2p extension, no unknown critical one, the validity period at `now` (since the Unix epoch), the
/// self-signature with one of `algorithms`, and the signature of the identity.
///
/// # Errors
/// Any [`CertificateError`] but [`CertificateError::Count`].
pub fn verify(
    certificate: &[u8],
    now: Duration,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<PublicKey, CertificateError> {
    let fields = CertificateFields::parse(certificate)?;
    let extension = extension(&fields)?;
    if !fields.is_valid_at(now) {
        return Err(CertificateError::Expired);
    }
    let (key, signature) = read_octet_pair(extension.value)?;
    let key = PublicKey::decode(key)?;
    let verifies = algorithms.all.iter().any(|algorithm| {
        algorithm.signature_alg_id().as_ref() == fields.algorithm
            && algorithm.public_key_alg_id().as_ref() == fields.key_algorithm
            && algorithm
                .verify_signature(&fields.key_bits, fields.signed, &fields.signature)
                .is_ok()
    });
    if !verifies {
        return Err(CertificateError::SelfSignature);
    }
    key.verify(&signed_bytes(fields.key), signature)?;
    Ok(key)
}

/// Returns the identity that a certificate names, without verifying it.
pub(super) fn host_key(certificate: &[u8]) -> Result<PublicKey, CertificateError> {
    let fields = CertificateFields::parse(certificate)?;
    let (key, _) = read_octet_pair(extension(&fields)?.value)?;
    Ok(PublicKey::decode(key)?)
}

fn extension<'a>(fields: &CertificateFields<'a>) -> Result<CertificateExtension<'a>, CertificateError> {
    let (ours, others): (Vec<&CertificateExtension<'a>>, Vec<_>) = fields
        .extensions
        .iter()
        .partition(|extension| extension.oid == EXTENSION);
    if let Some(unknown) = others.iter().find(|extension| extension.critical) {
        return Err(CertificateError::Critical(unknown.oid));
    }
    match *ours {
        [extension] => Ok(*extension),
        _ => Err(CertificateError::Extensions(ours.len())),
    }
}

fn signed_bytes(spki: &[u8]) -> Vec<u8> {
    [SIGNATURE_PREFIX, spki].concat()
}
