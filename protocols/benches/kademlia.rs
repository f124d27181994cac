//! Kademlia's success rates, hops, traffic, memory and time: networks in virtual time.
//!
//! `cargo bench -p p2p-protocols --bench kademlia [-- NAME…] [nodes=N]`, in one thread. Arguments select the
//! figures (`stable`, `churn`, `hostile`); without any, all are measured. `nodes=N` changes the size of the
//! stable network.

#![allow(
    clippy::cast_precision_loss,
    reason = "counts are far below 2^52, and figures have three digits"
)]

use std::alloc::System;
use std::time::{Duration, Instant};

use cap::Cap;
use p2p::PeerId;
use p2p_protocols::kademlia::{Config, Outcome};
use rand::RngExt;

use net::{Lie, Net, Place, id};

#[path = "../tests/kademlia/net.rs"]
mod net;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let size = words.iter().find_map(|word| word.strip_prefix("nodes="));
    let size = size.and_then(|size| size.parse().ok()).unwrap_or(10_000);
    let names: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .filter(|word| !word.contains('='))
        .collect();
    let wanted = |name| names.is_empty() || names.contains(&name);
    if wanted("stable") {
        stable(size);
    }
    if wanted("churn") {
        churn();
    }
    if wanted("hostile") {
        hostile(Lie::Friends, "friends");
        hostile(Lie::Inventions, "inventions");
        hostile(Lie::Addresses, "addresses");
    }
}

fn ids(outcome: &Outcome<Place>) -> Vec<PeerId> {
    match outcome {
        Outcome::Nodes(nodes) => nodes.iter().map(|node| node.id).collect(),
        _ => Vec::new(),
    }
}

/// Joins of `size` nodes, then as many lookups, checked against a list of all nodes.
fn stable(size: usize) {
    let before = MEMORY.allocated();
    let begin = Instant::now();
    let mut net = Net::new(1, &Config::default());
    for _ in 0..size {
        let number = net.add();
        net.join(number);
        net.run_for(Duration::from_millis(20));
    }
    net.run_for(Duration::from_secs(20));
    let bootstrap = begin.elapsed();
    let joins = net.traffic.0;
    let memory = MEMORY.allocated() - before;
    println!("name=kademlia_nodes value={size}");
    println!(
        "name=kademlia_bootstrap_seconds value={:.1}",
        bootstrap.as_secs_f64()
    );
    println!(
        "name=kademlia_join_requests_per_node value={:.1}",
        joins as f64 / size as f64
    );
    println!("name=kademlia_memory_bytes_per_node value={}", memory / size);

    let begin = Instant::now();
    let mut ops = Vec::new();
    for at in 0..size as u64 {
        let (asker, target) = (net.random(), id(1 << 40 | at));
        let op = net.with(asker, |engine, now| engine.find_node(now, target).expect("room"));
        ops.push((asker, target, op));
        net.run_for(Duration::from_millis(1));
    }
    net.run_for(Duration::from_secs(20));
    let lookups = begin.elapsed();
    let (mut exact, mut hops, mut requests) = (0, 0, 0);
    for (asker, target, op) in &ops {
        let (outcome, progress) = net.outcome(*asker, *op).expect("it has ended");
        exact += usize::from(ids(outcome) == net.nearest(target, 20, *asker, |_| true));
        hops += progress.hops;
        requests += progress.asked;
    }
    let mean = |sum: usize| sum as f64 / size as f64;
    println!("name=kademlia_lookup_seconds value={:.1}", lookups.as_secs_f64());
    println!(
        "name=kademlia_total_seconds value={:.1}",
        (bootstrap + lookups).as_secs_f64()
    );
    println!(
        "name=kademlia_lookups_exact_percent value={:.2}",
        100.0 * mean(exact)
    );
    println!(
        "name=kademlia_mean_hops value={:.2} limit={:.2}",
        mean(hops),
        (size as f64).log2() / 2.0
    );
    println!("name=kademlia_requests_per_lookup value={:.1}", mean(requests));
}

