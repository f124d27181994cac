//! Records: which records a node stores, for which source, and where their copies go.

use std::sync::Arc;
use std::time::Duration;

use p2p::{PeerId, Rejection};
use p2p_protocols::chord::wire::{Answer, Ask, Message};
use p2p_protocols::chord::{Config, Engine, Event, Failure, OpError, Refusal, Rules};

use super::setup::{HOUR, NOW, Networked, between, ended, engine, keep, record};
use crate::place::{BAD, Place, answer, ask, id, key, node, parse, sent};

#[test]
fn oversize_and_invalid_records_are_refused_and_the_longest_is_stored() {
    let config = Config {
        value: 100,
        ..Config::default()
    };
    let mut engine = between(config, 0xf000, 0x1000, &[]);
    assert_eq!(keep(&mut engine, 0xf000, 1, &[1; 101]), Err(Refusal::Oversize));
    assert_eq!(Refusal::Oversize.rejection(), Rejection::OVERSIZE);
    assert_eq!(keep(&mut engine, 0xf000, 1, &[BAD; 10]), Err(Refusal::Invalid));
    assert!(keep(&mut engine, 0xf000, 1, &[1; 100]).is_ok());
    assert_eq!(engine.stored(), (1, 100));
    let long = ask(0xf000, Ask::Put(record(1, &vec![0; 20_000])));
    assert_eq!(
        engine.handle_request(NOW, &Place(0xf000), &long),
        Err(Refusal::Oversize)
    );
    let refused = engine.put(NOW, key(1), &[1; 101], Duration::from_secs(1));
    assert!(matches!(
        refused,
        Err(p2p::Error::MtuExceeded { size: 101, mtu: 100 })
    ));
    assert!(engine.put(NOW, key(1), &[BAD], Duration::from_secs(1)).is_err());
    assert!(engine.put(NOW, key(1), &[1], Duration::ZERO).is_err());
    assert_eq!(sent(&mut engine), []);
}

#[test]
fn the_better_record_stays_and_putting_a_worse_one_fails() {
    let mut engine = between(Config::default(), 0xf000, 0x1000, &[]);
    let stale = |bytes: Vec<u8>| Message::<Answer<'_>>::parse(&bytes).unwrap().body == Answer::Stale;
    assert!(!stale(keep(&mut engine, 1, 5, b"b").unwrap()));
    assert!(stale(keep(&mut engine, 1, 5, b"a").unwrap()));
    assert!(!stale(keep(&mut engine, 1, 5, b"b").unwrap()));
    assert!(!stale(keep(&mut engine, 1, 5, b"c").unwrap()));
    let get = engine.handle_request(NOW, &Place(1), &ask(1, Ask::Get(*key(5).as_bytes())));
    let get = get.unwrap();
    let value = Message::<Answer<'_>>::parse(&get).unwrap().body;
    assert_eq!(value, Answer::Value(HOUR, b"c"));

    // The storing node itself as well.
    let op = engine
        .put(NOW, key(0x0800_0000), b"a", Duration::from_secs(9))
        .unwrap();
    let asked = sent(&mut engine).remove(0);
    engine.handle_answer(NOW, asked.id, &answer(asked.to.0, Answer::Stale));
    let outcome = Err(OpError::Stale);
    assert_eq!(ended(&mut engine), Some(Event::Done { op, outcome }));
}

#[test]
fn a_flood_of_records_is_bounded_in_total_and_for_each_sender() {
    let config = Config {
        records: 100,
        records_per_source: 60,
        record_bytes: 500,
        ..Config::default()
    };
    let mut engine = between(config, 0xf000, 0x1000, &[]);
    for number in 0..1000 {
        let kept = keep(&mut engine, 1, 0x2000_0000 + number, b"x");
        assert_eq!(kept.is_ok(), number < 60, "{number}");
        if number >= 60 {
            assert_eq!(kept, Err(Refusal::Limit));
        }
    }
    for number in 0..1000 {
        let kept = keep(&mut engine, 2, 0x3000_0000 + number, b"x");
        // First as many as there is room for, then in place of the other source's, until both have equally
        // many.
        assert_eq!(kept.is_ok(), number < 50, "{number}");
    }
    assert_eq!(engine.stored(), (100, 100));
    // Storing the same record again does not make room for more bytes.
    assert_eq!(
        keep(&mut engine, 2, 0x3000_0000, &[b'y'; 402]),
        Err(Refusal::Full)
    );
    assert!(keep(&mut engine, 2, 0x3000_0000, &[b'y'; 401]).is_ok());
    assert_eq!(engine.stored(), (100, 500));
}

#[test]
fn many_ids_in_one_network_store_no_more_than_one_node() {
    let config = Config {
        records_per_source: 20,
        ..Config::default()
    };
    let parse = |_: &str| None;
    let rules = Arc::new(Rules::new(config, parse, |_: &PeerId, _: &[u8]| true));
    let mut engine: Engine<Networked> = Engine::new(id(0), rules, NOW, 1);
    let mut kept = |number: u16, ip| {
        let from = Networked(Place(number), ip);
        let keep = ask(number, Ask::Keep(record(number.into(), b"x")));
        engine.handle_request(NOW, &from, &keep).is_ok()
    };
    for number in 1..100 {
        assert_eq!(
            kept(number, [203, 0, 113, number as u8]),
            number <= 20,
            "{number}"
        );
    }
    assert!(kept(100, [203, 0, 114, 1]), "another network");
}

