//! Modified packets.

use std::sync::{Arc, Mutex, PoisonError};

use p2p::Addr;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::harness::WireHarness;
use crate::harness::{PLAIN, ensure};
use crate::report::Outcome;
use crate::testbed::Testbed;
use crate::wire::{Datagram, Port};

/// Number of packets that are held, to be changed in every way.
const HELD: usize = 4;

/// Number of bytes at either end of a packet of which every bit is changed; of those between, every eighth.
const EDGE: usize = 64;

/// Number of changed packets that others are spliced with.
const EARLIER: usize = 32;

/// Number of changed copies of a packet. Of the changes to a packet that is not authentic few are accepted: most
/// change its header or its tag as well.
const CHANGES: usize = 3;

/// Minimum number of rounds of messages while packets are changed at random.
const ROUNDS: usize = 12;

/// Holds single packets and changes every bit of them, then changes packets at random.
pub async fn tampering_changes_no_message<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let mut harness = WireHarness::new::<3>(testbed).await?;
    harness.reach(0, 2).await?;
    harness.reach(1, 2).await?;
    for round in 0..2 {
        let held = hold(&harness, 0, 2);
        harness.tell(0, 2, PLAIN).await;
        harness.tell(0, 2, 48).await;
        harness.settle().await?;
        let changed = change_all(&mut harness, &held).await?;
        // In the second round the session may have ended, which another law checks.
        ensure!(
            round > 0 || changed > 0 || !testbed.lossless(),
            "two messages were told in an open session, and nothing was on the wire"
        );
    }
    tamper(&harness, 0.5, true);
    for _ in 0..testbed.amount(60).max(ROUNDS) {
        for (from, to) in [(0, 2), (1, 2), (2, 0)] {
            harness.tell(from, to, PLAIN).await;
            harness.tell(from, to, 120).await;
        }
        harness.settle().await?;
    }
    harness.wire.calm();
    harness.settle().await
}

/// The same as [`tampering_changes_no_message`], with requests and with responses.
pub async fn tampering_changes_no_ask<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let mut harness = WireHarness::new::<3>(testbed).await?;
    let limit = 2 * testbed.settle();
    harness.reach(0, 2).await?;
    harness.reach(1, 2).await?;
    for (from, to) in [(0, 2), (2, 0)] {
        let held = hold(&harness, from, to);
        // It waits while changed packets of it, or of its response, arrive.
        let asking = harness.asking(0, 2, PLAIN)?;
        harness.settle().await?;
        let changed = change_all(&mut harness, &held).await?;
        ensure!(
            from > 0 || changed > 0 || !testbed.lossless(),
            "a request was sent in an open session, and nothing was on the wire"
        );
        harness.answered(asking, limit).await?;
    }
    tamper(&harness, 0.5, true);
    for _ in 0..testbed.amount(60).max(ROUNDS) {
        for (from, to) in [(0, 2), (1, 2), (2, 0)] {
            harness.ask(from, to, PLAIN, limit).await?;
            harness.ask(from, to, 120, limit).await?;
        }
        harness.settle().await?;
    }
    harness.wire.calm();
    harness.settle().await
}

/// Changes every packet, those of handshakes and those of open sessions, and stops.
pub async fn messages_arrive_again_after_tampering<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let mut harness = WireHarness::new::<2>(testbed).await?;
    harness.strict = false;
    for part in [1.0, 1.0, 0.5] {
        tamper(&harness, part, false);
        for _ in 0..testbed.amount(20).max(4) {
            harness.tell(0, 1, PLAIN).await;
            harness.tell(1, 0, PLAIN).await;
            harness.settle().await?;
        }
        harness.wire.calm();
        harness.reach(0, 1).await?;
        harness.reach(1, 0).await?;
    }
    if harness.asks() {
        harness.is_answered(0, 1).await?;
    }
    Ok(())
}

type Held = Arc<Mutex<Vec<Datagram>>>;

/// Holds packets from one node to another instead of delivering them.
fn hold<A: Addr>(harness: &WireHarness<'_, A>, from: usize, to: usize) -> Held {
    let (held, way) = (Held::default(), (harness.ports[from], harness.ports[to]));
    let keep = held.clone();
    harness.wire.attack(move |sent| {
        if (sent.src, sent.dst) != way {
            return vec![sent];
        }
        let mut held = keep.lock().unwrap_or_else(PoisonError::into_inner);
        // One packet of each length is enough: a repeated handshake or message.
        let known = held.iter().any(|held| held.bytes.len() == sent.bytes.len());
        if held.len() < HELD && !known {
            held.push(sent);
        }
        Vec::new()
    });
    held
}

