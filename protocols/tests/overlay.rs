//! Headers of overlays, the address table, return routes, and the relay budget.

use std::net::SocketAddr;
use std::time::Duration;

use p2p::{Packet, PeerId};
use p2p_protocols::overlay::wire::{Header, MAX_DIRECT, MAX_RELAYED};
use p2p_protocols::overlay::{AddressBook, Budget, Found, Prefix, Returns, Route, Scope};
use proptest::prelude::*;

const NOW: Duration = Duration::from_secs(1000);
const DUE: Duration = Duration::from_mins(1);
const FORGET: Duration = Duration::from_mins(10);

fn id(number: u8) -> PeerId {
    PeerId::new([number; 32])
}

fn book(max: usize) -> AddressBook<u32> {
    AddressBook::new(max, DUE, FORGET)
}

#[test]
fn the_encoding_of_every_header_is_pinned() {
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
fn a_silent_node_is_due_for_a_lookup_and_then_forgotten() {
    let mut book = book(8);
    assert_eq!(book.find(NOW, &id(1)), None);
    book.learn(NOW, id(1), Route::Direct(1));
    let found = |is_due| {
        let route = Route::Direct(1);
        Some(Found { route, is_due })
    };
    assert_eq!(book.find(NOW + DUE / 2, &id(1)), found(false));
    assert_eq!(book.find(NOW + DUE, &id(1)), found(true));
    assert_eq!(
        book.find(NOW + DUE, &id(1)),
        found(false),
        "a lookup is already due"
    );
    assert!(book.heard(NOW + DUE, &id(1), &1));
    assert_eq!(book.find(NOW + DUE + FORGET / 2, &id(1)), found(true));
    assert_eq!(book.find(NOW + DUE + FORGET, &id(1)), None);
}

#[test]
fn messages_that_other_nodes_cause_use_up_no_lookup_that_is_due() {
    let mut book = book(10);
    book.learn(NOW, id(1), Route::Direct(1));
    let later = NOW + DUE;
    for _ in 0..100 {
        assert_eq!(book.route(later, &id(1)), Some(Route::Direct(1)));
    }
    assert!(book.find(later, &id(1)).is_some_and(|found| found.is_due));
    assert_eq!(book.route(NOW + FORGET, &id(1)), None);
}

#[test]
fn a_moved_node_is_known_at_the_new_address() {
    let mut book = book(8);
    assert!(!book.learn(NOW, id(1), Route::Direct(1)));
    assert!(!book.heard(NOW, &id(1), &2) && !book.heard(NOW, &id(2), &1));
    assert!(book.learn(NOW, id(1), Route::Direct(2)));
    assert!(book.heard(NOW, &id(1), &2) && !book.heard(NOW, &id(1), &1));
    assert!(
        !book.forget(&id(1), NOW.saturating_sub(DUE)),
        "the node was heard since then"
    );
    assert!(book.forget(&id(1), NOW) && !book.forget(&id(1), NOW));
}

#[test]
fn a_full_table_forgets_the_oldest_entries_first() {
    let mut book = book(100);
    for number in 0..100 {
        book.learn(NOW, id(number), Route::Direct(number.into()));
    }
    let later = NOW + FORGET;
    assert!(book.heard(later, &id(7), &7));
    book.learn(later, id(200), Route::Direct(200));
    assert_eq!(book.len(), 2, "all silent nodes are forgotten");
    for number in 0..=255 {
        book.learn(later, id(number), Route::Direct(number.into()));
        assert!(book.find(later, &id(number)).is_some());
    }
    assert_eq!(book.len(), 100);
}

#[test]
fn a_budget_limits_the_total_and_each_neighbour_per_second() {
    let mut budget = Budget::new(100, 60);
    assert!(budget.spend(NOW, &1, 60) && !budget.spend(NOW, &1, 1));
    assert!(budget.spend(NOW, &2, 40) && !budget.spend(NOW, &3, 1));
    let later = NOW + Duration::from_secs(1);
    assert!(budget.spend(later, &1, 60) && !budget.spend(later, &1, usize::MAX));
    // Of any number of neighbours, few are remembered.
    let mut budget = Budget::new(u64::MAX, u64::MAX);
    assert_eq!((0..5000).filter(|of| budget.spend(NOW, of, 1)).count(), 1024);
}

fn source(number: u32) -> PeerId {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    PeerId::new(bytes)
}

#[test]
fn a_neighbour_with_forged_sources_is_limited_and_displaces_only_its_own() {
    let mut returns = Returns::default();
    assert!(returns.note(NOW, source(1), &'a'));
    let taken = (100..1000)
        .filter(|number| returns.note(NOW, source(*number), &'b'))
        .count();
    assert_eq!(taken, 16, "in a second");
    assert!(returns.note(NOW, source(100), &'b'), "a known source");
    for second in 1..20 {
        for number in 0..100 {
            let _ = returns.note(
                NOW + Duration::from_secs(second),
                source(1000 * second as u32 + number),
                &'b',
            );
        }
    }
    assert_eq!(returns.find(&source(1)), ['a']);
    assert_eq!(
        returns.find(&source(100)),
        [],
        "64 newer sources have replaced it"
    );
    assert_eq!(returns.find(&source(19_000)), ['b']);
    assert!(returns.note(NOW + DUE, source(1), &'b'));
    assert_eq!(returns.find(&source(1)), ['b', 'a'], "the most recent first");
}

#[test]
fn many_neighbours_displace_the_least_recently_heard_ones() {
    let mut returns = Returns::default();
    assert!(returns.note(NOW, source(1), &0));
    for neighbour in 1..1000_u32 {
        let now = NOW + Duration::from_millis(u64::from(neighbour));
        assert!(returns.note(now, source(neighbour), &neighbour));
        assert!(returns.note(now, source(1), &0), "the neighbour is accepted");
    }
    assert_eq!(returns.find(&source(1)).last(), Some(&0));
    assert_eq!(returns.find(&source(2)), [], "it was the least recently heard");
    returns.clear();
    assert_eq!(returns.find(&source(1)), []);
}

#[test]
fn an_address_may_be_named_only_by_peers_of_the_same_or_a_narrower_scope() {
    let addr = |text: &str| text.parse::<std::net::SocketAddr>().expect("an address");
    // From the narrowest scope to the widest; each may name itself and those after it.
    let classes = [
        vec!["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"],
        vec!["169.254.1.1:1", "[fe80::1]:1"],
        vec![
            "10.0.0.1:1",
            "172.16.0.1:1",
            "192.168.1.1:1",
            "100.64.0.1:1",
            "[fd00::1]:1",
        ],
        vec!["8.8.8.8:1", "203.0.113.1:1", "[2001:db8::1]:1"],
    ];
    for (by_class, by) in classes.iter().enumerate() {
        for (class, named) in classes.iter().enumerate() {
            for (by, named) in by
                .iter()
                .flat_map(|by| named.iter().map(move |named| (by, named)))
            {
                let may = Scope::may_name(&addr(by), &addr(named));
                assert_eq!(may, class >= by_class, "{by} names {named}");
            }
        }
        for nowhere in [
            "0.0.0.0:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "[::]:1",
            "[ff02::1]:1",
        ] {
            assert!(!Scope::may_name(&addr(by[0]), &addr(nowhere)), "{nowhere}");
        }
    }
    // Addresses without an IP address are not restricted.
    assert!(Scope::may_name(&source(1), &source(2)));
}

/// The name of a group of attackers, and the node for each number.
type Crowd = (&'static str, fn(u16) -> SocketAddr);

/// The flooding sources: addresses of one network, and of many.
const CROWDS: [Crowd; 2] = [
    ("one network", |at| {
        ([203, 0, 113, (at % 256) as u8], 1 + at / 256).into()
    }),
    ("many networks", |at| {
        let [high, low] = at.to_be_bytes();
        ([48, high, low, 1], 1).into()
    }),
];

fn honest(number: u8) -> SocketAddr {
    ([60, number, 0, 1], 1).into()
}

#[test]
fn nodes_that_send_first_do_not_replace_looked_up_nodes() {
    for (crowd, at) in CROWDS {
        let mut book: AddressBook<SocketAddr> = AddressBook::new(400, DUE, FORGET);
        for number in 0..100 {
            book.learn(NOW, id(number), Route::Direct(honest(number)));
        }
        book.meet(NOW, id(200), honest(200));
        for number in 0..5000_u16 {
            let now = NOW + Duration::from_millis(number.into());
            book.meet(now, source(number.into()), at(number));
            assert!(book.len() <= 400);
        }
        let now = NOW + Duration::from_secs(5);
        let found = |book: &AddressBook<SocketAddr>, number| book.find(now, &id(number)).is_some();
        assert!((0..100).all(|number| found(&book, number)), "{crowd}");
        assert_eq!(
            found(&book, 200),
            crowd == "one network",
            "{crowd}: a node that sent before the attackers"
        );
        // Honest newcomers and this node's own lookups find room.
        book.meet(now, id(201), honest(201));
        assert!(found(&book, 201), "{crowd}");
        for number in 100..190 {
            book.learn(now, id(number), Route::Direct(honest(number)));
        }
        assert!((0..190).all(|number| found(&book, number)), "{crowd}");
        assert!(book.len() <= 400);
        // An attacker that is looked up counts as such, and is forgotten like any other.
        book.learn(now, source(4999), Route::Direct(at(4999)));
        assert!(book.forget(&source(4999), now) && !book.forget(&source(4999), now));
    }
    // An identity that keeps moving has one place.
    let mut book: AddressBook<SocketAddr> = AddressBook::new(4, DUE, FORGET);
    book.learn(NOW, id(1), Route::Direct(honest(1)));
    for number in 0..5000_u16 {
        book.meet(NOW, id(9), ([203, 0, 113, 1], 1 + number).into());
    }
    assert_eq!((book.len(), book.find(NOW, &id(1)).is_some()), (2, true));
}

#[test]
fn many_neighbours_leave_an_honest_one_its_share_of_the_budget() {
    let one: fn(u16) -> SocketAddr = |_| ([203, 0, 113, 1], 1).into();
    for (crowd, at) in CROWDS.into_iter().chain([("one identity", one)]) {
        let mut budget = Budget::new(100_000, 40_000);
        let mut served = 0;
        for second in 0..3 {
            let now = NOW + Duration::from_secs(second);
            let mut taken = 0;
            for number in 0..900_u16 {
                let from = at(number);
                while budget.spend_in(now, &from, Prefix::of(&from), 50) {
                    taken += 50;
                }
            }
            served = 0;
            let from = honest(1);
            while budget.spend_in(now, &from, Prefix::of(&from), 50) {
                served += 50;
            }
            assert!(taken + served <= 100_000);
        }
        // An even share of half of it: among 901 networks 55 B, among two a quarter.
        let least = if crowd == "many networks" { 50 } else { 25_000 };
        assert!(served >= least, "{crowd}: {served} B");
    }
    // More networks than are distinguished do not exclude one that was served in the second before.
    let mut budget = Budget::new(1 << 30, 1 << 20);
    let from = honest(1);
    assert!(budget.spend_in(NOW, &from, Prefix::of(&from), 1));
    let later = NOW + Duration::from_secs(1);
    let (_, many) = CROWDS[1];
    let others = (0..5000).filter(|number| {
        let from = many(*number);
        budget.spend_in(later, &from, Prefix::of(&from), 1)
    });
    assert_eq!(others.count(), 1024);
    assert!(budget.spend_in(later, &from, Prefix::of(&from), 1));
}

#[test]
fn many_neighbours_in_one_network_displace_only_their_own() {
    let mut returns = Returns::default();
    let from = honest(1);
    assert!(returns.note_in(NOW, source(1), &from, Prefix::of(&from)));
    let (_, at) = CROWDS[0];
    for number in 0..1000_u16 {
        let now = NOW + Duration::from_millis(u64::from(number) + 1);
        let from = at(number);
        assert!(returns.note_in(now, source(100 + u32::from(number)), &from, Prefix::of(&from)));
    }
    assert_eq!(
        returns.find(&source(1)),
        [from],
        "it was the least recently heard"
    );
    assert_eq!(returns.find(&source(1099)), [at(999)]);
}
