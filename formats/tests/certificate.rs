//! Certificates: recorded ones parse, written ones parse again, and every modification is refused.

use p2p::PeerId;
use p2p_formats::x509::{
    CertificateError, KeyError, MAX_CERTIFICATE_DER, PrivateKey, Registry, certified_key, certify, sha3_256,
};
use proptest::prelude::*;
use serde_json::Value;

fn bytes(value: &Value) -> Vec<u8> {
    let hex = value.as_str().expect("a string");
    (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex"))
        .collect()
}

fn observed() -> Vec<Value> {
    let text = std::fs::read_to_string(format!("{}/tests/vectors/quic.json", env!("CARGO_MANIFEST_DIR")));
    let vectors: Value = serde_json::from_str(&text.expect("the vectors are there")).expect("and are JSON");
    let certificates = vectors["certificates"].as_array().expect("certificates").clone();
    assert!(!certificates.is_empty());
    certificates
}

fn ours(seed: u8) -> Vec<u8> {
    let signer = Registry::default().signer(&PrivateKey::ed25519(&[seed; 32]));
    certify(&*signer.expect("a good key"))
}

#[test]
fn recorded_certificates_give_their_keys() {
    for case in observed() {
        let key = certified_key(&bytes(&case["certificate_der"]), &Registry::default())
            .expect("a good certificate");
        assert_eq!(key.as_der(), bytes(&case["spki_der"]));
        let id: [u8; 32] = bytes(&case["quic_sha3_256_id"]).try_into().expect("32 bytes");
        assert_eq!(sha3_256(&key), PeerId::new(id));
    }
}

#[test]
fn certificates_are_deterministic_and_parse_again() {
    let signer = Registry::default()
        .signer(&PrivateKey::ed25519(&[0; 32]))
        .expect("a good key");
    let certificate = certify(&*signer);
    assert_eq!(certificate, certify(&*signer));
    assert_eq!(
        certified_key(&certificate, &Registry::default()).as_ref(),
        Ok(signer.public_key())
    );
    let hex: Vec<String> = certificate.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex.concat(), include_str!("vectors/certificate_seed0.hex").trim());
}

#[test]
fn every_flipped_bit_is_refused() {
    for certificate in [ours(7), bytes(&observed()[0]["certificate_der"])] {
        for bit in 0..8 * certificate.len() {
            let mut mangled = certificate.clone();
            mangled[bit / 8] ^= 1 << (bit % 8);
            certified_key(&mangled, &Registry::default()).expect_err("a changed bit");
        }
    }
}

#[test]
fn a_certificate_signed_by_another_key_is_refused() {
    // All lengths are equal, so that one signature fits into the other certificate.
    let (mut mine, theirs) = (ours(1), ours(2));
    let signature = mine.len() - 64;
    mine[signature..].copy_from_slice(&theirs[signature..]);
    let refused = certified_key(&mine, &Registry::default());
    assert_eq!(refused, Err(CertificateError::Key(KeyError::BadSignature)));
}

#[test]
fn an_algorithm_that_is_not_registered_is_refused_by_name() {
    let refused = certified_key(&ours(1), &Registry::empty());
    assert!(
        matches!(refused, Err(CertificateError::Key(KeyError::UnknownAlgorithm(_)))),
        "{refused:?}"
    );
}

#[test]
fn trailing_bytes_and_excessive_lengths_are_refused() {
    let mut certificate = ours(1);
    certificate.push(0);
    let at = certificate.len() - 1;
    let expected = "the end";
    assert_eq!(
        certified_key(&certificate, &Registry::default()),
        Err(CertificateError::Der { at, expected })
    );
    certificate.resize(MAX_CERTIFICATE_DER + 1, 0);
    assert!(matches!(
        certified_key(&certificate, &Registry::default()),
        Err(CertificateError::TooLong { .. })
    ));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = certified_key(&bytes, &Registry::default());
    }

    #[test]
    fn truncated_and_overwritten_certificates_never_panic(
        at in 0..200usize, with in proptest::collection::vec(any::<u8>(), 0..8), keep in 0..300usize,
    ) {
        let mut certificate = ours(3);
        for (byte, new) in certificate.iter_mut().skip(at).zip(with) {
            *byte = new;
        }
        certificate.truncate(keep);
        let _ = certified_key(&certificate, &Registry::default());
    }
}
