//! Any text is an address that displays as a text that parses back to it, or a typed error with a position in
//! the text.
#![no_main]
#![forbid(unsafe_code)]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use p2p::{Addr, Error, Result, Swarm as _};
use p2p_swarms::{EraseSwarm, KeyAddr, MapSwarm, MemoryAddr, MemorySwarm, MultiSwarm, udp};

/// Parts of addresses.
const WORDS: [&str; 24] = [
    "mem:",
    "mem",
    "a",
    "://",
    ":",
    "@",
    ".",
    "[",
    "]",
    "%",
    "0",
    "1",
    "127",
    "255",
    "65535",
    "fe80",
    "::",
    "ffff",
    "00",
    "+",
    "-",
    "é",
    "-------------------------------------------",
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEF-",
];

fn check<A: Addr>(text: &str, parse: impl Fn(&str) -> Result<A>) {
    match parse(text) {
        Ok(addr) => assert_eq!(parse(&addr.to_string()).ok(), Some(addr)),
        Err(Error::InvalidAddr { text: said, at, .. }) => {
            assert!(*said == *text && text.is_char_boundary(at), "{at} in {text:?}");
        }
        Err(other) => panic!("{other}"),
    }
}

static MULTI: LazyLock<MultiSwarm<EraseSwarm<MemoryAddr, MemorySwarm>>> = LazyLock::new(|| {
    let transports = ["mem", "a"].map(|scheme| (scheme, MapSwarm::erase(MemorySwarm::new())));
    MultiSwarm::new(transports).expect("two schemes")
});

fn check_all(text: &str) {
    check(text, udp::parse_addr);
    check(text, str::parse::<MemoryAddr>);
    check(text, |text| MULTI.parse_addr(text));
    check(text, |text| KeyAddr::parse(text, udp::parse_addr));
    check(text, |text| {
        KeyAddr::parse(text, |inner| KeyAddr::parse(inner, str::parse::<MemoryAddr>))
    });
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        check_all(text);
    }
    // The same bytes as words, so that texts that are almost addresses occur soon.
    let spelled = bytes.iter().map(|byte| WORDS[usize::from(*byte) % WORDS.len()]);
    check_all(&spelled.collect::<String>());
});
