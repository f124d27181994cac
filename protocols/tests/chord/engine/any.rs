//! Arbitrary events in any order.

use std::time::Duration;

use p2p_protocols::chord::wire::{Answer, Ask, Message, Node, Record};
use p2p_protocols::chord::{Config, Failure};
use proptest::prelude::*;

use super::setup::{NOW, between};
use crate::place::{Place, answer, ask, id, key, node, sent};

/// An input of the engine.
#[derive(Clone, Debug)]
enum Happening {
    Bytes(u16, Vec<u8>),
    Ask(u16, Vec<u8>),
    Answer(usize, u16, Vec<u8>),
    Fail(usize, bool),
    Time(u64),
    Do(u8, u32),
}

fn any_node() -> impl Strategy<Value = Node<'static>> {
    (any::<u16>(), any::<bool>()).prop_map(|(number, honest)| Node {
        addr: (if honest { number } else { number / 2 }).to_string().into(),
        ..node(number)
    })
}

fn any_nodes() -> impl Strategy<Value = Vec<Node<'static>>> {
    prop::collection::vec(any_node(), 0..8)
}

fn any_ask() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let key = || any::<u32>().prop_map(|number| *key(number).as_bytes());
    let value = || prop::collection::vec(any::<u8>(), 0..40);
    let of = |from: u16, body: Ask<'_>| (from, ask(from, body));
    prop_oneof![
        any::<u16>().prop_map(move |from| of(from, Ask::Stabilize)),
        (any::<u16>(), any_node()).prop_map(move |(from, node)| of(from, Ask::Nearer(node))),
        (any::<u16>(), key(), any::<u8>()).prop_map(move |(from, key, skip)| of(from, Ask::Step(key, skip))),
        (any::<u16>(), key()).prop_map(move |(from, key)| of(from, Ask::Get(key))),
        (any::<u16>(), key(), key()).prop_map(move |(from, one, two)| of(from, Ask::Keys(one, two))),
        (any::<u16>(), key(), any::<u32>(), value(), any::<bool>()).prop_map(
            move |(from, key, ttl, value, put)| {
                let value = &value[..];
                let record = Record { key, ttl, value };
                of(from, if put { Ask::Put(record) } else { Ask::Keep(record) })
            }
        ),
        (any::<u16>(), prop::option::of(any_node()), any_nodes()).prop_map(
            move |(from, predecessor, successors)| {
                of(
                    from,
                    Ask::Leave {
                        predecessor,
                        successors,
                    },
                )
            }
        ),
    ]
}

fn any_answer() -> impl Strategy<Value = Vec<u8>> {
    let record = (
        any::<u32>(),
        any::<u32>(),
        prop::collection::vec(any::<u8>(), 0..20),
    );
    prop_oneof![
        Just(answer(0, Answer::Done)),
        Just(answer(0, Answer::Stale)),
        (
            any::<bool>(),
            prop::option::of(any_node()),
            any_nodes(),
            any_nodes()
        )
            .prop_map(|(mine, predecessor, nearer, owners)| {
                let step = Answer::Step {
                    mine,
                    predecessor,
                    nearer,
                    owners,
                };
                answer(0, step)
            }),
        (prop::option::of(any_node()), any_nodes()).prop_map(|(predecessor, successors)| {
            let neighbours = Answer::Neighbours {
                predecessor,
                successors,
            };
            answer(0, neighbours)
        }),
        prop::option::of(any_node()).prop_map(|node| answer(0, Answer::Elsewhere(node))),
        (any::<u32>(), prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(ttl, value)| answer(0, Answer::Value(ttl, &value))),
        (prop::collection::vec(record, 0..4), any::<bool>()).prop_map(|(records, more)| {
            let records = records.iter().map(|(number, ttl, value)| Record {
                key: *key(*number).as_bytes(),
                ttl: *ttl,
                value,
            });
            let records = records.collect();
            answer(0, Answer::Keys { records, more })
        }),
    ]
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..80);
    prop_oneof![
        1 => (any::<u16>(), bytes()).prop_map(|(from, bytes)| Happening::Bytes(from, bytes)),
        6 => any_ask().prop_map(|(from, ask)| Happening::Ask(from, ask)),
        8 => (any::<usize>(), any::<u16>(), any_answer())
            .prop_map(|(which, from, bytes)| Happening::Answer(which, from, bytes)),
        1 => (any::<usize>(), bytes().prop_map(|bytes| [vec![1], bytes].concat()))
            .prop_map(|(which, bytes)| Happening::Answer(which, 1, bytes)),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(which, gone)| Happening::Fail(which, gone)),
        3 => any::<u64>().prop_map(Happening::Time),
        3 => (any::<u8>(), any::<u32>()).prop_map(|(what, number)| Happening::Do(what, number)),
    ]
}

