//! Any bytes are a signed record or a typed error; a valid record has one encoding, and every change is
//! detected.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use p2p_formats::record::SignedRecord;
use p2p_formats::x509::{PrivateKey, Registry};
use p2p_fuzz::damaged;

#[derive(Arbitrary, Debug)]
enum Input {
    Bytes(Vec<u8>),
    /// A valid record with bytes changed, inserted and removed, opened in its own context or another.
    Changed {
        seed: u8,
        context: String,
        other: Option<String>,
        payload: Vec<u8>,
        changes: Vec<(u16, u8)>,
        inserts: Vec<(u16, u8)>,
        cut: u8,
    },
}

fuzz_target!(|input: Input| match input {
    Input::Bytes(bytes) => {
        // A signature cannot be guessed.
        assert!(SignedRecord::open(&bytes, "fuzz", &Registry::default()).is_err());
    }
    Input::Changed {
        seed,
        context,
        other,
        payload,
        changes,
        inserts,
        cut,
    } => {
        let registry = Registry::default();
        let signer = registry
            .signer(&PrivateKey::ed25519(&[seed; 32]))
            .expect("a good key");
        let good = SignedRecord::sign(&*signer, &context, &payload).expect("short");
        let mut bytes = damaged(&good, changes, inserts);
        bytes.truncate(bytes.len() - usize::from(cut) % bytes.len());
        let named = other.as_ref().unwrap_or(&context);
        match SignedRecord::open(&bytes, named, &registry) {
            Ok(opened) => {
                assert_eq!((&bytes, named), (&good, &context));
                assert_eq!((opened.payload(), opened.key()), (&*payload, signer.public_key()));
            }
            Err(error) => {
                assert!((&bytes, named) != (&good, &context), "{error}");
                assert!(!error.to_string().is_empty());
            }
        }
    }
});
