//! Lookups among lying nodes.

use std::borrow::Cow;
use std::time::Duration;

use p2p_protocols::kademlia::wire::{Answer, Node};
use p2p_protocols::kademlia::{Config, Distance, Engine, Event, Failure, Outcome};

use super::setup::{NOW, answer, engine, meet, node};
use crate::net::{Place, id};

#[test]
fn endless_answers_do_not_prolong_a_lookup() {
    let config = Config::default();
    let mut engine = engine(&config);
    for number in 1..=30 {
        meet(&mut engine, NOW, number);
    }
    let op = engine.find_node(NOW, id(1 << 40)).expect("room");
    // Every node answers at once, with as many unknown nodes as fit.
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

/// Answers each request for nodes as `tell` returns for the number of the asked node; false addresses do not
/// answer.
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
fn many_liars_with_one_false_address_each_do_not_hide_a_node() {
    for liars in [1, 3, 8, 15] {
        let mut engine = engine(&Config::default());
        for number in 1..=16 {
            meet(&mut engine, NOW, number);
        }
        // The honest node is the last one asked.
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
        // Each of them costs one more request.
        assert!(
            asked.len() <= 16 + 1 + liars,
            "{} requests, {liars} liars",
            asked.len()
        );
    }
}

#[test]
fn many_named_nodes_in_its_network_do_not_hide_a_node() {
    let mut engine = engine(&Config::default());
    for number in 1..=10 {
        meet(&mut engine, NOW, number);
    }
    let victim = 0x2000_0001;
    engine.locate(NOW, id(victim.into())).expect("room");
    answer_all(&mut engine, |number| match number {
        // The maximum number of nodes in an answer, all of them in the victim's network, and none of them
        // alive.
        1..=9 => (0..20)
            .map(|it| at(&Place::wrong(0x2000_0010 + 20 * number % 200 + it, 1)))
            .collect(),
        10 => vec![node(victim)],
        _ => Vec::new(),
    });
    assert_eq!(located(&mut engine), Some(Place::new(victim)));
}

#[test]
fn addresses_with_a_narrower_scope_than_the_naming_node_are_not_used() {
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

/// Looks up an id that is none of the nodes'. Node 2 does not answer; the others name it. Returns the numbers
/// of the nodes that were asked.
fn asked_while_2_is_silent(engine: &mut Engine<Place>, now: Duration) -> Vec<u32> {
    engine.find_node(now, id(1 << 40)).expect("room");
    let mut asked = Vec::new();
    while let Some(transmit) = engine.poll_transmit() {
        let number = transmit.to.number;
        asked.push(number);
        if number == 2 {
            engine.handle_failure(now, transmit.id, Failure::Unreachable);
        } else {
            let nodes = Answer::Nodes((1..=3).map(node).collect());
            engine.handle_answer(now, transmit.id, &answer(number, nodes));
        }
    }
    asked.sort_unstable();
    asked
}

#[test]
fn a_lookup_does_not_wait_for_a_node_that_another_lookup_found_silent() {
    let config = Config::default();
    let mut engine = engine(&config);
    (1..=3).for_each(|number| meet(&mut engine, NOW, number));
    assert_eq!(asked_while_2_is_silent(&mut engine, NOW), [1, 2, 3]);
    let later = (NOW + config.silent_pause).saturating_sub(Duration::from_millis(1));
    assert_eq!(asked_while_2_is_silent(&mut engine, later), [1, 3]);
    let after = NOW + config.silent_pause;
    assert_eq!(asked_while_2_is_silent(&mut engine, after), [1, 2, 3]);
    assert_eq!(asked_while_2_is_silent(&mut engine, after), [1, 3]);
    meet(&mut engine, after, 2);
    assert_eq!(
        asked_while_2_is_silent(&mut engine, after),
        [1, 2, 3],
        "it sent a message"
    );
}

#[test]
fn a_lookup_of_a_silent_node_asks_it() {
    let mut engine = engine(&Config::default());
    (1..=3).for_each(|number| meet(&mut engine, NOW, number));
    assert_eq!(asked_while_2_is_silent(&mut engine, NOW), [1, 2, 3]);
    engine.locate(NOW, id(2)).expect("room");
    let asked = answer_all(&mut engine, |_| vec![node(2)]);
    assert!(asked.contains(&Place::new(2)), "{asked:?}");
    assert_eq!(located(&mut engine), Some(Place::new(2)));
}

#[test]
fn a_lookup_after_an_outage_of_this_node_asks_all_contacts() {
    let mut engine = engine(&Config::default());
    (1..=3).for_each(|number| meet(&mut engine, NOW, number));
    engine.find_node(NOW, id(1 << 40)).expect("room");
    while let Some(transmit) = engine.poll_transmit() {
        engine.handle_failure(NOW, transmit.id, Failure::Unreachable);
    }
    assert_eq!(asked_while_2_is_silent(&mut engine, NOW), [1, 2, 3]);
}
