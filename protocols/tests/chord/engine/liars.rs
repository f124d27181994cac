//! Lookups among lying nodes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, PeerId};
use p2p_protocols::chord::wire::{Answer, Ask, Node};
use p2p_protocols::chord::{Config, Engine, Event, Failure, OpError, Outcome, Refusal, Rules};

use super::setup::{Drain, NOW, Networked, between, ended};
use crate::place::{Place, answer, ask, id, key, node, parse, sent};

#[test]
fn a_recursive_lookup_is_refused_and_sends_nothing_to_its_origin() {
    let mut engine = between(Config::default(), 0xf000, 0x1000, &[0x2000]);
    let from = ask(1, Ask::Ping);
    let body = |tag: u8, rest: &[u8]| [&from[..from.len() - 1], &[tag], rest].concat();
    // The retired encodings: a token, a key, hops and an origin; a token, hops, whether it is the sender's,
    // and successors.
    let route = body(
        8,
        &[&[7][..], key(0x1800_0000).as_bytes(), &[1, 3], b"999"].concat(),
    );
    let routed = body(9, &[7, 1, 1, 0]);
    for request in [route, routed] {
        let served = engine.handle_request(NOW, &Place(1), &request);
        assert_eq!(served, Err(Refusal::Malformed));
        assert_eq!(sent(&mut engine), []);
    }
}

fn wrong(number: u16, falsehood: u16) -> Node<'static> {
    Node {
        addr: format!("{number}{}", "?".repeat(falsehood.into())).into(),
        ..node(number)
    }
}

/// Runs an operation among nodes that answer each step and each request for a value as `tell` returns;
/// requests to a false place fail.
fn answer_all(
    engine: &mut Engine<Lying>,
    tell: impl Fn(u16) -> Answer<'static>,
) -> Option<Result<Outcome<Lying>, OpError>> {
    let mut now = NOW;
    for _ in 0..1000 {
        for transmit in sent(engine) {
            if transmit.to.1 > 0 {
                engine.handle_failure(now, transmit.id, Failure::Unreachable);
            } else {
                let number = transmit.to.0;
                engine.handle_answer(now, transmit.id, &answer(number, tell(number)));
            }
        }
        while let Some(event) = engine.poll_event() {
            if let Event::Done { outcome, .. } = event {
                return Some(outcome);
            }
        }
        now += Duration::from_millis(1);
    }
    None
}

/// An address: the node's own, or one of several false ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Lying(u16, u16);

impl fmt::Display for Lying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0, "?".repeat(self.1.into()))
    }
}

impl Addr for Lying {
    fn peer_id(&self) -> Option<PeerId> {
        Some(id(self.0))
    }
}

/// Makes an engine at 0 on a ring with 0x1000, 0x2000, 0x3000, and 0xf000 before it.
fn among_liars() -> Engine<Lying> {
    let parse = |text: &str| {
        let number = text.trim_end_matches('?');
        Some(Lying(number.parse().ok()?, (text.len() - number.len()) as u16))
    };
    let rules = Rules::new(Config::default(), parse, |_: &PeerId, _: &[u8]| true);
    let mut engine = Engine::new(id(0), Arc::new(rules), NOW, 1);
    engine
        .handle_request(NOW, &Lying(0xf000, 0), &ask(0xf000, Ask::Stabilize))
        .expect("a good request");
    for _ in 0..10 {
        for transmit in sent(&mut engine) {
            let number = transmit.to.0;
            let neighbours = Answer::Neighbours {
                predecessor: Some(node(if number == 0x1000 { 0 } else { 0x1000 })),
                successors: [0x2000, 0x3000].map(node).into(),
            };
            engine.handle_answer(NOW, transmit.id, &answer(number, neighbours));
        }
    }
    while engine.events_left() {}
    engine
}

