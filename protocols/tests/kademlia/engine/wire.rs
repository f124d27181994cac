//! The encoding of messages, and their limits.

use std::borrow::Cow;
use std::time::Duration;

use p2p_protocols::kademlia::wire::{Answer, Ask, MAX_ADDR, MAX_NODES, Message, Node};
use p2p_protocols::kademlia::{Config, Refusal};
use proptest::prelude::*;

use super::setup::{NOW, answer, ask, engine, meet, node, provide, put};
use crate::net::{Place, id};

#[test]
fn the_encoding_of_every_message_is_pinned() {
    let hex = |bytes: Vec<u8>| -> String {
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits
            .filter_map(|digit| char::from_digit(digit.into(), 16))
            .collect()
    };
    let (from, key) = ([0xaa; 32], [0xbb; 32]);
    let (front, b) = (format!("01{}", "aa".repeat(32)), "bb".repeat(32));
    let of_ask = |body| hex(Message::<Ask<'_>>::new(from, body).emit());
    assert_eq!(of_ask(Ask::Ping), format!("{front}00"));
    assert_eq!(of_ask(Ask::FindNode(key)), format!("{front}01{b}"));
    assert_eq!(of_ask(Ask::Get(key)), format!("{front}02{b}"));
    let (ttl, value) = (300, &[1, 2, 3][..]);
    assert_eq!(
        of_ask(Ask::Put { key, ttl, value }),
        format!("{front}03{b}ac0203010203")
    );
    assert_eq!(of_ask(Ask::Providers(key)), format!("{front}04{b}"));
    assert_eq!(of_ask(Ask::Provide { key, ttl }), format!("{front}05{b}ac02"));
    let of_answer = |body| hex(Message::<Answer<'_>>::new(from, body).emit());
    let node = || Node {
        id: key,
        addr: Cow::Borrowed("xyz"),
    };
    let nodes = || vec![node(), node()];
    let (one, two) = (format!("{b}0378797a"), format!("02{b}0378797a{b}0378797a"));
    assert_eq!(of_answer(Answer::Pong), format!("{front}00"));
    assert_eq!(of_answer(Answer::Nodes(nodes())), format!("{front}01{two}"));
    let record = Answer::Record {
        ttl,
        value,
        nodes: nodes(),
    };
    assert_eq!(of_answer(record), format!("{front}02ac0203010203{two}"));
    let providers = Answer::Providers {
        providers: vec![node()],
        nodes: nodes(),
    };
    assert_eq!(of_answer(providers), format!("{front}0301{one}{two}"));
    assert_eq!(of_answer(Answer::Kept), format!("{front}04"));
}

#[test]
fn partial_and_invalid_messages_are_rejected() {
    let good = answer(1, Answer::Nodes(vec![node(2), node(3)]));
    assert!(Message::<Answer<'_>>::parse(&good).is_some());
    for len in 0..good.len() {
        assert!(
            Message::<Answer<'_>>::parse(&good[..len]).is_none(),
            "the first {len} bytes"
        );
    }
    assert!(
        Message::<Answer<'_>>::parse(&[&good[..], &[0]].concat()).is_none(),
        "one byte more"
    );
    let other_version = [&[2], &good[1..]].concat();
    assert!(
        Message::<Answer<'_>>::parse(&other_version).is_none(),
        "version 2"
    );
    let long = Node {
        addr: Cow::Owned("x".repeat(MAX_ADDR + 1)),
        ..node(1)
    };
    assert!(Message::<Answer<'_>>::parse(&answer(1, Answer::Nodes(vec![long]))).is_none());
    let many = answer(1, Answer::Nodes(vec![node(1); MAX_NODES + 1]));
    assert!(Message::<Answer<'_>>::parse(&many).is_none());
}

#[test]
fn answers_fit_the_configured_message_size() {
    let config = Config {
        message: 700,
        ..Config::default()
    };
    let mut engine = engine(&config);
    for number in 1..=60 {
        meet(&mut engine, NOW, number);
    }
    engine
        .handle_request(NOW, &Place::new(1), &put(1, 7, &[1; 400]))
        .expect("a good record");
    for number in 1..=20 {
        engine
            .handle_request(NOW, &Place::new(number), &provide(number, 8))
            .expect("a good provider");
    }
    for request in [
        Ask::FindNode(*id(7).as_bytes()),
        Ask::Get(*id(7).as_bytes()),
        Ask::Providers(*id(8).as_bytes()),
    ] {
        let bytes = engine
            .handle_request(NOW, &Place::new(9), &ask(9, request))
            .expect("a good request");
        assert!((600..=700).contains(&bytes.len()), "{} bytes", bytes.len());
    }
    let long = put(1, 9, &vec![1; config.message]);
    assert_eq!(
        engine.handle_request(NOW, &Place::new(1), &long),
        Err(Refusal::Oversize)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        shape in 0..4_u8,
        tag in 0..6_u8,
    ) {
        // Most bytes would be refused for their version or their sender; these get further.
        let front = [&[1], &id(1).as_bytes()[..], &[tag]].concat();
        if shape > 0 {
            bytes.splice(0..0, front);
        }
        let mut engine = engine(&Config::default());
        meet(&mut engine, NOW, 1);
        let _ = engine.handle_request(NOW, &Place::new(1), &bytes);
        engine.join(NOW, &[Place::new(1)]).expect("room");
        engine.find_node(NOW, id(5)).expect("room");
        engine.get(NOW, id(6)).expect("room");
        engine.providers(NOW, id(7)).expect("room");
        engine.put(NOW, id(8), &[1], Duration::from_mins(1)).expect("room");
        for _ in 0..1000 {
            let Some(transmit) = engine.poll_transmit() else {
                break;
            };
            engine.handle_answer(NOW, transmit.id, &bytes);
        }
        let mut now = NOW;
        while engine.in_flight() > 0 {
            now = now.max(engine.poll_timeout());
            engine.handle_timeout(now);
            prop_assert!(now < NOW + Duration::from_hours(1));
        }
        let (records, held) = engine.stored();
        prop_assert!(records <= 2 && held <= 400);
    }
}
