//! The propagation of messages in gossipsub networks, its cost, and the effect of Sybils: networks of engines
//! in virtual time.
//!
//! `cargo bench -p p2p-protocols --bench gossipsub_network [-- NAME…] [nodes=N] [seed=N] [attack=NAME]
//! [scores=NAME]`, in one thread. Arguments select the figures (`latency`, `idontwant`, `loss`, `attacks`,
//! `testbed`, `size`); without any, all are measured. `nodes=N` changes the number of honest nodes of each,
//! `attack=NAME` selects one attack, and `scores=NAME` one kind of scores. Messages are not signed:
//! signatures change the computation of nodes, but not their traffic.
//!
//! The paper is Vyzovitis et al., "`GossipSub`: Attack-Resilient Message Propagation in the Filecoin and
//! ETH2.0 Networks", arXiv:2007.02754, 2020.

#![allow(
    clippy::cast_precision_loss,
    reason = "counts are far below 2^52, and figures have three digits"
)]

use std::time::{Duration, Instant};

use p2p_protocols::gossipsub::Config;
use p2p_swarmtest::sim::SimAddr;

use simulated::{Attack, Measured, Network, Plan, RATE, Sample, evaluated, expecting, unprotected};

#[path = "../tests/gossipsub/simulated/mod.rs"]
mod simulated;

const HEARTBEAT: Duration = Duration::from_secs(1);

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let value = |name: &str| words.iter().find_map(|word| word.strip_prefix(name));
    let number = |name| value(name).and_then(|value| value.parse::<u64>().ok());
    let nodes = |default: usize| number("nodes=").map_or(default, |nodes| nodes as usize);
    let seed = number("seed=").unwrap_or(1);
    let chosen = |attack: &str, scores: &str| {
        let is = |name, it| value(name).is_none_or(|value| value == it);
        is("attack=", attack) && is("scores=", scores)
    };
    let names: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .filter(|word| !word.contains('='))
        .collect();
    let wanted = |name| names.is_empty() || names.contains(&name);
    if wanted("latency") {
        latency(nodes(1000), seed);
    }
    if wanted("idontwant") {
        idontwant(nodes(1000), seed);
    }
    if wanted("loss") {
        loss(nodes(1000), seed);
    }
    if wanted("attacks") {
        attacks(nodes(100), seed, chosen);
    }
    if wanted("testbed") {
        testbed(nodes(100), seed, chosen);
    }
    if wanted("size") {
        size(nodes(10_000), seed);
    }
}

