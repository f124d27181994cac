//! Contacts: which nodes get a place in a bucket, and for how long.

use std::sync::Arc;
use std::time::Duration;

use p2p::PeerId;
use p2p_protocols::kademlia::codec::{self, NamedNode, Request, RequestKind};
use p2p_protocols::kademlia::wire::{Answer, Ask, Message};
use p2p_protocols::kademlia::{Codec, Config, Contact, Engine, Failure, Key, PostcardCodec};
use rand::Rng;

use super::setup::{NOW, answer, ask, engine, meet, put, sent};
use crate::net::{Place, id, rules};

/// The encoding of this framework in a network where nodes that serve no requests send some.
#[derive(Debug)]
struct Clients(PostcardCodec<Place>);

impl Codec<Place> for Clients {
    fn senders_serve(&self) -> bool {
        false
    }

    fn write_request(&self, request: &Request<'_>) -> Vec<u8> {
        self.0.write_request(request)
    }

    fn read_request<'a>(&self, from: &Place, bytes: &'a [u8]) -> Option<(PeerId, Request<'a>)> {
        self.0.read_request(from, bytes)
    }

    fn write_answer(
        &self,
        to: &Place,
        request: &Request<'_>,
        answer: codec::Answer<'_, &Contact<Place>>,
        most: usize,
    ) -> Vec<u8> {
        self.0.write_answer(to, request, answer, most)
    }

    fn read_answer<'a>(
        &self,
        from: &Place,
        request: RequestKind,
        bytes: &'a [u8],
    ) -> Option<(Contact<Place>, codec::Answer<'a, NamedNode<Place>>)> {
        self.0.read_answer(from, request, bytes)
    }

    fn random_key(&self, bits: usize, rng: &mut dyn Rng) -> Key {
        self.0.random_key(bits, rng)
    }
}

fn contact(number: u32) -> Contact<Place> {
    let addr = Place::new(number);
    Contact { id: addr.id, addr }
}

#[test]
fn where_clients_send_requests_a_node_becomes_a_contact_only_if_the_driver_names_it() {
    let rules = rules(&Config::default());
    let codec = Arc::new(Clients(PostcardCodec::new(id(0), rules.clone())));
    let mut engine = Engine::with_codec(id(0).into(), codec, rules, NOW, 1);
    let request = ask(1, Ask::Ping);
    let served = engine.handle_request(NOW, &Place::new(1), &request);
    served.expect("a good request");
    assert_eq!(sent(&mut engine), []);
    engine.handle_contact(NOW, &contact(1));
    let checks = sent(&mut engine);
    assert_eq!(checks.len(), 1);
    assert_eq!(engine.contacts().count(), 0, "it has not answered yet");
    engine.handle_answer(NOW, checks[0].id, &answer(1, Answer::Pong));
    assert_eq!(engine.contacts().collect::<Vec<_>>(), [&contact(1)]);
    // It is alive as long as it sends requests.
    let later = NOW + engine.config().ask_after;
    let served = engine.handle_request(later, &Place::new(1), &request);
    served.expect("a good request");
    engine.handle_timeout(later);
    assert_eq!(sent(&mut engine), []);
}

#[test]
fn a_driver_names_neither_this_node_nor_one_by_a_false_id() {
    let mut engine = engine(&Config::default());
    engine.handle_contact(NOW, &contact(0));
    let (id, addr) = (id(2), Place::new(1));
    engine.handle_contact(NOW, &Contact { id, addr });
    assert_eq!(sent(&mut engine), []);
}

#[test]
fn a_node_that_stops_serving_loses_its_place_and_can_get_it_again() {
    let mut engine = engine(&Config::default());
    for number in 1..=3 {
        meet(&mut engine, NOW, number);
    }
    engine.handle_departure(&id(2));
    engine.handle_departure(&id(2));
    let mut left: Vec<u32> = engine.contacts().map(|contact| contact.addr.number).collect();
    left.sort_unstable();
    assert_eq!(left, [1, 3]);
    meet(&mut engine, NOW, 2);
    assert_eq!(engine.contacts().count(), 3);
}

#[test]
fn a_node_becomes_a_contact_only_after_it_has_answered() {
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
fn contacts_that_answer_stay() {
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
    // Later, the least recently heard contact is pinged; it answers and stays.
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
    // The next one does not answer twice. Four nodes wait for its place, and the newest of them gets it.
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
fn a_moved_contact_is_pinged_at_the_old_address_and_then_known_at_the_new_one() {
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
        "the node has two addresses, and was pinged just now"
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
fn one_network_gets_few_places() {
    let mut engine = engine(&Config::default());
    // A public /24, with nodes that all answer.
    for number in 0x2000_0000..0x2000_0100 {
        meet(&mut engine, NOW, number);
    }
    let held = engine.contacts().count();
    assert!(
        (2..=Config::default().table_per_prefix).contains(&held),
        "{held} of one network"
    );
    assert_eq!(engine.counts().crowded, 256 - held as u64);
    // This does not exclude another network.
    meet(&mut engine, NOW, 0x2100_0000);
    assert_eq!(engine.contacts().count(), held + 1);
}

#[test]
fn private_addresses_are_not_named_to_public_nodes() {
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
fn private_hosts_and_loopback_have_limits() {
    let config = Config::default();
    let mut engine = engine(&config);
    // 127.0.0.0/8 is one network, with any number of addresses.
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
fn silent_newcomers_do_not_prevent_pings_to_others_or_to_contacts() {
    let config = Config::default();
    let mut engine = engine(&config);
    for number in 1..=5 {
        meet(&mut engine, NOW, number);
    }
    // One network of unknown nodes, all of which are pinged and do not answer.
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
