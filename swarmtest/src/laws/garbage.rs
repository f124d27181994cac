//! Laws of malformed packets on the medium, on the suite's own [wire](crate::wire), below layers of any kind.
//!
//! An insecure swarm may take some of them for messages. The laws check later messages.

use std::collections::BTreeSet;

use p2p::{Addr, Swarm as _};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::{Instant, timeout};

use super::wire::harness::WireHarness;
use crate::harness::{PLAIN, ensure, mtu};
use crate::kind::Node;
use crate::report::Outcome;
use crate::testbed::Testbed;
use crate::wire::{Datagram, Port};

/// A port that never had a node.
const NOWHERE: Port = Port(u32::MAX - 2);

/// Packets of every length and first byte, and real ones that were cut, changed and extended.
fn garbage(rng: &mut StdRng, real: &[Vec<u8>], most: usize, amount: usize) -> Vec<Vec<u8>> {
    let mut out = vec![Vec::new(); 4];
    let random = |rng: &mut StdRng, len: usize| -> Vec<u8> { (0..len).map(|_| rng.random()).collect() };
    out.extend((1..100).map(|len| random(rng, len)));
    for _ in 0..amount {
        let len = rng.random_range(0..=most);
        out.push(random(rng, len));
    }
    for byte in 0..=u8::MAX {
        for len in [0, 3, 20, 90] {
            out.push([&[byte], &random(rng, len)[..]].concat());
        }
        out.push(vec![byte; 1 + byte as usize % 64]);
    }
    for real in real {
        for len in 0..real.len().min(96) {
            out.push(real[..len].to_vec());
        }
        for _ in 0..amount / 4 {
            let mut changed = real.clone();
            for _ in 0..rng.random_range(1..4) {
                if !changed.is_empty() {
                    let at = rng.random_range(0..changed.len().min(64));
                    changed[at] = rng.random();
                }
            }
            out.push(changed);
        }
        for more in [1, 7, 64] {
            let mut longer = real.clone();
            longer.extend(random(rng, more));
            longer.truncate(most);
            out.push(longer);
        }
    }
    out
}

/// Injects garbage from a stranger, from a peer and from the node's own address, at both of two nodes that
/// exchange messages, and checks that they still do.
pub async fn messages_arrive_again_after_garbage<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let mut harness = WireHarness::new::<3>(testbed).await?;
    harness.strict = false;
    harness.wire.record();
    for (from, to) in [(0, 1), (1, 0), (2, 1)] {
        harness.reach(from, to).await?;
    }
    if harness.asks() {
        harness.is_answered(0, 1).await?;
    }
    let mut lengths = BTreeSet::new();
    let mut real = harness.wire.recorded();
    real.retain(|packet| lengths.insert(packet.bytes.len()));
    real.truncate(12);
    let real: Vec<Vec<u8>> = real.into_iter().map(|packet| packet.bytes).collect();
    let most = testbed.the_wire_mtu();
    let ports = harness.ports.clone();
    for (victim, sources) in [
        (1, [NOWHERE, ports[0], ports[1]]),
        (0, [NOWHERE, ports[1], ports[2]]),
    ] {
        for src in sources {
            let dst = ports[victim];
            let packets = garbage(&mut harness.rng, &real, most, testbed.amount(80));
            let datagrams = packets.into_iter().map(|bytes| Datagram { src, dst, bytes });
            harness.inject(datagrams).await?;
            for (from, to) in [(0, 1), (1, 0), (2, 1)] {
                harness.reach(from, to).await?;
            }
            if harness.asks() {
                harness.is_answered(0, 1).await?;
            }
        }
    }
    Ok(())
}

/// Returns the drops that all layers of a node counted.
fn dropped<A: Addr>(node: &Node<A>) -> usize {
    let mut sum = 0;
    node.visit_counters(&mut |counters| sum += counters.snapshot().dropped_total() as usize);
    sum
}

/// Injects packets of random bytes, and compares the counters of drops before and after.
pub async fn garbage_is_counted<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let (wire, ports, [a, b]) = testbed.wired().await?;
    testbed.deliver(&a, &b, &[1; PLAIN]).await?;
    let (mut rng, most) = (testbed.rng(), testbed.the_wire_mtu().min(mtu(&b)?.max(64)));
    for (what, lengths) in [
        ("empty", 0..1),
        ("short", 1..9),
        ("long", 40.min(most)..200.min(most + 1).max(41)),
    ] {
        let before = dropped(&b);
        let mut arrived = 0;
        let mut surfaced = 0;
        for _ in 0..testbed.amount(40).max(16) {
            let len = rng.random_range(lengths.clone());
            let bytes = (0..len).map(|_| rng.random()).collect();
            wire.inject(Datagram {
                src: if arrived % 2 == 0 { NOWHERE } else { ports[0] },
                dst: ports[1],
                bytes,
            });
            arrived += 1;
            if arrived % 8 == 0 {
                while timeout(testbed.settle() / 4, b.receive()).await.is_ok() {
                    surfaced += 1;
                }
            }
        }
        // The node counts a packet when it processes it.
        let until = Instant::now() + testbed.patience();
        let mut counted = dropped(&b) - before;
        while 4 * (counted + surfaced) < arrived && Instant::now() < until {
            surfaced += usize::from(timeout(testbed.settle() / 4, b.receive()).await.is_ok());
            counted = dropped(&b) - before;
        }
        ensure!(
            4 * (counted + surfaced) >= arrived,
            "of {arrived} {what} packets of random bytes {surfaced} were taken for messages and {counted} were counted as dropped"
        );
    }
    Ok(())
}