fn secs(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// The deliveries and their delays, compared with the shortest paths of the network.
fn row(name: &str, what: &str, measured: &Measured) {
    assert_eq!(measured.twice, 0, "a message was delivered twice");
    println!(
        "name=gossipsub_{name} {what} delivered_percent={:.4} of={} median={:.3} p99={:.3} max={:.3} bound_median={:.3} \
         bound_p99={:.3} median_ratio={:.3} p99_ratio={:.3} copies={:.2}",
        measured.delivered(),
        measured.due,
        secs(measured.latency(50.0)),
        secs(measured.latency(99.0)),
        secs(measured.latency(100.0)),
        secs(measured.bound(50.0)),
        secs(measured.bound(99.0)),
        secs(measured.latency(50.0)) / secs(measured.bound(50.0)),
        secs(measured.latency(99.0)) / secs(measured.bound(99.0)),
        measured.mean_copies(),
    );
}

/// Links of 100 ms: the default routers with eight connections each, and those of the paper with twenty.
fn latency(nodes: usize, seed: u64) {
    let few = Plan::new(nodes, seed);
    let many = Plan {
        degree: 20,
        config: evaluated(),
        ..Plan::new(nodes, seed)
    };
    for plan in [few, many] {
        let what = format!("nodes={nodes} connections={} d={}", plan.degree, plan.config.d);
        let mut network = Network::new(plan);
        network.run(Duration::from_secs(5));
        network.publish_all(100, 100, Duration::from_millis(100), 256);
        network.run(Duration::from_secs(5));
        let degrees = network.degrees();
        let mean = degrees.iter().sum::<usize>() as f64 / degrees.len() as f64;
        let control = network.measure().control_bytes as f64 / nodes as f64 / secs(network.sim.now());
        let what = format!(
            "{what} mesh_least={} mesh_mean={mean:.2} mesh_most={} control_bytes_per_node_and_second={control:.0}",
            degrees[0],
            degrees[degrees.len() - 1],
        );
        row("latency", &what, &network.measure());
    }
}

/// Messages of 128 KiB on uplinks of a few megabits per second, with and without IDONTWANT.
fn idontwant(nodes: usize, seed: u64) {
    for megabits in [10, 20, 50] {
        let copies = [usize::MAX, 1024].map(|threshold| {
            let mut plan = Plan {
                degree: 20,
                config: evaluated(),
                uplink: Some(megabits * 125_000),
                ..Plan::new(nodes, seed)
            };
            plan.config.idontwant_threshold = threshold;
            // A second is shorter than the time to send one message to the whole mesh.
            plan.config.queue.forwarded_age = Duration::from_secs(10);
            let mut network = Network::new(plan);
            network.run(Duration::from_secs(5));
            network.publish_all(5, 5, Duration::from_secs(6), 128 << 10);
            network.run(Duration::from_secs(5));
            let measured = network.measure();
            let with = threshold < usize::MAX;
            row(
                "idontwant",
                &format!("nodes={nodes} connections=20 d=8 uplink_mbit={megabits} with={with}"),
                &measured,
            );
            measured.mean_copies()
        });
        println!(
            "name=gossipsub_idontwant_copies uplink_mbit={megabits} with={:.2} without={:.2} ratio={:.3}",
            copies[1],
            copies[0],
            copies[1] / copies[0]
        );
    }
}

/// Ten percent loss of RPCs, including subscriptions and GRAFTs from the start.
fn loss(nodes: usize, seed: u64) {
    for percent in [10, 30] {
        let plan = Plan {
            loss: f64::from(percent) / 100.0,
            ..Plan::new(nodes, seed)
        };
        let mut network = Network::new(plan);
        network.run(Duration::from_secs(5));
        network.publish_all(200, 100, Duration::from_millis(200), 256);
        network.run(Duration::from_secs(10));
        let what = format!(
            "nodes={nodes} connections=8 loss_percent={percent} on_request={} broken_promises={}",
            network.sum(|counts| counts.iwant_served),
            network.sum(|counts| counts.broken_promises),
        );
        row("loss", &what, &network.measure());
    }
}

/// Ten Sybils for each honest node, and as many connections to them as to ten honest ones.
fn attacks(nodes: usize, seed: u64, chosen: impl Fn(&str, &str) -> bool) {
    let second = Duration::from_secs;
    for (name, attack, at, eclipse) in [
        ("cold_boot", Attack::Drop, second(0), false),
        ("covert_flash", Attack::Drop, second(60), false),
        ("spam", Attack::Spam, second(30), false),
        ("censor", Attack::Censor(SimAddr(0)), second(0), false),
        ("eclipse", Attack::Drop, second(30), true),
    ] {
        for (scores, config) in [("evaluated", evaluated()), ("expecting", expecting(RATE))] {
            if !chosen(name, scores) {
                continue;
            }
            let plan = Plan {
                config,
                eclipse,
                ..Plan::attacked(nodes, seed, attack, at)
            };
            // A flood ends soon, or never.
            let lasts = second(if attack == Attack::Spam { 30 } else { 120 });
            attacked(name, scores, plan, RATE, lasts, 256);
        }
    }
    let quiet = Plan {
        sybils: 0,
        sybil_degree: 0,
        publishers: nodes / 10,
        ..Plan::attacked(nodes, seed, Attack::Drop, Duration::ZERO)
    };
    if chosen("none", "expecting") {
        attacked("none", "expecting", quiet, RATE, second(120), 256);
    }
}

/// The paper's two attacks on the whole network, in its scaled-down testbed, on routers before gossipsub
/// v1.1, with the scores of the evaluation, and with ours. Ten heartbeats between opportunistic grafting are
/// those of the paper's other half.
fn testbed(nodes: usize, seed: u64, chosen: impl Fn(&str, &str) -> bool) {
    let rate = Plan::testbed_rate(nodes);
    for (name, at, lasts) in [("cold_boot", 0, 180), ("covert_flash", 120, 180)] {
        let grafting = Config {
            opportunistic_graft_ticks: 10,
            ..evaluated()
        };
        for (scores, config) in [
            ("unprotected", unprotected()),
            ("evaluated", evaluated()),
            ("evaluated_grafting", grafting),
            ("expecting", expecting(rate)),
        ] {
            if !chosen(name, scores) {
                continue;
            }
            let config = Config {
                idontwant_threshold: usize::MAX,
                ..config
            };
            let plan = Plan::testbed(nodes, seed, config, Duration::from_secs(at));
            attacked(name, scores, plan, rate, Duration::from_secs(lasts), 2048);
        }
    }
}

fn attacked(name: &str, scores: &str, plan: Plan, rate: f64, lasts: Duration, size: usize) {
    let begun = Instant::now();
    let at = plan.attack_at;
    let (honest, sybils, connections) = (plan.nodes, plan.sybils, plan.degree);
    let network = Network::under_attack(plan, rate, at + lasts, size);
    let beats = |beats: Option<u64>| beats.map_or_else(|| "none".to_owned(), |beats| beats.to_string());
    // The state shortly after the last messages shows their effect.
    let end = at + lasts;
    let share = |from: Duration| {
        let later = network
            .samples
            .iter()
            .filter(|sample| sample.at > from && sample.at <= end);
        100.0 * later.map(Sample::sybil_share).fold(0.0, f64::max)
    };
    let (first, settled) = network.sybils_below(0.01);
    let negative = network.samples.iter().map(|sample| sample.honest_negative);
    let what = format!(
        "attack={name} scores={scores} honest={honest} connections={connections} sybils={sybils} rate={rate} \
         heartbeats_to_honest_majority={} heartbeats_to_no_sybil_in_a_mesh={} heartbeats_to_less_than_1_percent={} \
         for_good={} longest_stay={} most_sybil_percent={:.1} after_90_percent={:.2} at_the_end_percent={:.2} \
         honest_of_negative_score_percent={:.2} seconds={:.0} peak_resident_mib={:.0}",
        beats(network.honest_majority()),
        beats(network.sybils_out()),
        beats(first),
        beats(settled),
        network.longest_stay,
        share(at),
        share(at + Duration::from_secs(90)),
        share(end.saturating_sub(Duration::from_secs(1))),
        100.0 * negative.fold(0.0, f64::max),
        begun.elapsed().as_secs_f64(),
        peak_resident().unwrap_or(f64::NAN),
    );
    row("attack", &what, &network.measure());
}

/// One publisher, a hundred messages: real time, and the peak memory of the process.
fn size(nodes: usize, seed: u64) {
    let begun = Instant::now();
    let mut network = Network::new(Plan::new(nodes, seed));
    network.run(5 * HEARTBEAT);
    network.publish_all(100, 1, HEARTBEAT / 10, 256);
    network.run(5 * HEARTBEAT);
    let took = begun.elapsed();
    let what = format!(
        "nodes={nodes} publishers=1 messages=100 virtual_seconds={} seconds={:.1} user_seconds={:.1} \
         peak_resident_mib={:.0}",
        network.sim.now().as_secs(),
        took.as_secs_f64(),
        user_seconds().unwrap_or(f64::NAN),
        peak_resident().unwrap_or(f64::NAN),
    );
    row("size", &what, &network.measure());
}

/// Returns the user CPU time of the process so far, in seconds; Linux only.
fn user_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the name, is in parentheses and may contain spaces; user time is the twelfth after
    // it, in hundredths of a second.
    let ticks: f64 = stat
        .rsplit(')')
        .next()?
        .split_whitespace()
        .nth(11)?
        .parse()
        .ok()?;
    Some(ticks / 100.0)
}

/// Returns the peak memory of the process in MiB; Linux only.
fn peak_resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}
