//! Keys: parsing, encoding, loading and hashing equal the recorded results, and any bytes give at worst an
//! error.

use p2p::PeerId;
use p2p_formats::x509::{
    Algorithm, Ed25519, KeyError, MAX_KEY_DER, ObjectIdentifier, PrivateKey, PublicKey, Registry, Signer,
    Verifier, sha3_256, shake256,
};
use proptest::prelude::*;
use serde_json::Value;

fn vectors(name: &str) -> Value {
    let text = std::fs::read_to_string(format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR")));
    serde_json::from_str(&text.expect("the vectors are there")).expect("and are JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn bytes(value: &Value) -> Vec<u8> {
    let hex = text(value);
    (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex"))
        .collect()
}

fn id(value: &Value) -> PeerId {
    PeerId::new(bytes(value).try_into().expect("32 bytes"))
}

fn cases<'a>(vectors: &'a Value, name: &str) -> &'a [Value] {
    let cases = vectors[name].as_array().expect("cases");
    assert!(!cases.is_empty(), "{name}");
    cases
}

#[test]
fn ed25519_keys_and_signatures_equal_the_recorded_ones() {
    let registry = Registry::default();
    for case in cases(&vectors("x509_keys.json"), "ed25519") {
        let seed: [u8; 32] = bytes(&case["seed"]).try_into().expect("32 bytes");
        let private = PrivateKey::ed25519(&seed);
        assert_eq!(*private.to_bit_string(), bytes(&case["private_der"]));
        let signer = registry.signer(&private).expect("a good key");
        let public = signer.public_key().clone();
        assert_eq!(public.as_der(), bytes(&case["public_der"]));
        assert_eq!(public.key_bytes(), bytes(&case["public_key"]));
        assert_eq!(public.algorithm().to_string(), text(&case["algorithm_oid"]));
        assert_eq!(PublicKey::from_der(public.as_der()), Ok(public.clone()));

        let message = bytes(&case["sign_message"]);
        let signature = signer.sign(&message);
        assert_eq!(signature, bytes(&case["ed25519_signature"]));
        let verifier = registry.verifier(&public).expect("a good key");
        assert_eq!(verifier.verify(&message, &signature), Ok(()));
        for bit in 0..8 * signature.len() {
            let mut mangled = signature.clone();
            mangled[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verifier.verify(&message, &mangled), Err(KeyError::BadSignature));
        }
        assert_eq!(
            verifier.verify(&message, &signature[..63]),
            Err(KeyError::BadSignature)
        );
        assert_eq!(
            verifier.verify(b"another", &signature),
            Err(KeyError::BadSignature)
        );
    }
}

#[test]
fn public_keys_parse_load_and_hash_as_recorded() {
    let vectors = vectors("x509_keys.json");
    let registry = Registry::default();
    for name in ["public_parse_cases", "foreign_public_keys"] {
        for case in cases(&vectors, name) {
            let name = text(&case["name"]);
            let parsed = PublicKey::from_der(&bytes(&case["input"]));
            assert_eq!(parsed.is_ok(), case["parses"] == true, "{name}: {parsed:?}");
            let Ok(key) = parsed else { continue };
            assert_eq!(
                key.algorithm().to_string(),
                text(&case["algorithm_oid"]),
                "{name}"
            );
            assert_eq!(key.key_bytes(), bytes(&case["key_data"]), "{name}");
            assert_eq!(key.as_der(), bytes(&case["remarshalled"]), "{name}");
            assert_eq!(shake256(&key), id(&case["p2pke_shake256_id"]), "{name}");
            assert_eq!(sha3_256(&key), id(&case["quic_sha3_256_id"]), "{name}");
            let loaded = registry.verifier(&key);
            assert_eq!(
                loaded.is_ok(),
                case["load_verifier_ok"] == true,
                "{name}: {loaded:?}"
            );
        }
    }
}

#[test]
fn private_keys_parse_and_load_as_recorded_and_as_pkcs8() {
    for case in cases(&vectors("x509_keys.json"), "private_parse_cases") {
        let name = text(&case["name"]);
        let parsed = PrivateKey::from_der(&bytes(&case["input"]));
        if name.starts_with("PKCS#8") {
            // The Go library does not accept the standard form; this one does.
            let key = parsed.expect("PKCS#8");
            assert_eq!(*key.to_pkcs8(), bytes(&case["input"]));
            assert!(Registry::default().signer(&key).is_ok());
            continue;
        }
        assert_eq!(parsed.is_ok(), case["parses"] == true, "{name}");
        let Ok(key) = parsed else { continue };
        assert_eq!(key.secret(), bytes(&case["key_data"]), "{name}");
        assert_eq!(*key.to_bit_string(), bytes(&case["input"]), "{name}");
        let loaded = Registry::default().signer(&key);
        assert_eq!(
            loaded.is_ok(),
            case["load_signer_ok"] == true,
            "{name}: {loaded:?}"
        );
    }
}

#[test]
fn fingerprints_equal_the_recorded_ones() {
    for case in cases(&vectors("peer_id.json"), "fingerprint") {
        let key = PublicKey::from_der(&bytes(&case["spki_der"])).expect("a key");
        assert_eq!(
            key,
            PublicKey::new(Ed25519::OID, &bytes(&case["public_key"])).expect("short")
        );
        assert_eq!(shake256(&key).to_string(), text(&case["p2pke_shake256_text"]));
        assert_eq!(sha3_256(&key).to_string(), text(&case["quic_sha3_256_text"]));
    }
}

#[test]
fn pem_round_trips_in_the_form_of_openssl() {
    // RFC 8410, section 10.3.
    let private = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";
    let with_public = "-----BEGIN PRIVATE KEY-----\n\
        MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB\n\
        Z9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PRIVATE KEY-----\n";
    let public = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";
    for text in [private, with_public] {
        let key = PrivateKey::from_pem(text).expect("a key");
        assert_eq!(*key.to_pem(), private);
        let signer = Registry::default().signer(&key).expect("a good key");
        assert_eq!(signer.public_key().to_pem(), public);
    }
    assert!(PublicKey::from_pem(public).is_ok());
    assert_eq!(
        PublicKey::from_pem(private),
        Err(KeyError::PemLabel {
            found: "PRIVATE KEY".into(),
            expected: "PUBLIC KEY"
        })
    );
    assert!(matches!(PublicKey::from_pem("no key"), Err(KeyError::Pem { .. })));
}

#[test]
fn secrets_are_not_shown() {
    let key = PrivateKey::ed25519(&[0xab; 32]);
    let signer = Registry::default().signer(&key).expect("a good key");
    for shown in [format!("{key:?}"), format!("{signer:?}")] {
        assert!(!shown.to_lowercase().contains("abab"), "{shown}");
        assert!(!shown.contains("171"), "{shown}");
    }
}

/// An algorithm that fails the test when it is used.
#[derive(Debug)]
struct Untouchable;

impl Algorithm for Untouchable {
    fn oid(&self) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1")
    }
    fn public_key_len(&self) -> std::ops::RangeInclusive<usize> {
        256..=512
    }
    fn private_key_len(&self) -> std::ops::RangeInclusive<usize> {
        256..=512
    }
    fn verifier(&self, key: &PublicKey) -> Result<Box<dyn Verifier>, KeyError> {
        assert!(self.public_key_len().contains(&key.key_bytes().len()));
        Err(KeyError::Rejected(self.oid()))
    }
    fn signer(&self, key: &PrivateKey) -> Result<Box<dyn Signer>, KeyError> {
        assert!(self.private_key_len().contains(&key.secret().len()));
        Err(KeyError::Rejected(self.oid()))
    }
}

