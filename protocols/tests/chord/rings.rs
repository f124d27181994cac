//! Rings of simulated nodes: formation, repair and retrieval.

use std::time::Duration;

use crate::ring::{Lookups, Ring, SECOND, owner};
use p2p::PeerId;
use p2p_protocols::chord::{Config, Engine, OpError, Outcome, wire};
use p2p_swarmtest::sim::{self, Churn, Distribution, SimAddr};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const DAY: Duration = Duration::from_hours(24);

fn all_right(lookups: Lookups) {
    assert_eq!(lookups.right, lookups.asked, "{lookups:?}");
}

#[test]
fn one_node_is_a_ring() {
    let mut ring = Ring::of(1, Config::default(), 1);
    ring.check().unwrap();
    all_right(ring.lookups(10));
    let key = PeerId::new([7; 32]);
    let put = ring.run(SimAddr(0), |node, now| node.put(now, key, b"alone", DAY));
    assert_eq!(put, Ok(Outcome::Stored));
    let got = ring.run(SimAddr(0), |node, now| node.get(now, key));
    assert_eq!(got, Ok(Outcome::Value(Some(b"alone".to_vec()))));
}

#[test]
fn nodes_that_join_one_by_one_form_the_right_ring() {
    for (seed, nodes) in [(2, 2), (3, 3), (4, 17), (5, 100)] {
        let mut ring = Ring::of(seed, Config::default(), nodes);
        ring.check().unwrap();
        all_right(ring.lookups(200));
    }
}

#[test]
fn nodes_that_join_at_the_same_moment_form_the_right_ring() {
    let mut ring = Ring::of(6, Config::default(), 1);
    for _ in 0..60 {
        ring.join_by(Some(SimAddr(0)));
    }
    ring.settle();
    ring.settle();
    ring.check().unwrap();
}

#[test]
fn the_ring_heals_after_half_of_its_nodes_fail_at_once() {
    let mut ring = Ring::of(8, Config::default(), 120);
    ring.check().unwrap();
    ring.fail(50);
    let before = ring.lookups(500);
    assert_eq!((before.failed, before.wrong), (0, 0), "{before:?}");
    ring.settle();
    ring.settle();
    ring.check().unwrap();
    let after = ring.lookups(500);
    all_right(after);
    assert!(
        after.mean_timeouts() < before.mean_timeouts(),
        "{after:?} {before:?}"
    );
}

/// For this time, all nodes come and go: half of the leaving nodes say goodbye, and all return as other
/// nodes.
fn come_and_go(ring: &mut Ring, how_long: Duration) {
    let rules = ring.rules.clone();
    let mut ids = StdRng::seed_from_u64(ring.random.random());
    let churn = Churn {
        session: Distribution::Exponential { mean: 600 * SECOND },
        absence: Distribution::Exponential { mean: 60 * SECOND },
        announced: 0.5,
        until: ring.sim.now() + how_long,
    };
    ring.sim.churn(churn, move |arrival| {
        let mut engine = Engine::new(
            PeerId::new(ids.random()),
            rules.clone(),
            arrival.now,
            arrival.seed,
        );
        let contact = arrival.contact.expect("not all are away at the same time");
        engine.join(arrival.now, &[contact]).unwrap();
        engine
    });
}

#[test]
fn the_ring_is_right_again_after_churn_and_lookups_work_within_it() {
    let mut ring = Ring::of(9, Config::default(), 60);
    come_and_go(&mut ring, 1200 * SECOND);
    let (mut asked, mut failed) = (0, 0);
    for _ in 0..20 {
        ring.sim.run_for(60 * SECOND);
        ring.rejoin();
        let during = ring.lookups(20);
        (asked, failed) = (asked + during.asked, failed + during.failed + during.wrong);
    }
    println!("lookups within churn: {failed} of {asked} failed or went to another than the present owner");
    assert!(failed * 20 < asked, "{failed} of {asked}");
    ring.settle();
    ring.rejoin();
    ring.settle();
    ring.check().unwrap();
    all_right(ring.lookups(300));
}

