//! Any text is a stack that displays as a text that parses back to it, or an error with a position in the
//! text.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use p2p_swarms::stack::StackText;

/// Parts of stacks.
const WORDS: &str = "mem udp faulty frag mux mux16 mux32 mux64 muxv allow p2pke quic mbapp kad kad / / / = = , ; 127.0.0.1:0 \
    [::1]:0 loss= dup= delay= rate= mtu= seed= 0 1 9000 0.5";

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        check(text);
    }
    // The same bytes as words, so that texts that are almost stacks occur soon.
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let spelled = bytes.iter().map(|byte| words[usize::from(*byte) % words.len()]);
    check(&spelled.collect::<String>());
});

fn check(text: &str) {
    match text.parse::<StackText>() {
        Ok(stack) => {
            let again = stack.to_string().parse::<StackText>();
            assert_eq!(again.map(|again| again.to_string()).ok(), Some(stack.to_string()));
            if let Err(error) = stack.check_asks() {
                assert!(error.at() < text.len());
            }
        }
        Err(error) => {
            assert!(error.at() <= text.len());
            let _ = error.to_string();
        }
    }
}
