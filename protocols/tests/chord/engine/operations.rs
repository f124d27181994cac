//! Operations of the application, and requests without an answer.

use std::time::Duration;

use p2p_protocols::chord::wire::Answer;
use p2p_protocols::chord::{Config, Contact, Engine, Event, Failure, OpError, Outcome};

use super::setup::{NOW, between, ended, engine, once};
use crate::place::{Place, answer, id, key, node, sent};

#[test]
fn unanswered_requests_time_out() {
    let mut engine = engine(once());
    let op = engine.join(NOW, &[Place(5)]).unwrap();
    let asked = sent(&mut engine).remove(0);
    assert_eq!(engine.poll_timeout(), Some(NOW + Duration::from_secs(5)));
    engine.handle_timeout(NOW + Duration::from_secs(5));
    let outcome = Err(OpError::NoAnswer);
    assert_eq!(ended(&mut engine), Some(Event::Done { op, outcome }));
    engine.handle_answer(NOW, asked.id, &answer(5, Answer::Done));
    assert_eq!(engine.counts().late, 1);
    assert_eq!(engine.in_flight(), 0);
}

/// Makes an engine at 0 that locates 0x2000, which the node at 0x1000 names as its successor.
fn locating() -> (Engine<Place>, p2p_protocols::chord::OpId) {
    let mut engine = between(Config::default(), 0xf000, 0x1000, &[]);
    let op = engine.locate(NOW, id(0x2000)).unwrap();
    let asked = sent(&mut engine).remove(0);
    assert_eq!(asked.to, Place(0x1000));
    let step = Answer::Step {
        mine: false,
        predecessor: None,
        nearer: Vec::new(),
        owners: vec![node(0x2000), node(0x3000)],
    };
    engine.handle_answer(NOW, asked.id, &answer(0x1000, step));
    (engine, op)
}

#[test]
fn a_node_is_located_when_it_answers() {
    let (mut engine, op) = locating();
    let asked = sent(&mut engine).remove(0);
    assert_eq!(asked.to, Place(0x2000));
    let mine = |predecessor| Answer::Step {
        mine: true,
        predecessor: Some(node(predecessor)),
        nearer: Vec::new(),
        owners: Vec::new(),
    };
    engine.handle_answer(NOW, asked.id, &answer(0x2000, mine(0x1000)));
    let Some(Event::Done {
        op: ended_op,
        outcome: Ok(Outcome::Located {
            node: Some(found),
            named_by,
        }),
    }) = ended(&mut engine)
    else {
        panic!("the node was not found");
    };
    assert_eq!((ended_op, found.addr), (op, Place(0x2000)));
    assert_eq!(
        named_by.iter().map(|node| node.addr).collect::<Vec<_>>(),
        [Place(0x1000)]
    );
}

#[test]
fn locating_a_silent_node_returns_the_nodes_that_named_it() {
    let (mut engine, op) = locating();
    let mut now = NOW;
    let mut asked = sent(&mut engine);
    let outcome = loop {
        for transmit in asked {
            match transmit.to.0 {
                0x2000 => engine.handle_failure(now, transmit.id, Failure::Unreachable),
                0x3000 => {
                    let step = Answer::Step {
                        mine: true,
                        predecessor: Some(node(0x2000)),
                        nearer: Vec::new(),
                        owners: Vec::new(),
                    };
                    engine.handle_answer(now, transmit.id, &answer(0x3000, step));
                }
                _ => engine.handle_failure(now, transmit.id, Failure::Rejected),
            }
        }
        if let Some(event) = ended(&mut engine) {
            break event;
        }
        asked = sent(&mut engine);
        if asked.is_empty() {
            now = engine.poll_timeout().unwrap();
            engine.handle_timeout(now);
            asked = sent(&mut engine);
        }
    };
    let named_by = [0x1000, 0x3000].map(|number| Contact {
        id: id(number),
        addr: Place(number),
    });
    let outcome_expected = Ok(Outcome::Located {
        node: None,
        named_by: named_by.to_vec(),
    });
    assert_eq!(
        outcome,
        Event::Done {
            op,
            outcome: outcome_expected
        }
    );
}

#[test]
fn operations_have_a_limit_and_can_be_cancelled() {
    let config = Config {
        operations: 3,
        ..Config::default()
    };
    let mut engine = between(config, 0xf000, 0x1000, &[]);
    let ops: Vec<_> = (0..3)
        .map(|number| engine.lookup(NOW, key(0x0100_0000 + number)).unwrap())
        .collect();
    let refused = engine.get(NOW, key(0x0100_0000));
    assert!(matches!(refused, Err(p2p::Error::Limit { limit: 3, .. })));
    assert!(engine.cancel(ops[1]));
    assert!(!engine.cancel(ops[1]));
    assert!(engine.get(NOW, key(0x0100_0000)).is_ok());
    assert!(engine.join(NOW, &[]).is_err());
}