fn step(predecessor: u16, nearer: Vec<Node<'static>>, owners: Vec<Node<'static>>) -> Answer<'static> {
    Answer::Step {
        mine: false,
        predecessor: Some(node(predecessor)),
        nearer,
        owners,
    }
}

#[test]
fn three_false_addresses_in_one_answer_do_not_hide_a_node() {
    let victim = 0x9000;
    // 0x3000, which is asked first, lies in one answer, and also names an honest node in it.
    let lies = |owners: bool| {
        let wrong = vec![wrong(victim, 1), wrong(victim, 2), wrong(victim, 3)];
        let honest = vec![node(0x4000)];
        if owners {
            step(0x2000, honest, wrong)
        } else {
            step(0x2000, [wrong, honest].concat(), Vec::new())
        }
    };
    for as_owners in [true, false] {
        let mut engine = among_liars();
        engine.locate(NOW, id(victim)).unwrap();
        let outcome = answer_all(&mut engine, |number| match number {
            0x3000 => lies(as_owners),
            0x4000 => step(0x3000, Vec::new(), vec![node(victim)]),
            other => step(other - 0x1000, Vec::new(), Vec::new()),
        });
        match outcome {
            Some(Ok(Outcome::Located {
                node: Some(found), ..
            })) => assert_eq!(found.addr, Lying(victim, 0)),
            other => panic!("{other:?}, lies about owners: {as_owners}"),
        }
        // It is not hidden from a lookup of a key that it owns either.
        let mut engine = among_liars();
        engine.lookup(NOW, key(0x8fff_0000)).unwrap();
        let outcome = answer_all(&mut engine, |number| match number {
            0x3000 => lies(as_owners),
            0x4000 => step(0x3000, Vec::new(), vec![node(victim), node(0xa000)]),
            0xa000 => step(victim, Vec::new(), Vec::new()),
            other => step(0x4000.min(other - 1), Vec::new(), Vec::new()),
        });
        match outcome {
            Some(Ok(Outcome::Found(found))) => {
                assert_eq!(found.owner.map(|owner| owner.addr), Some(Lying(victim, 0)));
            }
            other => panic!("{other:?}, lies about owners: {as_owners}"),
        }
    }
}

