//! Operations of the application, and requests without an answer.

use std::time::Duration;

use p2p_protocols::kademlia::wire::Answer;
use p2p_protocols::kademlia::{Config, Event, Failure, Outcome};

use super::setup::{NOW, answer, engine, meet, sent};
use crate::net::{Place, id};

#[test]
fn answers_without_a_matching_request_are_ignored() {
    let mut engine = engine(&Config::default());
    meet(&mut engine, NOW, 1);
    engine.find_node(NOW, id(1 << 40)).expect("room");
    let transmit = engine.poll_transmit().expect("the one contact is asked");
    engine.handle_answer(NOW, transmit.id, &answer(1, Answer::Pong));
    assert_eq!(engine.counts().malformed, 1);
    engine.handle_answer(NOW, transmit.id, &answer(1, Answer::Nodes(Vec::new())));
    assert_eq!(engine.counts().late, 1);
    let last = std::iter::from_fn(|| engine.poll_event()).last();
    assert!(matches!(last, Some(Event::Done { outcome: Outcome::Nodes(nodes), .. }) if nodes.is_empty()));
}

#[test]
fn unanswered_requests_time_out() {
    let config = Config::default();
    let mut engine = engine(&config);
    engine.join(NOW, &[Place::new(1), Place::new(2)]).expect("room");
    assert_eq!(sent(&mut engine).len(), 2);
    let until = engine.poll_timeout();
    assert!(until <= NOW + config.request_timeout);
    engine.handle_timeout(until);
    let last = std::iter::from_fn(|| engine.poll_event()).last();
    assert!(matches!(
        last,
        Some(Event::Done {
            outcome: Outcome::Joined { contacts: 0 },
            ..
        })
    ));
    assert_eq!(engine.in_flight(), 0);
}

#[test]
fn operations_have_a_limit_and_can_be_cancelled() {
    let config = Config {
        operations: 2,
        published: 1,
        ..Config::default()
    };
    let mut engine = engine(&config);
    meet(&mut engine, NOW, 1);
    let op = engine.find_node(NOW, id(1 << 40)).expect("room");
    engine.get(NOW, id(1 << 40)).expect("room");
    assert!(engine.providers(NOW, id(1 << 40)).is_err());
    assert!(engine.cancel(op) && !engine.cancel(op));
    engine
        .put(NOW, id(7), &[1], Duration::from_mins(1))
        .expect("room");
    assert!(
        engine.put(NOW, id(8), &[1], Duration::from_mins(1)).is_err(),
        "a second record"
    );
    assert!(
        engine.put(NOW, id(7), &[1], Duration::from_millis(999)).is_err(),
        "a record with less than a second left"
    );
    for transmit in sent(&mut engine) {
        engine.handle_failure(NOW, transmit.id, Failure::Unreachable);
    }
    let mut done = std::iter::from_fn(|| engine.poll_event()).filter_map(|event| match event {
        Event::Done { op, .. } => Some(op),
        Event::Progress { .. } => None,
    });
    assert!(done.all(|done| done != op));
}
