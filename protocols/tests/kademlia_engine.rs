//! One Kademlia node: what its bytes are, what it takes from others, and what it never takes.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, PeerId};
use p2p_protocols::kademlia::wire::{Answer, Ask, MAX_ADDR, MAX_NODES, Message, Node};
use p2p_protocols::kademlia::{
    Config, Distance, Engine, Event, Failure, NoRecords, Outcome, Refusal, Rules, Transmit,
};
use proptest::prelude::*;

use net::{BAD, Place, id, rules};

#[path = "kademlia/net.rs"]
mod net;

const NOW: Duration = Duration::from_secs(1000);
const HOUR: u32 = 3600;

fn engine(config: &Config) -> Engine<Place> {
    Engine::new(id(0), rules(config), NOW, 1)
}

fn ask(from: u32, ask: Ask<'_>) -> Vec<u8> {
    Message::new(*id(u64::from(from)).as_bytes(), ask).emit()
}

fn answer(from: u32, answer: Answer<'_>) -> Vec<u8> {
    Message::new(*id(u64::from(from)).as_bytes(), answer).emit()
}

fn put(from: u32, key: u64, value: &[u8]) -> Vec<u8> {
    let key = *id(key).as_bytes();
    ask(
        from,
        Ask::Put {
            key,
            ttl: HOUR,
            value,
        },
    )
}

fn provide(from: u32, key: u64) -> Vec<u8> {
    let key = *id(key).as_bytes();
    ask(from, Ask::Provide { key, ttl: HOUR })
}

fn sent<A: Addr>(engine: &mut Engine<A>) -> Vec<Transmit<A>> {
    std::iter::from_fn(|| engine.poll_transmit()).collect()
}

/// Lets a node send something and answer the ask that it gets for that.
fn meet(engine: &mut Engine<Place>, now: Duration, number: u32) {
    let from = Place::new(number);
    engine
        .handle_request(now, &from, &ask(number, Ask::Ping))
        .expect("a good request");
    for transmit in sent(engine) {
        if transmit.to == from {
            engine.handle_answer(now, transmit.id, &answer(number, Answer::Pong));
        }
    }
}

fn node(number: u32) -> Node<'static> {
    Node {
        id: *id(u64::from(number)).as_bytes(),
        addr: Cow::Owned(number.to_string()),
    }
}

