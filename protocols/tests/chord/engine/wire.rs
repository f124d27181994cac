//! The encoding of messages, and their limits.

use std::fmt;
use std::sync::Arc;

use p2p::{Addr, PeerId};
use p2p_protocols::chord::wire::{Answer, Ask, MAX_ADDR, MAX_NODES, Message, Node, Record};
use p2p_protocols::chord::{Config, Engine, Rules};

use super::setup::{NOW, record};
use crate::place::{answer, ask, id, key, sent};

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
    let node = || Node {
        id: key,
        addr: "xyz".into(),
    };
    let (one, value) = (format!("{b}0378797a"), &[1, 2, 3][..]);
    let record = Record { key, ttl: 300, value };
    let asks = [
        (Ask::Ping, "00".to_owned()),
        (Ask::Step(key, 8), format!("01{b}08")),
        (Ask::Stabilize, "02".to_owned()),
        (Ask::Get(key), format!("03{b}")),
        (Ask::Put(record), format!("04{b}ac0203010203")),
        (Ask::Keep(record), format!("05{b}ac0203010203")),
        (Ask::Keys(key, from), format!("06{b}{}", "aa".repeat(32))),
        (
            Ask::Leave {
                predecessor: Some(node()),
                successors: vec![node(), node()],
            },
            format!("0701{one}02{one}{one}"),
        ),
        (Ask::Nearer(node()), format!("0a{one}")),
    ];
    for (body, bytes) in asks {
        assert_eq!(hex(Message::new(from, body).emit()), format!("{front}{bytes}"));
    }
    let answers = [
        (Answer::Done, "00".to_owned()),
        (
            Answer::Step {
                mine: false,
                predecessor: None,
                nearer: vec![node()],
                owners: vec![node(), node()],
            },
            format!("01000001{one}02{one}{one}"),
        ),
        (
            Answer::Neighbours {
                predecessor: Some(node()),
                successors: vec![node()],
            },
            format!("0201{one}01{one}"),
        ),
        (Answer::Value(300, value), "03ac0203010203".to_owned()),
        (Answer::Elsewhere(Some(node())), format!("0401{one}")),
        (Answer::Stale, "05".to_owned()),
        (
            Answer::Keys {
                records: vec![record],
                more: true,
            },
            format!("0601{b}ac020301020301"),
        ),
    ];
    for (body, bytes) in answers {
        assert_eq!(hex(Message::new(from, body).emit()), format!("{front}{bytes}"));
    }
}

#[test]
fn partial_and_invalid_messages_are_rejected() {
    let neighbours = |count: usize, addr: &str| {
        let node = Node {
            id: [1; 32],
            addr: addr.to_owned().into(),
        };
        let successors = vec![node; count];
        answer(
            1,
            Answer::Neighbours {
                predecessor: None,
                successors,
            },
        )
    };
    let is_good = |bytes: &[u8]| Message::<Answer<'_>>::parse(bytes).is_some();
    let good = neighbours(2, "xyz");
    assert!(is_good(&good));
    for len in 0..good.len() {
        assert!(!is_good(&good[..len]), "the first {len} bytes");
    }
    assert!(!is_good(&[&good[..], &[0]].concat()));
    assert!(!is_good(&[&[2], &good[1..]].concat()), "another version");
    assert!(is_good(&neighbours(MAX_NODES, "xyz")));
    assert!(!is_good(&neighbours(MAX_NODES + 1, "xyz")));
    assert!(is_good(&neighbours(1, &"x".repeat(MAX_ADDR))));
    assert!(!is_good(&neighbours(1, &"x".repeat(MAX_ADDR + 1))));
    // A list that claims to be longer than memory.
    let mut endless = answer(1, Answer::Done);
    endless.pop();
    endless.extend([2, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(!is_good(&endless));
}

#[test]
fn messages_never_exceed_the_size_limit() {
    /// An address with a length equal to its number.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    struct Long(PeerId, usize);
    impl fmt::Display for Long {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}{}", self.0, "x".repeat(self.1))
        }
    }
    impl Addr for Long {
        fn peer_id(&self) -> Option<PeerId> {
            Some(self.0)
        }
    }
    let config = Config {
        successors: 64,
        nearer: 64,
        message: 1024,
        value: 10_000,
        ..Config::default()
    };
    let parse = |text: &str| {
        let id = text.get(..43)?.parse().ok()?;
        Some(Long(id, text.len() - 43))
    };
    let rules = Arc::new(Rules::new(config, parse, |_: &PeerId, _: &[u8]| true));
    let limit = rules.config().message;
    let mut engine = Engine::new(id(0), rules.clone(), NOW, 1);
    let first = Long(id(0x1000), 200);
    engine
        .handle_request(NOW, &first, &ask(0x1000, Ask::Stabilize))
        .unwrap();
    let asked = sent(&mut engine);
    let stabilize = asked
        .iter()
        .find(|transmit| matches!(crate::place::parse(&transmit.request), Ask::Stabilize))
        .unwrap();
    let successors = (0x2000..0x2030).map(|number| Node {
        id: *id(number).as_bytes(),
        addr: Long(id(number), 200).to_string().into(),
    });
    let neighbours = Answer::Neighbours {
        predecessor: None,
        successors: successors.collect(),
    };
    engine.handle_answer(NOW, stabilize.id, &answer(0x1000, neighbours));
    assert_eq!(engine.successors().len(), 49);
    for number in 0..50 {
        let value = vec![7; rules.config().value - number];
        let put = ask(0x1000, Ask::Keep(record(0x9000_0000 + number as u32, &value)));
        engine.handle_request(NOW, &first, &put).unwrap();
    }
    let zero = [0; 32];
    for body in [
        Ask::Stabilize,
        Ask::Step(*id(0x9000).as_bytes(), 0),
        Ask::Step(*id(0x2010).as_bytes(), 0),
        Ask::Keys(zero, zero),
        Ask::Get(*key(0x9000_0000).as_bytes()),
    ] {
        let bytes = engine.handle_request(NOW, &first, &ask(0x1000, body)).unwrap();
        assert!(bytes.len() <= limit, "{}", bytes.len());
        assert!(Message::<Answer<'_>>::parse(&bytes).is_some());
    }
    engine.leave(NOW).unwrap();
    for transmit in sent(&mut engine) {
        assert!(transmit.request.len() <= limit);
    }
    // A node with an address that fits into no message is not named.
    let mut engine = Engine::new(id(0), rules, NOW, 1);
    let far = Long(id(0x1000), 213);
    engine
        .handle_request(NOW, &far, &ask(0x1000, Ask::Stabilize))
        .unwrap();
    let bytes = engine.handle_request(NOW, &far, &ask(0x1000, Ask::Stabilize));
    let none = Answer::Neighbours {
        predecessor: None,
        successors: Vec::new(),
    };
    assert_eq!(Message::<Answer<'_>>::parse(&bytes.unwrap()).unwrap().body, none);
}
