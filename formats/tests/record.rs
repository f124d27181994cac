//! Signed records: each has one encoding and is valid in one context only, and all other bytes are a typed
//! error.

use std::fmt::Write as _;

use p2p_formats::record::{MAX_PAYLOAD, MAX_RECORD, RecordError, SignedRecord};
use p2p_formats::x509::{PrivateKey, Registry, Signer, shake256};
use proptest::prelude::*;

const CONTEXT: &str = "test 1";

fn signer(seed: u8) -> Box<dyn Signer> {
    let key = PrivateKey::ed25519(&[seed; 32]);
    Registry::default().signer(&key).expect("a good key")
}

fn record(payload: &[u8]) -> Vec<u8> {
    SignedRecord::sign(&*signer(1), CONTEXT, payload).expect("short")
}

fn open(record: &[u8]) -> Result<SignedRecord<'_>, RecordError> {
    SignedRecord::open(record, CONTEXT, &Registry::default())
}

#[test]
fn a_record_returns_its_payload_and_signer() {
    let bytes = record(b"hello");
    let opened = open(&bytes).expect("its own");
    assert_eq!(opened.payload(), b"hello");
    assert_eq!(opened.key(), signer(1).public_key());
    assert_eq!(opened.signer(shake256), shake256(signer(1).public_key()));
    assert!(open(&record(b"")).is_ok());
    assert!(open(&record(&vec![7; MAX_PAYLOAD])).is_ok());
}

#[test]
fn the_encoding_is_pinned() {
    let mut hex = String::new();
    for byte in record(b"hello") {
        write!(hex, "{byte:02x}").expect("a string");
    }
    let key = "302a300506032b65700321008a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
    let (head, signature) = hex.split_at(2 + 2 + key.len() + 2 + 10);
    assert_eq!(head, format!("012c{key}0568656c6c6f"));
    assert_eq!(signature, SIGNATURE);
}

/// Ed25519 is deterministic: the signature of the key with the seed 01…, over the prefix, the context, the
/// key and `hello`.
const SIGNATURE: &str = "7dcd8f3d3516e23e9bfb0f551b228a1d30769450eb60d45bd5bae8b313a70afd\
    3ce92efed784b7b1b30f2121d875823c5ef902f2a75db97e8c4dd28dda3dcb0e";

#[test]
fn a_record_of_one_context_is_not_valid_in_another() {
    let bytes = record(b"hello");
    let opened = SignedRecord::open(&bytes, "test 2", &Registry::default());
    assert_eq!(opened, Err(RecordError::BadSignature { at: bytes.len() - 64 }));
}

#[test]
fn every_flipped_bit_and_every_truncation_is_an_error() {
    let good = record(b"hello");
    for bit in 0..8 * good.len() {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&bytes).is_err(), "bit {bit}");
    }
    for len in 0..good.len() {
        assert!(open(&good[..len]).is_err(), "{len} bytes");
    }
    assert!(open(&[&good[..], &[0]].concat()).is_err());
}

#[test]
fn errors_name_the_fault_and_its_offset() {
    let good = record(b"hello");
    let error = |bytes: &[u8]| open(bytes).expect_err("bad").to_string();
    assert_eq!(error(b""), "not a record: at byte 0, expected a version");
    assert_eq!(
        error(&[9, 0]),
        "the record has version 9; only version 1 is supported"
    );
    assert_eq!(
        error(&good[..20]),
        "not a record: at byte 20, expected more bytes, according to the length before"
    );
    // The same length in two bytes.
    let mut overlong = good.clone();
    overlong[1] |= 0x80;
    overlong.insert(2, 0);
    assert_eq!(
        error(&overlong),
        "not a record: at byte 1, expected a length in its shortest form"
    );
    let mut other = good.clone();
    other[10] ^= 1;
    assert!(
        error(&other).starts_with("the key at byte 2 of the record"),
        "{}",
        error(&other)
    );
    assert_eq!(
        error(&[&[1, 0xff, 0xff, 0xff, 0x7f][..], &[0; 9]].concat()),
        "a key of 268435455 bytes exceeds the limit of 4096 bytes"
    );
    assert!(matches!(
        open(&vec![1; MAX_RECORD + 1]),
        Err(RecordError::TooLong { .. })
    ));
    let long = SignedRecord::sign(&*signer(1), CONTEXT, &vec![0; MAX_PAYLOAD + 1]);
    assert!(matches!(long, Err(RecordError::TooLong { .. })));
}

proptest! {
    #[test]
    fn any_bytes_are_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), real in any::<bool>()) {
        // Half of them get as far as the key.
        let bytes = if real { [&record(b"")[..46], &bytes].concat() } else { bytes };
        prop_assert!(open(&bytes).is_err());
    }

    #[test]
    fn any_payload_in_any_context_round_trips(payload in proptest::collection::vec(any::<u8>(), 0..300),
                                                      context in ".{0,200}", seed in any::<u8>()) {
        let signer = signer(seed);
        let bytes = SignedRecord::sign(&*signer, &context, &payload).expect("short");
        let opened = SignedRecord::open(&bytes, &context, &Registry::default()).expect("its own");
        prop_assert_eq!(opened.payload(), &payload);
        prop_assert_eq!(opened.key(), signer.public_key());
    }
}