fn record(engine: &mut Engine<Place>, now: Duration, key: u64) -> Option<Vec<u8>> {
    let request = ask(9, Ask::Get(*id(key).as_bytes()));
    let bytes = engine
        .handle_request(now, &Place::new(9), &request)
        .expect("a good request");
    match Message::<Answer<'_>>::parse(&bytes).expect("a good answer").body {
        Answer::Record { value, .. } => Some(value.to_vec()),
        _ => None,
    }
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
fn what_is_not_wholly_a_message_is_none() {
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
fn nobody_speaks_in_anothers_name() {
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
    let check = engine.poll_transmit().expect("it is asked whether it lives");
    engine.handle_answer(NOW, check.id, &answer(2, Answer::Pong));
    assert_eq!(engine.contacts().count(), 0);
    assert_eq!(engine.counts().false_ids, 3);
}

#[test]
fn who_proves_no_id_leaves_nothing() {
    let parse = |text: &str| text.parse::<SocketAddr>().ok();
    let rules = Rules::new(Config::default(), parse, |_: &PeerId, _: &[u8]| true);
    let mut engine = Engine::new(id(0), Arc::new(rules), NOW, 1);
    let from: SocketAddr = "127.0.0.1:1".parse().expect("an address");
    assert!(engine.handle_request(NOW, &from, &ask(1, Ask::Ping)).is_ok());
    assert!(
        sent(&mut engine).is_empty(),
        "it is not even asked whether it lives"
    );
    for request in [put(1, 7, &[1]), provide(1, 7)] {
        assert_eq!(
            engine.handle_request(NOW, &from, &request),
            Err(Refusal::Unproven)
        );
    }
}

#[test]
fn a_contact_is_one_that_has_answered() {
    let mut engine = engine(&Config::default());
    for number in 1..=1000 {
        let request = ask(number, Ask::Ping);
        engine
            .handle_request(NOW, &Place::new(number), &request)
            .expect("a good request");
    }
    assert_eq!(engine.contacts().count(), 0);
    let checks = sent(&mut engine);
    assert_eq!(checks.len(), Config::default().checks);
    assert_eq!(engine.counts().unchecked, 1000 - checks.len() as u64);
    let (first, others) = checks.split_first().expect("some checks");
    engine.handle_answer(NOW, first.id, &answer(first.to.number, Answer::Pong));
    for other in others {
        engine.handle_failure(NOW, other.id, Failure::Unreachable);
    }
    assert_eq!(engine.contacts().count(), 1);
    assert_eq!(engine.in_flight(), 0);
}

#[test]
fn who_serves_nobody_has_no_place_anywhere() {
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
    assert_eq!(checks.len(), 1, "whether it serves, too");
    for check in checks {
        member.handle_failure(NOW, check.id, Failure::Rejected);
    }
    assert_eq!((member.contacts().count(), sent(&mut member)), (0, Vec::new()));
}

#[test]
fn who_is_there_and_answers_stays() {
    let config = Config {
        k: 4,
        ..Config::default()
    };
    let mut engine = engine(&config);
    // Nodes that share no bit with this one: all in one bucket.
    let in_bucket = |number: &u32| (id(0).as_bytes()[0] ^ id(u64::from(*number)).as_bytes()[0]) >= 0x80;
    let numbers: Vec<u32> = (1..).filter(in_bucket).take(20).collect();
    let mut now = NOW;
    for number in &numbers {
        now += Duration::from_secs(1);
        meet(&mut engine, now, *number);
    }
    let held = |engine: &Engine<Place>| -> Vec<u32> {
        engine.contacts().map(|contact| contact.addr.number).collect()
    };
    assert_eq!(held(&engine), numbers[..4]);
    // Later, the one not heard of for the longest time is asked; it answers and stays.
    now += config.ask_after;
    meet(&mut engine, now, numbers[1]);
    engine.handle_timeout(now);
    let asked = sent(&mut engine);
    assert_eq!(
        asked.iter().map(|ask| ask.to.number).collect::<Vec<_>>(),
        [numbers[0]]
    );
    engine.handle_answer(now, asked[0].id, &answer(numbers[0], Answer::Pong));
    assert_eq!(engine.counts().replaced, 0);
    // The next one does not answer twice. Four wait for its place, and the newest of them gets it.
    for _ in 0..config.failures {
        now += config.ask_after;
        for number in [numbers[0], numbers[1], numbers[3]] {
            meet(&mut engine, now, number);
        }
        engine.handle_timeout(now);
        let asked = sent(&mut engine);
        assert_eq!(
            asked.iter().map(|ask| ask.to.number).collect::<Vec<_>>(),
            [numbers[2]]
        );
        engine.handle_failure(now, asked[0].id, Failure::Unreachable);
    }
    let held = held(&engine);
    assert!(
        held.contains(&numbers[7]) && !held.contains(&numbers[2]),
        "{held:?}"
    );
    assert_eq!(engine.counts().replaced, 1);
}

#[test]
fn who_moves_is_asked_at_the_old_address_and_then_known_at_the_new_one() {
    let config = Config::default();
    let mut engine = engine(&config);
    meet(&mut engine, NOW, 1);
    let moved = Place {
        is_false: true,
        ..Place::new(1)
    };
    let hear = |engine: &mut Engine<Place>, now| {
        let request = ask(1, Ask::Ping);
        engine.handle_request(now, &moved, &request).expect("its own id");
        sent(engine)
    };
    let check = hear(&mut engine, NOW);
    assert_eq!(check[0].to, Place::new(1));
    engine.handle_answer(NOW, check[0].id, &answer(1, Answer::Pong));
    assert!(
        hear(&mut engine, NOW).is_empty(),
        "it has two addresses, and was asked just now"
    );
    let later = NOW + config.upkeep_every;
    let check = hear(&mut engine, later);
    engine.handle_failure(later, check[0].id, Failure::Unreachable);
    let check = sent(&mut engine);
    assert_eq!(check[0].to, moved);
    engine.handle_answer(later, check[0].id, &answer(1, Answer::Pong));
    let held: Vec<_> = engine.contacts().map(|contact| contact.addr.clone()).collect();
    assert_eq!(held, [moved]);
}

#[test]
fn answers_fit_the_messages_that_there_may_be() {
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

#[test]
fn one_network_gets_few_places() {
    let mut engine = engine(&Config::default());
    // A public /24, whose nodes all answer.
    for number in 0x2000_0000..0x2000_0100 {
        meet(&mut engine, NOW, number);
    }
    let held = engine.contacts().count();
    assert!(
        (2..=Config::default().table_per_prefix).contains(&held),
        "{held} of one network"
    );
    assert_eq!(engine.counts().crowded, 256 - held as u64);
    // Another one is not kept out by that.
    meet(&mut engine, NOW, 0x2100_0000);
    assert_eq!(engine.contacts().count(), held + 1);
}

#[test]
fn what_has_expired_is_never_given_out() {
    let mut engine = engine(&Config::default());
    engine
        .handle_request(NOW, &Place::new(1), &put(1, 7, &[1]))
        .expect("a good record");
    engine
        .handle_request(NOW, &Place::new(1), &provide(1, 8))
        .expect("a good provider");
    let last = NOW + Duration::from_secs(u64::from(HOUR) - 1);
    let end = last + Duration::from_secs(1);
    let request = ask(9, Ask::Providers(*id(8).as_bytes()));
    let mut providers = |now| {
        let bytes = engine
            .handle_request(now, &Place::new(9), &request)
            .expect("a good request");
        match Message::<Answer<'_>>::parse(&bytes).expect("a good answer").body {
            Answer::Providers { providers, .. } => providers.len(),
            other => panic!("{other:?}"),
        }
    };
    // No timeout is handled in between.
    assert_eq!((providers(last), providers(end)), (1, 0));
    assert_eq!(record(&mut engine, last, 7), Some(vec![1]));
    assert_eq!(record(&mut engine, end, 7), None);
    engine.handle_timeout(end);
    assert_eq!((engine.stored(), engine.kept_providers()), ((0, 0), (0, 0)));
}

#[test]
fn bad_records_are_refused_and_good_ones_stay() {
    let mut engine = engine(&Config::default());
    let from = Place::new(1);
    let mut try_put = |value: &[u8]| engine.handle_request(NOW, &from, &put(1, 7, value)).map(|_| ());
    assert_eq!(try_put(&[5, 5]), Ok(()));
    assert_eq!(try_put(&[4, 9]), Err(Refusal::Stale));
    assert_eq!(try_put(&[BAD]), Err(Refusal::Invalid));
    assert_eq!(
        try_put(&vec![9; Config::default().value + 1]),
        Err(Refusal::Oversize)
    );
    assert_eq!(try_put(&vec![9; 1 << 20]), Err(Refusal::Oversize));
    let key = *id(7).as_bytes();
    let expired = ask(
        1,
        Ask::Put {
            key,
            ttl: 0,
            value: &[9],
        },
    );
    assert_eq!(engine.handle_request(NOW, &from, &expired), Err(Refusal::Expired));
    assert_eq!(record(&mut engine, NOW, 7), Some(vec![5, 5]));
    assert_eq!(engine.counts().refused, 5);
    engine
        .handle_request(NOW, &from, &put(1, 7, &[6]))
        .expect("a better record");
    assert_eq!(record(&mut engine, NOW, 7), Some(vec![6]));
    assert_eq!(engine.stored(), (1, 1));
    // Nobody keeps a record for longer than the limit.
    let key = *id(8).as_bytes();
    let forever = ask(
        1,
        Ask::Put {
            key,
            ttl: u32::MAX,
            value: &[1],
        },
    );
    engine
        .handle_request(NOW, &from, &forever)
        .expect("a good record");
    assert_eq!(record(&mut engine, NOW + Config::default().record_ttl, 8), None);
}

#[test]
fn a_flood_of_puts_costs_what_is_configured() {
    let config = Config {
        records: 50,
        record_bytes: 4000,
        records_per_source: 10,
        ..Config::default()
    };
    let mut engine = engine(&config);
    for key in 0..1000 {
        let _ = engine.handle_request(NOW, &Place::new(1), &put(1, key, &[1; 100]));
        assert!(engine.stored().0 <= 10);
    }
    for number in 2..500 {
        for key in 0..20 {
            let key = u64::from(number) * 1000 + key;
            let _ = engine.handle_request(NOW, &Place::new(number), &put(number, key, &[1; 100]));
            let (records, bytes) = engine.stored();
            assert!(records <= 50 && bytes <= 4000 && bytes == 100 * records);
        }
    }
    assert_eq!(engine.stored(), (40, 4000));
    assert!(engine.counts().refused > 5000);
}

#[test]
fn a_flood_of_providers_costs_what_is_configured_and_moves_nobody() {
    let config = Config {
        provider_keys: 50,
        provided_per_source: 10,
        ..Config::default()
    };
    let mut engine = engine(&config);
    engine
        .handle_request(NOW, &Place::new(1), &provide(1, 7))
        .expect("room");
    for number in 2..2000 {
        let _ = engine.handle_request(NOW, &Place::new(number), &provide(number, 7));
    }
    assert_eq!(engine.kept_providers(), (1, config.providers_per_key));
    let request = ask(9, Ask::Providers(*id(7).as_bytes()));
    let bytes = engine
        .handle_request(NOW, &Place::new(9), &request)
        .expect("a good request");
    let answer = Message::<Answer<'_>>::parse(&bytes).expect("a good answer");
    assert!(
        matches!(answer.body, Answer::Providers { providers, .. } if providers.first() == Some(&node(1)))
    );
    for key in 100..1100 {
        let _ = engine.handle_request(NOW, &Place::new(1), &provide(1, key));
    }
    assert!(engine.kept_providers().0 <= 10, "keys of one source");
    for number in 2..100 {
        for key in 0..20 {
            let key = u64::from(number) * 1000 + key;
            let _ = engine.handle_request(NOW, &Place::new(number), &provide(number, key));
        }
    }
    assert!(engine.kept_providers().0 <= 50);
    // One public network provides a key from few nodes.
    let mut kept = 0;
    for number in 0x2000_0000..0x2000_0020 {
        kept += usize::from(
            engine
                .handle_request(NOW, &Place::new(number), &provide(number, 7_000_000))
                .is_ok(),
        );
    }
    assert!(kept <= config.providers_per_prefix, "{kept} of one network");
}

#[test]
fn a_network_without_records_takes_none() {
    let parse = |text: &str| text.parse().ok().map(Place::new);
    let rules = Rules::new(Config::default(), parse, NoRecords);
    let mut engine = Engine::new(id(0), Arc::new(rules), NOW, 1);
    let refused = engine.handle_request(NOW, &Place::new(1), &put(1, 7, &[1]));
    assert_eq!(refused, Err(Refusal::Invalid));
    sent(&mut engine);
    assert!(engine.put(NOW, id(7), &[1], Duration::from_mins(1)).is_err());
    assert!(sent(&mut engine).is_empty());
}

#[test]
fn endless_answers_end() {
    let config = Config::default();
    let mut engine = engine(&config);
    for number in 1..=30 {
        meet(&mut engine, NOW, number);
    }
    let op = engine.find_node(NOW, id(1 << 40)).expect("room");
    // Every node answers at once, with as many nodes as fit that nobody has heard of.
    let (mut next, mut asked) = (1000, 0);
    while let Some(transmit) = engine.poll_transmit() {
        asked += 1;
        let nodes = (0..64).map(|at| node(next + at)).collect();
        next += 64;
        engine.handle_answer(
            NOW,
            transmit.id,
            &answer(transmit.to.number, Answer::Nodes(nodes)),
        );
    }
    assert!(asked <= config.lookup_requests, "{asked} requests");
    let last = std::iter::from_fn(|| engine.poll_event()).last();
    assert!(
        matches!(last, Some(Event::Done { op: done, outcome: Outcome::Nodes(nodes), .. })
        if done == op && nodes.len() == config.k)
    );
    assert_eq!(engine.counts().surplus, 44 * asked as u64);
    assert_eq!(engine.in_flight(), 0);
}

/// Answers each request for nodes as `tell` says, by the number of the node that is asked; places that are false are silent.
fn answer_all(engine: &mut Engine<Place>, tell: impl Fn(u32) -> Vec<Node<'static>>) -> Vec<Place> {
    let mut asked = Vec::new();
    while let Some(transmit) = engine.poll_transmit() {
        asked.push(transmit.to.clone());
        if transmit.to.is_false {
            engine.handle_failure(NOW, transmit.id, Failure::Unreachable);
            continue;
        }
        let number = transmit.to.number;
        let nodes = Answer::Nodes(tell(number));
        engine.handle_answer(NOW, transmit.id, &answer(number, nodes));
    }
    asked
}

fn located(engine: &mut Engine<Place>) -> Option<Place> {
    let last = std::iter::from_fn(|| engine.poll_event()).last();
    match last {
        Some(Event::Done {
            outcome: Outcome::Located { contact, .. },
            ..
        }) => contact.map(|contact| contact.addr),
        other => panic!("{other:?}"),
    }
}

fn at(place: &Place) -> Node<'static> {
    Node {
        id: *place.id.as_bytes(),
        addr: Cow::Owned(place.to_string()),
    }
}

