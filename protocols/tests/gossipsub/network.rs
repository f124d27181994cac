//! Laws of whole gossipsub networks in the simulator: small versions of what `benches/gossipsub_network.rs`
//! measures.

#![allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]

use std::time::Duration;

use crate::simulated::{Attack, Measured, Network, Plan, RATE, evaluated};
use p2p_protocols::gossipsub::{Config, ScoreConfig};
use p2p_swarmtest::sim::SimAddr;

const SECOND: Duration = Duration::from_secs(1);

/// Publishes a hundred messages, one from each of a hundred nodes.
fn spread(plan: Plan) -> (Network, Measured) {
    eprintln!("seed {}", plan.seed);
    let mut network = Network::new(plan);
    network.run(5 * SECOND);
    network.publish_all(100, 100, SECOND / 10, 256);
    network.run(5 * SECOND);
    let measured = network.measure();
    eprintln!(
        "{:.4} % of {}, median {:?}, 99 % {:?}, shortest paths {:?} and {:?}, {:.2} copies",
        measured.delivered(),
        measured.due,
        measured.latency(50.0),
        measured.latency(99.0),
        measured.bound(50.0),
        measured.bound(99.0),
        measured.mean_copies()
    );
    assert_eq!(measured.twice, 0, "delivered twice");
    (network, measured)
}

#[test]
fn all_nodes_get_all_messages_about_as_fast_as_the_shortest_paths_allow() {
    for seed in [1, 2] {
        let (network, measured) = spread(Plan::new(100, seed));
        assert_eq!(measured.latencies.len(), measured.due);
        for percent in [50.0, 99.0] {
            let (latency, bound) = (measured.latency(percent), measured.bound(percent));
            assert!(latency >= bound, "{percent} %: faster than possible");
            // In such a small network, nodes are two or three hops apart, and one more hop is more than a
            // fifth.
            assert!(
                latency <= bound + network.plan.latency,
                "{percent} %: {latency:?}, not {bound:?}"
            );
        }
        let mean = |times: &[Duration]| times.iter().sum::<Duration>().as_secs_f64() / times.len() as f64;
        let (latency, bound) = (mean(&measured.latencies), mean(&measured.bounds));
        assert!(latency <= 1.2 * bound, "{latency} s in the mean, not {bound}");
        // A copy from each neighbour except those that got it from here.
        let degrees = network.degrees();
        let most = degrees[degrees.len() - 1] as f64;
        assert!(measured.mean_copies() >= 1.0 && measured.mean_copies() <= most);
    }
}

