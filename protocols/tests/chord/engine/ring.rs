//! Neighbours: joining, leaving, stabilization.

use p2p_protocols::chord::wire::{Answer, Ask, Node};
use p2p_protocols::chord::{Config, Event, Failure, OpError, Outcome, Refusal};

use super::setup::{NOW, between, ended, engine, once};
use crate::place::{Place, answer, ask, id, node, parse, sent};

#[test]
fn the_node_after_a_leaving_successor_is_asked_before_it_is_used() {
    let config = Config::default();
    for lives in [true, false] {
        let mut engine = between(config, 0xf000, 0x1000, &[0x2000, 0x3000]);
        let leave = Ask::Leave {
            predecessor: Some(node(0)),
            successors: vec![node(0x1800), node(0x2000)],
        };
        engine
            .handle_request(NOW, &Place(0x1000), &ask(0x1000, leave))
            .unwrap();
        // The node keeps its list and asks the named node.
        assert_eq!(engine.successors()[0].id, id(0x2000));
        let mut asked = sent(&mut engine);
        let first = asked.remove(0);
        assert_eq!((first.to, parse(&first.request)), (Place(0x1800), Ask::Stabilize));
        if lives {
            let neighbours = Answer::Neighbours {
                predecessor: Some(node(0x1000)),
                successors: vec![node(0x2000), node(0x3000)],
            };
            engine.handle_answer(NOW, first.id, &answer(0x1800, neighbours));
        } else {
            engine.handle_failure(NOW, first.id, Failure::Rejected);
        }
        let expected = if lives { 0x1800 } else { 0x2000 };
        assert_eq!(engine.successors()[0].id, id(expected));
    }
}

#[test]
fn a_named_node_that_does_not_answer_never_becomes_the_successor() {
    let mut engine = between(Config::default(), 0xf000, 0x1000, &[0x2000]);
    for _ in 0..20 {
        let now = engine.poll_timeout().unwrap();
        engine.handle_timeout(now);
        let mut asked = sent(&mut engine);
        while let Some(transmit) = asked.pop() {
            let neighbours = Answer::Neighbours {
                // A made-up node just behind the asking node, a different one each time.
                predecessor: Some(node(0x0100 + transmit.to.0 % 7)),
                successors: vec![node(0x2000)],
            };
            match parse(&transmit.request) {
                Ask::Stabilize if transmit.to == Place(0x1000) => {
                    engine.handle_answer(now, transmit.id, &answer(0x1000, neighbours));
                }
                _ if transmit.to == Place(0x1000) => {
                    engine.handle_failure(now, transmit.id, Failure::Rejected);
                }
                _ => engine.handle_failure(now, transmit.id, Failure::Unreachable),
            }
            assert_eq!(engine.successors()[0].id, id(0x1000));
            asked.extend(sent(&mut engine));
        }
    }
}

#[test]
fn a_displaced_predecessor_is_told_of_the_new_one_and_asks_it_at_once() {
    let mut engine = between(Config::default(), 0xf000, 0x3000, &[]);
    let stabilize = ask(0xf800, Ask::Stabilize);
    engine.handle_request(NOW, &Place(0xf800), &stabilize).unwrap();
    let told = sent(&mut engine).remove(0);
    assert_eq!(told.to, Place(0xf000));
    assert_eq!(parse(&told.request), Ask::Nearer(node(0xf800)));
    engine.handle_answer(NOW, told.id, &answer(0xf000, Answer::Done));

    // A node beyond the successor is not asked, nor one that another node names.
    let nearer = |from, number| ask(from, Ask::Nearer(node(number)));
    engine
        .handle_request(NOW, &Place(0x3000), &nearer(0x3000, 0x4000))
        .unwrap();
    engine
        .handle_request(NOW, &Place(0xf800), &nearer(0xf800, 0x1000))
        .unwrap();
    assert_eq!(sent(&mut engine), []);
    engine
        .handle_request(NOW, &Place(0x3000), &nearer(0x3000, 0x1000))
        .unwrap();
    let asked = sent(&mut engine).remove(0);
    assert_eq!((asked.to, parse(&asked.request)), (Place(0x1000), Ask::Stabilize));
    assert_eq!(engine.successors()[0].id, id(0x3000), "until it answers");
    // A node that notifies directly needs no other to name it, but must be nearer, and use its own id.
    let own = |number: u16| {
        Ask::Nearer(Node {
            addr: "".into(),
            ..node(number)
        })
    };
    for (from, said) in [(0x0900, 0x0901), (0x4000, 0x4000)] {
        engine
            .handle_request(NOW, &Place(from), &ask(from, own(said)))
            .unwrap();
    }
    // Of many named nodes, one is asked at a time.
    for number in 0x1000..0x1100 {
        engine
            .handle_request(NOW, &Place(0x3000), &nearer(0x3000, number))
            .unwrap();
    }
    assert_eq!(sent(&mut engine), []);
    let neighbours = Answer::Neighbours {
        predecessor: None,
        successors: vec![node(0x2000)],
    };
    engine.handle_answer(NOW, asked.id, &answer(0x1000, neighbours));
    assert_eq!(engine.successors()[0].id, id(0x1000));
    engine
        .handle_request(NOW, &Place(0x0900), &ask(0x0900, own(0x0900)))
        .unwrap();
    let asked: Vec<_> = sent(&mut engine).into_iter().map(|asked| asked.to.0).collect();
    assert_eq!(asked, [0x0900]);
}

