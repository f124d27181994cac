//! Any text is a peer id with this one spelling, or a typed error.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use p2p::PeerId;

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse::<PeerId>() {
        assert_eq!(id.to_string(), text);
    }
});
