//! Floods of every limit: from one identity, from one network, and from many networks. During each, an honest
//! node is served, and this node's own operations work.

use std::collections::BTreeSet;
use std::time::Duration;

use p2p_protocols::kademlia::wire::{Answer, Ask, Message};
use p2p_protocols::kademlia::{Config, Engine, Event, Failure, Outcome};

use super::setup::{HOUR, NOW, answer, ask, engine, meet, node, provide, put, sent};
use crate::net::{Place, id};

/// The name of a group of attackers, and the node for each number.
type Crowd = (&'static str, fn(u32) -> u32);

/// The flooding nodes.
const CROWDS: [Crowd; 3] = [
    ("one identity", |_| 0x2000_0001),
    ("one network", |at| 0x2000_0000 + at % 256),
    ("many networks", |at| 0x3000_0000 + (at % 1500) * 256),
];

/// Nodes that this node knows before the flood.
const FRIENDS: [u32; 12] = {
    let mut friends = [0; 12];
    let mut at = 0;
    while at < 12 {
        friends[at] = 0x4000_0001 + ((at as u32) << 16);
        at += 1;
    }
    friends
};

/// An honest node that arrives during the flood, in its own network.
const HONEST: u32 = 0x5000_0001;

/// Returns a key that an honest node and the attackers use: near to this node's id, as stored keys are.
fn shared() -> [u8; 32] {
    let mut key = *id(0).as_bytes();
    key[31] ^= 1;
    key
}

/// Returns the record with this key, and whether the honest node is among its providers.
fn left(engine: &mut Engine<Place>) -> (Option<Vec<u8>>, bool) {
    let mut ask = |body| {
        let bytes = engine.handle_request(NOW, &Place::new(FRIENDS[0]), &ask(FRIENDS[0], body));
        bytes.expect("a good request")
    };
    let record = ask(Ask::Get(shared()));
    let value = match Message::<Answer<'_>>::parse(&record).expect("a good answer").body {
        Answer::Record { value, .. } => Some(value.to_vec()),
        _ => None,
    };
    let providers = ask(Ask::Providers(shared()));
    let is_there = match Message::<Answer<'_>>::parse(&providers)
        .expect("a good answer")
        .body
    {
        Answer::Providers { providers, .. } => providers
            .iter()
            .any(|node| node.id == *id(HONEST.into()).as_bytes()),
        _ => false,
    };
    (value, is_there)
}

fn small() -> Config {
    Config {
        k: 8,
        records: 100,
        record_bytes: 10_000,
        records_per_source: 20,
        provider_keys: 100,
        provided_per_source: 20,
        operations: 8,
        ..Config::default()
    }
}

/// Sends every kind of request `times` times. Every other flooding node answers requests with the matching
/// kind.
fn flood(engine: &mut Engine<Place>, config: &Config, source: fn(u32) -> u32, times: u32) {
    for at in 0..times {
        let number = source(at);
        let from = Place::new(number);
        let target = *id(u64::from(at)).as_bytes();
        let key = 1_000_000 + u64::from(at);
        for request in [
            ask(number, Ask::Ping),
            ask(number, Ask::FindNode(target)),
            ask(number, Ask::Get(target)),
            ask(number, Ask::Providers(target)),
            put(number, key, &[1; 200]),
            provide(number, key),
            ask(
                number,
                Ask::Put {
                    key: shared(),
                    ttl: HOUR,
                    value: &[0; 200],
                },
            ),
            ask(
                number,
                Ask::Provide {
                    key: shared(),
                    ttl: HOUR,
                },
            ),
        ] {
            let _ = engine.handle_request(NOW, &from, &request);
        }
        for transmit in sent(engine) {
            let asked = transmit.to.number;
            if asked % 2 == 0 {
                engine.handle_answer(NOW, transmit.id, &answer(asked, Answer::Pong));
            }
        }
        let (records, bytes) = engine.stored();
        let (keys, providers) = engine.kept_providers();
        assert!(records <= config.records && bytes <= config.record_bytes);
        assert!(keys <= config.provider_keys && providers <= config.provider_keys * config.providers_per_key);
        assert!(
            engine.in_flight() <= 2 * config.checks,
            "{} in flight",
            engine.in_flight()
        );
    }
}

/// Runs an operation among nodes of which those in `FRIENDS` answer, and name one another.
fn finish(engine: &mut Engine<Place>) -> Option<Outcome<Place>> {
    let friends = || FRIENDS.map(node).into();
    for _ in 0..1000 {
        for transmit in sent(engine) {
            let number = transmit.to.number;
            if !FRIENDS.contains(&number) {
                engine.handle_failure(NOW, transmit.id, Failure::Unreachable);
                continue;
            }
            let body = match Message::<Ask<'_>>::parse(&transmit.request)
                .expect("a good request")
                .body
            {
                Ask::Ping => Answer::Pong,
                Ask::Put { .. } | Ask::Provide { .. } => Answer::Kept,
                Ask::Providers(_) => Answer::Providers {
                    providers: Vec::new(),
                    nodes: friends(),
                },
                Ask::FindNode(_) | Ask::Get(_) => Answer::Nodes(friends()),
            };
            engine.handle_answer(NOW, transmit.id, &answer(number, body));
        }
        while let Some(event) = engine.poll_event() {
            if let Event::Done { outcome, .. } = event {
                return Some(outcome);
            }
        }
    }
    None
}