/// Creates a ring with records, and returns their keys.
fn with_records(seed: u64, nodes: usize, records: u8) -> (Ring, Vec<PeerId>) {
    let mut ring = Ring::of(seed, Config::default(), nodes);
    let keys: Vec<PeerId> = (0..records).map(|_| PeerId::new(ring.random.random())).collect();
    for (key, value) in keys.iter().zip(0..) {
        let from = ring.anyone().unwrap();
        let put = ring.run(from, |node, now| node.put(now, *key, &[value; 10], DAY));
        assert_eq!(put, Ok(Outcome::Stored));
    }
    ring.sim.run_for(SECOND);
    (ring, keys)
}

fn all_found(ring: &mut Ring, keys: &[PeerId]) {
    for (key, value) in keys.iter().zip(0..) {
        let from = ring.anyone().unwrap();
        let got = ring.run(from, |node, now| node.get(now, *key));
        assert_eq!(got, Ok(Outcome::Value(Some(vec![value; 10]))), "{key}");
    }
}

/// Checks that each record is stored by its owner and the two nodes after it; other copies do not matter.
fn all_in_place(ring: &Ring, keys: &[PeerId]) {
    let (members, now) = (ring.members(), ring.sim.now());
    for key in keys {
        let (first, _) = owner(&members, key);
        let at = members.iter().position(|(id, _)| *id == first).unwrap();
        for copy in 0..3 {
            let (_, addr) = members[(at + copy) % members.len()];
            assert!(
                ring.sim.engine(addr).unwrap().keeps(now, key),
                "copy {copy} of {key}"
            );
        }
    }
}

#[test]
fn a_put_record_is_stored_by_its_owner_and_the_nodes_after_it_and_found_by_all() {
    let (mut ring, keys) = with_records(10, 40, 50);
    ring.check().unwrap();
    all_in_place(&ring, &keys);
    all_found(&mut ring, &keys);
    let kept: usize = ring.sim.nodes().map(|(_, node)| node.stored().0).sum();
    assert_eq!(kept, 3 * keys.len());
    let from = ring.anyone().unwrap();
    let absent = ring.run(from, |node, now| node.get(now, PeerId::new([9; 32])));
    assert_eq!(absent, Ok(Outcome::Value(None)));
}

#[test]
fn a_joining_node_gets_the_records_of_its_range() {
    let (mut ring, keys) = with_records(11, 10, 100);
    for _ in 0..20 {
        ring.join();
        ring.sim.run_for(2 * SECOND);
    }
    ring.settle();
    ring.check().unwrap();
    all_in_place(&ring, &keys);
    all_found(&mut ring, &keys);
}

#[test]
fn a_newcomer_has_its_records_before_any_copying() {
    let (mut ring, keys) = with_records(12, 2, 200);
    let newcomer = ring.join();
    // A lookup of its place and a few pages take less than a second; copying starts with a round of
    // stabilization.
    ring.sim.run_for(SECOND);
    let members = ring.members();
    let now = ring.sim.now();
    let own: Vec<_> = keys
        .iter()
        .filter(|key| owner(&members, key).1 == newcomer)
        .collect();
    assert!(!own.is_empty());
    let engine = &ring.sim.engine(newcomer).unwrap();
    assert!(own.iter().all(|key| engine.keeps(now, key)));
}

#[test]
fn a_leaving_node_hands_its_records_over_and_the_ring_closes_at_once() {
    let config = Config {
        copies: 1,
        ..Config::default()
    };
    let mut ring = Ring::of(13, config, 20);
    let keys: Vec<PeerId> = (0..100).map(|_| PeerId::new(ring.random.random())).collect();
    for (key, value) in keys.iter().zip(0..) {
        ring.run(SimAddr(0), |node, now| node.put(now, *key, &[value; 10], DAY))
            .unwrap();
    }
    for leaver in 1..11 {
        let left = ring.run(SimAddr(leaver), Engine::leave);
        assert_eq!(left, Ok(Outcome::Left));
        ring.sim.fail(SimAddr(leaver));
        let members = ring.members();
        for (at, (_, addr)) in members.iter().enumerate() {
            let next = members[(at + 1) % members.len()].0;
            assert_eq!(ring.sim.engine(*addr).unwrap().successors()[0].id, next);
        }
    }
    all_found(&mut ring, &keys);
    ring.settle();
    ring.check().unwrap();
}

