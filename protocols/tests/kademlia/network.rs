//! Networks of Kademlia nodes: the results of operations without faults, under churn, and among liars.

use std::time::Duration;

use p2p::PeerId;
use p2p_protocols::kademlia::{Config, Distance, Engine, Outcome, Record};
use rand::RngExt;

use crate::net::{Lie, Net, Place, id};

const HOUR: Duration = Duration::from_hours(1);

fn nodes(outcome: Outcome<Place>) -> Vec<PeerId> {
    match outcome {
        Outcome::Nodes(nodes) | Outcome::Providers(nodes) => nodes.into_iter().map(|node| node.id).collect(),
        other => panic!("{other:?}"),
    }
}

fn value(outcome: Outcome<Place>) -> Option<Vec<u8>> {
    match outcome {
        Outcome::Record(record) => record.map(|record| record.value),
        other => panic!("{other:?}"),
    }
}

/// Puts a record from a node. Returns the number of other nodes that store it.
fn put(net: &mut Net, from: u32, key: PeerId, value: &[u8], ttl: Duration) -> usize {
    let op = net.with(from, |engine, now| {
        engine.put(now, key, value, ttl).expect("room")
    });
    match net.finish(from, op).0 {
        Outcome::Kept { copies } => copies,
        other => panic!("{other:?}"),
    }
}

fn get(net: &mut Net, by: u32, key: PeerId) -> Option<Vec<u8>> {
    let op = net.with(by, |engine, now| engine.get(now, key).expect("room"));
    value(net.finish(by, op).0)
}

/// Returns the number of nodes that store a record.
fn stored(net: &Net) -> usize {
    net.engines
        .values()
        .filter(|engine| engine.stored().0 > 0)
        .count()
}

#[test]
fn on_a_stable_network_every_lookup_is_exact_and_short() {
    let mut net = Net::joined(1, 300, &Config::default());
    let (mut hops, lookups) = (0, 200_u32);
    net.watch = true;
    for at in 0..lookups {
        let (asker, target) = (net.random(), id(1 << 40 | u64::from(at)));
        let op = net.with(asker, |engine, now| engine.find_node(now, target).expect("room"));
        let (outcome, progress) = net.finish(asker, op);
        assert_eq!(
            nodes(outcome),
            net.nearest(&target, 20, asker, |_| true),
            "lookup {at}"
        );
        hops += progress.hops as u32;
        // A watching application sees the progress.
        let seen = &net.progress[&(asker, op)];
        assert_eq!(seen.len(), progress.answered + progress.failed);
        assert!(
            seen.iter()
                .zip(1..)
                .all(|(seen, count)| seen.answered + seen.failed == count)
        );
    }
    let mean = f64::from(hops) / f64::from(lookups);
    assert!(mean <= 300_f64.log2() / 2.0, "{mean} hops in the mean");
}

#[test]
fn a_node_is_located_as_soon_as_it_answers_and_an_absent_one_is_not() {
    let mut net = Net::joined(12, 200, &Config::default());
    let (mut requests, mut all) = (0, 0);
    for _ in 0..50 {
        let (asker, other) = (net.random(), net.random());
        if asker == other {
            continue;
        }
        let target = id(u64::from(other));
        let op = net.with(asker, |engine, now| engine.locate(now, target).expect("room"));
        let (outcome, progress) = net.finish(asker, op);
        let Outcome::Located { contact, .. } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(contact.map(|contact| contact.addr), Some(Place::new(other)));
        requests += progress.asked;
        let op = net.with(asker, |engine, now| engine.find_node(now, target).expect("room"));
        all += net.finish(asker, op).1.asked;
    }
    assert!(
        2 * requests < all,
        "{requests} requests to locate, {all} to find all near nodes"
    );
    let asker = net.random();
    let op = net.with(asker, |engine, now| {
        engine.locate(now, id(1 << 40)).expect("room")
    });
    let outcome = net.finish(asker, op).0;
    assert!(
        matches!(&outcome, Outcome::Located { contact: None, named_by } if named_by.is_empty()),
        "{outcome:?}"
    );
}

