//! Any text is the one spelling of a peer id, or a typed error; any 32 bytes are a peer id.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use p2p::{Error, PeerId};

const DIGITS: &[u8; 64] = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";

fn check(text: &str) {
    match text.parse::<PeerId>() {
        Ok(id) => assert_eq!(id.to_string(), text),
        Err(Error::InvalidAddr { text: said, at, .. }) => {
            assert!(*said == *text && text.is_char_boundary(at));
        }
        Err(other) => panic!("{other}"),
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        check(text);
    }
    // The same bytes as digits: their number may be wrong.
    check(
        &bytes
            .iter()
            .map(|byte| char::from(DIGITS[usize::from(*byte) % 64]))
            .collect::<String>(),
    );
    // The same bytes as an id, padded with their first byte.
    let mut id = [bytes.first().copied().unwrap_or_default(); 32];
    id.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    assert_eq!(PeerId::new(id).to_string().parse().ok(), Some(PeerId::new(id)));
});
