//! Unsigned LEB128 varints, as in Go's `encoding/binary`.
//!
//! Each byte carries seven bits, least significant first; the high bit means that another byte follows.
//! Writing produces the shortest form. Reading also accepts overlong forms of up to ten bytes, because
//! deployed peers do; a caller that needs one form for each value compares the length with [`len`]. Nothing
//! is allocated.

/// Maximum length of a varint in bytes.
pub const MAX_LEN: usize = 10;

/// The reason for which bytes are not a varint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VarintError {
    /// The input ends before the varint does.
    #[error("the varint is truncated")]
    Truncated,
    /// The value exceeds 64 bits, or the encoding exceeds [`MAX_LEN`] bytes.
    #[error("the varint exceeds 64 bits")]
    Overflow,
}

/// Returns the length in bytes that [`write()`] produces for `value`: 1 to [`MAX_LEN`].
pub const fn len(value: u64) -> usize {
    match (64 - value.leading_zeros() as usize).div_ceil(7) {
        0 => 1,
        len => len,
    }
}

/// Writes `value` into `buf`. Returns the written bytes.
pub fn write(mut value: u64, buf: &mut [u8; MAX_LEN]) -> &[u8] {
    let len = len(value);
    let (written, _) = buf.split_at_mut(len);
    for byte in &mut *written {
        *byte = value as u8 | 0x80;
        value >>= 7;
    }
    if let Some(last) = written.last_mut() {
        *last &= 0x7f;
    }
    written
}

/// Reads the varint at the start of `input`. Returns its value and its length in bytes.
///
/// # Errors
/// [`Truncated`](VarintError::Truncated) if `input` ends within the varint,
/// [`Overflow`](VarintError::Overflow) if the value does not fit into 64 bits.
#[inline]
pub fn read(input: &[u8]) -> Result<(u64, usize), VarintError> {
    let mut value = 0;
    for (at, &byte) in input.iter().take(MAX_LEN).enumerate() {
        // The tenth byte has room for the 64th bit only.
        if at == MAX_LEN - 1 && byte > 1 {
            return Err(VarintError::Overflow);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Ok((value, at + 1));
        }
    }
    Err(VarintError::Truncated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(value: u64) -> Vec<u8> {
        write(value, &mut [0; MAX_LEN]).to_vec()
    }

    #[test]
    fn boundary_values_are_encoded_as_leb128() {
        for (value, bytes) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (
                u64::MAX,
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            ),
        ] {
            assert_eq!(written(value), bytes);
        }
    }

    #[test]
    fn overlong_forms_are_accepted() {
        assert_eq!(read(&[0x80, 0]), Ok((0, 2)));
        assert_eq!(read(&[0x81, 0x80, 0x80, 0, 9]), Ok((1, 4)));
        let mut longest = [0x80; MAX_LEN];
        longest[MAX_LEN - 1] = 0;
        assert_eq!(read(&longest), Ok((0, MAX_LEN)));
    }

    #[test]
    fn a_value_above_64_bits_is_an_overflow() {
        let mut input = [0xff; MAX_LEN];
        input[MAX_LEN - 1] = 2;
        assert_eq!(read(&input), Err(VarintError::Overflow));
        assert_eq!(read(&[0x80; MAX_LEN + 1]), Err(VarintError::Overflow));
    }

    proptest! {
        #[test]
        fn encoding_and_parsing_round_trip(value: u64, shift in 0..64u32, tail: Vec<u8>) {
            let value = value >> shift;
            let mut bytes = written(value);
            let size = bytes.len();
            prop_assert_eq!(size, len(value));
            bytes.extend(tail);
            prop_assert_eq!(read(&bytes), Ok((value, size)));
        }

        #[test]
        fn every_strict_prefix_is_truncated(value: u64, shift in 0..64u32) {
            let bytes = written(value >> shift);
            for end in 0..bytes.len() {
                prop_assert_eq!(read(&bytes[..end]), Err(VarintError::Truncated));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Ok((value, size)) = read(&bytes) {
                prop_assert!(len(value) <= size && size <= bytes.len());
            }
        }
    }
}