#[test]
fn a_dead_node_is_named_but_not_located() {
    let mut net = Net::joined(13, 60, &Config::default());
    let (asker, gone) = (net.live[3], net.live[40]);
    net.remove(gone);
    let target = id(u64::from(gone));
    let op = net.with(asker, |engine, now| engine.locate(now, target).expect("room"));
    let outcome = net.finish(asker, op).0;
    assert!(
        matches!(&outcome, Outcome::Located { contact: None, named_by } if !named_by.is_empty()),
        "{outcome:?}"
    );
}

#[test]
fn a_route_of_next_hops_ends_at_the_nearest_node() {
    let net = Net::joined(14, 300, &Config::default());
    for at in 0..100 {
        let target = id(1 << 40 | at);
        let (mut here, mut steps) = (net.live[at as usize], 0);
        while let Some(next) = net.engines[&here].next_hop(&target) {
            let (before, after) = (id(u64::from(here)), next.id);
            assert!(Distance::between(&target, &after) < Distance::between(&target, &before));
            here = next.addr.number;
            steps += 1;
        }
        assert!(steps <= 8, "{steps} steps");
        assert_eq!(vec![id(u64::from(here))], net.nearest(&target, 1, 0, |_| true));
    }
}

#[test]
fn a_put_record_is_found_by_all_and_expires() {
    let mut net = Net::joined(2, 100, &Config::default());
    let (publisher, key) = (net.random(), id(1 << 40));
    assert_eq!(put(&mut net, publisher, key, &[1, 2], HOUR), 20);
    for reader in net.live.clone() {
        assert_eq!(get(&mut net, reader, key), Some(vec![1, 2]));
    }
    net.with(publisher, |engine, _| assert!(engine.unpublish(&key)));
    net.run_for(HOUR + Duration::from_mins(5));
    for reader in net.live.clone() {
        assert_eq!(get(&mut net, reader, key), None);
    }
    assert_eq!(stored(&net), 0);
}

#[test]
fn a_record_is_cached_along_the_path_of_a_lookup() {
    // Tables are so small that the path to a record leads past nodes that do not have it.
    let config = Config {
        k: 4,
        quorum: 1,
        ..Config::default()
    };
    let mut net = Net::joined(11, 100, &config);
    let (publisher, key) = (net.random(), id(1 << 40));
    assert_eq!(put(&mut net, publisher, key, &[1], HOUR), 4);
    let before = stored(&net);
    for reader in net.live.clone() {
        assert_eq!(get(&mut net, reader, key), Some(vec![1]));
    }
    assert!(stored(&net) > before);
}

#[test]
fn a_published_record_lasts_and_an_unpublished_one_expires() {
    let mut net = Net::joined(3, 60, &Config::default());
    let (publisher, key) = (net.random(), id(1 << 40));
    put(&mut net, publisher, key, &[1], HOUR);
    net.run_for(5 * HOUR);
    let reader = net.random();
    assert_eq!(get(&mut net, reader, key), Some(vec![1]));
}

#[test]
fn the_better_record_wins_and_replaces_the_worse() {
    let mut net = Net::joined(4, 100, &Config::default());
    let key = id(1 << 40);
    let publisher = net.random();
    put(&mut net, publisher, key, &[1], HOUR);
    // Half of the nodes that store it do not get the new one.
    let keepers: Vec<u32> = net
        .live
        .iter()
        .copied()
        .filter(|node| net.engines[node].stored().0 > 0)
        .collect();
    for keeper in &keepers[..keepers.len() / 2] {
        net.hostile.insert(*keeper, Lie::Silence);
    }
    let other = net
        .live
        .iter()
        .copied()
        .find(|node| !keepers.contains(node))
        .expect("another node");
    assert!(put(&mut net, other, key, &[2], HOUR) > 0);
    net.hostile.clear();
    let mut worse = 0;
    for reader in net.live.clone() {
        worse += usize::from(get(&mut net, reader, key) != Some(vec![2]));
    }
    // A reader compares a quorum only, so the first readers may get the old record; after it is repaired,
    // none does.
    assert!(worse <= 10, "{worse} read the worse record");
    let reader = net.random();
    assert_eq!(get(&mut net, reader, key), Some(vec![2]));
}

