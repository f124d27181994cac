//! Any bytes are a key, a signed envelope, a peer record or a certificate, or a typed error, and nothing is accepted that
//! its key did not sign.
#![no_main]
#![forbid(unsafe_code)]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use p2p_formats::x509::PrivateKey;
use p2p_fuzz::damaged;
use p2p_libp2p::envelope::{Envelope, MAX_ADDRS, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, PeerRecord};
use p2p_libp2p::tls::certificate::{generate, verify};
use p2p_libp2p::{Keypair, PublicKey};
use rustls::crypto::aws_lc_rs::default_provider;

#[derive(Arbitrary, Debug)]
enum Input {
    Key(Vec<u8>),
    /// Any key over any message.
    Signature {
        key: Vec<u8>,
        message: Vec<u8>,
        signature: Vec<u8>,
    },
    Envelope(Vec<u8>),
    /// An envelope whose payload has a valid signature.
    Signed {
        payload: Vec<u8>,
        payload_type: Option<Vec<u8>>,
    },
    Certificate(Vec<u8>),
    /// A good record or certificate with bytes changed and inserted.
    Changed {
        is_record: bool,
        changes: Vec<(u16, u8)>,
        inserts: Vec<(u16, u8)>,
    },
}

static KEYPAIR: LazyLock<Keypair> =
    LazyLock::new(|| Keypair::new(&PrivateKey::ed25519(&[1; 32])).expect("an Ed25519 key"));
static RECORD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let addr = "/ip4/192.0.2.1/tcp/1".parse().expect("a multiaddr");
    PeerRecord::sign(&KEYPAIR, 7, &[addr])
});
static CERTIFICATE: LazyLock<Vec<u8>> =
    LazyLock::new(|| generate(&KEYPAIR).expect("randomness").0.as_ref().to_vec());

/// 1 January 2026.
const NOW: Duration = Duration::from_hours(490_896);

fn record(bytes: &[u8]) {
    if let Ok(record) = PeerRecord::open(bytes) {
        assert!(record.addrs.len() <= MAX_ADDRS);
        let envelope = Envelope::open(bytes, PEER_RECORD_DOMAIN).expect("a record is an envelope");
        assert_eq!(envelope.key.peer_id(), record.peer_id);
    }
}

fn certificate(bytes: &[u8]) {
    let algorithms = default_provider().signature_verification_algorithms;
    if let Ok(key) = verify(bytes, NOW, &algorithms) {
        assert_eq!(key, *KEYPAIR.public(), "no other key has signed");
        assert_eq!(bytes, *CERTIFICATE);
    }
}

fuzz_target!(|input: Input| match input {
    Input::Key(bytes) => {
        if let Ok(key) = PublicKey::decode(&bytes) {
            assert_eq!(key.encode(), bytes, "a key has one encoding");
            assert_eq!(PublicKey::new(key.key_type(), key.data()).as_ref(), Ok(&key));
            let _ = (key.peer_id(), format!("{key:?}"));
        }
    }
    Input::Signature {
        key,
        message,
        signature,
    } => {
        if let Ok(key) = PublicKey::decode(&key) {
            let _ = key.verify(&message, &signature);
        }
    }
    Input::Envelope(bytes) => record(&bytes),
    Input::Signed {
        payload,
        payload_type,
    } => {
        let payload_type = payload_type.unwrap_or_else(|| PEER_RECORD_TYPE.to_vec());
        let bytes = Envelope::sign(&KEYPAIR, PEER_RECORD_DOMAIN, &payload_type, &payload);
        if let Ok(envelope) = Envelope::open(&bytes, PEER_RECORD_DOMAIN) {
            assert_eq!(
                (&envelope.payload, &envelope.payload_type),
                (&payload, &payload_type)
            );
        }
        record(&bytes);
    }
    Input::Certificate(bytes) => certificate(&bytes),
    Input::Changed {
        is_record,
        changes,
        inserts,
    } => {
        if is_record {
            record(&damaged(&RECORD, changes, inserts));
        } else {
            certificate(&damaged(&CERTIFICATE, changes, inserts));
        }
    }
});