#[test]
fn sources_that_fill_the_own_range_leave_room_for_others() {
    let config = Config {
        records: 20,
        records_per_source: 10,
        ..Config::default()
    };
    let mut engine = between(config, 0xf000, 0x1000, &[]);
    for number in 0..20 {
        let from = 1 + (number % 2) as u16;
        assert!(keep(&mut engine, from, 0xf100_0000 + number, b"x").is_ok());
    }
    for number in 0..9 {
        assert!(
            keep(&mut engine, 3, 0xf200_0000 + number, b"x").is_ok() || number > 5,
            "{number}"
        );
        assert_eq!(engine.stored().0, 20);
    }
    // All sources have about equally many now, and none displaces another.
    for from in [1, 2, 3] {
        assert_eq!(keep(&mut engine, from, 0xf300_0000, b"x"), Err(Refusal::Full));
    }
}

#[test]
fn a_full_node_evicts_the_farthest_copies_only_for_records_of_its_own_range() {
    let config = Config {
        records: 10,
        ..Config::default()
    };
    let mut engine = between(config, 0xf000, 0x1000, &[]);
    for number in 0..10 {
        keep(&mut engine, 1, 0x2000_0000 + number, b"copy").unwrap();
    }
    assert_eq!(
        keep(&mut engine, 1, 0x3000_0000, b"copy"),
        Err(Refusal::Full),
        "another copy"
    );
    for number in 0..10 {
        keep(&mut engine, 1, 0xf800_0000 + number, b"own").unwrap();
        assert!(
            !engine.keeps(NOW, &key(0x2000_0000 + number)),
            "the farthest before this node is the next after it"
        );
    }
    assert_eq!(
        keep(&mut engine, 1, 0xf900_0000, b"own"),
        Err(Refusal::Full),
        "own records are not evicted"
    );
    assert_eq!(engine.stored(), (10, 30));
}

#[test]
fn a_flood_of_puts_does_not_cause_a_flood_of_copies() {
    let config = Config {
        replicate_batch: 8,
        ..Config::default()
    };
    let mut engine = between(config, 0xf000, 0x1000, &[0x2000, 0x3000]);
    for number in 0..1000 {
        let put = ask(1, Ask::Put(record(0xf800_0000 + number, b"x")));
        engine.handle_request(NOW, &Place(1), &put).unwrap();
    }
    let mut asked = sent(&mut engine);
    assert!(asked.len() <= 10, "{}", asked.len());
    // Still, all of them are copied, none more than three times to each node.
    let mut copies = std::collections::BTreeMap::new();
    let mut now = NOW;
    while copies.len() < 2000 {
        for transmit in std::mem::take(&mut asked) {
            let done = answer(transmit.to.0, Answer::Done);
            match parse(&transmit.request) {
                Ask::Keep(record) => {
                    *copies.entry((transmit.to, record.key)).or_insert(0) += 1;
                    engine.handle_answer(now, transmit.id, &done);
                }
                Ask::Stabilize => {
                    let neighbours = Answer::Neighbours {
                        predecessor: Some(node(0)),
                        successors: vec![node(0x2000), node(0x3000)],
                    };
                    engine.handle_answer(now, transmit.id, &answer(0x1000, neighbours));
                }
                Ask::Ping => engine.handle_answer(now, transmit.id, &done),
                _ => engine.handle_failure(now, transmit.id, Failure::Rejected),
            }
            assert!(engine.in_flight() <= 20);
        }
        asked = sent(&mut engine);
        if asked.is_empty() {
            now = engine.poll_timeout().unwrap();
            assert!(now < NOW + Duration::from_mins(10), "{} copies", copies.len());
            engine.handle_timeout(now);
            asked = sent(&mut engine);
        }
    }
    // From the queue, from a sweep over all that was in progress, and from the next sweep.
    assert!(copies.values().all(|count| *count <= 3));
}

#[test]
fn a_transfer_ends_when_a_page_brings_nothing_new() {
    let mut engine = engine(Config::default());
    engine.join(NOW, &[Place(0x1000)]).unwrap();
    let step = || Answer::Step {
        mine: true,
        predecessor: None,
        nearer: Vec::new(),
        owners: Vec::new(),
    };
    let mut pages = 0;
    while let Some(transmit) = engine.poll_transmit() {
        let body = match parse(&transmit.request) {
            Ask::Stabilize => Answer::Neighbours {
                predecessor: None,
                successors: Vec::new(),
            },
            Ask::Keys(..) => {
                pages += 1;
                // The same page again and again, instead of the next one.
                Answer::Keys {
                    records: vec![record(0x2000_0000, b"x"), record(0x3000_0000, b"y")],
                    more: true,
                }
            }
            _ => step(),
        };
        engine.handle_answer(NOW, transmit.id, &answer(0x1000, body));
    }
    assert_eq!(pages, 2);
    assert_eq!(engine.counts().bad_records, 1);
}
