//! Authentication of ids, and the limits of unauthenticated sources.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use p2p::{Addr, PeerId};
use p2p_protocols::kademlia::wire::{Answer, Ask};
use p2p_protocols::kademlia::{Config, Engine, Event, Failure, Outcome, Refusal, Rules};

use super::setup::{NOW, answer, ask, engine, provide, put, sent};
use crate::net::{Place, id};

#[test]
fn no_node_can_speak_in_anothers_name() {
    let mut engine = engine(&Config::default());
    let from = Place::new(1);
    for claimed in [0, 2] {
        let refused = engine.handle_request(NOW, &from, &ask(claimed, Ask::Ping));
        assert_eq!(refused, Err(Refusal::FalseId));
    }
    // Nor does an answer.
    engine
        .handle_request(NOW, &from, &ask(1, Ask::Ping))
        .expect("its own id");
    let check = engine.poll_transmit().expect("the node is pinged");
    engine.handle_answer(NOW, check.id, &answer(2, Answer::Pong));
    assert_eq!(engine.contacts().count(), 0);
    assert_eq!(engine.counts().false_ids, 3);
}

#[test]
fn an_unauthenticated_source_cannot_store_anything() {
    let parse = |text: &str| text.parse::<SocketAddr>().ok();
    let rules = Rules::new(Config::default(), parse, |_: &PeerId, _: &[u8]| true);
    let mut engine = Engine::new(id(0), Arc::new(rules), NOW, 1);
    let from: SocketAddr = "127.0.0.1:1".parse().expect("an address");
    assert!(engine.handle_request(NOW, &from, &ask(1, Ask::Ping)).is_ok());
    assert!(sent(&mut engine).is_empty(), "the node is not pinged");
    for request in [put(1, 7, &[1]), provide(1, 7)] {
        assert_eq!(
            engine.handle_request(NOW, &from, &request),
            Err(Refusal::Unproven)
        );
    }
}

#[test]
fn a_node_that_does_not_serve_is_in_no_bucket() {
    let config = Config {
        serves: false,
        ..Config::default()
    };
    let mut visitor = engine(&config);
    for request in [ask(1, Ask::Ping), ask(1, Ask::FindNode([7; 32])), put(1, 7, b"7")] {
        let served = visitor.handle_request(NOW, &Place::new(1), &request);
        assert_eq!(served, Err(Refusal::Visitor));
        assert_eq!(sent(&mut visitor), []);
    }
    let mut member = engine(&Config::default());
    let asked = member.handle_request(NOW, &Place::new(1), &ask(1, Ask::Ping));
    asked.expect("it is served");
    let checks = sent(&mut member);
    assert_eq!(checks.len(), 1, "the ping also shows whether the node serves");
    for check in checks {
        member.handle_failure(NOW, check.id, Failure::Rejected);
    }
    assert_eq!((member.contacts().count(), sent(&mut member)), (0, Vec::new()));
}

#[test]
fn an_unauthenticated_source_gets_no_more_bytes_than_it_sent() {
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    struct Mixed(Option<PeerId>, SocketAddr);
    impl std::fmt::Display for Mixed {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{}", self.1)
        }
    }
    impl Addr for Mixed {
        fn peer_id(&self) -> Option<PeerId> {
            self.0
        }
        fn socket_addr(&self) -> Option<SocketAddr> {
            Some(self.1)
        }
    }
    let parse = |text: &str| Some(Mixed(None, text.parse().ok()?));
    let rules = Rules::new(Config::default(), parse, |_: &PeerId, _: &[u8]| true);
    let mut engine = Engine::new(id(0), Arc::new(rules), NOW, 1);
    let socket = |number: u8| SocketAddr::from(([32, number, 0, 1], 1));
    for number in 1..=30 {
        let from = Mixed(Some(id(number.into())), socket(number));
        engine
            .handle_request(NOW, &from, &ask(number.into(), Ask::Ping))
            .expect("a good request");
        for transmit in sent(&mut engine) {
            engine.handle_answer(NOW, transmit.id, &answer(number.into(), Answer::Pong));
        }
    }
    let proven = Mixed(Some(id(1)), socket(1));
    engine
        .handle_request(NOW, &proven, &put(1, 7, &[1; 1000]))
        .expect("a good record");
    engine.handle_request(NOW, &proven, &provide(1, 7)).expect("room");
    let key = *id(7).as_bytes();
    for request in [Ask::Ping, Ask::FindNode(key), Ask::Get(key), Ask::Providers(key)] {
        let request = ask(99, request);
        let unproven = Mixed(None, socket(99));
        let answer = engine
            .handle_request(NOW, &unproven, &request)
            .expect("a good request");
        assert!(
            answer.len() <= request.len(),
            "{} B for {} B",
            answer.len(),
            request.len()
        );
        let proven = Mixed(Some(id(99)), socket(99));
        assert!(
            engine
                .handle_request(NOW, &proven, &request)
                .expect("a good request")
                .len()
                >= answer.len()
        );
    }
}

