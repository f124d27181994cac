//! Certificates: the vectors of the specification, and the reject list.

use std::time::Duration;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use p2p_formats::x509::{
    CertificateExtension, CertificateFields, ObjectIdentifier, PrivateKey, write_certificate,
    write_octet_pair,
};
use p2p_libp2p::key::KeyError;
use p2p_libp2p::tls::certificate::{CertificateError, EXTENSION, SIGNATURE_PREFIX, generate, verify};
use p2p_libp2p::{Keypair, PublicKey};
use proptest::prelude::*;
use rustls::crypto::aws_lc_rs::default_provider;

use crate::identities::{hex, vectors};

/// 1 January 2026.
const NOW: Duration = Duration::from_hours(490_896);
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const UNKNOWN: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.53594.9");

fn keypair() -> Keypair {
    Keypair::new(&PrivateKey::ed25519(&[1; 32])).expect("an Ed25519 key")
}

fn check(certificate: &[u8]) -> Result<PublicKey, CertificateError> {
    verify(
        certificate,
        NOW,
        &default_provider().signature_verification_algorithms,
    )
}

/// A key for certificates, and the value of the extension that binds it to the identity.
pub(crate) struct Material {
    pub(crate) key: EcdsaKeyPair,
    spki: Vec<u8>,
    value: Vec<u8>,
}

impl Material {
    pub(crate) fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("randomness");
        let spki: PublicKeyX509Der<'_> = key.public_key().as_der().expect("a key");
        let spki = spki.as_ref().to_vec();
        let signature = keypair().sign(&[SIGNATURE_PREFIX, &spki].concat());
        let value = write_octet_pair(keypair().public().encode(), &signature);
        Self { key, spki, value }
    }

    pub(crate) fn extension(&self) -> CertificateExtension<'_> {
        CertificateExtension {
            oid: EXTENSION,
            critical: false,
            value: &self.value,
        }
    }

    pub(crate) fn certificate(&self, extensions: &[CertificateExtension<'_>]) -> Vec<u8> {
        write_certificate(&self.spki, ECDSA_WITH_SHA256, [1; 16], extensions, |body| {
            let signature = self.key.sign(&SystemRandom::new(), body).expect("randomness");
            signature.as_ref().to_vec()
        })
    }
}

#[test]
fn certificates_of_the_specification_prove_their_peer_ids() {
    for vector in vectors()["certificates"].as_array().expect("a list") {
        let der = hex(vector["der"].as_str().expect("hexadecimal"));
        match vector["peer_id"].as_str() {
            Some(peer_id) => {
                let key = check(&der).expect("a valid certificate");
                assert_eq!(key.peer_id().to_string(), peer_id);
            }
            None => assert_eq!(
                check(&der),
                Err(CertificateError::Identity(KeyError::BadSignature))
            ),
        }
    }
}

#[test]
fn a_new_certificate_is_accepted_and_has_nothing_critical() {
    let (certificate, _) = generate(&keypair()).expect("randomness");
    assert_eq!(check(&certificate).as_ref(), Ok(keypair().public()));
    let fields = CertificateFields::parse(&certificate).expect("a valid certificate");
    assert!(fields.extensions.iter().all(|extension| !extension.critical));
    let (another, _) = generate(&keypair()).expect("randomness");
    assert_ne!(certificate, another, "each certificate has a key of its own");
}

#[test]
fn extensions_are_accepted_critical_or_not_and_unknown_ones_if_not_critical() {
    let material = Material::new();
    let ours = material.extension();
    let critical = CertificateExtension {
        critical: true,
        ..ours
    };
    let unknown = CertificateExtension {
        oid: UNKNOWN,
        critical: false,
        value: b"anything",
    };
    for extensions in [
        &[ours][..],
        &[critical],
        &[unknown, ours],
        &[ours, unknown, unknown],
    ] {
        assert_eq!(
            check(&material.certificate(extensions)).as_ref(),
            Ok(keypair().public())
        );
    }
}

#[test]
fn missing_repeated_and_unknown_critical_extensions_are_refused() {
    let material = Material::new();
    let ours = material.extension();
    let unknown = CertificateExtension {
        oid: UNKNOWN,
        critical: true,
        value: b"",
    };
    let refused = |extensions: &[_]| check(&material.certificate(extensions));
    assert_eq!(refused(&[]), Err(CertificateError::Extensions(0)));
    assert_eq!(refused(&[ours, ours]), Err(CertificateError::Extensions(2)));
    assert_eq!(
        refused(&[ours, unknown]),
        Err(CertificateError::Critical(UNKNOWN))
    );
}

#[test]
fn a_certificate_outside_its_validity_is_refused() {
    let (certificate, _) = generate(&keypair()).expect("randomness");
    let algorithms = default_provider().signature_verification_algorithms;
    let after_9999 = Duration::from_hours(70_389_528);
    assert_eq!(
        verify(&certificate, after_9999, &algorithms),
        Err(CertificateError::Expired)
    );
    let der = hex(vectors()["certificates"][0]["der"].as_str().expect("hexadecimal"));
    let in_4097 = Duration::from_hours(18_644_830);
    assert_eq!(verify(&der, in_4097, &algorithms), Err(CertificateError::Expired));
}

#[test]
fn a_certificate_that_another_key_signed_is_refused() {
    let (material, other) = (Material::new(), Material::new());
    let certificate = write_certificate(
        &material.spki,
        ECDSA_WITH_SHA256,
        [1; 16],
        &[material.extension()],
        |body| {
            let signature = other.key.sign(&SystemRandom::new(), body).expect("randomness");
            signature.as_ref().to_vec()
        },
    );
    assert_eq!(check(&certificate), Err(CertificateError::SelfSignature));
}

#[test]
fn an_identity_that_signed_another_key_is_refused() {
    let (material, other) = (Material::new(), Material::new());
    let certificate = material.certificate(&[other.extension()]);
    assert_eq!(
        check(&certificate),
        Err(CertificateError::Identity(KeyError::BadSignature))
    );
}

#[test]
fn an_algorithm_that_is_not_that_of_the_key_is_refused() {
    let material = Material::new();
    let ed25519 = ObjectIdentifier::new_unwrap("1.3.101.112");
    let certificate = write_certificate(
        &material.spki,
        ed25519,
        [1; 16],
        &[material.extension()],
        |body| {
            let signature = material.key.sign(&SystemRandom::new(), body).expect("randomness");
            signature.as_ref().to_vec()
        },
    );
    assert_eq!(check(&certificate), Err(CertificateError::SelfSignature));
}

#[test]
fn every_prefix_and_every_changed_byte_is_refused() {
    let (certificate, _) = generate(&keypair()).expect("randomness");
    for end in 0..certificate.len() {
        assert!(check(&certificate[..end]).is_err());
    }
    for at in 0..certificate.len() {
        let mut changed = certificate.to_vec();
        changed[at] ^= 0x55;
        assert!(check(&changed).is_err(), "byte {at}");
    }
    assert!(check(&vec![0x30; 10_000]).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        prop_assert!(check(&bytes).is_err());
    }
}
