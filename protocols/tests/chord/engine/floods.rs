//! Floods of every limit: from one identity, from one network, and from many networks. During each, an honest
//! node is served, and this node's own operations work.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use p2p::PeerId;
use p2p_protocols::chord::wire::{Answer, Ask, Message, Node, Record};
use p2p_protocols::chord::{Config, Engine, Event, Failure, Outcome, Rules};

use super::setup::{HOUR, NOW, Networked};
use crate::place::{Place, answer, ask, id, key, node, parse, sent};

/// The name of a group of attackers, and the node for each number.
type Crowd = (&'static str, fn(u16) -> Networked);

/// A flooding node: an id, and its IP address.
const CROWDS: [Crowd; 3] = [
    ("one identity", |_| Networked(Place(0x5000), [32, 0, 0, 1])),
    ("one network", |at| {
        Networked(Place(0x5000 + at % 256), [32, 0, 0, (at % 256) as u8])
    }),
    ("many networks", |at| {
        let [high, low] = at.to_be_bytes();
        Networked(Place(0x5000 + at), [48, high, low, 1])
    }),
];

/// Returns an honest node in its own network.
fn honest(number: u16) -> Networked {
    let [high, low] = number.to_be_bytes();
    Networked(Place(number), [60, high, low, 1])
}

fn told(number: u16) -> Node<'static> {
    let Networked(_, ip) = honest(number);
    Node {
        addr: format!("{number}@{}", Ipv4Addr::from(ip)).into(),
        ..node(number)
    }
}

fn small() -> Config {
    Config {
        records: 100,
        record_bytes: 20_000,
        records_per_source: 60,
        operations: 8,
        ..Config::default()
    }
}

/// Answers requests to honest nodes on a ring of 0, 0x1000, 0x2000, 0x3000 and 0xf000, and no others.
fn settle(engine: &mut Engine<Networked>) -> Vec<Event<Networked>> {
    let mut events = Vec::new();
    for _ in 0..200 {
        for transmit in sent(engine) {
            let number = transmit.to.0.0;
            if transmit.to != honest(number) || ![0x1000, 0x2000, 0x3000, 0xf000].contains(&number) {
                engine.handle_failure(NOW, transmit.id, Failure::Unreachable);
                continue;
            }
            let body = match parse(&transmit.request) {
                Ask::Stabilize => Answer::Neighbours {
                    predecessor: Some(told(if number == 0x1000 { 0 } else { 0x1000 })),
                    successors: [0x2000, 0x3000, 0xf000].map(told).into(),
                },
                Ask::Step(..) => Answer::Step {
                    mine: false,
                    predecessor: Some(told(0x1000)),
                    nearer: Vec::new(),
                    owners: [0x2000, 0x3000].map(told).into(),
                },
                _ => Answer::Done,
            };
            engine.handle_answer(NOW, transmit.id, &answer(number, body));
        }
        events.extend(std::iter::from_fn(|| engine.poll_event()));
        if engine.in_flight() == 0 {
            break;
        }
    }
    events
}

fn ring(config: Config) -> Engine<Networked> {
    let parse = |text: &str| {
        let (number, ip) = text.split_once('@')?;
        let ip: Ipv4Addr = ip.parse().ok()?;
        Some(Networked(Place(number.parse().ok()?), ip.octets()))
    };
    let rules = Rules::new(config, parse, |_: &PeerId, _: &[u8]| true);
    let mut engine = Engine::new(id(0), Arc::new(rules), NOW, 1);
    let stabilize = ask(0xf000, Ask::Stabilize);
    engine
        .handle_request(NOW, &honest(0xf000), &stabilize)
        .expect("a good request");
    settle(&mut engine);
    engine
        .handle_request(NOW, &honest(0xf000), &ask(0xf000, Ask::Nearer(told(0x1000))))
        .expect("a good request");
    settle(&mut engine);
    assert_eq!(engine.successors().first().map(|next| next.id), Some(id(0x1000)));
    engine
}

