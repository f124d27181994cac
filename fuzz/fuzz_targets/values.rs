//! Any value of a tracker's cell, any signed announcement and any token is read or a typed error.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use p2p_discovery::tracker::{MAX_RECORDS, open_value, seal_value};
use p2p_discovery::{Announcement, Error, Secret, Token, UnixTime};
use p2p_formats::record::SignedRecord;
use p2p_formats::x509::{PrivateKey, Registry};

#[derive(Arbitrary, Debug)]
enum Input {
    /// A value as a server might return it.
    Value(Vec<u8>),
    /// A value that a member sealed, with changed bytes.
    Sealed {
        records: Vec<Vec<u8>>,
        changes: Vec<(u16, u8)>,
    },
    /// A payload that a member signed.
    Signed {
        payload: Vec<u8>,
        now: u64,
    },
    Token(String),
}

fn secret() -> Secret {
    Secret::new([7; 32])
}

fuzz_target!(|input: Input| match input {
    Input::Value(value) => match open_value(&secret(), &value) {
        Ok(records) => assert!(value.is_empty() && records.is_empty(), "a seal cannot be guessed"),
        Err(Error::Garbled { at, .. }) => assert!(at <= value.len()),
        Err(error) => panic!("{error}"),
    },
    Input::Sealed { records, changes } => {
        let all: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        let Ok(good) = seal_value(&secret(), &all) else {
            assert!(all.len() > MAX_RECORDS || records.iter().any(Vec::is_empty));
            return;
        };
        let mut value = good.clone();
        for (at, change) in changes {
            let at = usize::from(at) % value.len();
            value[at] ^= change;
        }
        match open_value(&secret(), &value) {
            Ok(opened) => assert_eq!((value, opened), (good, records)),
            Err(Error::Garbled { at, .. }) => assert!(at <= value.len() && value != good),
            Err(error) => panic!("{error}"),
        }
    }
    Input::Signed { payload, now } => {
        let registry = Registry::default();
        let signer = registry
            .signer(&PrivateKey::ed25519(&[1; 32]))
            .expect("a good key");
        let record = SignedRecord::sign(&*signer, "p2p discovery announcement 1", &payload).expect("short");
        let now = UnixTime::from_millis(now);
        if let Ok(read) = Announcement::open(&record, &registry, now) {
            let again = read.sign(&*signer).expect("its own");
            assert_eq!(
                Announcement::open(&again, &registry, now).expect("the same"),
                read
            );
        }
    }
    Input::Token(text) => {
        if let Ok(token) = text.parse::<Token>() {
            assert_eq!(token.to_text().parse::<Token>().expect("its own"), token);
        }
    }
});