#[test]
fn liars_with_a_false_address_each_do_not_hide_a_node_from_one_that_knows_it() {
    for liars in [1, 3, 8, 15] {
        let mut engine = engine(&Config::default());
        for number in 1..=16 {
            meet(&mut engine, NOW, number);
        }
        // Of those that are asked, the honest one is the last.
        let victim = 1000;
        let mut by_distance: Vec<u32> = (1..=16).collect();
        by_distance.sort_by_key(|number| Distance::between(&id(victim.into()), &id(u64::from(*number))));
        let order = |number: u32| by_distance.iter().position(|other| *other == number);
        engine.locate(NOW, id(victim.into())).expect("room");
        let asked = answer_all(&mut engine, |number| match order(number) {
            Some(order) if order < liars => {
                let falsehoods = 3 * order as u16..3 * order as u16 + 3;
                falsehoods.map(|it| at(&Place::wrong(victim, it + 1))).collect()
            }
            Some(order) if order == liars => vec![node(victim)],
            _ => Vec::new(),
        });
        assert_eq!(located(&mut engine), Some(Place::new(victim)), "{liars} liars");
        // Each of them costs one request more.
        assert!(
            asked.len() <= 16 + 1 + liars,
            "{} requests, {liars} liars",
            asked.len()
        );
    }
}

