//! Any bytes are a key, a certificate or a typed error; encoding and parsing round-trip.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use p2p_formats::x509::{
    MAX_KEY_DER, ObjectIdentifier, PrivateKey, PublicKey, Registry, certified_key, certify, sha3_256,
    shake256,
};
use p2p_fuzz::damaged;

#[derive(Arbitrary, Debug)]
enum Input {
    Der(Vec<u8>),
    Pem(String),
    /// The text form of any bytes, with either label.
    Armoured {
        private: bool,
        der: Vec<u8>,
    },
    /// Any algorithm with any key.
    Made {
        algorithm: Vec<u8>,
        key: Vec<u8>,
    },
    /// A valid key with its signature, or any other signature.
    Signed {
        seed: [u8; 32],
        message: Vec<u8>,
        other: Vec<u8>,
    },
    /// A valid key or certificate with bytes changed, inserted and removed.
    Changed {
        form: u8,
        seed: u8,
        changes: Vec<(u16, u8)>,
        inserts: Vec<(u16, u8)>,
        cut: u16,
    },
}

fn public(key: &PublicKey) {
    assert!(key.as_der().len() <= MAX_KEY_DER);
    assert_eq!(PublicKey::from_der(key.as_der()).as_ref(), Ok(key));
    assert_eq!(PublicKey::from_pem(&key.to_pem()).as_ref(), Ok(key));
    assert_eq!(PublicKey::new(key.algorithm(), key.key_bytes()).as_ref(), Ok(key));
    let _ = (shake256(key), sha3_256(key), format!("{key:?}"));
    if let Ok(verifier) = Registry::default().verifier(key) {
        assert!(verifier.verify(b"something", &[0; 64]).is_err());
        assert!(verifier.verify(b"something", key.as_der()).is_err());
    }
}

fn private(key: &PrivateKey) {
    let same = |read: &PrivateKey| (read.algorithm(), read.secret()) == (key.algorithm(), key.secret());
    // The encoding is longer than the input if the input lacked optional parts.
    if key.to_pkcs8().len() <= MAX_KEY_DER {
        assert!(PrivateKey::from_der(&key.to_pkcs8()).is_ok_and(|read| same(&read)));
        assert!(PrivateKey::from_pem(&key.to_pem()).is_ok_and(|read| same(&read)));
    }
    if key.to_bit_string().len() <= MAX_KEY_DER {
        assert!(PrivateKey::from_der(&key.to_bit_string()).is_ok_and(|read| same(&read)));
    }
    if let Ok(signer) = Registry::default().signer(key) {
        let signature = signer.sign(b"something");
        let verifier = Registry::default()
            .verifier(signer.public_key())
            .expect("a key that signs");
        assert_eq!(verifier.verify(b"something", &signature), Ok(()));
        assert!(verifier.verify(b"something else", &signature).is_err());
        public(signer.public_key());
    }
}

fn der(bytes: &[u8]) {
    if let Ok(key) = PublicKey::from_der(bytes) {
        public(&key);
    }
    if let Ok(key) = PrivateKey::from_der(bytes) {
        private(&key);
    }
    if let Ok(key) = certified_key(bytes, &Registry::default()) {
        public(&key);
    }
}

fn pem(text: &str) {
    if let Ok(key) = PublicKey::from_pem(text) {
        public(&key);
    }
    if let Ok(key) = PrivateKey::from_pem(text) {
        private(&key);
    }
}

/// Encodes `der` as PEM with this label.
fn armoured(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = (bits >> (18 - 6 * at)) as usize & 63;
            text.push(if at <= chunk.len() {
                ALPHABET[digit].into()
            } else {
                '='
            });
        }
    }
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

fuzz_target!(|input: Input| match input {
    Input::Der(bytes) => der(&bytes),
    Input::Pem(text) => pem(&text),
    Input::Armoured { private, der } => {
        pem(&armoured(
            if private { "PRIVATE KEY" } else { "PUBLIC KEY" },
            &der,
        ));
    }
    Input::Made { algorithm, key } => {
        if let Ok(algorithm) = ObjectIdentifier::from_bytes(&algorithm) {
            if let Ok(key) = PublicKey::new(algorithm, &key) {
                public(&key);
            }
            private(&PrivateKey::new(algorithm, &key));
        }
    }
    Input::Signed { seed, message, other } => {
        let signer = Registry::default()
            .signer(&PrivateKey::ed25519(&seed))
            .expect("a good key");
        let signature = signer.sign(&message);
        let verifier = Registry::default()
            .verifier(signer.public_key())
            .expect("its own");
        assert_eq!(verifier.verify(&message, &signature), Ok(()));
        assert_eq!(verifier.verify(&message, &other).is_ok(), signature == other);
    }
    Input::Changed {
        form,
        seed,
        changes,
        inserts,
        cut,
    } => {
        let key = PrivateKey::ed25519(&[seed; 32]);
        let signer = Registry::default().signer(&key).expect("a good key");
        let good = match form % 4 {
            0 => certify(&*signer),
            1 => signer.public_key().as_der().to_vec(),
            2 => key.to_pkcs8().to_vec(),
            _ => key.to_bit_string().to_vec(),
        };
        let mut bytes = damaged(&good, changes, inserts);
        bytes.truncate(bytes.len() - usize::from(cut) % (bytes.len() + 1) / 8);
        der(&bytes);
        if form % 4 == 0 {
            let read = certified_key(&bytes, &Registry::default());
            assert_eq!(read.is_ok(), bytes == good, "{read:?}");
        }
    }
});