#[test]
fn a_huge_key_is_refused_before_any_algorithm_processes_it() {
    let oid = Untouchable.oid();
    let registry = Registry::default().with(Untouchable);
    assert_eq!(registry.algorithms().count(), 2);
    let huge = PublicKey::new(oid, &[1; 2048]).expect("it parses");
    assert!(matches!(
        registry.verifier(&huge),
        Err(KeyError::KeySize { len: 2048, .. })
    ));
    assert!(matches!(
        registry.signer(&PrivateKey::new(oid, &[1; 2048])),
        Err(KeyError::KeySize { len: 2048, .. })
    ));
    let fitting = PublicKey::new(oid, &[1; 300]).expect("short");
    assert!(matches!(registry.verifier(&fitting), Err(KeyError::Rejected(_))));

    assert!(matches!(
        PublicKey::new(oid, &[1; MAX_KEY_DER]),
        Err(KeyError::TooLong { .. })
    ));
    let der = vec![0x30; MAX_KEY_DER + 1];
    assert!(matches!(PublicKey::from_der(&der), Err(KeyError::TooLong { .. })));
    assert!(matches!(
        PrivateKey::from_der(&der),
        Err(KeyError::TooLong { .. })
    ));
    assert!(matches!(
        PublicKey::from_pem(&"x".repeat(1 << 20)),
        Err(KeyError::TooLong { .. })
    ));
}

