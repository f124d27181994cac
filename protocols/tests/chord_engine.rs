//! One Chord node: what its bytes are, what it takes from others, and what it never takes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, PeerId, Rejection};
use p2p_protocols::chord::wire::{Answer, Ask, MAX_ADDR, MAX_NODES, Message, Node, Record};
use p2p_protocols::chord::{Config, Contact, Engine, Event, Failure, OpError, Outcome, Refusal, Rules};
use proptest::prelude::*;

use place::{BAD, Place, answer, ask, id, key, node, parse, rules, sent};

#[path = "chord/place.rs"]
mod place;

const NOW: Duration = Duration::from_secs(1000);
const HOUR: u32 = 3600;

fn engine(config: Config) -> Engine<Place> {
    Engine::new(id(0), rules(config), NOW, 1)
}

/// An engine at 0 with this successor and predecessor, and these nodes after the successor.
fn between(config: Config, predecessor: u16, successor: u16, after: &[u16]) -> Engine<Place> {
    let mut engine = engine(config);
    let stabilize = ask(predecessor, Ask::Stabilize);
    engine
        .handle_request(NOW, &Place(predecessor), &stabilize)
        .expect("a good request");
    for _ in 0..10 {
        let now = NOW;
        for transmit in sent(&mut engine) {
            let Ask::Stabilize = parse(&transmit.request) else {
                engine.handle_failure(now, transmit.id, Failure::Rejected);
                continue;
            };
            let neighbours = Answer::Neighbours {
                predecessor: Some(node(if transmit.to.0 == successor { 0 } else { successor })),
                successors: after.iter().map(|number| node(*number)).collect(),
            };
            engine.handle_answer(now, transmit.id, &answer(transmit.to.0, neighbours));
        }
        if engine.in_flight() == 0 {
            break;
        }
    }
    assert_eq!(
        engine.successors().first().map(|node| node.id),
        Some(id(successor))
    );
    while engine.events_left() {}
    sent(&mut engine);
    engine
}

trait Drain {
    fn events_left(&mut self) -> bool;
}

impl<A: Addr> Drain for Engine<A> {
    fn events_left(&mut self) -> bool {
        self.poll_event().is_some()
    }
}

/// A join is tried once.
fn once() -> Config {
    Config {
        join_tries: 1,
        ..Config::default()
    }
}

/// What is over, whatever got on before.
fn ended(engine: &mut Engine<Place>) -> Option<Event<Place>> {
    let mut events = std::iter::from_fn(|| engine.poll_event());
    events.find(|event| !matches!(event, Event::Progress { .. }))
}

fn record(number: u32, value: &[u8]) -> Record<'_> {
    Record {
        key: *key(number).as_bytes(),
        ttl: HOUR,
        value,
    }
}

fn keep(engine: &mut Engine<Place>, from: u16, number: u32, value: &[u8]) -> Result<Vec<u8>, Refusal> {
    engine.handle_request(NOW, &Place(from), &ask(from, Ask::Keep(record(number, value))))
}

