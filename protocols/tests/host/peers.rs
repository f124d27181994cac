//! The peer store: expiry, limits, records and persistence.

use std::time::Duration;

use bytes::Bytes;
use p2p_protocols::peers::{Config, Error, PeerStore, Record, Snapshot, SnapshotError, Source};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::peer_ops::{Op, World};

const MINUTE: Duration = Duration::from_mins(1);
const START: Duration = Duration::from_secs(1000);

fn store(config: Config) -> PeerStore<u32, u32> {
    PeerStore::new(config, |_| 0)
}

fn known(store: &PeerStore<u32, u32>, now: Duration, peer: u32) -> Vec<u32> {
    store
        .addrs(now, &peer)
        .into_iter()
        .map(|(addr, _)| addr)
        .collect()
}

const ENVELOPE: &[u8] = b"signed";

fn record(seq: u64) -> Record {
    let envelope = Bytes::from_static(ENVELOPE);
    Record { seq, envelope }
}

#[test]
fn addresses_expire_by_their_source_to_the_exact_time() {
    for (source, minutes) in [(Source::Temporary, 2), (Source::Recent, 15), (Source::Learnt, 60)] {
        let mut store = store(Config::default());
        store.add_addrs(START, &1, [7], source);
        let expiry = START + minutes * MINUTE;
        assert_eq!(store.poll_timeout(), Some(expiry));
        assert_eq!(
            known(&store, expiry.saturating_sub(Duration::from_nanos(1)), 1),
            [7]
        );
        assert!(known(&store, expiry, 1).is_empty(), "without a call at this time");
        store.handle_timeout(expiry);
        assert!(store.is_empty() && store.bytes() == 0);
    }
}

#[test]
fn addresses_of_a_connected_peer_stay_and_then_expire_after_15_minutes() {
    let mut store = store(Config::default());
    store.handle_connected(START, &1, Some(7)).expect("room");
    store.add_addrs(START, &1, [8], Source::Connected);
    store.add_addrs(START, &1, [9], Source::Learnt);
    let later = START + 600 * MINUTE;
    store.handle_timeout(later);
    assert_eq!(known(&store, later, 1).len(), 2);
    store.handle_disconnected(later, &1);
    assert_eq!(store.poll_timeout(), Some(later + 15 * MINUTE));
    store.handle_timeout(later + 15 * MINUTE);
    assert!(store.is_empty());
}

#[test]
fn an_address_that_is_added_again_keeps_the_better_source_and_the_later_expiry() {
    let mut store = store(Config::default());
    store.add_addrs(START, &1, [7], Source::Learnt);
    store.add_addrs(START, &1, [7], Source::Temporary);
    store.add_addrs(START, &1, [7, 8], Source::Recent);
    let addrs = store.addrs(START, &1);
    assert_eq!(addrs, [(7, Some(60 * MINUTE)), (8, Some(15 * MINUTE))]);
    store.add_addrs(START, &1, [8], Source::Configured);
    assert_eq!(store.addrs(START, &1)[0], (8, None));
    let source = |now, addr| store.source(now, &1, &addr);
    assert_eq!(source(START, 8), Some(Source::Configured));
    assert_eq!(source(START + 59 * MINUTE, 7), Some(Source::Recent));
    assert_eq!((source(START + 60 * MINUTE, 7), source(START, 9)), (None, None));
}

#[test]
fn a_record_is_replaced_only_by_a_higher_sequence_number() {
    let mut store = store(Config::default());
    let mut put = |seq, addrs: &[u32]| {
        let addrs = addrs.to_vec();
        let stored = store.put_record(START, &1, seq, ENVELOPE, addrs, Source::Learnt);
        let mut known = known(&store, START, 1);
        known.sort_unstable();
        (stored.expect("room"), known)
    };
    assert_eq!(put(5, &[1, 2]), (true, vec![1, 2]));
    assert_eq!(put(5, &[3]), (false, vec![1, 2]));
    assert_eq!(put(4, &[3]), (false, vec![1, 2]));
    assert_eq!(put(6, &[2, 3]), (true, vec![2, 3]));
    assert_eq!(store.get(&1).and_then(|peer| peer.record), Some(&record(6)));
}