#[test]
fn a_crowd_of_names_in_its_network_does_not_hide_a_node() {
    let mut engine = engine(&Config::default());
    for number in 1..=10 {
        meet(&mut engine, NOW, number);
    }
    let victim = 0x2000_0001;
    engine.locate(NOW, id(victim.into())).expect("room");
    answer_all(&mut engine, |number| match number {
        // As many as an answer may name, all of them where the victim is, and none of them there.
        1..=9 => (0..20)
            .map(|it| at(&Place::wrong(0x2000_0010 + 20 * number % 200 + it, 1)))
            .collect(),
        10 => vec![node(victim)],
        _ => Vec::new(),
    });
    assert_eq!(located(&mut engine), Some(Place::new(victim)));
}

#[test]
fn addresses_that_do_not_reach_as_far_as_those_who_name_them_are_not_dialled() {
    let (public, private, loopback) = (0x2000_0001, 1, 0x7f00_0001);
    let multicast = 0xe000_0001;
    for (by, dialled) in [
        (public, vec![0x2100_0001]),
        (private, vec![2, 0x2100_0001]),
        (loopback, vec![2, 0x7f00_0002, 0x2100_0001]),
    ] {
        let mut engine = engine(&Config::default());
        meet(&mut engine, NOW, by);
        engine.find_node(NOW, id(1 << 40)).expect("room");
        let named = [2, 0x7f00_0002, 0x2100_0001, multicast];
        let asked = answer_all(&mut engine, |number| {
            if number == by {
                named.into_iter().map(node).collect()
            } else {
                Vec::new()
            }
        });
        let mut asked: Vec<u32> = asked
            .iter()
            .map(|place| place.number)
            .filter(|it| *it != by)
            .collect();
        asked.sort_unstable();
        let mut expected = dialled.clone();
        expected.sort_unstable();
        assert_eq!(asked, expected, "named by {by:x}");
        assert_eq!(engine.counts().out_of_scope, (named.len() - dialled.len()) as u64);
    }
}

