//! Chord's path lengths, success rates, memory and time, compared with the paper: rings in virtual time.
//!
//! Arguments select the figures (`paths`, `failures`, `churn`, `size`); without any, all are measured.
//! `nodes=N` changes the number of nodes of `size`, `up-to=K` makes 2^K the largest ring of `paths`.
//!
//! The paper is Stoica et al., "Chord: A Scalable Peer-to-peer Lookup Protocol for Internet Applications",
//! IEEE/ACM Transactions on Networking 11(1), 2003: section V-C for path lengths, V-D with table II for
//! simultaneous failures, V-E with table III for churn. The values of the paper below are those of its text.

#![allow(
    clippy::cast_precision_loss,
    reason = "counts are far below 2^52, and figures have three digits"
)]

use std::alloc::System;
use std::time::{Duration, Instant};

use cap::Cap;
use p2p::PeerId;
use p2p_protocols::chord::{Config, Engine, Outcome};
use p2p_swarmtest::sim::{Churn, Distribution};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use ring::{Lookups, Ring, SECOND};

#[path = "../tests/chord/ring.rs"]
mod ring;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

const LOOKUPS: usize = 10_000;

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let number = |name: &str, default: usize| {
        let value = words.iter().find_map(|word| word.strip_prefix(name));
        value.and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let names: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .filter(|word| !word.contains('='))
        .collect();
    let wanted = |name| names.is_empty() || names.contains(&name);
    if wanted("paths") {
        paths(number("up-to=", 14));
    }
    if wanted("failures") {
        failures();
    }
    if wanted("churn") {
        churn();
    }
    if wanted("size") {
        size(number("nodes=", 10_000));
    }
}

/// Mean path lengths: with only a successor and fingers, as in the paper, and with this crate's successor
/// list.
fn paths(up_to: usize) {
    for power in 8..=up_to {
        let nodes = 1 << power;
        for successors in [1, Config::default().successors] {
            let config = Config {
                successors,
                ..Config::default()
            };
            let mut ring = Ring::crowd(power as u64, config, nodes, Duration::from_millis(20));
            let stable = ring.stabilize(400);
            let lookups = ring.lookups(LOOKUPS);
            let expected = power as f64 / 2.0;
            println!(
                "name=chord_path nodes={nodes} successors={successors} stable={stable} right={} of={LOOKUPS} \
                 ours={:.3} peer={expected:.3} ratio={:.3}",
                lookups.right,
                lookups.mean_hops(),
                lookups.mean_hops() / expected,
            );
        }
    }
}

/// Table II: 1000 nodes with 20 successors, a part of which fails at once. (Percentage, mean path length,
/// mean timeouts.) All 10,000 lookups found the right node in each case.
const TABLE_II: [(usize, f64, f64); 6] = [
    (0, 3.84, 0.0),
    (10, 4.03, 0.60),
    (20, 4.22, 1.17),
    (30, 4.44, 2.02),
    (40, 4.69, 3.23),
    (50, 5.09, 5.10),
];

fn failures() {
    for (percent, path, timeouts) in TABLE_II {
        // Time almost stops between rounds, so that no round runs during lookups.
        let config = Config {
            stabilize_every: 1000 * SECOND,
            fix_fingers_every: 1000 * SECOND,
            operations: 1000,
            ..Config::default()
        };
        let mut ring = Ring::crowd(percent as u64 + 1, config, 1000, Duration::from_millis(20));
        let stable = ring.stabilize(200);
        let keys: Vec<PeerId> = (0..1000).map(|_| PeerId::new(ring.random.random())).collect();
        for key in &keys {
            let from = ring.anyone().expect("a node is up");
            let put = ring.run(from, |node, now| node.put(now, *key, b"value", 86_400 * SECOND));
            assert_eq!(put, Ok(Outcome::Stored));
        }
        ring.fail(percent);
        let before = ring.lookups_every(LOOKUPS, Duration::ZERO);
        failures_row("before", percent, stable, &before);
        println!(
            "name=chord_failures_paper percent={percent} lookups={LOOKUPS} wrong=0 path={path:.2} timeouts={timeouts:.2}"
        );
        let healed = ring.stabilize(200);
        let after = ring.lookups_every(LOOKUPS, Duration::ZERO);
        failures_row("after", percent, healed, &after);
        let mut found = 0;
        for key in &keys {
            let from = ring.anyone().expect("a node is up");
            let got = ring.run(from, |node, now| node.get(now, *key));
            found += usize::from(matches!(got, Ok(Outcome::Value(Some(_)))));
        }
        // One of the three nodes with a record must be alive.
        let expected = 1.0 - (percent as f64 / 100.0).powi(3);
        println!(
            "name=chord_records_after_failure percent={percent} ours={:.4} expected={expected:.4}",
            found as f64 / keys.len() as f64
        );
    }
}