proptest! {
    #[test]
    fn no_sequence_of_inputs_panics_or_exceeds_the_limits(
        happenings in prop::collection::vec(any_happening(), 1..200),
    ) {
        let config = Config {
            successors: 4,
            operations: 4,
            replicate_batch: 4,
            records: 10,
            record_bytes: 100,
            value: 30,
            ..Config::default()
        };
        let mut engine = between(config, 0xf000, 0x1000, &[0x2000, 0x3000]);
        let (mut now, mut asked) = (NOW, Vec::new());
        for happening in happenings {
            match happening {
                Happening::Bytes(from, bytes) | Happening::Ask(from, bytes) => {
                    let _ = engine.handle_request(now, &Place(from), &bytes);
                }
                Happening::Answer(which, from, mut bytes) => {
                    if !asked.is_empty() {
                        let transmit: p2p_protocols::chord::RequestTransmit<Place> =
                            asked.swap_remove(which % asked.len());
                        // Most answers come from the asked node.
                        let from = if from % 8 == 0 { from } else { transmit.to.0 };
                        if let Some(place) = bytes.get_mut(1..33) {
                            place.copy_from_slice(id(from).as_bytes());
                        }
                        engine.handle_answer(now, transmit.id, &bytes);
                    }
                }
                Happening::Fail(which, gone) => {
                    if !asked.is_empty() {
                        let transmit = asked.swap_remove(which % asked.len());
                        let why = if gone { Failure::Unreachable } else { Failure::Rejected };
                        engine.handle_failure(now, transmit.id, why);
                    }
                }
                Happening::Time(nanos) => {
                    // Advances up to a minute, or to the end of time.
                    now = if nanos == u64::MAX { Duration::MAX } else {
                        now.saturating_add(Duration::from_nanos(nanos % 60_000_000_000))
                    };
                    engine.handle_timeout(now);
                }
                Happening::Do(what, number) => {
                    let key = key(number);
                    let _ = match what % 8 {
                        0 => engine.join(now, &[Place(number as u16)]),
                        1..=3 => engine.lookup(now, key),
                        4 => engine.get(now, key),
                        5 | 6 => engine.put(now, key, &[number as u8 >> 1; 5], Duration::from_mins(1)),
                        _ if number % 8 == 0 => engine.leave(now),
                        _ => engine.lookup(now, key),
                    };
                }
            }
            let sent = sent(&mut engine);
            for transmit in &sent {
                prop_assert!(Message::<Ask<'_>>::parse(&transmit.request).is_some());
            }
            asked.extend(sent);
            let events = std::iter::from_fn(|| engine.poll_event()).count();
            // Each operation makes progress and ends, and the node may be alone.
            prop_assert!(events <= 12, "{} events at once", events);
            prop_assert!(engine.successors().len() <= 4);
            prop_assert!(engine.fingers().count() <= 256);
            prop_assert!(engine.stored().0 <= 10 && engine.stored().1 <= 100);
            // Operations and upkeep, copies, records handed over, pages, requests for neighbours.
            prop_assert!(engine.in_flight() <= 60, "{} in flight", engine.in_flight());
        }
    }
}