#[test]
fn a_seed_replays_a_network() {
    let trace = |seed| spread(Plan::new(100, seed)).0.sim.trace();
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

#[test]
fn on_slow_links_idontwant_saves_half_of_the_copies() {
    let copies = |threshold| {
        let mut plan = Plan {
            degree: 20,
            config: evaluated(),
            uplink: Some(1_250_000),
            ..Plan::new(60, 3)
        };
        plan.config.idontwant_threshold = threshold;
        plan.config.queue.forwarded_age = 10 * SECOND;
        let mut network = Network::new(plan);
        network.run(5 * SECOND);
        network.publish_all(3, 3, 6 * SECOND, 128 << 10);
        let measured = network.measure();
        assert_eq!(measured.latencies.len(), measured.due);
        measured.mean_copies()
    };
    let (without, with) = (copies(usize::MAX), copies(1024));
    eprintln!("{with:.2} copies with, {without:.2} without");
    assert!(with * 2.0 <= without, "{with} with, {without} without");
}

#[test]
fn gossip_repairs_ten_percent_loss() {
    let plan = Plan {
        loss: 0.1,
        ..Plan::new(100, 4)
    };
    let (network, measured) = spread(plan);
    assert!(measured.delivered() >= 99.9, "{}", measured.delivered());
    assert!(network.sum(|counts| counts.iwant_served) > 0, "no IWANT was sent");
    // Losses are not held against peers.
    let last = network.samples.last().expect("a sample");
    assert!(last.honest_negative < 0.01, "{last:?}");
}

/// A plan with twenty honest nodes with eight connections each, and two hundred Sybils, a hundred of them
/// connected to each.
fn small(attack: Attack, at: Duration) -> Plan {
    let plan = Plan::attacked(20, 5, attack, at);
    eprintln!("seed {}", plan.seed);
    Plan {
        degree: 8,
        sybil_degree: 10,
        ..plan
    }
}

/// Checks that all messages were delivered, and no honest node penalised another.
fn assert_unharmed(network: &Network) {
    let measured = network.measure();
    let last = network.samples.last().expect("a sample");
    eprintln!(
        "{:.4} % of {}, 99 % within {:?}; majorities after {:?}, none after {:?}, longest stay {}, finally {last:?}",
        measured.delivered(),
        measured.due,
        measured.latency(99.0),
        network.honest_majority(),
        network.sybils_out(),
        network.longest_stay,
    );
    assert_eq!(
        measured.latencies.len(),
        measured.due,
        "some messages were not delivered"
    );
    assert_eq!(measured.twice, 0);
    for sample in &network.samples {
        assert!(
            sample.honest_negative <= 0.0,
            "honest nodes with a negative score: {sample:?}"
        );
    }
}

#[test]
fn sybils_that_drop_from_the_start_are_pruned_when_p3_counts_and_stay_out() {
    let network = Network::under_attack(small(Attack::Drop, Duration::ZERO), RATE, 110 * SECOND, 256);
    assert!(
        network.samples[0].sybils > network.samples[0].honest,
        "Sybils were in the meshes"
    );
    assert_unharmed(&network);
    assert!(network.sybils_out().is_some_and(|beats| beats <= 25));
    assert!(network.longest_stay <= 25);
    // Sybils that were in no mesh yet keep trying, and find room in a mesh that lacks nodes while honest ones
    // are in a backoff.
    for sample in network.samples.iter().filter(|sample| sample.at > 25 * SECOND) {
        let most = if sample.at > 90 * SECOND { 0.02 } else { 0.1 };
        assert!(sample.sybil_share() < most, "{sample:?}");
    }
}

#[test]
fn honest_nodes_that_publish_nothing_stay_in_the_meshes() {
    let plan = Plan {
        sybils: 0,
        sybil_degree: 0,
        publishers: 50,
        ..Plan::attacked(100, 6, Attack::Drop, Duration::ZERO)
    };
    eprintln!("seed {}", plan.seed);
    let network = Network::under_attack(plan, RATE, 120 * SECOND, 256);
    let measured = network.measure();
    assert_eq!(measured.latencies.len(), measured.due);
    for sample in network.samples.iter().skip(5) {
        assert!(
            sample.least_honest >= 4 && sample.honest_negative < 0.01,
            "{sample:?}"
        );
    }
}

#[test]
fn sybils_that_start_dropping_at_once_are_pruned_within_thirty_five_heartbeats() {
    let network = Network::under_attack(small(Attack::Drop, 30 * SECOND), RATE, 70 * SECOND, 256);
    let turned = &network.samples[29];
    assert!(turned.sybils > turned.honest, "Sybils were in the meshes");
    assert_unharmed(&network);
    assert!(network.honest_majority().is_some_and(|beats| beats <= 35));
    assert!(network.longest_stay <= 35);
}

#[test]
fn flooding_sybils_are_graylisted_and_their_cost_is_bounded() {
    let network = Network::under_attack(small(Attack::Spam, 10 * SECOND), RATE, 12 * SECOND, 256);
    assert_unharmed(&network);
    assert!(network.longest_stay <= 15);
    let node = network.node(3);
    let counts = node.engine.counts();
    // Most of what a hundred Sybils sent was ignored.
    assert!(counts.graylisted > counts.rpcs / 2, "{counts:?}");
    assert!(counts.iwant_sent <= 100 * 10 * 50 * 12, "{counts:?}");
    assert!(node.engine.kept().promises <= 100 * 10 * 4);
}

#[test]
fn sybils_that_censor_one_publisher_do_not_stop_its_messages() {
    let network = Network::under_attack(
        small(Attack::Censor(SimAddr(0)), Duration::ZERO),
        RATE,
        30 * SECOND,
        256,
    );
    assert_unharmed(&network);
}

#[test]
fn a_node_that_joins_among_sybils_gets_all_messages() {
    let plan = Plan {
        eclipse: true,
        sybils: 1500,
        ..small(Attack::Drop, 10 * SECOND)
    };
    let network = Network::under_attack(plan, RATE, 50 * SECOND, 256);
    let joiner = network.node(19);
    let (config, peers) = (joiner.engine.config(), joiner.engine.peers().count());
    assert_eq!(peers, config.max_inbound + 8, "the node is not at its limit");
    assert_unharmed(&network);
    assert!(network.longest_stay <= 25);
}

/// The parameters meet the documented claims.
#[test]
fn score_parameters_meet_their_documented_claims() {
    for score in [ScoreConfig::evaluated(), ScoreConfig::default()] {
        score.check().expect("sound");
    }
    for rate in [f64::NAN, -1.0, 0.0, 0.01, 1.0, 5.0, 100.0, f64::INFINITY] {
        let config = Config {
            score: Some(ScoreConfig::expecting(rate)),
            ..evaluated()
        };
        config
            .check()
            .unwrap_or_else(|error| panic!("{rate} messages a second: {error}"));
    }
}