fn failures_row(when: &str, percent: usize, stable: bool, lookups: &Lookups) {
    println!(
        "name=chord_failures_{when}_stabilization percent={percent} stable={stable} lookups={LOOKUPS} wrong={} \
         failed={} path={:.2} timeouts={:.2}",
        lookups.wrong,
        lookups.failed,
        lookups.mean_hops(),
        lookups.mean_timeouts(),
    );
}

/// Table III: 1000 nodes; this number joins per second, and as many leave with a goodbye. (Rate, mean path
/// length, mean timeouts, failures of 10,000 lookups.)
const TABLE_III: [(f64, f64, f64, usize); 8] = [
    (0.05, 3.90, 0.05, 0),
    (0.10, 3.83, 0.11, 0),
    (0.15, 3.84, 0.16, 2),
    (0.20, 3.81, 0.23, 5),
    (0.25, 3.83, 0.30, 6),
    (0.30, 3.91, 0.34, 8),
    (0.35, 3.94, 0.42, 16),
    (0.40, 4.06, 0.46, 15),
];

fn churn() {
    for (seed, (rate, path, timeouts, failed)) in (1..).zip(TABLE_III) {
        // As in the paper, a round of stabilization every 30 s, and one finger in each.
        let config = Config {
            stabilize_every: 30 * SECOND,
            fix_fingers_every: 30 * SECOND,
            ..Config::default()
        };
        let mut ring = Ring::crowd(seed, config, 1000, Duration::from_millis(20));
        let stable = ring.stabilize(200);
        let rules = ring.rules.clone();
        let mut ids = StdRng::seed_from_u64(ring.random.random());
        let churn = Churn {
            session: Distribution::Exponential {
                mean: Duration::from_secs_f64(1000.0 / rate),
            },
            absence: Distribution::Constant(SECOND),
            announced: 1.0,
            until: Duration::MAX,
        };
        ring.sim.churn(churn, move |arrival| {
            let id = PeerId::new(ids.random());
            let mut engine = Engine::new(id, rules.clone(), arrival.now, arrival.seed);
            if let Some(contact) = arrival.contact {
                // Cannot fail: it is the first operation, and there is an address.
                let _ = engine.join(arrival.now, &[contact]);
            }
            engine
        });
        ring.sim.run_for(1000 * SECOND);
        let mut sum = Lookups::default();
        // One lookup per second; the right node is the one that was right at its start, less than a second
        // ago.
        for at in 0..LOOKUPS {
            sum += ring.lookups_every(1, SECOND);
            if at % 10 == 0 {
                ring.rejoin();
            }
        }
        println!(
            "name=chord_churn rate={rate:.2} stable={stable} lookups={} wrong={} failed={} paper_failed={failed} \
             path={:.2} paper_path={path:.2} timeouts={:.2} paper_timeouts={timeouts:.2}",
            sum.asked,
            sum.wrong,
            sum.failed,
            sum.mean_hops(),
            sum.mean_timeouts(),
        );
    }
}

/// A ring formed by joins, then as many lookups: time and memory.
fn size(nodes: usize) {
    let before = MEMORY.allocated();
    let begin = Instant::now();
    let mut ring = Ring::crowd(1, Config::default(), nodes, Duration::from_millis(20));
    let stable = ring.stabilize(400);
    let joined = begin.elapsed();
    let memory = MEMORY.allocated() - before;
    let begin = Instant::now();
    let lookups = ring.lookups(LOOKUPS);
    println!(
        "name=chord_size nodes={nodes} stable={stable} virtual_seconds={} bootstrap_seconds={:.1} lookup_seconds={:.1} \
         right={} of={LOOKUPS} bytes_per_node={}",
        ring.sim.now().as_secs(),
        joined.as_secs_f64(),
        begin.elapsed().as_secs_f64(),
        lookups.right,
        memory / nodes,
    );
}