#[test]
fn providers_are_found_until_they_stop() {
    let mut net = Net::joined(
        5,
        100,
        &Config {
            provider_ttl: HOUR,
            ..Config::default()
        },
    );
    let key = id(1 << 40);
    let providers: Vec<u32> = net.live[10..15].to_vec();
    for provider in &providers {
        let op = net.with(*provider, |engine, now| engine.provide(now, key).expect("room"));
        assert_eq!(net.finish(*provider, op).0, Outcome::Kept { copies: 20 });
    }
    let found = |net: &mut Net| {
        let reader = net.live[50];
        let op = net.with(reader, |engine, now| engine.providers(now, key).expect("room"));
        let mut found = nodes(net.finish(reader, op).0);
        found.sort();
        found
    };
    let mut all: Vec<PeerId> = providers.iter().map(|node| id(u64::from(*node))).collect();
    all.sort();
    assert_eq!(found(&mut net), all);
    net.run_for(3 * HOUR);
    assert_eq!(found(&mut net), all, "providers repeat their announcements");
    for provider in &providers {
        net.with(*provider, |engine, _| assert!(engine.stop_providing(&key)));
    }
    net.run_for(HOUR + Duration::from_mins(1));
    assert_eq!(found(&mut net), []);
}

#[test]
fn records_outlive_their_publishers_under_churn() {
    let size = 100;
    let mut net = Net::joined(6, size, &Config::default());
    let keys: Vec<PeerId> = (0..20).map(|at| id(1 << 40 | at)).collect();
    for key in &keys {
        let publisher = net.random();
        put(&mut net, publisher, *key, &[1; 50], 24 * HOUR);
    }
    // Sessions with a median of 10 minutes: in each minute, each node leaves with a probability of 1 -
    // 2^(-1/10).
    let leaves = 1.0 - 0.5_f64.powf(0.1);
    let (mut reads, mut failures) = (0, 0);
    for _ in 0..30 {
        for number in net.live.clone() {
            if net.rng.random_bool(leaves) {
                net.remove(number);
                let number = net.add();
                net.join(number);
            }
        }
        net.run_for(Duration::from_mins(1));
        for _ in 0..5 {
            let (reader, key) = (net.random(), keys[net.rng.random_range(0..keys.len())]);
            reads += 1;
            failures += usize::from(get(&mut net, reader, key).is_none());
        }
    }
    assert!(failures * 100 <= reads, "{failures} of {reads} reads failed");
}

fn lookups_among(lie: Lie) {
    let mut net = Net::new(7, &Config::default());
    for at in 0..200 {
        let number = net.add();
        if at % 5 == 4 {
            net.hostile.insert(number, lie);
        }
        net.join(number);
        net.run_for(Duration::from_millis(50));
    }
    net.run_for(Duration::from_mins(1));
    let (mut right, lookups) = (0, 100);
    for at in 0..lookups {
        let target = id(1 << 40 | at);
        let mut asker = net.random();
        while net.hostile.contains_key(&asker) {
            asker = net.random();
        }
        let op = net.with(asker, |engine, now| engine.find_node(now, target).expect("room"));
        let found = nodes(net.finish(asker, op).0);
        // All honest nodes among the nearest are found.
        let all = net.nearest(&target, 20, asker, |_| true);
        let honest = net.nearest(&target, 20, asker, |node| !net.hostile.contains_key(&node));
        let mut expected = honest.iter().filter(|id| all.contains(id));
        right += u64::from(expected.all(|id| found.contains(id)));
    }
    assert!(
        right * 100 >= lookups * 95,
        "{right} of {lookups} lookups were right"
    );
}

