//! What QUIC recovers on a medium that loses is recovered in the time that the laws wait for it.

use std::time::Duration;

use futures_util::future::join_all;
use p2p::{BoxAddr, Packet, Swarm as _};
use p2p_examples::testbed::profile;
use p2p_swarms::stack::{Stack, StackNodes, StackText};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, timeout};

use crate::virtual_time;

/// Runs: in some of them a session takes over 30 s to recover once.
const RUNS: u64 = 25;
/// For how long a node is read from that has nothing.
const PAUSE: Duration = Duration::from_millis(20);

/// Tells that succeeded and are neither received nor counted by QUIC as dropped are missing. Lower layers count each packet that
/// they drop, which hides what is missing from sums over all layers.
#[test]
fn messages_on_a_medium_that_loses_arrive_or_count_as_lost_while_the_laws_wait() {
    for seed in 0..RUNS {
        let text = format!("mem=recovery-{seed}/faulty,loss=0.25,seed={seed}/quic");
        virtual_time::runtime().block_on(bursts(&text, seed));
    }
}

async fn bursts(text: &str, seed: u64) {
    let stack: StackText = text.parse().expect("a stack");
    let patience = profile(&stack.medium().await.expect("a medium")).patience;
    let nodes = StackNodes::new(stack).open(4).await.expect("nodes");
    let addrs: Vec<BoxAddr> = nodes.iter().map(|node| node.local_addrs()[0].clone()).collect();
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut told, mut came) = (0, 0);
    for burst in 0..6 {
        // All sessions are dialled at once, some from both ends.
        let calls: Vec<_> = (0..24)
            .map(|_| {
                let from = rng.random_range(0..4);
                let to = (from + rng.random_range(1..4)) % 4;
                nodes[from].tell(&addrs[to], Packet::from(&b"hello"[..]))
            })
            .collect();
        told += join_all(calls).await.iter().filter(|told| told.is_ok()).count() as u64;
        let began = Instant::now();
        while came + lost(&nodes) < told {
            for node in &nodes {
                while let Ok(message) = timeout(PAUSE, node.receive()).await {
                    message.expect("the node is open");
                    came += 1;
                }
            }
            assert!(
                began.elapsed() < patience,
                "{text}, burst {burst}: of {told} messages {came} came and {} were lost in {patience:?}",
                lost(&nodes)
            );
        }
    }
}

/// Messages that QUIC counts as dropped.
fn lost(nodes: &[Stack]) -> u64 {
    let mut lost = 0;
    for node in nodes {
        node.visit_counters(&mut |counters| {
            if counters.layer() == "quic" {
                lost += counters.snapshot().dropped_total();
            }
        });
    }
    lost
}
