//! Any text is the address of a libp2p host that displays as a text that parses back to it, or a typed error with a position
//! in the text; and any text is a stack on such a host, or an error with a position.
#![no_main]
#![forbid(unsafe_code)]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use p2p::{Addr as _, Error};
use p2p_libp2p::HostAddr;
use p2p_libp2p::stack::Libp2pWord;
use p2p_swarms::stack::Grammar;

/// Parts of addresses and of stacks.
const WORDS: &str = "/ip4 /ip6 /dns /dns4 /dns6 /tcp /udp /quic /quic-v1 /p2p /ipfs /unix /ws /p2p-circuit /memory /http-path \
    /127.0.0.1 /::1 /0 /65535 /65536 /a.example /a%2Fb%25 /12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA \
    /QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N /bafzaajaiaejca / é = , ; libp2p kad= mux=a /mux /frag protocol= peers= /1.0.0";

static GRAMMAR: LazyLock<Grammar> =
    LazyLock::new(|| Grammar::default().with_base(Libp2pWord).expect("a free word"));

fn check_addr(text: &str) {
    match text.parse::<HostAddr>() {
        Ok(addr) => {
            let again: HostAddr = addr.to_string().parse().expect("its text parses");
            assert_eq!((again.to_multiaddr(), &again), (addr.to_multiaddr(), &addr));
            assert_eq!(addr.canonical().peer_id(), addr.peer_id());
            let _ = (addr.transport(), addr.socket_addr());
        }
        Err(Error::InvalidAddr { text: said, at, .. }) => {
            assert!(*said == *text && text.is_char_boundary(at), "{at} in {text:?}");
        }
        Err(other) => panic!("{other}"),
    }
}

fn check_stack(text: &str) {
    match GRAMMAR.parse(text) {
        Ok(stack) => {
            let again = GRAMMAR.parse(&stack.to_string());
            assert_eq!(again.map(|again| again.to_string()).ok(), Some(stack.to_string()));
        }
        Err(error) => assert!(text.is_char_boundary(error.at()), "{error}"),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let spelled = bytes.iter().map(|byte| words[usize::from(*byte) % words.len()]);
    let spelled = spelled.collect::<String>();
    for text in std::str::from_utf8(bytes).into_iter().chain([&*spelled]) {
        check_addr(text);
        check_stack(text);
        check_stack(&format!("libp2p={text}"));
    }
});