/// Delivers the held packets, changed in every way, and not unchanged; returns their number.
async fn change_all<A: Addr>(harness: &mut WireHarness<'_, A>, held: &Held) -> Outcome<usize> {
    let held = held.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for packet in &held {
        harness.inject(changes(packet, &held)).await?;
    }
    harness.wire.calm();
    harness.settle().await?;
    Ok(held.len())
}

/// Returns a packet with every bit flipped, at every length, with more bytes behind it, and with the ends of
/// others.
fn changes(packet: &Datagram, others: &[Datagram]) -> Vec<Datagram> {
    let (bytes, mut out) = (&packet.bytes, Vec::new());
    let len = bytes.len();
    let looked_at = |at: &usize| *at < EDGE || *at + EDGE >= len || at.is_multiple_of(8);
    for at in (0..len).filter(looked_at) {
        out.extend((0..8).map(|bit| with(bytes, |bytes| bytes[at] ^= 1 << bit)));
        out.push(bytes[..at].to_vec());
    }
    for more in [1, 2, 4, 16, 64] {
        out.push(with(bytes, |bytes| bytes.resize(len + more, 0)));
        out.push(with(bytes, |bytes| {
            bytes.extend_from_within(len.saturating_sub(more)..);
        }));
    }
    for other in others.iter().filter(|other| other.bytes != *bytes) {
        out.extend((0..=len).step_by(4).map(|at| splice(bytes, &other.bytes, at)));
    }
    out.retain(|changed| changed != bytes);
    let datagram = |bytes| Datagram {
        bytes,
        ..packet.clone()
    };
    out.into_iter().map(datagram).collect()
}

fn with(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    change(&mut bytes);
    bytes
}

/// Returns the first up to `at`, and the second from there on.
fn splice(one: &[u8], other: &[u8], at: usize) -> Vec<u8> {
    let (head, tail) = (one.get(..at).unwrap_or(one), other.get(at..).unwrap_or_default());
    [head, tail].concat()
}

/// Changes packets with this probability. With `copies`, half of them also arrive unchanged.
fn tamper<A: Addr>(harness: &WireHarness<'_, A>, part: f64, copies: bool) {
    let mut rng = StdRng::seed_from_u64(harness.testbed.the_profile().seed);
    let ports = harness.ports.clone();
    let mut earlier: Vec<Datagram> = Vec::new();
    harness.wire.attack(move |sent| {
        let mut arriving = Vec::new();
        if rng.random_bool(part) {
            arriving.extend((0..CHANGES).map(|_| change(&mut rng, &sent, &earlier, &ports)));
        }
        if earlier.len() < EARLIER {
            earlier.push(sent.clone());
        } else {
            let at = rng.random_range(0..EARLIER);
            earlier[at] = sent.clone();
        }
        if arriving.is_empty() || (copies && rng.random()) {
            let at = if rng.random() { 0 } else { arriving.len() };
            arriving.insert(at, sent);
        }
        arriving
    });
}

/// Returns the packet with one change.
fn change(rng: &mut StdRng, sent: &Datagram, earlier: &[Datagram], ports: &[Port]) -> Datagram {
    let mut changed = sent.clone();
    let len = sent.bytes.len();
    let place = |rng: &mut StdRng| rng.random_range(0..len.max(1));
    match rng.random_range(0..8) {
        0 if len > 0 => changed.bytes.truncate(place(rng)),
        1 => changed
            .bytes
            .extend((0..rng.random_range(1..32)).map(|_| rng.random::<u8>())),
        2 => {
            // Of the same direction: a packet of the other would be a replay.
            let same_way = |other: &&Datagram| (other.src, other.dst) == (sent.src, sent.dst);
            if let Some(other) = earlier.iter().filter(same_way).choose(rng) {
                changed.bytes = splice(&sent.bytes, &other.bytes, place(rng));
            }
        }
        3 if len > 0 => {
            let (one, other) = (place(rng), place(rng));
            changed.bytes[one.min(other)..=one.max(other)].fill(0);
        }
        4 => changed.src = ports[rng.random_range(0..ports.len())],
        _ => {}
    }
    if changed == *sent {
        // Changes that had no effect become a random bit flip.
        match len {
            0 => changed.bytes.push(rng.random()),
            _ => changed.bytes[place(rng)] ^= 1 << rng.random_range(0..8),
        }
    }
    changed
}
