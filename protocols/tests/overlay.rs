//! Headers of overlays, the book of addresses, and the budget of relays.

use std::time::Duration;

use p2p::{Packet, PeerId};
use p2p_protocols::overlay::wire::{Header, MAX_DIRECT, MAX_RELAYED};
use p2p_protocols::overlay::{Book, Budget, Found, Way};
use proptest::prelude::*;

const NOW: Duration = Duration::from_secs(1000);
const DUE: Duration = Duration::from_mins(1);
const FORGET: Duration = Duration::from_mins(10);

fn id(number: u8) -> PeerId {
    PeerId::new([number; 32])
}

fn book(max: usize) -> Book<u32> {
    Book::new(max, DUE, FORGET)
}

#[test]
fn every_header_has_the_bytes_that_it_had() {
    let (src, dst) = (id(0xaa), id(0xbb));
    let ids = [[0xaa; 32], [0xbb; 32]].concat();
    let headers = [
        (Header::Direct, vec![0]),
        (Header::Engine, vec![1]),
        (Header::Named { src, dst }, [&[2], &ids[..]].concat()),
        (
            Header::Relayed { hops: 7, src, dst },
            [&[3, 7], &ids[..]].concat(),
        ),
    ];
    for (header, bytes) in headers {
        let mut packet = Packet::from(b"payload");
        header.push(&mut packet);
        assert_eq!(*packet, *[&bytes[..], b"payload"].concat());
        assert_eq!(header.len(), bytes.len());
        for len in 0..bytes.len() {
            assert_eq!(Header::pop(&mut Packet::from(&bytes[..len])), None);
        }
        assert_eq!(Header::pop(&mut packet), Some(header));
        assert_eq!(packet, b"payload");
    }
    assert_eq!((MAX_DIRECT, MAX_RELAYED), (65, 66));
}

proptest! {
    #[test]
    fn any_bytes_are_a_header_and_a_payload_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut packet = Packet::from(bytes.as_slice());
        if let Some(header) = Header::pop(&mut packet) {
            header.push(&mut packet);
            prop_assert_eq!(&*packet, &*bytes);
        }
    }
}

#[test]
fn who_is_not_heard_of_is_looked_for_and_then_forgotten() {
    let mut book = book(8);
    assert_eq!(book.find(NOW, &id(1)), None);
    book.learn(NOW, id(1), Way::Direct(1));
    let found = |is_due| {
        let way = Way::Direct(1);
        Some(Found { way, is_due })
    };
    assert_eq!(book.find(NOW + DUE / 2, &id(1)), found(false));
    assert_eq!(book.find(NOW + DUE, &id(1)), found(true));
    assert_eq!(
        book.find(NOW + DUE, &id(1)),
        found(false),
        "it is being looked for"
    );
    assert!(book.heard(NOW + DUE, &id(1), &1));
    assert_eq!(book.find(NOW + DUE + FORGET / 2, &id(1)), found(true));
    assert_eq!(book.find(NOW + DUE + FORGET, &id(1)), None);
}

#[test]
fn who_moves_is_known_at_the_new_address() {
    let mut book = book(8);
    assert!(!book.learn(NOW, id(1), Way::Direct(1)));
    assert!(!book.heard(NOW, &id(1), &2) && !book.heard(NOW, &id(2), &1));
    assert!(book.learn(NOW, id(1), Way::Direct(2)));
    assert!(book.heard(NOW, &id(1), &2) && !book.heard(NOW, &id(1), &1));
    assert!(
        !book.forget(&id(1), NOW.saturating_sub(DUE)),
        "it was heard of since then"
    );
    assert!(book.forget(&id(1), NOW) && !book.forget(&id(1), NOW));
}

#[test]
fn a_full_book_makes_room_and_forgets_the_old_ones_first() {
    let mut book = book(100);
    for number in 0..100 {
        book.learn(NOW, id(number), Way::Direct(number.into()));
    }
    let later = NOW + FORGET;
    assert!(book.heard(later, &id(7), &7));
    book.learn(later, id(200), Way::Direct(200));
    assert_eq!(book.len(), 2, "all but those that were heard of are forgotten");
    for number in 0..=255 {
        book.learn(later, id(number), Way::Direct(number.into()));
        assert!(book.find(later, &id(number)).is_some());
    }
    assert_eq!(book.len(), 100);
}

#[test]
fn a_budget_is_one_of_all_and_of_each_and_new_each_second() {
    let mut budget = Budget::new(100, 60);
    assert!(budget.spend(NOW, &1, 60) && !budget.spend(NOW, &1, 1));
    assert!(budget.spend(NOW, &2, 40) && !budget.spend(NOW, &3, 1));
    let later = NOW + Duration::from_secs(1);
    assert!(budget.spend(later, &1, 60) && !budget.spend(later, &1, usize::MAX));
    // However many neighbours there are, few are remembered.
    let mut budget = Budget::new(u64::MAX, u64::MAX);
    assert_eq!((0..5000).filter(|of| budget.spend(NOW, of, 1)).count(), 1024);
}