#[test]
fn errors_give_the_offset_of_the_fault() {
    let good = PrivateKey::ed25519(&[7; 32]).to_pkcs8();
    for (at, byte, expected_at) in [
        (0, 0x31, 0),
        (5, 0x04, 5),
        (7, 0x03, 7),
        (12, 0x03, 12),
        (14, 0x03, 14),
    ] {
        let mut der = good.to_vec();
        der[at] = byte;
        match PrivateKey::from_der(&der) {
            Err(KeyError::Der { at, .. }) => assert_eq!(at, expected_at),
            other => panic!("{other:?}"),
        }
    }
    let error = p2p::Error::from(PublicKey::from_der(b"\x30\x00").expect_err("empty"));
    assert_eq!(
        error.to_string(),
        "invalid key: not a key in DER: at byte 2, expected an algorithm identifier"
    );
}

/// Generates a valid encoding with some bytes changed, or arbitrary bytes.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let valid = prop_oneof![
        any::<[u8; 32]>().prop_map(|seed| PrivateKey::ed25519(&seed).to_pkcs8().to_vec()),
        any::<[u8; 32]>().prop_map(|seed| PrivateKey::ed25519(&seed).to_bit_string().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..600).prop_map(|key| PrivateKey::new(
            Untouchable.oid(),
            &key
        )
        .to_pkcs8()
        .to_vec()),
    ];
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        (valid, changes, 0..8usize).prop_map(|(mut der, changes, cut)| {
            for (at, byte) in changes {
                let at = at.index(der.len());
                der[at] = byte;
            }
            der.truncate(der.len() - cut.min(der.len()));
            der
        }),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_a_key_or_an_error(der in mangled()) {
        let registry = Registry::default();
        if let Ok(key) = PublicKey::from_der(&der) {
            prop_assert_eq!(PublicKey::from_der(key.as_der()), Ok(key.clone()));
            prop_assert_eq!(PublicKey::from_pem(&key.to_pem()), Ok(key.clone()));
            if let Ok(verifier) = registry.verifier(&key) {
                prop_assert_eq!(verifier.verify(&der, &[0; 64]), Err(KeyError::BadSignature));
            }
        }
        if let Ok(key) = PrivateKey::from_der(&der) {
            for der in [key.to_pkcs8(), key.to_bit_string()] {
                if der.len() <= MAX_KEY_DER {
                    let again = PrivateKey::from_der(&der).expect("the encoding parses");
                    prop_assert_eq!(again.algorithm(), key.algorithm());
                    prop_assert_eq!(again.secret(), key.secret());
                }
            }
            let _ = registry.signer(&key);
        }
    }

    #[test]
    fn any_text_is_a_key_or_an_error(text in "(-----BEGIN (PUBLIC|PRIVATE) KEY-----\n)?.{0,80}(\n-----END (PUBLIC|PRIVATE) KEY-----)?") {
        let _ = PublicKey::from_pem(&text);
        let _ = PrivateKey::from_pem(&text);
    }

    #[test]
    fn any_signature_is_refused_without_a_panic(key in any::<[u8; 32]>(), message in any::<[u8; 8]>(),
                                                signature in proptest::collection::vec(any::<u8>(), 0..70)) {
        let key = PublicKey::new(Ed25519::OID, &key).expect("short");
        if let Ok(verifier) = Registry::default().verifier(&key) {
            prop_assert_eq!(verifier.verify(&message, &signature), Err(KeyError::BadSignature));
        }
    }
}