#[test]
fn private_addresses_are_not_named_to_strangers() {
    let mut engine = engine(&Config::default());
    for number in [1, 2, 0x7f00_0001, 0x2000_0001] {
        meet(&mut engine, NOW, number);
    }
    let mut named_to = |number: u32| {
        let request = ask(number, Ask::FindNode(*id(7).as_bytes()));
        let bytes = engine.handle_request(NOW, &Place::new(number), &request);
        let bytes = bytes.expect("a good request");
        match Message::<Answer<'_>>::parse(&bytes).expect("a good answer").body {
            Answer::Nodes(nodes) => nodes.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        [named_to(0x2200_0001), named_to(9), named_to(0x7f00_0009)],
        [1, 3, 4]
    );
}

#[test]
fn a_host_of_a_private_network_and_loopback_have_limits_too() {
    let config = Config::default();
    let mut engine = engine(&config);
    // 127.0.0.0/8 is one network, however many addresses it has.
    for number in 0x7f00_0000..0x7f00_0400 {
        meet(&mut engine, NOW, number);
    }
    let held = engine.contacts().count();
    assert!(
        (20..=8 * config.table_per_prefix).contains(&held),
        "{held} contacts on one host"
    );
    let mut kept = 0;
    for number in 0x7f00_0000..0x7f00_0400 {
        let served = engine.handle_request(NOW, &Place::new(number), &put(number, number.into(), &[1]));
        kept += usize::from(served.is_ok());
    }
    assert_eq!(kept, config.records_per_source);
    for number in 1..=20 {
        meet(&mut engine, NOW, number);
    }
    assert!(engine.contacts().count() > held, "other hosts have their places");
    assert!(
        engine
            .handle_request(NOW, &Place::new(1), &put(1, 1, &[1]))
            .is_ok()
    );
}