#[test]
fn every_message_has_the_bytes_that_it_had() {
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
fn what_is_not_wholly_a_message_is_none() {
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
fn nobody_speaks_in_anothers_name() {
    let mut engine = engine(Config::default());
    let refused = |engine: &mut Engine<Place>, at: u16, says: u16| {
        engine.handle_request(NOW, &Place(at), &ask(says, Ask::Stabilize))
    };
    assert_eq!(refused(&mut engine, 1, 2), Err(Refusal::FalseId));
    assert_eq!(refused(&mut engine, 0, 0), Err(Refusal::FalseId), "its own");
    assert!(engine.predecessor().is_none() && engine.successors().is_empty());
    assert_eq!(engine.counts().false_ids, 2);

    // A node that another answers for is not there.
    let mut engine = between(Config::default(), 0xf000, 0x1000, &[0x2000]);
    engine.lookup(NOW, key(0x0800_0000)).unwrap();
    let asked = sent(&mut engine).remove(0);
    assert_eq!(asked.to, Place(0x1000));
    let step = Answer::Step {
        mine: true,
        predecessor: None,
        nearer: Vec::new(),
        owners: Vec::new(),
    };
    engine.handle_answer(NOW, asked.id, &answer(0x1001, step));
    assert_eq!(engine.successors()[0].id, id(0x2000));
    assert_eq!(sent(&mut engine).remove(0).to, Place(0x2000));
}

#[test]
fn unproven_ids_are_believed_only_if_that_is_asked_for() {
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    struct Anywhere;
    impl fmt::Display for Anywhere {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("anywhere")
        }
    }
    impl Addr for Anywhere {}
    for (unproven_ids, served) in [(false, false), (true, true)] {
        let config = Config {
            unproven_ids,
            ..Config::default()
        };
        let rules = Arc::new(Rules::new(
            config,
            |_| Some(Anywhere),
            |_: &PeerId, _: &[u8]| true,
        ));
        let mut engine = Engine::new(id(0), rules, NOW, 1);
        let answer = engine.handle_request(NOW, &Anywhere, &ask(1, Ask::Ping));
        assert_eq!(answer.is_ok(), served);
    }
}

#[test]
fn oversize_and_invalid_records_are_refused_and_the_longest_is_kept() {
    let config = Config {
        value: 100,
        ..Config::default()
    };
    let mut engine = between(config, 0xf000, 0x1000, &[]);
    assert_eq!(keep(&mut engine, 0xf000, 1, &[1; 101]), Err(Refusal::Oversize));
    assert_eq!(Refusal::Oversize.rejection(), Rejection::OVERSIZE);
    assert_eq!(keep(&mut engine, 0xf000, 1, &[BAD; 10]), Err(Refusal::Invalid));
    assert!(keep(&mut engine, 0xf000, 1, &[1; 100]).is_ok());
    assert_eq!(engine.stored(), (1, 100));
    let long = ask(0xf000, Ask::Put(record(1, &vec![0; 20_000])));
    assert_eq!(
        engine.handle_request(NOW, &Place(0xf000), &long),
        Err(Refusal::Oversize)
    );
    let refused = engine.put(NOW, key(1), &[1; 101], Duration::from_secs(1));
    assert!(matches!(
        refused,
        Err(p2p::Error::MtuExceeded { size: 101, mtu: 100 })
    ));
    assert!(engine.put(NOW, key(1), &[BAD], Duration::from_secs(1)).is_err());
    assert!(engine.put(NOW, key(1), &[1], Duration::ZERO).is_err());
    assert_eq!(sent(&mut engine), []);
}

#[test]
fn the_better_record_stays_and_who_puts_a_worse_one_is_told() {
    let mut engine = between(Config::default(), 0xf000, 0x1000, &[]);
    let stale = |bytes: Vec<u8>| Message::<Answer<'_>>::parse(&bytes).unwrap().body == Answer::Stale;
    assert!(!stale(keep(&mut engine, 1, 5, b"b").unwrap()));
    assert!(stale(keep(&mut engine, 1, 5, b"a").unwrap()));
    assert!(!stale(keep(&mut engine, 1, 5, b"b").unwrap()));
    assert!(!stale(keep(&mut engine, 1, 5, b"c").unwrap()));
    let get = engine.handle_request(NOW, &Place(1), &ask(1, Ask::Get(*key(5).as_bytes())));
    let get = get.unwrap();
    let value = Message::<Answer<'_>>::parse(&get).unwrap().body;
    assert_eq!(value, Answer::Value(HOUR, b"c"));

    // The putter, too.
    let op = engine
        .put(NOW, key(0x0800_0000), b"a", Duration::from_secs(9))
        .unwrap();
    let asked = sent(&mut engine).remove(0);
    engine.handle_answer(NOW, asked.id, &answer(asked.to.0, Answer::Stale));
    let outcome = Err(OpError::Stale);
    assert_eq!(ended(&mut engine), Some(Event::Done { op, outcome }));
}

#[test]
fn a_flood_of_records_is_bounded_in_total_and_for_each_sender() {
    let config = Config {
        records: 100,
        records_per_source: 60,
        record_bytes: 500,
        ..Config::default()
    };
    let mut engine = between(config, 0xf000, 0x1000, &[]);
    for number in 0..1000 {
        let kept = keep(&mut engine, 1, 0x2000_0000 + number, b"x");
        assert_eq!(kept.is_ok(), number < 60, "{number}");
        if number >= 60 {
            assert_eq!(kept, Err(Refusal::Limit));
        }
    }
    for number in 0..1000 {
        let kept = keep(&mut engine, 2, 0x3000_0000 + number, b"x");
        assert_eq!(kept.is_ok(), number < 40, "{number}");
    }
    assert_eq!(engine.stored(), (100, 100));
    // Room for more bytes than there are is not made by taking the same again.
    assert_eq!(
        keep(&mut engine, 2, 0x3000_0000, &[b'y'; 402]),
        Err(Refusal::Full)
    );
    assert!(keep(&mut engine, 2, 0x3000_0000, &[b'y'; 401]).is_ok());
    assert_eq!(engine.stored(), (100, 500));
}

/// An address of a network, which proves an id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Networked(Place, [u8; 4]);

impl fmt::Display for Networked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Addr for Networked {
    fn peer_id(&self) -> Option<PeerId> {
        self.0.peer_id()
    }

    fn socket_addr(&self) -> Option<std::net::SocketAddr> {
        Some((self.1, 1).into())
    }
}

#[test]
fn who_makes_ids_in_one_network_keeps_no_more_than_one_node_of_it() {
    let config = Config {
        records_per_source: 20,
        ..Config::default()
    };
    let parse = |_: &str| None;
    let rules = Arc::new(Rules::new(config, parse, |_: &PeerId, _: &[u8]| true));
    let mut engine: Engine<Networked> = Engine::new(id(0), rules, NOW, 1);
    let mut kept = |number: u16, ip| {
        let from = Networked(Place(number), ip);
        let keep = ask(number, Ask::Keep(record(number.into(), b"x")));
        engine.handle_request(NOW, &from, &keep).is_ok()
    };
    for number in 1..100 {
        assert_eq!(
            kept(number, [203, 0, 113, number as u8]),
            number <= 20,
            "{number}"
        );
    }
    assert!(kept(100, [203, 0, 114, 1]), "another network");
}

#[test]
fn senders_that_fill_a_nodes_own_range_leave_room_for_others() {
    let config = Config {
        records: 20,
        records_per_source: 10,
        ..Config::default()
    };
    let mut engine = between(config, 0xf000, 0x1000, &[]);
    for number in 0..20 {
        let from = 1 + (number % 2) as u16;
        assert!(keep(&mut engine, from, 0xf100_0000 + number, b"x").is_ok());
    }
    for number in 0..9 {
        assert!(
            keep(&mut engine, 3, 0xf200_0000 + number, b"x").is_ok() || number > 5,
            "{number}"
        );
        assert_eq!(engine.stored().0, 20);
    }
    // All have about as many now, and nobody takes from another any more.
    for from in [1, 2, 3] {
        assert_eq!(keep(&mut engine, from, 0xf300_0000, b"x"), Err(Refusal::Full));
    }
}

#[test]
fn a_full_node_lets_the_farthest_copies_go_for_records_of_its_own_range_alone() {
    let config = Config {
        records: 10,
        ..Config::default()
    };
    let mut engine = between(config, 0xf000, 0x1000, &[]);
    for number in 0..10 {
        keep(&mut engine, 1, 0x2000_0000 + number, b"copy").unwrap();
    }
    assert_eq!(
        keep(&mut engine, 1, 0x3000_0000, b"copy"),
        Err(Refusal::Full),
        "another copy"
    );
    for number in 0..10 {
        keep(&mut engine, 1, 0xf800_0000 + number, b"own").unwrap();
        assert!(
            !engine.keeps(NOW, &key(0x2000_0000 + number)),
            "the farthest before this node is the next after it"
        );
    }
    assert_eq!(
        keep(&mut engine, 1, 0xf900_0000, b"own"),
        Err(Refusal::Full),
        "own ones do not leave"
    );
    assert_eq!(engine.stored(), (10, 30));
}

#[test]
fn a_flood_of_puts_does_not_become_a_flood_of_copies() {
    let config = Config {
        replicate_batch: 8,
        ..Config::default()
    };
    let mut engine = between(config, 0xf000, 0x1000, &[0x2000, 0x3000]);
    for number in 0..1000 {
        let put = ask(1, Ask::Put(record(0xf800_0000 + number, b"x")));
        engine.handle_request(NOW, &Place(1), &put).unwrap();
    }
    let mut asked = sent(&mut engine);
    assert!(asked.len() <= 10, "{}", asked.len());
    // All the same all of them get there, none more than three times to each.
    let mut copies = std::collections::BTreeMap::new();
    let mut now = NOW;
    while copies.len() < 2000 {
        for transmit in std::mem::take(&mut asked) {
            let done = answer(transmit.to.0, Answer::Done);
            match parse(&transmit.request) {
                Ask::Keep(record) => {
                    *copies.entry((transmit.to, record.key)).or_insert(0) += 1;
                    engine.handle_answer(now, transmit.id, &done);
                }
                Ask::Stabilize => {
                    let neighbours = Answer::Neighbours {
                        predecessor: Some(node(0)),
                        successors: vec![node(0x2000), node(0x3000)],
                    };
                    engine.handle_answer(now, transmit.id, &answer(0x1000, neighbours));
                }
                Ask::Ping => engine.handle_answer(now, transmit.id, &done),
                _ => engine.handle_failure(now, transmit.id, Failure::Rejected),
            }
            assert!(engine.in_flight() <= 20);
        }
        asked = sent(&mut engine);
        if asked.is_empty() {
            now = engine.poll_timeout().unwrap();
            assert!(now < NOW + Duration::from_mins(10), "{} copies", copies.len());
            engine.handle_timeout(now);
            asked = sent(&mut engine);
        }
    }
    // From the queue, from a round over all that was under way, and from the one after it.
    assert!(copies.values().all(|count| *count <= 3));
}

#[test]
fn a_lookup_to_be_passed_on_is_refused_and_sends_nothing_to_a_stranger() {
    let mut engine = between(Config::default(), 0xf000, 0x1000, &[0x2000]);
    let from = ask(1, Ask::Ping);
    let body = |tag: u8, rest: &[u8]| [&from[..from.len() - 1], &[tag], rest].concat();
    // As they were: a token, a key, hops and an origin; a token, hops, whether it is the sender's, and successors.
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

/// Ends an operation among nodes that answer each step and each request for a value as `tell` says; what goes to a false
/// place fails.
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

/// A place that is the node's, or one of several where it is not.
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

/// An engine at 0 on a ring with 0x1000, 0x2000, 0x3000 and 0xf000 before it.
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
fn an_answer_with_three_false_addresses_of_a_node_does_not_hide_it() {
    let victim = 0x9000;
    // 0x3000, which is asked first, lies in one answer, and names an honest one beside that.
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
        // Nor from a lookup of a key that it owns.
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
fn liars_with_a_false_address_each_do_not_hide_a_node() {
    let victim = 0x9000;
    let mut engine = among_liars();
    engine.locate(NOW, id(victim)).unwrap();
    // A way of liars, each of which names the next one nearer, and the victim where it is not.
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
fn a_false_address_does_not_make_a_neighbour_forgotten() {
    let mut engine = among_liars();
    let before = engine.successors().to_vec();
    assert_eq!(
        before.iter().map(|node| node.addr.0).collect::<Vec<_>>(),
        [0x1000, 0x2000, 0x3000]
    );
    engine.lookup(NOW, key(0x1800_0000)).unwrap();
    answer_all(&mut engine, |_| step(0, Vec::new(), vec![wrong(0x2000, 1)]));
    // It is asked for a key in between, by way of one who says that it is where it is not.
    engine.lookup(NOW, key(0x3800_0000)).unwrap();
    answer_all(&mut engine, |number| match number {
        0x3000 => step(0x2000, Vec::new(), vec![wrong(0x1000, 1), wrong(0x2000, 2)]),
        _ => step(0, Vec::new(), Vec::new()),
    });
    assert_eq!(engine.successors(), before);
}

#[test]
fn a_successor_that_leaves_does_not_choose_the_next_one_unasked() {
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
        // It stays with what it knew, and asks.
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
fn addresses_that_do_not_reach_as_far_as_those_who_name_them_are_not_dialled() {
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
fn a_lookup_among_those_who_name_nodes_without_end_ends() {
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
        // Always nearer, never there.
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
fn nothing_that_leads_away_from_a_key_is_followed() {
    let mut engine = between(Config::default(), 0xf000, 0x1000, &[]);
    let op = engine.lookup(NOW, id(0x9000)).unwrap();
    let asked = sent(&mut engine).remove(0);
    let step = Answer::Step {
        mine: false,
        predecessor: None,
        // Behind the one who answers, itself, the asker, and a node that is not at its address.
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
    // Only the question what else it knows is left.
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
fn who_is_told_of_and_does_not_answer_never_becomes_the_successor() {
    let mut engine = between(Config::default(), 0xf000, 0x1000, &[0x2000]);
    for _ in 0..20 {
        let now = engine.poll_timeout().unwrap();
        engine.handle_timeout(now);
        let mut asked = sent(&mut engine);
        while let Some(transmit) = asked.pop() {
            let neighbours = Answer::Neighbours {
                // An invention just behind the asker, another each time.
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
fn who_is_displaced_as_predecessor_is_told_by_whom_and_asks_that_one_at_once() {
    let mut engine = between(Config::default(), 0xf000, 0x3000, &[]);
    let stabilize = ask(0xf800, Ask::Stabilize);
    engine.handle_request(NOW, &Place(0xf800), &stabilize).unwrap();
    let told = sent(&mut engine).remove(0);
    assert_eq!(told.to, Place(0xf000));
    assert_eq!(parse(&told.request), Ask::Nearer(node(0xf800)));
    engine.handle_answer(NOW, told.id, &answer(0xf000, Answer::Done));

    // Neither what lies beyond the successor nor what somebody else says is asked.
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
    // Who has come itself needs nobody to speak for it, but must be nearer, and in its own name.
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
    // However many it tells of, one is asked at a time.
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
fn tables_stay_small_whatever_neighbours_say() {
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
fn pages_of_records_that_bring_nothing_new_end() {
    let mut engine = engine(Config::default());
    engine.join(NOW, &[Place(0x1000)]).unwrap();
    let step = || Answer::Step {
        mine: true,
        predecessor: None,
        nearer: Vec::new(),
        owners: Vec::new(),
    };
    let mut pages = 0;
    while let Some(transmit) = engine.poll_transmit() {
        let body = match parse(&transmit.request) {
            Ask::Stabilize => Answer::Neighbours {
                predecessor: None,
                successors: Vec::new(),
            },
            Ask::Keys(..) => {
                pages += 1;
                // The same page again and again: not after the one that was asked after.
                Answer::Keys {
                    records: vec![record(0x2000_0000, b"x"), record(0x3000_0000, b"y")],
                    more: true,
                }
            }
            _ => step(),
        };
        engine.handle_answer(NOW, transmit.id, &answer(0x1000, body));
    }
    assert_eq!(pages, 2);
    assert_eq!(engine.counts().bad_records, 1);
}

#[test]
fn who_is_still_joining_takes_nobody_in() {
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
fn requests_that_nobody_settles_fail_by_themselves() {
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

#[test]
fn a_join_is_tried_again_each_time_later_and_then_fails() {
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
            None => panic!("it waits for nothing"),
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
fn a_join_ends_when_the_successor_knows_this_node_and_can_be_cancelled_until_then() {
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

/// An engine at 0 that wants to know where 0x2000 is, and is told by the one at 0x1000 that it comes next.
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
fn a_node_is_located_when_it_answers_itself() {
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
        panic!("it is not found");
    };
    assert_eq!((ended_op, found.addr), (op, Place(0x2000)));
    assert_eq!(
        named_by.iter().map(|node| node.addr).collect::<Vec<_>>(),
        [Place(0x1000)]
    );
}

#[test]
fn of_a_node_that_does_not_answer_is_told_who_names_it() {
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
fn the_next_hop_is_always_nearer_and_a_predecessor_is_known_too() {
    let engine = between(Config::default(), 0xf000, 0x1000, &[0x2000, 0x3000]);
    let next = |number| engine.next_hop(&id(number)).map(|next| next.addr.0);
    assert_eq!(next(0x0800), None, "nobody is nearer");
    assert_eq!(next(0x1000), Some(0x1000));
    assert_eq!(next(0x2fff), Some(0x2000));
    assert_eq!(next(0x9000), Some(0x3000));
    assert_eq!(next(0xf000), Some(0xf000));
    assert_eq!(next(0xf800), Some(0xf000));
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

#[test]
fn messages_are_never_longer_than_they_may_be() {
    /// An address as long as its number says.
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
        .find(|transmit| matches!(place::parse(&transmit.request), Ask::Stabilize))
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
    // Who has an address that does not fit any message is not told of.
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

/// Something that happens to an engine.
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
    fn nothing_that_happens_makes_a_node_panic_or_grow(
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
                        let transmit: p2p_protocols::chord::Transmit<Place> =
                            asked.swap_remove(which % asked.len());
                        // Most answers come from whom they should.
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
                    // Up to a minute on, or to where time ends.
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
            // Each operation gets on and ends, and the node may be alone.
            prop_assert!(events <= 12, "{} events at once", events);
            prop_assert!(engine.successors().len() <= 4);
            prop_assert!(engine.fingers().count() <= 256);
            prop_assert!(engine.stored().0 <= 10 && engine.stored().1 <= 100);
            // Operations and upkeep, copies, records handed over, pages, neighbours asked.
            prop_assert!(engine.in_flight() <= 60, "{} in flight", engine.in_flight());
        }
    }
}