#[test]
fn many_liars_with_one_false_address_each_do_not_hide_a_node() {
    let victim = 0x9000;
    let mut engine = among_liars();
    engine.locate(NOW, id(victim)).unwrap();
    // A chain of liars, each of which names the next one nearer, and the victim at a false address.
    let outcome = answer_all(&mut engine, |number| match number {
        0x3000..0x4000 => step(
            number - 1,
            vec![
                wrong(victim, number - 0x3000 + 1),
                node(if number < 0x3008 { number + 1 } else { 0x8000 }),
            ],
            Vec::new(),
        ),
        0x8000 => step(0x7000, Vec::new(), vec![node(victim)]),
        _ => step(0x1000, Vec::new(), Vec::new()),
    });
    match outcome {
        Some(Ok(Outcome::Located {
            node: Some(found), ..
        })) => assert_eq!(found.addr, Lying(victim, 0)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn addresses_with_a_narrower_scope_than_the_naming_node_are_not_used() {
    let parse = |text: &str| {
        let (number, ip) = text.split_once('@')?;
        let ip: std::net::Ipv4Addr = ip.parse().ok()?;
        Some(Networked(Place(number.parse().ok()?), ip.octets()))
    };
    for (by, dialled) in [
        ([203, 0, 113, 1], false),
        ([192, 168, 0, 9], true),
        ([127, 0, 0, 1], true),
    ] {
        let rules = Rules::new(Config::default(), parse, |_: &PeerId, _: &[u8]| true);
        let mut engine = Engine::new(id(0), Arc::new(rules), NOW, 1);
        let (from, inside) = (Networked(Place(0xf000), by), "4096@192.168.0.1");
        engine
            .handle_request(NOW, &from, &ask(0xf000, Ask::Stabilize))
            .expect("a good request");
        let stabilize = sent(&mut engine).remove(0);
        let predecessor = Node {
            addr: inside.into(),
            ..node(0x1000)
        };
        let neighbours = Answer::Neighbours {
            predecessor: Some(predecessor),
            successors: vec![node(0)],
        };
        engine.handle_answer(NOW, stabilize.id, &answer(0xf000, neighbours));
        let asked = sent(&mut engine)
            .iter()
            .any(|transmit| transmit.to.0 == Place(0x1000));
        assert_eq!(asked, dialled, "named by {by:?}");
    }
}

#[test]
fn a_lookup_among_nodes_that_always_name_nearer_ones_ends() {
    let mut engine = between(Config::default(), 0xf000, 0x1000, &[]);
    let target = 0x9000_u16;
    let op = engine.lookup(NOW, id(target)).unwrap();
    let (mut asked, mut next) = (0, 0x2000_u16);
    let outcome = loop {
        let Some(transmit) = engine.poll_transmit() else {
            break ended(&mut engine);
        };
        asked += 1;
        assert!(asked <= 64);
        // Always nearer, never at the key.
        let nearer = (0..64).map(|number| node(next + number)).collect();
        next += 0x100;
        let step = Answer::Step {
            mine: false,
            predecessor: None,
            nearer,
            owners: Vec::new(),
        };
        engine.handle_answer(NOW, transmit.id, &answer(transmit.to.0, step));
    };
    let exhausted = Err(OpError::Exhausted);
    assert_eq!(
        outcome,
        Some(Event::Done {
            op,
            outcome: exhausted
        })
    );
}

#[test]
fn nodes_that_lead_away_from_a_key_are_ignored() {
    let mut engine = between(Config::default(), 0xf000, 0x1000, &[]);
    let op = engine.lookup(NOW, id(0x9000)).unwrap();
    let asked = sent(&mut engine).remove(0);
    let step = Answer::Step {
        mine: false,
        predecessor: None,
        // Behind the answering node, itself, the asking node, and a node with a false address.
        nearer: vec![
            node(0x0800),
            node(0xa000),
            node(0x1000),
            node(0),
            Node {
                addr: "5".into(),
                ..node(0x3000)
            },
        ],
        owners: Vec::new(),
    };
    engine.handle_answer(NOW, asked.id, &answer(0x1000, step));
    assert_eq!(engine.counts().bad_nodes, 1);
    // Only the request for further nodes is left.
    let again = sent(&mut engine).remove(0);
    assert_eq!(parse(&again.request), Ask::Step(*id(0x9000).as_bytes(), 4));
    let nothing = Answer::Step {
        mine: false,
        predecessor: None,
        nearer: Vec::new(),
        owners: Vec::new(),
    };
    engine.handle_answer(NOW, again.id, &answer(0x1000, nothing));
    let outcome = Err(OpError::NoAnswer);
    assert_eq!(ended(&mut engine), Some(Event::Done { op, outcome }));
}

#[test]
fn a_false_address_does_not_remove_a_neighbour() {
    let mut engine = among_liars();
    let before = engine.successors().to_vec();
    assert_eq!(
        before.iter().map(|node| node.addr.0).collect::<Vec<_>>(),
        [0x1000, 0x2000, 0x3000]
    );
    engine.lookup(NOW, key(0x1800_0000)).unwrap();
    answer_all(&mut engine, |_| step(0, Vec::new(), vec![wrong(0x2000, 1)]));
    // It is asked for a key in between, through a node that gives a false address.
    engine.lookup(NOW, key(0x3800_0000)).unwrap();
    answer_all(&mut engine, |number| match number {
        0x3000 => step(0x2000, Vec::new(), vec![wrong(0x1000, 1), wrong(0x2000, 2)]),
        _ => step(0, Vec::new(), Vec::new()),
    });
    assert_eq!(engine.successors(), before);
}
