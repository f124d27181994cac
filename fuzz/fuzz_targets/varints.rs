//! Any bytes start with a varint, overlong or not, or with a typed error; encoding and parsing round-trip.
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
            // Bits beyond the shortest form are all zero.
            assert!(
                used == shortest.len()
                    || input[shortest.len()..used]
                        .iter()
                        .all(|byte| matches!(byte, 0 | 0x80))
            );
            // Following bytes do not matter, and every byte of the varint does.
            assert_eq!(varint::read(&input[..used]), Ok((value, used)));
            assert_eq!(varint::read(&input[..used - 1]), Err(VarintError::Truncated));
        }
        Err(VarintError::Truncated) => {
            assert!(input.len() < MAX_LEN && input.iter().all(|byte| *byte >= 0x80));
        }
        Err(VarintError::Overflow) => {
            assert!(input.len() >= MAX_LEN && input[..MAX_LEN - 1].iter().all(|byte| *byte >= 0x80));
        }
    }
});