#[test]
fn lookups_are_right_with_a_fifth_that_names_hostile_nodes() {
    lookups_among(Lie::Friends);
}

#[test]
fn lookups_are_right_with_a_fifth_that_names_nodes_that_do_not_exist() {
    lookups_among(Lie::Inventions);
}

#[test]
fn lookups_are_right_with_a_fifth_that_names_the_right_nodes_at_false_addresses() {
    lookups_among(Lie::Addresses);
}

#[test]
fn three_false_addresses_in_one_answer_do_not_hide_a_node() {
    let mut net = Net::joined(15, 150, &Config::default());
    // All but a fifth of the nodes that are asked first lie, in answers to lookups only.
    let liars: Vec<u32> = net.live.iter().copied().filter(|node| node % 4 == 0).collect();
    let mut missing = Vec::new();
    for at in 0..40 {
        let target = id(1 << 41 | at);
        let mut asker = net.random();
        while liars.contains(&asker) {
            asker = net.random();
        }
        net.hostile.extend(liars.iter().map(|liar| (*liar, Lie::Thrice)));
        let op = net.with(asker, |engine, now| engine.find_node(now, target).expect("room"));
        let found = nodes(net.finish(asker, op).0);
        net.hostile.clear();
        let nearest = net.nearest(&target, 10, asker, |node| !liars.contains(&node));
        let there = nearest.iter().filter(|id| found.contains(id)).count();
        // Some liars are nearer to the target and take the places of these.
        let crowded = found.len() == 20;
        let expected = if crowded {
            let all = net.nearest(&target, 20, asker, |_| true);
            nearest.iter().filter(|id| all.contains(id)).count()
        } else {
            10
        };
        if there < expected {
            missing.push((at, there, expected));
        }
    }
    assert_eq!(missing, []);
}

#[test]
fn lookups_are_right_with_a_fifth_that_names_nodes_at_three_false_addresses() {
    lookups_among(Lie::Thrice);
}

#[test]
fn lookups_are_right_with_a_fifth_that_is_silent() {
    lookups_among(Lie::Silence);
}

#[test]
fn records_are_read_among_liars() {
    let mut net = Net::joined(8, 200, &Config::default());
    let (publisher, key) = (net.live[0], id(1 << 40));
    put(&mut net, publisher, key, &[3], HOUR);
    for number in net.live.clone().into_iter().step_by(5) {
        net.hostile.insert(number, Lie::Friends);
    }
    for reader in net.live.clone() {
        if !net.hostile.contains_key(&reader) {
            assert_eq!(get(&mut net, reader, key), Some(vec![3]));
        }
    }
}

#[test]
fn a_run_is_the_same_with_the_same_seed() {
    let run = || {
        let mut net = Net::joined(9, 60, &Config::default());
        let asker = net.live[5];
        let op = net.with(asker, |engine, now| {
            engine.find_node(now, id(1 << 40)).expect("room")
        });
        let done = net.finish(asker, op);
        let counts: Vec<_> = net.live.iter().map(|node| net.counts(*node)).collect();
        (done, counts, net.traffic)
    };
    assert_eq!(run(), run());
}

#[test]
fn a_found_record_has_its_remaining_lifetime() {
    let mut net = Net::joined(10, 40, &Config::default());
    let (publisher, reader, key) = (net.live[0], net.live[1], id(1 << 40));
    put(&mut net, publisher, key, &[1], HOUR);
    net.with(publisher, |engine: &mut Engine<Place>, _| engine.unpublish(&key));
    net.run_for(HOUR / 2);
    let op = net.with(reader, |engine, now| engine.get(now, key).expect("room"));
    let Outcome::Record(Some(Record { ttl, .. })) = net.finish(reader, op).0 else {
        panic!("no record");
    };
    assert!(ttl <= HOUR / 2 && ttl > Duration::from_mins(29), "{ttl:?}");
}