/// Returns a node of a network without authenticated addresses, with 30 contacts and a record and a provider
/// under key 7.
fn unproven() -> Engine<SocketAddr> {
    let config = Config {
        unproven_ids: true,
        ..Config::default()
    };
    let parse = |text: &str| text.parse().ok();
    let rules = Rules::new(config, parse, |_: &PeerId, _: &[u8]| true);
    let mut engine = Engine::new(id(0), Arc::new(rules), NOW, 1);
    for number in 1..=30 {
        let from = SocketAddr::from(([32, number, 0, 1], 1));
        let number = u32::from(number);
        let key = *id(7).as_bytes();
        let value = &[1; 1000][..];
        let put = Ask::Put { key, ttl: 100, value };
        for request in [ask(number, Ask::Ping), ask(number, put), provide(number, 7)] {
            let challenge = engine.handle_request(NOW, &from, &request).expect("a challenge");
            if challenge.first() == Some(&2) {
                let request = [&challenge[..], &request].concat();
                engine.handle_request(NOW, &from, &request).expect("its token");
            }
        }
        for transmit in sent(&mut engine) {
            engine.handle_answer(NOW, transmit.id, &answer(number, Answer::Pong));
        }
    }
    assert!(engine.contacts().count() > 10 && engine.stored().0 == 1);
    engine
}

#[test]
fn an_unvalidated_source_gets_fewer_bytes_than_it_sent() {
    let mut engine = unproven();
    let key = *id(7).as_bytes();
    let mut victim = SocketAddr::from(([198, 51, 100, 1], 1));
    let (mut received, mut answered) = (0, 0);
    for round in 0..100_u16 {
        victim.set_port(1 + round);
        let value = &[2; 1000][..];
        let put = Ask::Put { key, ttl: 100, value };
        for body in [
            Ask::Ping,
            Ask::FindNode(key),
            Ask::Get(key),
            Ask::Providers(key),
            put,
            Ask::Provide { key, ttl: 100 },
        ] {
            let request = ask(99, body);
            for forged in [&[2; 9][..], &[]] {
                let request = [forged, &request].concat();
                received += request.len();
                let answer = engine.handle_request(NOW, &victim, &request);
                answered += answer.map_or(0, |answer| answer.len());
                answered += sent(&mut engine)
                    .iter()
                    .map(|sent| sent.request.len())
                    .sum::<usize>();
            }
        }
    }
    assert!(answered * 3 < received, "{answered} B for {received} B");
    // The true node at an address gets the whole answer, with one more round trip for the first time.
    let request = ask(99, Ask::Get(key));
    let challenge = engine
        .handle_request(NOW, &victim, &request)
        .expect("a challenge");
    assert_eq!(challenge.len(), 9);
    let with_token = [&challenge[..], &request].concat();
    let elsewhere = SocketAddr::from(([198, 51, 100, 2], 1));
    let stolen = engine
        .handle_request(NOW, &elsewhere, &with_token)
        .expect("a challenge");
    assert_eq!(stolen.len(), 9, "a token is valid for one address");
    for request in [with_token, request] {
        let answer = engine
            .handle_request(NOW, &victim, &request)
            .expect("a good request");
        assert!(answer.len() > 1000, "{} B", answer.len());
    }
    // Many validated addresses in one network do not affect others.
    for port in 1000..4000 {
        let from = SocketAddr::from(([203, 0, 113, 1], port));
        let request = ask(98, Ask::Ping);
        let challenge = engine.handle_request(NOW, &from, &request).expect("a challenge");
        let request = [&challenge[..], &request].concat();
        engine.handle_request(NOW, &from, &request).expect("its token");
    }
    let answer = engine.handle_request(NOW, &victim, &ask(99, Ask::Get(key)));
    assert!(answer.expect("a good request").len() > 1000);
}

#[test]
fn a_request_is_repeated_with_the_requested_token() {
    let mut engine = unproven();
    sent(&mut engine);
    engine.find_node(NOW, id(1 << 40)).expect("room");
    let mut done = None;
    let mut challenged = BTreeSet::new();
    while let Some(transmit) = engine.poll_transmit() {
        let to = transmit.to;
        let SocketAddr::V4(at) = to else { panic!("{to}") };
        let number = u32::from(at.ip().octets()[1]);
        // Each node asks for a token the first time, and gets it with the same request behind it.
        if challenged.insert(to) {
            assert_eq!(transmit.request.first(), Some(&1));
            engine.handle_answer(NOW, transmit.id, &[2, 1, 2, 3, 4, 5, 6, 7, 8]);
            continue;
        }
        let (token, request) = transmit.request.split_at(9);
        assert_eq!(token, [2, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(request.first(), Some(&1));
        engine.handle_answer(NOW, transmit.id, &answer(number, Answer::Nodes(Vec::new())));
        while let Some(event) = engine.poll_event() {
            if let Event::Done { outcome, .. } = event {
                done = Some(outcome);
            }
        }
    }
    assert!(matches!(done, Some(Outcome::Nodes(nodes)) if nodes.len() == 20));
    // A node that keeps asking for tokens does not cause unlimited requests.
    engine.locate(NOW, id(1 << 41)).expect("room");
    let mut asked = 0;
    while let Some(transmit) = engine.poll_transmit() {
        asked += 1;
        engine.handle_answer(NOW, transmit.id, &[2; 9]);
    }
    assert!(asked <= 2 * Config::default().lookup_requests, "{asked}");
    assert_eq!(engine.in_flight(), 0);
}
