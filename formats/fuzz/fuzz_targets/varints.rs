//! Any bytes begin with a varint, overlong or not, or with a typed error; what is written is read as the same.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use p2p_formats::varint::{self, MAX_LEN, VarintError};

fuzz_target!(|input: &[u8]| {
    match varint::read(input) {
        Ok((value, used)) => {
            let mut buf = [0; MAX_LEN];
            let shortest = varint::write(value, &mut buf);
            assert!(
                shortest.len() == varint::len(value)
                    && shortest.len() <= used
                    && used <= input.len().min(MAX_LEN)
            );
            assert_eq!(varint::read(shortest), Ok((value, shortest.len())));
            // What is longer than the shortest form has nothing but zeros on top.
            assert!(
                used == shortest.len() || input[shortest.len()..used].iter().all(|byte| byte & 0x7f == 0)
            );
            // What follows does not matter, and nothing less will do.
            assert_eq!(varint::read(&input[..used]), Ok((value, used)));
            assert_eq!(varint::read(&input[..used - 1]), Err(VarintError::Truncated));
        }
        Err(VarintError::Truncated) => {
            assert!(input.len() < MAX_LEN && input.iter().all(|byte| *byte >= 0x80));
        }
        Err(VarintError::Overflow) => {
            assert!(input.len() >= MAX_LEN && input[..MAX_LEN - 1].iter().all(|byte| *byte >= 0x80))
        }
    }
});
