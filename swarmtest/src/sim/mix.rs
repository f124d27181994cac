//! Mixing of 64-bit words: the hash of the trace, and per-link numbers that are not stored.

/// `SplitMix64` (Steele, Lea and Flood 2014): one word of state, the same on every machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mix(pub(super) u64);

impl Mix {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Returns a number in `0.0..1.0`.
    #[allow(clippy::cast_precision_loss)] // 53 bits fit an f64 exactly.
    pub(super) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Absorbs a word into the state.
    pub(super) fn absorb(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25);
    }

    /// Absorbs bytes and their number into the state.
    pub(super) fn absorb_bytes(&mut self, bytes: &[u8]) {
        self.absorb(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.absorb(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.absorb(u64::from_le_bytes(word));
        }
    }

    /// Returns the state, mixed once more.
    pub(super) fn digest(mut self) -> u64 {
        self.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_splitmix64() {
        let mut mix = Mix(1_234_567);
        let words = [(); 3].map(|()| mix.next());
        assert_eq!(
            words,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn bytes_that_differ_only_in_length_differ() {
        let of = |bytes: &[u8]| {
            let mut mix = Mix(0);
            mix.absorb_bytes(bytes);
            mix.digest()
        };
        assert_ne!(of(&[0; 8]), of(&[0; 9]));
        assert_ne!(of(&[]), of(&[0]));
    }
}