#[test]
fn strangers_that_do_not_answer_keep_neither_others_nor_its_own_contacts_from_being_asked() {
    let config = Config::default();
    let mut engine = engine(&config);
    for number in 1..=5 {
        meet(&mut engine, NOW, number);
    }
    // One network of strangers, all of which are asked whether they live and are silent.
    let later = NOW + config.ask_after;
    for number in 0x2000_0000..0x2000_0100 {
        let request = ask(number, Ask::Ping);
        engine
            .handle_request(later, &Place::new(number), &request)
            .expect("a good request");
    }
    assert_eq!(sent(&mut engine).len(), config.checks / 4);
    meet(&mut engine, later, 0x2100_0000);
    assert_eq!(engine.contacts().count(), 6, "a newcomer from elsewhere");
    // Many networks.
    for number in 0x3000..0x3100 {
        let number = number << 16;
        let request = ask(number, Ask::Ping);
        engine
            .handle_request(later, &Place::new(number), &request)
            .expect("a good request");
    }
    assert_eq!(sent(&mut engine).len(), config.checks - config.checks / 4);
    engine.handle_timeout(later);
    let asked: Vec<u32> = sent(&mut engine).iter().map(|ask| ask.to.number).collect();
    assert!(asked.iter().any(|number| (1..=5).contains(number)), "{asked:?}");
}

#[test]
fn networks_that_fill_a_node_leave_room_for_records_and_providers_of_others() {
    let config = Config {
        records: 40,
        records_per_source: 10,
        provider_keys: 40,
        provided_per_source: 10,
        ..Config::default()
    };
    let mut engine = engine(&config);
    // Keys as near to the node's id as anybody likes to choose them, from many nodes of four networks.
    let near = |number: u32| {
        let mut key = *id(0).as_bytes();
        key[28..].copy_from_slice(&number.to_be_bytes());
        key
    };
    for number in 0..400 {
        let from = 0x2000_0000 + 0x100 * (number % 4) + number / 4 % 16;
        let (key, value) = (near(number), &[1][..]);
        let put = Ask::Put {
            key,
            ttl: HOUR,
            value,
        };
        let _ = engine.handle_request(NOW, &Place::new(from), &ask(from, put));
        let provide = Ask::Provide { key, ttl: HOUR };
        let _ = engine.handle_request(NOW, &Place::new(from), &ask(from, provide));
    }
    assert_eq!((engine.stored().0, engine.kept_providers().0), (40, 40));
    // One that is as far as a key can be still gets its place.
    let honest = 0x2200_0001;
    let mut far = *id(0).as_bytes();
    for byte in &mut far {
        *byte ^= 0xff;
    }
    let put = Ask::Put {
        key: far,
        ttl: HOUR,
        value: &[1],
    };
    assert!(
        engine
            .handle_request(NOW, &Place::new(honest), &ask(honest, put))
            .is_ok()
    );
    let provide = Ask::Provide { key: far, ttl: HOUR };
    assert!(
        engine
            .handle_request(NOW, &Place::new(honest), &ask(honest, provide))
            .is_ok()
    );
    assert_eq!((engine.stored().0, engine.kept_providers().0), (40, 40));
    let get = engine.handle_request(NOW, &Place::new(9), &ask(9, Ask::Get(far)));
    let get = get.expect("a good request");
    let answer = Message::<Answer<'_>>::parse(&get).expect("a good answer");
    assert!(matches!(answer.body, Answer::Record { .. }));
    // It stays while they go on.
    for number in 400..800 {
        let from = 0x2000_0000 + 0x100 * (number % 4) + number / 4 % 16;
        let (key, value) = (near(number), &[1][..]);
        let put = Ask::Put {
            key,
            ttl: HOUR,
            value,
        };
        let _ = engine.handle_request(NOW, &Place::new(from), &ask(from, put));
    }
    let get = engine.handle_request(NOW, &Place::new(9), &ask(9, Ask::Get(far)));
    let get = get.expect("a good request");
    let answer = Message::<Answer<'_>>::parse(&get).expect("a good answer");
    assert!(matches!(answer.body, Answer::Record { .. }));
}