/// Sends every kind of request `times` times.
fn flood(engine: &mut Engine<Networked>, config: &Config, source: fn(u16) -> Networked, times: u16) {
    for at in 0..times {
        let from = source(at);
        let number = from.0.0;
        // Keys outside the node's own range: records there, each of another source, do not evict one another.
        let random = key(u32::from(at).wrapping_mul(0x9e37_79b9) >> 1);
        let record = |key| Record {
            key,
            ttl: HOUR,
            value: &[1; 150],
        };
        let [copy, own] = [*random.as_bytes(), *key(0xf800_0000 + u32::from(at)).as_bytes()];
        let put = if from.1[0] == 32 { own } else { copy };
        let named = Node {
            addr: format!("{number}@{}", Ipv4Addr::from(from.1)).into(),
            ..node(number)
        };
        for body in [
            Ask::Ping,
            Ask::Step(copy, 0),
            Ask::Stabilize,
            Ask::Get(copy),
            Ask::Put(record(put)),
            Ask::Keep(record(copy)),
            Ask::Keys(copy, own),
            Ask::Nearer(named.clone()),
            Ask::Leave {
                predecessor: Some(named.clone()),
                successors: vec![named],
            },
        ] {
            let _ = engine.handle_request(NOW, &from, &ask(number, body));
        }
        let (records, bytes) = engine.stored();
        assert!(records <= config.records && bytes <= config.record_bytes);
        let in_flight = engine.in_flight();
        assert!(in_flight <= 2 * config.replicate_batch, "{in_flight} in flight");
    }
    settle(engine);
}

#[test]
fn a_flood_of_every_request_excludes_no_honest_node_and_no_own_operation() {
    for (crowd, source) in CROWDS {
        let config = small();
        let mut engine = ring(config);
        let neighbours = |engine: &Engine<Networked>| {
            let after: Vec<PeerId> = engine.successors().iter().map(|next| next.id).collect();
            (engine.predecessor().map(|node| node.id), after)
        };
        let before = neighbours(&engine);
        flood(&mut engine, &config, source, 2000);
        assert_eq!(neighbours(&engine), before, "{crowd}");
        // An honest node stores a record of the own range, and a copy of another.
        let from = honest(0x3000);
        let value = &[9; 150][..];
        let own = Record {
            key: *key(0xf900_0000).as_bytes(),
            ttl: HOUR,
            value,
        };
        let put = engine.handle_request(NOW, &from, &ask(0x3000, Ask::Put(own)));
        let put = Message::<Answer<'_>>::parse(&put.expect("room"))
            .expect("a good answer")
            .body
            == Answer::Done;
        assert!(put, "{crowd}");
        if crowd != "many networks" {
            let copy = Record {
                key: *key(0x2800_0000).as_bytes(),
                ..own
            };
            let kept = engine.handle_request(NOW, &from, &ask(0x3000, Ask::Keep(copy)));
            assert!(kept.is_ok(), "{crowd}: {kept:?}");
        }
        flood(&mut engine, &config, source, 300);
        let get = engine.handle_request(NOW, &from, &ask(0x3000, Ask::Get(own.key)));
        let get = get.expect("a good request");
        let got = Message::<Answer<'_>>::parse(&get).expect("a good answer").body;
        assert_eq!(got, Answer::Value(HOUR, value), "{crowd}");
        // Own operations: the maximum number starts and ends.
        for at in 0..config.operations {
            engine.lookup(NOW, key(0x1800_0000 + at as u32)).expect("room");
        }
        let done = settle(&mut engine).into_iter().filter(|event| {
            matches!(event, Event::Done { outcome: Ok(Outcome::Found(found)), .. } if found.owner.as_ref().is_some_and(|owner| owner.id == id(0x2000)))
        });
        assert_eq!(done.count(), config.operations, "{crowd}");
        engine
            .put(NOW, key(0x1800_0000), &[1], Duration::from_hours(1))
            .expect("room");
        let done = settle(&mut engine).into_iter().any(|event| {
            matches!(
                event,
                Event::Done {
                    outcome: Ok(Outcome::Stored),
                    ..
                }
            )
        });
        assert!(done, "{crowd}");
        engine.join(NOW, &[honest(0x3000)]).expect("room");
        let done = settle(&mut engine)
            .into_iter()
            .any(|event| matches!(event, Event::Done { .. }));
        assert!(done, "{crowd}");
    }
}
