//! Any text is an address whose own text parses back to it, or a typed error with a place in the text.
#![no_main]
#![forbid(unsafe_code)]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use p2p::{Addr, Error, Result, Swarm as _};
use p2p_swarms::{EraseSwarm, MapSwarm, MemoryAddr, MemorySwarm, MultiSwarm, udp};

fn check<A: Addr>(text: &str, parse: impl Fn(&str) -> Result<A>) {
    match parse(text) {
        Ok(addr) => assert_eq!(parse(&addr.to_string()).ok(), Some(addr)),
        Err(Error::InvalidAddr { text: said, at, .. }) => assert!(*said == *text && at <= text.len()),
        Err(other) => panic!("{other}"),
    }
}

static MULTI: LazyLock<MultiSwarm<EraseSwarm<MemoryAddr, MemorySwarm>>> = LazyLock::new(|| {
    let transports = ["mem", "a"].map(|scheme| (scheme, MapSwarm::erase(MemorySwarm::new())));
    MultiSwarm::new(transports).expect("two schemes")
});

fuzz_target!(|text: &str| {
    check(text, udp::parse_addr);
    check(text, |text| text.parse::<MemoryAddr>());
    check(text, |text| MULTI.parse_addr(text));
});