#[test]
fn records_survive_when_their_holders_fail_one_after_another() {
    let (mut ring, keys) = with_records(14, 30, 60);
    for _ in 0..20 {
        let unlucky = ring.anyone().unwrap();
        ring.sim.fail(unlucky);
        ring.sim.run_for(90 * SECOND);
    }
    all_in_place(&ring, &keys);
    all_found(&mut ring, &keys);
}

#[test]
fn small_rings_survive_any_failure_and_accept_returning_nodes() {
    for seed in 40..60 {
        for (nodes, pause) in [(2, 1), (3, 0), (3, 1), (4, 0), (4, 1), (4, 20)] {
            let mut ring = Ring::new(seed, Config::default());
            for number in 0..nodes {
                let engine = Engine::new(
                    PeerId::new(ring.random.random()),
                    ring.rules.clone(),
                    ring.sim.now(),
                    seed,
                );
                let addr = ring.sim.add(engine);
                if number > 0 {
                    let joined = ring.run(addr, |node, now| node.join(now, &[SimAddr(0)]));
                    assert!(matches!(joined, Ok(Outcome::Joined(_))), "{joined:?}");
                }
                ring.sim.run_for(pause * SECOND);
            }
            let gone = ring.random.random_range(0..nodes);
            let id = ring.sim.engine(SimAddr(gone)).unwrap().id();
            ring.sim.fail(SimAddr(gone));
            let all_find_all = |ring: &mut Ring| {
                let members = ring.members();
                for (_, from) in &members {
                    for (to, addr) in members.iter().filter(|(_, addr)| addr != from) {
                        let found = ring.run(*from, |node, now| node.locate(now, *to));
                        let Ok(Outcome::Located { node: Some(node), .. }) = &found else {
                            panic!(
                                "{from} does not find {addr} of {members:?}, where {gone} has failed: {found:?}"
                            );
                        };
                        assert_eq!(node.addr, *addr);
                    }
                }
            };
            all_find_all(&mut ring);
            let found = ring.run(SimAddr(u32::from(gone == 0)), |node, now| node.locate(now, id));
            assert!(
                matches!(found, Ok(Outcome::Located { node: None, .. })),
                "{found:?}"
            );
            all_find_all(&mut ring);
            let again = Engine::new(id, ring.rules.clone(), ring.sim.now(), seed);
            ring.sim.restart(SimAddr(gone), again);
            let by: Vec<SimAddr> = (0..nodes).map(SimAddr).filter(|addr| addr.0 != gone).collect();
            let joined = ring.run(SimAddr(gone), |node, now| node.join(now, &by));
            assert!(matches!(joined, Ok(Outcome::Joined(_))), "{joined:?}");
            all_find_all(&mut ring);
        }
    }
}

#[test]
fn records_can_be_put_and_got_while_a_dead_owner_is_undetected() {
    let mut ring = Ring::of(15, Config::default(), 30);
    let key = PeerId::new(ring.random.random());
    let (_, dead) = owner(&ring.members(), &key);
    ring.sim.fail(dead);
    let from = ring.anyone().unwrap();
    let put = ring.run(from, |node, now| node.put(now, key, b"value", DAY));
    assert_eq!(put, Ok(Outcome::Stored));
    let got = ring.run(from, |node, now| node.get(now, key));
    assert_eq!(got, Ok(Outcome::Value(Some(b"value".to_vec()))));
    ring.settle();
    all_in_place(&ring, &[key]);
}

#[test]
fn records_expire() {
    let mut ring = Ring::of(16, Config::default(), 10);
    let key = PeerId::new([3; 32]);
    let put = ring.run(SimAddr(0), |node, now| node.put(now, key, &[1], 100 * SECOND));
    assert_eq!(put, Ok(Outcome::Stored));
    ring.sim.run_for(80 * SECOND);
    let got = ring.run(SimAddr(1), |node, now| node.get(now, key));
    assert_eq!(got, Ok(Outcome::Value(Some(vec![1]))));
    ring.sim.run_for(100 * SECOND);
    let got = ring.run(SimAddr(1), |node, now| node.get(now, key));
    assert_eq!(got, Ok(Outcome::Value(None)));
    assert!(ring.sim.nodes().all(|(_, node)| node.stored() == (0, 0)));
}