#[test]
fn a_flood_of_named_peers_displaces_no_peer_that_was_connected() {
    let config = Config {
        peers: 100,
        ..Config::default()
    };
    let mut store = store(config);
    for peer in 0..40 {
        store.handle_connected(START, &peer, Some(peer)).expect("room");
    }
    store.protect(START, &1000, true).expect("room");
    for peer in 0..20 {
        store.handle_disconnected(START, &peer);
    }
    for peer in 2000..12_000 {
        assert_eq!(store.add_addrs(START, &peer, [peer], Source::Learnt).added, 1);
        assert!(store.len() <= 100);
    }
    assert!((0..40).chain([1000]).all(|peer| store.get(&peer).is_some()));
    // Peers that connect displace named ones, and then those whose connection ended first.
    for peer in 12_000..12_059 {
        store.handle_connected(START, &peer, None).expect("room");
    }
    assert!((0..20).all(|peer| store.get(&peer).is_some()));
    store.handle_connected(START, &12_059, None).expect("room");
    assert!(store.get(&0).is_none() && store.get(&1).is_some());
}

#[test]
fn a_store_full_of_connected_and_protected_peers_refuses_others() {
    let config = Config {
        peers: 4,
        ..Config::default()
    };
    let mut store = store(config);
    for peer in 0..3 {
        store.handle_connected(START, &peer, None).expect("room");
    }
    store.protect(START, &3, true).expect("room");
    assert_eq!(store.add_addrs(START, &4, [1], Source::Learnt).refused, 1);
    assert_eq!(store.handle_connected(START, &4, None), Err(Error::Full));
    store.protect(START, &3, false).expect("known");
    assert_eq!(store.handle_connected(START, &4, None), Ok(()));
    assert!(store.get(&3).is_none());
}

#[test]
fn what_one_peer_says_is_bounded_and_displaces_nothing_of_others() {
    let config = Config {
        bytes: 1 << 20,
        peer_bytes: 16 << 10,
        ..Config::default()
    };
    let mut store = store(config);
    store.add_addrs(START, &1, 0..1000, Source::Learnt);
    store.handle_connected(START, &2, None).expect("room");
    for round in 0..1000 {
        store.add_addrs(START, &2, round * 100..(round + 1) * 100, Source::Connected);
        let protocols = vec!["/p".repeat(100); round as usize % 1100];
        let _ = store.set_protocols(START, &2, protocols);
        let _ = store.set_agent(START, &2, "a".repeat(round as usize * 30));
        let _ = store.set_key(START, &2, &vec![0; round as usize * 30]);
        let envelope = vec![0; round as usize * 30];
        let _ = store.put_record(START, &2, round.into(), &envelope, [], Source::Connected);
    }
    assert_eq!(
        (known(&store, START, 1).len(), known(&store, START, 2).len()),
        (100, 100)
    );
    assert!(store.bytes() < 40 << 10, "{} bytes", store.bytes());
    let error = store
        .set_protocols(START, &2, vec![String::new(); 1025])
        .expect_err("too many");
    assert!(matches!(
        error,
        Error::TooMuch {
            size: 1025,
            limit: 1024,
            ..
        }
    ));
}

#[test]
fn bytes_in_total_are_bounded_and_the_least_useful_peers_go() {
    let config = Config {
        bytes: 256 << 10,
        ..Config::default()
    };
    let mut store = store(config);
    store.handle_connected(START, &0, Some(0)).expect("room");
    for peer in 1..10_000 {
        store.add_addrs(START, &peer, 0..10, Source::Learnt);
        let _ = store.set_agent(START, &peer, "a".repeat(1000));
        assert!(store.bytes() <= 256 << 10);
    }
    assert!(store.len() > 20 && store.get(&0).is_some() && store.get(&1).is_none());
}

#[test]
fn a_better_address_replaces_the_worst_one_at_the_limit() {
    let config = Config {
        addrs: 3,
        ..Config::default()
    };
    let mut store = store(config);
    store.add_addrs(START, &1, [1], Source::Temporary);
    store.add_addrs(START, &1, [2, 3], Source::Learnt);
    assert_eq!(store.add_addrs(START, &1, [4], Source::Temporary).refused, 1);
    assert_eq!(store.add_addrs(START, &1, [4], Source::Learnt).added, 1);
    assert_eq!(store.add_addrs(START, &1, [5], Source::Recent).added, 1);
    assert_eq!(known(&store, START, 1).len(), 3);
    assert!(!known(&store, START, 1).contains(&1) && known(&store, START, 1).contains(&5));
}

