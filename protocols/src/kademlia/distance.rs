//! The XOR metric: the distance of two ids is their exclusive or, read as a number (Maymounkov and Mazières
//! 2002, section 2.1).

use std::cmp::Ordering;

use p2p::PeerId;
use rand::{Rng, RngExt as _};

/// The exclusive or of two ids, ordered as a 256-bit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distance {
    high: u128,
    low: u128,
}

/// Splits an id into its two 128-bit halves.
fn digits(id: &PeerId) -> (u128, u128) {
    let (high, low) = id.as_bytes().split_at(16);
    let digit = |bytes: &[u8]| bytes.try_into().map_or(0, u128::from_be_bytes);
    (digit(high), digit(low))
}

impl Distance {
    /// Returns the distance between two ids. It is symmetric.
    pub fn between(a: &PeerId, b: &PeerId) -> Self {
        let (a, b) = (digits(a), digits(b));
        Self {
            high: a.0 ^ b.0,
            low: a.1 ^ b.1,
        }
    }

    /// Returns the number of leading bits that the two ids share: 256 for equal ids.
    pub fn shared_bits(&self) -> usize {
        let bits = match self.high {
            0 => 128 + self.low.leading_zeros(),
            high => high.leading_zeros(),
        };
        bits as usize
    }
}

/// Returns a random id that shares `bits` leading bits with `own`, and not the next bit.
pub(super) fn random_id(own: &PeerId, bits: usize, rng: &mut dyn Rng) -> PeerId {
    let mut bytes: [u8; 32] = rng.random();
    for (at, (byte, own)) in bytes.iter_mut().zip(*own.as_bytes()).enumerate() {
        let shared = bits.saturating_sub(8 * at).min(8);
        let mask = !(0xff_u8.checked_shr(shared as u32).unwrap_or(0));
        *byte = (own & mask) | (*byte & !mask);
        if bits / 8 == at {
            let bit = 0x80 >> (bits % 8);
            *byte = (*byte & !bit) | (!own & bit);
        }
    }
    PeerId::new(bytes)
}

/// Returns the exclusive or of two keys of any length, over the length of the shorter.
pub fn distance(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

/// Returns the number of leading zero bits; all bits if no bit is set.
pub fn leading_zeros(bytes: &[u8]) -> usize {
    let whole = bytes.iter().take_while(|byte| **byte == 0).count();
    let rest = bytes.get(whole).map_or(0, |byte| byte.leading_zeros() as usize);
    8 * whole + rest
}

/// Returns the number of leading bits that two keys share. Equal to `leading_zeros(&distance(a, b))`, without
/// an allocation.
pub fn shared_bits(a: &[u8], b: &[u8]) -> usize {
    let whole = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let rest = match (a.get(whole), b.get(whole)) {
        (Some(a), Some(b)) => (a ^ b).leading_zeros() as usize,
        _ => 0,
    };
    8 * whole + rest
}

/// Compares the distances of `a` and `b` to `x`: `Less` if `a` is nearer, `Greater` if `b` is nearer.
///
/// Keys of different lengths compare over the shortest of the three; if these bytes are equal and `x` is
/// longer, the shorter of `a` and `b` is nearer.
pub fn compare(x: &[u8], a: &[u8], b: &[u8]) -> Ordering {
    let shortest = x.len().min(a.len()).min(b.len());
    let distances = x.iter().zip(a).zip(b).map(|((x, a), b)| (x ^ a).cmp(&(x ^ b)));
    let first = distances.into_iter().find(|order| order.is_ne());
    first.unwrap_or(Ordering::Equal).then_with(|| {
        if x.len() > shortest {
            a.len().cmp(&b.len())
        } else {
            Ordering::Equal
        }
    })
}

/// Returns whether the first `bits` bits of `x` and `prefix` are equal; `false` if either has fewer bits.
pub fn has_prefix(x: &[u8], prefix: &[u8], bits: usize) -> bool {
    bits <= 8 * x.len().min(prefix.len()) && shared_bits(x, prefix) >= bits
}