#[test]
fn a_source_that_proves_nothing_gets_no_more_bytes_than_it_sent() {
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

fn provided(engine: &mut Engine<Place>, key: u64) -> Vec<PeerId> {
    let request = ask(9, Ask::Providers(*id(key).as_bytes()));
    let bytes = engine.handle_request(NOW, &Place::new(9), &request);
    let bytes = bytes.expect("a good request");
    match Message::<Answer<'_>>::parse(&bytes).expect("a good answer").body {
        Answer::Providers { providers, .. } => providers.iter().map(|node| PeerId::new(node.id)).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn twenty_ids_of_five_networks_do_not_keep_a_keys_providers_for_themselves() {
    let config = Config::default();
    let honest = 0x2200_0001;
    // Four nodes of each of five networks, or one of each of twenty.
    for (networks, each) in [(5, 4), (20, 1)] {
        let mut engine = engine(&config);
        for network in 0..networks {
            for node in 0..each {
                let number = 0x2000_0000 + 0x100 * network + node;
                engine
                    .handle_request(NOW, &Place::new(number), &provide(number, 7))
                    .expect("room");
            }
        }
        assert_eq!(engine.kept_providers(), (1, 20));
        let before = provided(&mut engine, 7);
        engine
            .handle_request(NOW, &Place::new(honest), &provide(honest, 7))
            .expect("room");
        assert_eq!(engine.kept_providers(), (1, 20));
        let after = provided(&mut engine, 7);
        assert!(after.contains(&id(honest.into())), "{networks} networks");
        assert_eq!(after[..10], before[..10], "those that came first stay");
        // It stays while nodes of those networks say so again.
        for number in 0x2000_0000..0x2000_0000 + 0x100 * 5 {
            let _ = engine.handle_request(NOW, &Place::new(number), &provide(number, 7));
        }
        if networks == 5 {
            assert!(provided(&mut engine, 7).contains(&id(honest.into())));
        }
    }
}

#[test]
fn one_answer_full_of_invented_providers_does_not_hide_the_true_one() {
    let mut engine = engine(&Config::default());
    for number in 1..=10 {
        meet(&mut engine, NOW, number);
    }
    engine.providers(NOW, id(7)).expect("room");
    while let Some(transmit) = engine.poll_transmit() {
        let number = transmit.to.number;
        let providers = if number <= 4 {
            (0..20).map(|it| node(1000 * number + it)).collect()
        } else {
            vec![node(500)]
        };
        let nodes = Vec::new();
        let providers = Answer::Providers { providers, nodes };
        engine.handle_answer(NOW, transmit.id, &answer(number, providers));
    }
    let last = std::iter::from_fn(|| engine.poll_event()).last();
    match last {
        Some(Event::Done {
            outcome: Outcome::Providers(found),
            ..
        }) => {
            assert_eq!(found.first().map(|node| node.id), Some(id(500)));
            assert_eq!(found.len(), Config::default().providers_wanted);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_to_nothing_or_to_something_else_is_none() {
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
fn requests_that_get_no_answer_end_in_time() {
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
fn operations_have_a_limit_and_can_be_given_up() {
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
        "a record without a second left"
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_are_survived(
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