#[test]
fn a_join_through_dead_nodes_fails() {
    let mut ring = Ring::of(17, Config::default(), 2);
    ring.sim.fail(SimAddr(0));
    ring.sim.fail(SimAddr(1));
    let engine = Engine::new(PeerId::new([5; 32]), ring.rules.clone(), ring.sim.now(), 0);
    let addr = ring.sim.add(engine);
    let joined = ring.run(addr, |node, now| {
        node.join(now, &[SimAddr(0), SimAddr(1), SimAddr(77)])
    });
    assert_eq!(joined, Err(OpError::NoAnswer));
}

#[test]
fn a_ring_survives_five_percent_loss() {
    let mut ring = Ring::new(18, Config::default());
    ring.sim = sim::Simulation::new(sim::Config {
        seed: 18,
        links: sim::Links {
            loss: 0.05,
            ..sim::Links::default()
        },
        ..sim::Config::default()
    });
    for _ in 0..50 {
        let node = ring.join();
        ring.sim.run_for(3 * SECOND);
        // A node with an unresponsive bootstrap node tries another, as an application would.
        while ring.sim.up() > 1 && ring.sim.engine(node).unwrap().successors().is_empty() {
            let contact = ring.member().unwrap();
            let _ = ring.run(node, |engine, now| engine.join(now, &[contact]));
        }
    }
    ring.settle();
    ring.settle();
    // An ask is lost with a probability of 1 - 0.95², including the one to the owner, which is sent twice.
    let lookups = ring.lookups(500);
    assert_eq!(lookups.failed, 0, "{lookups:?}");
    assert!(lookups.right * 100 >= lookups.asked * 97, "{lookups:?}");
}

#[test]
fn rings_merge_after_a_partition() {
    for (seed, by_first) in [(60, true), (61, false)] {
        let mut ring = Ring::new(seed, Config::default());
        for number in 0..40 {
            let contact = if by_first {
                SimAddr(0)
            } else {
                SimAddr(ring.random.random_range(0..=number / 2))
            };
            ring.join_by((number > 0).then_some(contact));
            ring.sim.run_for(SECOND);
        }
        ring.settle();
        ring.check().unwrap();
        ring.sim.partition(|addr| addr.0 % 2);
        ring.sim.run_for(900 * SECOND);
        // Two rings: no node knows one of the other part.
        for (addr, node) in ring.sim.nodes() {
            let others = node
                .successors()
                .iter()
                .filter(|other| other.addr.0 % 2 != addr.0 % 2);
            assert_eq!(others.count(), 0, "{addr}");
            assert_eq!(node.successors().len(), 19);
        }
        ring.sim.heal();
        assert!(ring.stabilize(60), "{:?}", ring.check());
        all_right(ring.lookups(200));
    }
}

#[test]
fn the_same_seed_replays_a_ring() {
    let run = || {
        let mut ring = Ring::of(19, Config::default(), 20);
        ring.lookups(50);
        ring.sim.trace()
    };
    assert_eq!(run(), run());
}

#[test]
fn the_ring_becomes_correct_for_any_order_of_joins() {
    type Order = fn(&mut Vec<PeerId>);
    let orders: [(&str, Order); 3] = [
        ("clockwise", |ids| ids.sort_unstable()),
        ("counter-clockwise", |ids| {
            ids.sort_unstable_by(|one, two| two.cmp(one));
        }),
        ("from the middle", |ids| {
            ids.sort_unstable();
            let half = ids.len() / 2;
            ids.rotate_left(half);
        }),
    ];
    for (seed, (name, order)) in (20..).zip(orders) {
        for pause in [Duration::ZERO, SECOND / 20, SECOND] {
            let mut ring = Ring::new(seed, Config::default());
            println!("{name}, {pause:?} apart");
            let mut ids: Vec<PeerId> = (0..40).map(|_| PeerId::new(ring.random.random())).collect();
            order(&mut ids);
            for id in ids {
                let contact = (ring.sim.up() > 0).then_some(SimAddr(0));
                ring.join_as(id, contact);
                ring.sim.run_for(pause);
            }
            assert!(ring.stabilize(60), "{:?}", ring.check());
            all_right(ring.lookups(100));
        }
    }
}