#[test]
fn tables_stay_bounded_for_any_answers_of_neighbours() {
    let config = Config {
        successors: 5,
        ..Config::default()
    };
    let many: Vec<u16> = (0x2000..0x2040).collect();
    let mut engine = between(config, 0xf000, 0x1000, &many);
    assert_eq!(engine.successors().len(), 5);
    for number in (0x0001..0xf000).rev().step_by(100) {
        engine
            .handle_request(NOW, &Place(number), &ask(number, Ask::Stabilize))
            .unwrap();
        let goodbye = Ask::Leave {
            predecessor: Some(node(number + 1)),
            successors: many.iter().map(|number| node(*number)).collect(),
        };
        engine
            .handle_request(NOW, &Place(number), &ask(number, goodbye))
            .unwrap();
    }
    assert!(engine.successors().len() <= 5);
    assert_eq!(engine.predecessor().unwrap().id, id(0xf000));
    assert_eq!(engine.in_flight(), 0);
}

#[test]
fn a_joining_node_accepts_no_other() {
    let mut engine = engine(once());
    engine.join(NOW, &[Place(5)]).unwrap();
    let step = ask(9, Ask::Step(*id(7).as_bytes(), 0));
    assert_eq!(
        engine.handle_request(NOW, &Place(9), &step),
        Err(Refusal::Joining)
    );
    let stabilize = ask(9, Ask::Stabilize);
    assert_eq!(
        engine.handle_request(NOW, &Place(9), &stabilize),
        Err(Refusal::Joining)
    );
    let asked = sent(&mut engine).remove(0);
    engine.handle_failure(NOW, asked.id, Failure::Unreachable);
    assert!(
        engine.handle_request(NOW, &Place(9), &step).is_ok(),
        "alone again"
    );
}

#[test]
fn a_join_is_retried_with_backoff_and_then_fails() {
    let mut engine = engine(Config {
        join_tries: 4,
        ..Config::default()
    });
    let op = engine.join(NOW, &[Place(5), Place(6)]).unwrap();
    let mut asked_at = Vec::new();
    let outcome = loop {
        if let Some(event) = ended(&mut engine) {
            break event;
        }
        let now = match engine.poll_timeout() {
            _ if asked_at.is_empty() => NOW,
            Some(at) => at,
            None => panic!("there is no timeout"),
        };
        engine.handle_timeout(now);
        let mut asked = sent(&mut engine);
        while let Some(transmit) = asked.pop() {
            asked_at.push((transmit.to.0, now.saturating_sub(NOW).as_secs()));
            engine.handle_failure(now, transmit.id, Failure::Rejected);
            asked.extend(sent(&mut engine));
        }
        assert!(engine.is_joining() || engine.in_flight() == 0);
    };
    let error = Err(OpError::NoAnswer);
    assert_eq!(outcome, Event::Done { op, outcome: error });
    let expected = [0, 1, 3, 7].map(|at| [(5, at), (6, at)]).concat();
    assert_eq!(asked_at, expected);
}

#[test]
fn a_join_ends_when_the_successor_knows_this_node_and_is_cancellable_until_then() {
    for cancel in [false, true] {
        let mut engine = engine(Config::default());
        let op = engine.join(NOW, &[Place(0x1000)]).unwrap();
        let asked = sent(&mut engine).remove(0);
        let step = Answer::Step {
            mine: true,
            predecessor: None,
            nearer: Vec::new(),
            owners: Vec::new(),
        };
        engine.handle_answer(NOW, asked.id, &answer(0x1000, step.clone()));
        let asked = sent(&mut engine).remove(0);
        engine.handle_answer(NOW, asked.id, &answer(0x1000, step));
        let asked = sent(&mut engine).remove(0);
        assert_eq!(parse(&asked.request), Ask::Stabilize);
        assert_eq!(ended(&mut engine), None);
        assert_eq!(cancel && engine.cancel(op), cancel);
        let neighbours = Answer::Neighbours {
            predecessor: None,
            successors: Vec::new(),
        };
        engine.handle_answer(NOW, asked.id, &answer(0x1000, neighbours));
        let joined = Event::Done {
            op,
            outcome: Ok(Outcome::Joined(engine.successors()[0].clone())),
        };
        assert_eq!(ended(&mut engine), (!cancel).then_some(joined));
    }
}

#[test]
fn the_next_hop_is_always_nearer_and_can_be_the_predecessor() {
    let engine = between(Config::default(), 0xf000, 0x1000, &[0x2000, 0x3000]);
    let next = |number| engine.next_hop(&id(number)).map(|next| next.addr.0);
    assert_eq!(next(0x0800), None, "no node is nearer");
    assert_eq!(next(0x1000), Some(0x1000));
    assert_eq!(next(0x2fff), Some(0x2000));
    assert_eq!(next(0x9000), Some(0x3000));
    assert_eq!(next(0xf000), Some(0xf000));
    assert_eq!(next(0xf800), Some(0xf000));
}
