//! Distances on the circle of ids: big-endian numbers modulo 2 to the number of their bits.

use std::cmp::Ordering;

use p2p::PeerId;

/// Returns the clockwise distance from `from` to `to`: `(to - from) mod 2^(8 N)`.
#[must_use]
pub fn forward<const N: usize>(from: &[u8; N], to: &[u8; N]) -> [u8; N] {
    let mut distance = [0; N];
    let mut borrow = false;
    // Eight bytes at a time from the lowest; the bytes that are left over are the highest.
    let (first_out, out) = distance.as_rchunks_mut::<8>();
    let (first_to, to) = to.as_rchunks::<8>();
    let (first_from, from) = from.as_rchunks::<8>();
    for ((out, to), from) in out.iter_mut().zip(to).zip(from).rev() {
        let (less, one) = u64::from_be_bytes(*to).overflowing_sub(u64::from_be_bytes(*from));
        let (less, two) = less.overflowing_sub(u64::from(borrow));
        (*out, borrow) = (less.to_be_bytes(), one || two);
    }
    for ((out, to), from) in first_out.iter_mut().zip(first_to).zip(first_from).rev() {
        let (less, one) = to.overflowing_sub(*from);
        let (less, two) = less.overflowing_sub(u8::from(borrow));
        (*out, borrow) = (less, one || two);
    }
    distance
}

/// Returns the absolute difference of the two as plain numbers, without wrapping around the circle.
#[must_use]
pub fn absolute<const N: usize>(one: &[u8; N], other: &[u8; N]) -> [u8; N] {
    match one.cmp(other) {
        Ordering::Less => forward(one, other),
        _ => forward(other, one),
    }
}

/// Returns [`forward`] between ids.
pub(super) fn between(from: &PeerId, to: &PeerId) -> [u8; 32] {
    forward(from.as_bytes(), to.as_bytes())
}

/// Returns whether `id` is in the open arc from `from` to `to`. The arc from an id to itself is the whole
/// circle without that id.
pub(super) fn in_open(id: &PeerId, from: &PeerId, to: &PeerId) -> bool {
    id != from && id != to && (from == to || between(from, id) < between(from, to))
}

/// Returns whether `id` is in the arc after `from`, up to and including `to`. The arc from an id to itself is
/// the whole circle.
pub(super) fn in_half_open(id: &PeerId, from: &PeerId, to: &PeerId) -> bool {
    id == to || in_open(id, from, to)
}

/// Returns the id at the distance of 2 to the power of `bit` after `id`.
pub(super) fn after(id: &PeerId, bit: u8) -> PeerId {
    let mut sum = *id.as_bytes();
    let lowest = 31 - usize::from(bit / 8);
    let mut carry = 1_u8 << (bit % 8);
    for byte in sum.iter_mut().take(lowest + 1).rev() {
        let (more, over) = byte.overflowing_add(carry);
        *byte = more;
        if !over {
            break;
        }
        carry = 1;
    }
    PeerId::new(sum)
}

/// Returns the lowest bit with a power of two above the distance; 256 if there is none.
pub(super) fn bit_beyond(distance: &[u8; 32]) -> u16 {
    let mut zeros = 0;
    for byte in distance {
        zeros += byte.leading_zeros() as u16;
        if *byte != 0 {
            break;
        }
    }
    256 - zeros
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(first: u8, last: u8) -> PeerId {
        let mut bytes = [0; 32];
        (bytes[0], bytes[31]) = (first, last);
        PeerId::new(bytes)
    }

    #[test]
    fn arcs_wrap_and_include_the_right_ends() {
        let (a, b, c) = (id(1, 0), id(100, 0), id(200, 0));
        assert!(in_open(&b, &a, &c) && !in_open(&b, &c, &a));
        assert!(in_open(&a, &c, &b), "across zero");
        assert!(!in_open(&a, &a, &c) && !in_open(&c, &a, &c));
        assert!(in_half_open(&c, &a, &c) && !in_half_open(&a, &a, &c));
        assert!(in_open(&b, &a, &a) && !in_open(&a, &a, &a) && in_half_open(&a, &a, &a));
    }

    #[test]
    fn adding_a_distance_to_its_start_gives_its_end_in_any_width() {
        fn check<const N: usize>(from: [u8; N], to: [u8; N]) {
            let mut sum = forward(&from, &to);
            let mut carry = 0_u16;
            for (byte, add) in sum.iter_mut().zip(from).rev() {
                carry += u16::from(*byte) + u16::from(add);
                [_, *byte] = carry.to_be_bytes();
                carry >>= 8;
            }
            assert_eq!(sum, to, "{from:?} to {to:?}");
        }
        let bytes = |seed: u8| {
            let mut state = seed;
            std::array::from_fn::<u8, 20, _>(|at| {
                state = state.wrapping_mul(97).wrapping_add(31);
                // Long runs of zeros and ones propagate the borrow.
                [0, 0xff, state][(at / 5 + usize::from(seed)) % 3]
            })
        };
        for (one, other) in (0..60).flat_map(|one| (0..60).map(move |other| (one, other))) {
            let (from, to) = (bytes(one), bytes(other));
            check(from, to);
            check::<16>(from[..16].try_into().unwrap(), to[..16].try_into().unwrap());
            check::<3>(from[4..7].try_into().unwrap(), to[4..7].try_into().unwrap());
        }
    }

    #[test]
    fn powers_of_two_are_added_with_carry() {
        assert_eq!(after(&id(0, 0), 0), id(0, 1));
        assert_eq!(after(&id(0xff, 5), 248), id(0, 5));
        assert_eq!(after(&id(3, 0), 255), id(0x83, 0));
        assert_eq!(after(&PeerId::new([0xff; 32]), 0), id(0, 0));
    }

    #[test]
    fn bit_beyond_is_the_first_power_above_a_distance() {
        for (bit, power) in [(0, after(&id(0, 0), 0)), (7, id(0, 0x80)), (255, id(0x80, 0))] {
            assert_eq!(after(&PeerId::ZERO, bit), power);
            assert_eq!(bit_beyond(power.as_bytes()), u16::from(bit) + 1);
        }
        assert_eq!(bit_beyond(&[0; 32]), 0);
        assert_eq!(bit_beyond(&[0xff; 32]), 256);
    }
}