#[test]
fn without_a_successor_list_the_ring_heals_through_fingers() {
    let config = Config {
        successors: 1,
        ..Config::default()
    };
    let mut ring = Ring::of(30, config, 60);
    // One after another, so that the remaining contacts suffice to find the next place.
    for _ in 0..20 {
        let unlucky = ring.anyone().unwrap();
        ring.sim.fail(unlucky);
        ring.sim.run_for(60 * SECOND);
    }
    assert!(ring.stabilize(60), "{:?}", ring.check());
    all_right(ring.lookups(200));
}

#[test]
fn misplaced_copies_are_returned_and_removed() {
    let config = Config {
        replicate_every: 60 * SECOND,
        ..Config::default()
    };
    let mut ring = Ring::of(31, config, 3);
    let keys: Vec<PeerId> = (0..40).map(|_| PeerId::new(ring.random.random())).collect();
    for (key, value) in keys.iter().zip(0..) {
        let put = ring.run(SimAddr(0), |node, now| node.put(now, *key, &[value; 10], DAY));
        assert_eq!(put, Ok(Outcome::Stored));
    }
    // All three store all records; with 20 more nodes, each stores some.
    for _ in 0..20 {
        ring.join();
        ring.sim.run_for(SECOND);
    }
    ring.sim.run_for(1200 * SECOND);
    all_in_place(&ring, &keys);
    let kept: usize = ring.sim.nodes().map(|(_, node)| node.stored().0).sum();
    assert_eq!(kept, 3 * keys.len());
    all_found(&mut ring, &keys);
}

#[test]
fn a_record_reaches_its_owner_after_a_failed_transfer() {
    let config = Config {
        replicate_every: 60 * SECOND,
        ..Config::default()
    };
    let mut ring = Ring::of(32, config, 20);
    let key = PeerId::new(ring.random.random());
    // Stored at three nodes that are not its owner, as after a failed transfer.
    let members = ring.members();
    let (right, _) = owner(&members, &key);
    let at = members.iter().position(|(id, _)| *id == right).unwrap();
    let from = members[at].0;
    for steps in 8..11 {
        let (_, addr) = members[(at + steps) % members.len()];
        let record = wire::Record {
            key: *key.as_bytes(),
            ttl: 86_400,
            value: b"lost",
        };
        let keep = wire::Message::new(*from.as_bytes(), wire::Ask::Keep(record)).emit();
        let sender = members[at].1;
        ring.sim.act(addr, |node, now| {
            node.handle_request(now, &sender, &keep).unwrap()
        });
    }
    ring.sim.run_for(600 * SECOND);
    all_in_place(&ring, &[key]);
    let kept: usize = ring.sim.nodes().map(|(_, node)| node.stored().0).sum();
    assert_eq!(kept, 3);
    let from = ring.anyone().unwrap();
    let got = ring.run(from, |node, now| node.get(now, key));
    assert_eq!(got, Ok(Outcome::Value(Some(b"lost".to_vec()))));
}

#[test]
fn records_survive_while_nodes_come_and_go() {
    let mut ring = Ring::of(33, Config::default(), 60);
    let keys: Vec<PeerId> = (0..100).map(|_| PeerId::new(ring.random.random())).collect();
    for (key, value) in keys.iter().zip(0..) {
        let put = ring.run(SimAddr(0), |node, now| node.put(now, *key, &[value; 10], DAY));
        assert_eq!(put, Ok(Outcome::Stored));
    }
    come_and_go(&mut ring, 1200 * SECOND);
    for _ in 0..20 {
        ring.sim.run_for(60 * SECOND);
        ring.rejoin();
    }
    ring.settle();
    ring.rejoin();
    ring.settle();
    all_found(&mut ring, &keys);
    all_in_place(&ring, &keys);
}

#[test]
fn simultaneous_joins_have_the_right_successors_within_a_second_of_the_last() {
    let mut ring = Ring::crowd(34, Config::default(), 300, SECOND / 50);
    ring.sim.run_for(SECOND);
    let members = ring.members();
    for (at, (_, addr)) in members.iter().enumerate() {
        let engine = &ring.sim.engine(*addr).unwrap();
        let next = members[(at + 1) % members.len()].0;
        assert_eq!(
            engine.successors().first().map(|node| node.id),
            Some(next),
            "{addr}"
        );
    }
    all_right(ring.lookups(500));
}