/// 500 nodes with sessions of 10 minutes in the median, and 200 records, for an hour.
fn churn() {
    let (size, records) = (500, 200);
    let median = 600.0;
    let mut net = Net::joined(2, size, &Config::default());
    let mut leaves: Vec<(Duration, u32)> = Vec::new();
    let lifetime = |net: &mut Net| {
        // Exponential, with this median.
        let uniform: f64 = net.rng.random_range(1e-9..1.0);
        net.now + Duration::from_secs_f64(-uniform.ln() * median / std::f64::consts::LN_2)
    };
    for number in net.live.clone() {
        leaves.push((lifetime(&mut net), number));
    }
    let keys: Vec<PeerId> = (0..records).map(|at| id(1 << 41 | at)).collect();
    for key in &keys {
        let publisher = net.random();
        let put = |engine: &mut p2p_protocols::kademlia::Engine<Place>, now| {
            engine
                .put(now, *key, &[1; 100], Duration::from_hours(24))
                .expect("room")
        };
        let op = net.with(publisher, put);
        net.finish(publisher, op);
    }
    let (mut reads, mut read) = (0, 0);
    let before = net.traffic.0;
    let end = net.now + Duration::from_hours(1);
    while net.now < end {
        net.run_for(Duration::from_secs(1));
        let now = net.now;
        for (_, number) in leaves.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>() {
            net.remove(number);
            let number = net.add();
            net.join(number);
            leaves.push((lifetime(&mut net), number));
        }
        // A node that has been up for a while reads a record.
        let reader = net.live[net.rng.random_range(0..net.live.len() / 2)];
        let key = keys[net.rng.random_range(0..keys.len())];
        let op = net.with(reader, |engine, now| engine.get(now, key).expect("room"));
        let limit = net.now + Duration::from_mins(3);
        while net.outcome(reader, op).is_none() && net.now < limit {
            net.run_for(Duration::from_millis(100));
        }
        reads += 1;
        read += usize::from(matches!(
            net.outcome(reader, op),
            Some((Outcome::Record(Some(_)), _))
        ));
    }
    println!("name=kademlia_churn_reads value={reads}");
    println!(
        "name=kademlia_churn_readable_percent value={:.2}",
        100.0 * f64::from(read as u32) / f64::from(reads)
    );
    let per_node = (net.traffic.0 - before) as f64 / size as f64 / 3600.0;
    println!("name=kademlia_churn_requests_per_node_per_second value={per_node:.2}");
}

/// 2000 nodes; every fifth one lies.
fn hostile(lie: Lie, name: &str) {
    let size = 2000;
    let mut net = Net::new(3, &Config::default());
    for at in 0..size {
        let number = net.add();
        if at % 5 == 4 {
            net.hostile.insert(number, lie);
        }
        net.join(number);
        net.run_for(Duration::from_millis(50));
    }
    net.run_for(Duration::from_mins(1));
    let (mut right, mut first_found, mut requests) = (0, 0, 0);
    let lookups = 1000;
    for at in 0..lookups {
        let target = id(1 << 42 | at);
        let asker = loop {
            let asker = net.random();
            if !net.hostile.contains_key(&asker) {
                break asker;
            }
        };
        let op = net.with(asker, |engine, now| engine.find_node(now, target).expect("room"));
        let (outcome, progress) = net.finish(asker, op);
        let found = ids(&outcome);
        // A lookup is right if it found all honest nodes among the 20 nearest.
        let all = net.nearest(&target, 20, asker, |_| true);
        let honest = net.nearest(&target, 20, asker, |node| !net.hostile.contains_key(&node));
        let missed = honest.iter().any(|id| all.contains(id) && !found.contains(id));
        right += usize::from(!missed);
        first_found += usize::from(honest.first().is_some_and(|first| found.contains(first)));
        requests += progress.asked;
    }
    let percent = |count: usize| 100.0 * count as f64 / lookups as f64;
    println!(
        "name=kademlia_hostile_{name}_right_percent value={:.2}",
        percent(right)
    );
    println!(
        "name=kademlia_hostile_{name}_nearest_percent value={:.2}",
        percent(first_found)
    );
    println!(
        "name=kademlia_hostile_{name}_requests_per_lookup value={:.1}",
        requests as f64 / lookups as f64
    );
}