#[test]
fn a_flood_of_every_request_excludes_no_honest_node_and_no_own_operation() {
    for (crowd, source) in CROWDS {
        let config = small();
        let mut engine = engine(&config);
        for number in FRIENDS {
            meet(&mut engine, NOW, number);
        }
        let friends: BTreeSet<u32> = engine.contacts().map(|contact| contact.addr.number).collect();
        assert_eq!(friends.len(), FRIENDS.len(), "{crowd}");
        flood(&mut engine, &config, source, 3000);
        // The earlier contacts stay, and are named.
        let after: BTreeSet<u32> = engine.contacts().map(|contact| contact.addr.number).collect();
        assert!(after.is_superset(&friends), "{crowd}: {after:?}");
        let asked = ask(HONEST, Ask::FindNode(*id(1).as_bytes()));
        let nodes = engine.handle_request(NOW, &Place::new(HONEST), &asked);
        let nodes = nodes.expect("a good request");
        let nodes = Message::<Answer<'_>>::parse(&nodes).expect("a good answer").body;
        assert!(
            matches!(nodes, Answer::Nodes(nodes) if !nodes.is_empty()),
            "{crowd}"
        );
        // What an honest node stores is kept during the flood, also with a key that the attackers use.
        let from = Place::new(HONEST);
        let value = &[9; 10][..];
        let put = Ask::Put {
            key: shared(),
            ttl: HOUR,
            value,
        };
        let provide = Ask::Provide {
            key: shared(),
            ttl: HOUR,
        };
        for request in [put, provide] {
            let kept = engine.handle_request(NOW, &from, &ask(HONEST, request));
            assert!(kept.is_ok(), "{crowd}: {kept:?}");
        }
        assert_eq!(left(&mut engine), (Some(value.into()), true), "{crowd}");
        flood(&mut engine, &config, source, 300);
        let (record, is_provider) = left(&mut engine);
        assert_eq!(record.as_deref(), Some(value), "{crowd}");
        // Of a key's providers, the newer half changes at random if each is in another network.
        assert!(is_provider || crowd == "many networks", "{crowd}");
        // Own operations: the maximum number starts and ends.
        let mut begun = 0;
        for key in 0..config.operations as u64 {
            begun += usize::from(engine.find_node(NOW, id(key)).is_ok());
        }
        assert_eq!(begun, config.operations, "{crowd}");
        for _ in 0..begun {
            match finish(&mut engine) {
                Some(Outcome::Nodes(nodes)) => assert!(!nodes.is_empty(), "{crowd}"),
                other => panic!("{crowd}: {other:?}"),
            }
        }
        engine
            .put(NOW, id(50), &[1], Duration::from_hours(1))
            .expect("room");
        assert!(
            matches!(finish(&mut engine), Some(Outcome::Kept { copies }) if copies >= config.k / 2),
            "{crowd}"
        );
        engine.join(NOW, &[Place::new(FRIENDS[0])]).expect("room");
        assert!(
            matches!(finish(&mut engine), Some(Outcome::Joined { contacts }) if contacts >= 12),
            "{crowd}"
        );
    }
}

#[test]
fn nodes_of_one_network_cannot_take_all_waiting_places_of_a_bucket() {
    let config = Config {
        k: 4,
        ..Config::default()
    };
    let mut engine = engine(&config);
    let far = |number: &u32| (id(0).as_bytes()[0] ^ id(u64::from(*number)).as_bytes()[0]) >= 0x80;
    // The bucket is full of honest nodes in as many networks.
    let friends: Vec<u32> = (0x4000..).map(|at| at << 16).filter(far).take(4).collect();
    for number in &friends {
        meet(&mut engine, NOW, *number);
    }
    // One network claims all waiting places, and answers each ping.
    for number in (0x2000_0000..0x2000_0100).filter(far) {
        meet(&mut engine, NOW, number);
    }
    // An honest newcomer waits beside it.
    let honest = (0x5000..0x6000)
        .map(|at| at << 16)
        .find(far)
        .expect("one of them");
    meet(&mut engine, NOW, honest);
    // One of the contacts fails.
    let mut now = NOW;
    for _ in 0..config.failures {
        now += config.ask_after;
        for number in friends.iter().skip(1) {
            meet(&mut engine, now, *number);
        }
        engine.handle_timeout(now);
        for transmit in sent(&mut engine) {
            engine.handle_failure(now, transmit.id, Failure::Unreachable);
        }
    }
    let held: Vec<u32> = engine.contacts().map(|contact| contact.addr.number).collect();
    assert!(held.contains(&honest), "{held:x?}");
}