#[test]
fn a_saved_store_is_loaded_without_the_time_that_passed() {
    let mut saved = store(Config::default());
    saved.handle_connected(START, &1, Some(7)).expect("room");
    saved.set_agent(START, &1, "example/1".into()).expect("room");
    saved.set_key(START, &1, b"key").expect("room");
    saved
        .put_record(START, &1, 3, ENVELOPE, [7], Source::Connected)
        .expect("room");
    saved.add_addrs(START, &2, [8], Source::Learnt);
    saved.add_addrs(START, &3, [9], Source::Temporary);
    saved.add_addrs(START, &4, [10], Source::Configured);
    let unix = Duration::from_secs(1_700_000_000);
    let bytes = saved.export(START, unix).encode().expect("plain data");

    let snapshot = Snapshot::decode(&bytes).expect("a snapshot");
    let mut loaded = store(Config::default());
    // The clock of this process has another start.
    let now = Duration::ZERO;
    assert_eq!(loaded.import(now, unix + 5 * MINUTE, snapshot.clone()), 2);
    assert_eq!(loaded.addrs(now, &1), [(7, Some(10 * MINUTE))]);
    assert_eq!(loaded.addrs(now, &2), [(8, Some(55 * MINUTE))]);
    let peer = loaded.get(&1).expect("it is known");
    assert_eq!((peer.agent, peer.record), (Some("example/1"), Some(&record(3))));
    assert!(!peer.is_connected && peer.key.is_some());
    // A clock that went back adds no time; a later load adds nothing.
    assert_eq!(
        store(Config::default()).import(now, Duration::ZERO, snapshot.clone()),
        3
    );
    assert_eq!(
        store(Config::default()).import(now, unix + 60 * MINUTE, snapshot),
        0
    );
}

#[test]
fn a_snapshot_is_outdated_after_a_change_and_before_connected_peers_would_expire_in_it() {
    let mut store = store(Config::default());
    store.add_addrs(START, &1, [7], Source::Learnt);
    let saved = store.revision(START);
    assert!(!store.is_outdated(START + 59 * MINUTE, saved));
    // Each kind of change.
    let changes: [fn(&mut PeerStore<u32, u32>); 7] = [
        |store| {
            store.add_addrs(START, &1, [8], Source::Learnt);
        },
        |store| store.set_agent(START, &1, "example/1".into()).expect("room"),
        |store| store.set_key(START, &2, b"key").expect("room"),
        |store| {
            let put = store.put_record(START, &1, 3, ENVELOPE, [7], Source::Learnt);
            assert_eq!(put, Ok(true));
        },
        |store| assert!(store.remove_addr(START, &1, &8)),
        |store| assert!(store.remove(&2)),
        |store| store.handle_timeout(START + 60 * MINUTE),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let saved = store.revision(START);
        change(&mut store);
        assert!(store.is_outdated(START, saved), "change {index}");
        assert!(!store.is_outdated(START, store.revision(START)));
    }

    store.handle_connected(START, &3, Some(9)).expect("room");
    let saved = store.revision(START);
    assert!(!store.is_outdated(START + 7 * MINUTE, saved));
    assert!(store.is_outdated(START + 8 * MINUTE, saved));
}

#[test]
fn the_encoding_of_a_snapshot_is_pinned() {
    let mut saved = store(Config::default());
    saved.add_addrs(START, &2, [8], Source::Learnt);
    saved.set_agent(START, &2, "a".into()).expect("room");
    let bytes = saved
        .export(START, Duration::from_secs(3))
        .encode()
        .expect("plain data");
    let expected = [1, 3, 0, 1, 2, 1, 8, 0x90, 0x1c, 0, 0, 0, 0, 0, 1, 1, b'a', 0, 0];
    assert_eq!(bytes, expected);
    let version: Result<Snapshot<u32, u32>, _> = Snapshot::decode(&[2, 3]);
    assert_eq!(version, Err(SnapshotError::Version { found: 2 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn invariants_of_the_store_hold_after_any_steps(seed: u64, steps in vec(any::<Op>(), 0..2000)) {
        let mut world = World::new(seed);
        for step in steps {
            world.step(step);
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_a_snapshot_within_the_limits(bytes in vec(any::<u8>(), 0..300)) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        if let Ok(snapshot) = Snapshot::decode(&bytes) {
            let config = Config { peers: 3, bytes: 4 << 10, ..Config::default() };
            let mut store = store(config);
            store.import(START, START, snapshot);
            assert!(store.len() <= 3 && store.bytes() <= 4 << 10);
        }
    }
}
