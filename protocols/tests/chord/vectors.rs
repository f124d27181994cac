//! Chord's two distances, compared with recorded results of go-p2p.

use p2p_protocols::chord::distance::{absolute, forward};
use serde_json::Value;

use crate::hex::hex;

/// Returns both distances of numbers with this length in bytes.
fn both<const N: usize>(from: &[u8], to: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (from, to) = (from.try_into().expect("N bytes"), to.try_into().expect("N bytes"));
    (forward::<N>(from, to).into(), absolute::<N>(from, to).into())
}

fn distances(from: &[u8], to: &[u8]) -> (Vec<u8>, Vec<u8>) {
    match from.len() {
        0 => both::<0>(from, to),
        1 => both::<1>(from, to),
        2 => both::<2>(from, to),
        4 => both::<4>(from, to),
        8 => both::<8>(from, to),
        32 => both::<32>(from, to),
        other => panic!("the vectors have numbers of {other} bytes"),
    }
}

#[test]
fn distances_equal_the_vectors() {
    let vectors: Value =
        serde_json::from_str(include_str!("../vectors/chord.json")).expect("the vectors are JSON");
    for (name, is_forward) in [("distance_forward", true), ("distance_absolute", false)] {
        let list = vectors[name].as_array().expect("a list");
        assert!(list.len() > 10);
        for vector in list {
            let (forward, absolute) = distances(&hex(&vector["from"]), &hex(&vector["to"]));
            let found = if is_forward { forward } else { absolute };
            assert_eq!(found, hex(&vector["distance"]), "{name} {vector}");
        }
    }
}
