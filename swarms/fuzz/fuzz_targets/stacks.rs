//! Any text is a stack whose own text parses back to it, or an error with a place in the text.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use p2p_swarms::stack::StackText;

fuzz_target!(|text: &str| {
    match text.parse::<StackText>() {
        Ok(stack) => {
            let again = stack.to_string().parse::<StackText>();
            assert_eq!(again.map(|again| again.to_string()).ok(), Some(stack.to_string()));
        }
        Err(error) => {
            assert!(error.at() <= text.len());
            let _ = error.to_string();
        }
    }
});
