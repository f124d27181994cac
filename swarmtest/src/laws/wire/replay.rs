//! Replayed packets.

use std::sync::{Arc, Mutex, PoisonError};

use p2p::Addr;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use super::harness::WireHarness;
use crate::harness::PLAIN;
use crate::report::Outcome;
use crate::testbed::Testbed;
use crate::wire::{Datagram, Port};

/// Numbers of messages after which a replay window of any usual size has moved past the first ones, and after
/// which one of most sizes has.
const MANY: usize = 10_000;
const SOME: usize = 4000;

/// A port that never had a node.
const NOWHERE: Port = Port(u32::MAX - 1);

/// Duplicates every packet, then replays all of them in several ways, and the first ones after many more.
pub async fn replay_repeats_no_message<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let mut harness = WireHarness::new::<3>(testbed).await?;
    double(&harness);
    for _ in 0..testbed.amount(40).max(4) {
        for (from, to) in [(0, 1), (1, 0), (2, 1)] {
            harness.tell(from, to, PLAIN).await;
            harness.tell(from, to, 100).await;
        }
        harness.settle().await?;
    }
    harness.wire.calm();
    harness.at_most_once()?;
    send_again(&mut harness).await?;
    harness.at_most_once()?;
    let early = harness.wire.recorded();
    for told in 0..testbed.amount(MANY).clamp(SOME, MANY) {
        harness.tell(0, 1, PLAIN).await;
        if told % 256 == 255 {
            harness.read().await?;
        }
    }
    harness.settle().await?;
    harness.inject(early).await?;
    harness.at_most_once()
}

/// How many newer packets precede the replay of an old one.
const BEHIND: [usize; 24] = [
    1, 2, 31, 33, 63, 64, 65, 127, 129, 255, 257, 511, 513, 1023, 1025, 2047, 2049, 4095, 4097, 8191, 8193,
    16_385, 32_769, 65_537,
];

/// Tells tens of thousands of messages, in a strict run more than 16 bits can count, and replays old packets
/// meanwhile: the first ones at every power of two, and some that are as far behind as a window may be long.
pub async fn replay_repeats_no_message_however_late<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let mut harness = WireHarness::new::<2>(testbed).await?;
    harness.reach(0, 1).await?;
    let sent = Arc::new(Mutex::new(Vec::new()));
    let (keep, way) = (sent.clone(), (harness.ports[0], harness.ports[1]));
    harness.wire.attack(move |packet| {
        if (packet.src, packet.dst) == way {
            keep.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(packet.clone());
        }
        vec![packet]
    });
    for told in 1..=testbed.amount(40_000).min(200_000) {
        harness.tell(0, 1, PLAIN).await;
        let near_power = told > 128 && (told - 1).is_power_of_two() || told.is_multiple_of(1 << 13);
        if !told.is_multiple_of(128) && !near_power {
            continue;
        }
        harness.read().await?;
        if near_power {
            harness.at_most_once()?;
        }
        let old: Vec<Datagram> = {
            let sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            let some = BEHIND.sample(&mut harness.rng, 4);
            let behind = some.filter_map(|behind| sent.get(sent.len().checked_sub(*behind)?));
            let first = sent.iter().take(if near_power { 128 } else { 1 });
            behind.chain(first).cloned().collect()
        };
        harness.put(old).await;
    }
    let first: Vec<Datagram> = {
        let sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        let last = sent.len().saturating_sub(300);
        sent.iter().take(300).chain(&sent[last..]).cloned().collect()
    };
    harness.inject(first).await?;
    harness.at_most_once()
}

/// The same as [`replay_repeats_no_message`], with asks.
pub async fn replay_repeats_no_ask<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let mut harness = WireHarness::new::<3>(testbed).await?;
    let limit = testbed.the_profile().ask_patience;
    double(&harness);
    for _ in 0..testbed.amount(20).max(4) {
        for (from, to) in [(0, 1), (1, 0), (2, 1)] {
            harness.ask(from, to, PLAIN, limit).await?;
        }
        harness.settle().await?;
    }
    harness.wire.calm();
    harness.at_most_once()?;
    send_again(&mut harness).await?;
    harness.at_most_once()
}

/// Replays while nodes exchange messages, and stops.
pub async fn messages_arrive_again_after_replay<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let mut harness = WireHarness::new::<3>(testbed).await?;
    harness.strict = false;
    double(&harness);
    for _ in 0..testbed.amount(40).max(4) {
        harness.tell(0, 1, PLAIN).await;
        harness.tell(1, 0, PLAIN).await;
        harness.settle().await?;
    }
    harness.wire.calm();
    for _ in 0..2 {
        harness.reach(0, 1).await?;
        harness.reach(1, 0).await?;
        send_again(&mut harness).await?;
    }
    harness.reach(0, 1).await?;
    harness.reach(1, 0).await?;
    if harness.asks() {
        harness.is_answered(0, 1).await?;
    }
    Ok(())
}

/// Records every packet and delivers it twice.
fn double<A: Addr>(harness: &WireHarness<'_, A>) {
    harness.wire.record();
    harness.wire.attack(|sent| vec![sent.clone(), sent]);
}

/// Replays the recorded packets: unchanged, in other orders, from other ports, and back to their sources.
async fn send_again<A: Addr>(harness: &mut WireHarness<'_, A>) -> Outcome {
    let sent = harness.wire.recorded();
    harness.inject(sent.clone()).await?;
    harness.inject(sent.iter().rev().cloned()).await?;
    let mut shuffled = sent.clone();
    shuffled.shuffle(&mut harness.rng);
    harness.inject(shuffled).await?;
    let third = harness.ports[2];
    for src in [third, NOWHERE] {
        let from_there = |sent: &Datagram| Datagram { src, ..sent.clone() };
        let others = sent.iter().filter(|sent| sent.dst != src).map(from_there);
        let others: Vec<Datagram> = others.collect();
        harness.inject(others).await?;
    }
    let back = sent.into_iter().map(|Datagram { src, dst, bytes }| Datagram {
        src: dst,
        dst: src,
        bytes,
    });
    harness.inject(back).await
}
