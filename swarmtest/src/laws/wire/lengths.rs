//! Messages of every length: whether they can be read, and the effect of tampering.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use p2p::Addr;
use rand::RngExt as _;
use tokio::time::sleep;

use super::harness::WireHarness;
use crate::harness::{MIN_PAYLOAD, broken, ensure, mtu, noise};
use crate::report::Outcome;
use crate::testbed::Testbed;
use crate::wire::Datagram;

/// Number of consecutive bytes that count as plaintext.
const RUN: usize = 8;

/// Number of consecutive bytes of a key stream that do not repeat by chance.
const STREAM: usize = 16;

/// Number of consecutive bytes that are equal in two packets with the same message, but neither by chance nor
/// in headers.
const EQUAL: usize = 80;

/// Returns lengths from `first` on, some up to the MTU, and the MTU.
fn lengths<A: Addr>(testbed: &Testbed<A>, first: usize, most: usize) -> Vec<usize> {
    let mut rng = testbed.rng();
    let mut lengths: Vec<usize> = (first..=testbed.amount(300).max(first)).collect();
    lengths.extend((0..testbed.amount(20)).map(|_| rng.random_range(first..=most)));
    lengths.extend([most - 1, most]);
    lengths.retain(|len| *len <= most);
    lengths
}

/// Tells messages of every length and of random bytes, and searches packets for them, and for a key stream
/// that any two packets of either direction share.
pub async fn no_length_can_be_read_on_the_wire<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let (wire, _, [a, b]) = testbed.wired().await?;
    let most = mtu(&a)?.min(mtu(&b)?);
    let mut streams: HashMap<[u8; STREAM], u64> = HashMap::new();
    let (mut tails, mut heads) = (Edges::default(), Edges::default());
    let mut number = 1_u64;
    for len in lengths(testbed, 1, most) {
        // A few bytes are in a packet by chance, but not in each of several.
        let mut places: Option<HashSet<usize>> = None;
        for _ in 0..if len < RUN { 64 / (8 * len) + 2 } else { 1 } {
            number += 1;
            let said = noise(number.wrapping_mul(0x9E37_79B9_7F4A_7C15), len);
            let (from, to) = if number.is_multiple_of(2) {
                (&a, &b)
            } else {
                (&b, &a)
            };
            wire.record();
            testbed.deliver(from, to, &said).await?;
            let seen: HashSet<Vec<u8>> = wire.recorded().into_iter().map(|packet| packet.bytes).collect();
            if len < RUN {
                let at = |packet: &Vec<u8>| {
                    let windows = packet.windows(len).enumerate();
                    windows
                        .filter(|(_, window)| *window == said)
                        .map(|(at, _)| at)
                        .collect::<Vec<_>>()
                };
                let here: HashSet<usize> = seen.iter().flat_map(at).collect();
                places = Some(places.map_or(here.clone(), |places| {
                    places.intersection(&here).copied().collect()
                }));
                continue;
            }
            let known: HashSet<&[u8]> = said.windows(RUN).collect();
            ensure!(
                !seen
                    .iter()
                    .any(|packet| packet.windows(RUN).any(|window| known.contains(window))),
                "{RUN} consecutive bytes of a message of {len} bytes are in a packet"
            );
            tails.add(len, seen.iter().map(|packet| reversed(packet)), &reversed(&said));
            heads.add(len, seen.iter().cloned(), &said);
            if let Some(start) = said.first_chunk::<STREAM>() {
                for window in seen.iter().flat_map(|packet| packet.windows(STREAM)) {
                    let mut key = *start;
                    key.iter_mut().zip(window).for_each(|(key, byte)| *key ^= byte);
                    let before = *streams.entry(key).or_insert(number);
                    ensure!(
                        before == number,
                        "two packets use the same key stream: those of messages {before} and {number}"
                    );
                }
            }
        }
        ensure!(
            places.is_none_or(|places| places.is_empty()),
            "messages of {len} bytes can be read, each at the same position of its packet"
        );
    }
    for (edge, name) in [(heads, "first"), (tails, "last")] {
        if let Some(class) = edge.readable() {
            broken!(
                "some of the {name} bytes of messages of {class} bytes, and of 16 more and more, can be read"
            );
        }
    }
    Ok(())
}

fn reversed(bytes: &[u8]) -> Vec<u8> {
    crate::harness::reversed(bytes)
}

/// How often each byte of a message was at each position of a packet, by the length's remainder of 16.
#[derive(Default)]
struct Edges {
    told: [u32; 16],
    found: HashMap<(usize, usize, usize), u32>,
}

impl Edges {
    const BYTES: usize = 15;
    const PLACES: usize = 80;

    fn add(&mut self, len: usize, packets: impl Iterator<Item = Vec<u8>>, said: &[u8]) {
        let class = len % 16;
        self.told[class] += 1;
        let mut here = HashSet::new();
        for packet in packets {
            for (index, byte) in said.iter().take(Self::BYTES).enumerate() {
                let places = packet.iter().skip(index).take(Self::PLACES).enumerate();
                here.extend(
                    places
                        .filter(|(_, there)| *there == byte)
                        .map(|(at, _)| (class, index, at)),
                );
            }
        }
        for place in here {
            *self.found.entry(place).or_default() += 1;
        }
    }

    /// Returns the lengths at which a byte was always at its position.
    fn readable(&self) -> Option<usize> {
        let always = |((class, ..), count): (&(usize, usize, usize), &u32)| {
            let told = self.told[*class];
            (told >= 10 && *count == told).then_some(*class)
        };
        self.found.iter().find_map(always)
    }
}

/// Tells the same message repeatedly, in both directions.
pub async fn the_same_message_never_looks_the_same<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let (wire, _, [a, b]) = testbed.wired().await?;
    let len = 200.min(mtu(&a)?).min(mtu(&b)?);
    let said = noise(0x5EED, len);
    testbed.deliver(&a, &b, &said).await?;
    testbed.deliver(&b, &a, &said).await?;
    let (mut packets, mut runs) = (HashSet::new(), HashMap::new());
    for number in 0..testbed.amount(150) {
        let (from, to) = if number % 3 == 0 { (&b, &a) } else { (&a, &b) };
        wire.record();
        testbed.deliver(from, to, &said).await?;
        let mut new = false;
        for Datagram { bytes, .. } in wire.recorded() {
            for run in bytes.windows(EQUAL) {
                let before = *runs.entry(run.to_vec()).or_insert(number);
                ensure!(
                    before == number || !testbed.lossless(),
                    "a message that was told twice gave packets with {EQUAL} equal consecutive bytes"
                );
            }
            new |= packets.insert(bytes);
        }
        ensure!(
            new,
            "a message that was told again arrived, and its packet was an earlier one"
        );
    }
    Ok(())
}

/// Holds packets of messages of every length, and delivers changed ones.
pub async fn tampering_at_any_length_changes_no_message<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    const TOGETHER: usize = 24;
    let mut harness = WireHarness::new::<2>(testbed).await?;
    harness.reach(0, 1).await?;
    harness.reach(1, 0).await?;
    let most = mtu(&harness.nodes[0])?;
    for lengths in lengths(testbed, MIN_PAYLOAD, most).chunks(TOGETHER) {
        let held = Arc::new(Mutex::new(Vec::new()));
        let (keep, way) = (held.clone(), (harness.ports[0], harness.ports[1]));
        let lock = |held: &Mutex<Vec<Datagram>>| held.lock().unwrap_or_else(PoisonError::into_inner).len();
        harness.wire.attack(move |sent| {
            if (sent.src, sent.dst) != way {
                return vec![sent];
            }
            let mut held = keep.lock().unwrap_or_else(PoisonError::into_inner);
            if held.len() < 8 * TOGETHER {
                held.push(sent);
            }
            Vec::new()
        });
        for &len in lengths {
            let before = lock(&held);
            harness.tell(0, 1, len).await;
            for _ in 0..8 {
                if lock(&held) > before {
                    break;
                }
                sleep(testbed.settle() / 16).await;
            }
        }
        let packets = std::mem::take(&mut *held.lock().unwrap_or_else(PoisonError::into_inner));
        let mut changed = Vec::new();
        for packet in &packets {
            for bytes in changes(&mut harness, &packet.bytes) {
                changed.push(Datagram {
                    bytes,
                    ..packet.clone()
                });
            }
        }
        harness.inject(changed).await?;
        harness.wire.calm();
        harness.settle().await?;
    }
    Ok(())
}

/// Returns about twenty packets that differ from this one in a bit, in their length, or at their end.
fn changes<A>(harness: &mut WireHarness<'_, A>, bytes: &[u8]) -> Vec<Vec<u8>> {
    let len = bytes.len();
    let mut out: Vec<Vec<u8>> = Vec::new();
    let mut change = |change: &mut dyn FnMut(&mut Vec<u8>)| {
        let mut changed = bytes.to_vec();
        change(&mut changed);
        if changed != bytes {
            out.push(changed);
        }
    };
    if len == 0 {
        return out;
    }
    for _ in 0..6 {
        let (at, bit) = (harness.rng.random_range(0..len), harness.rng.random_range(0..8));
        change(&mut |bytes| bytes[at] ^= 1 << bit);
    }
    // The positions around a tag of 16 bytes, to the width of a block.
    for back in [1, 2, 8, 16, 17, 18, 20, 24, 28, 31, 32, 33] {
        let bit = harness.rng.random_range(0..8);
        if back <= len {
            change(&mut |bytes| bytes[len - back] ^= 1 << bit);
        }
    }
    for less in [1, 2, 15, 16, 17] {
        change(&mut |bytes| bytes.truncate(len.saturating_sub(less)));
    }
    change(&mut |bytes| bytes.push(0));
    change(&mut |bytes| bytes.resize(len + 16, 0));
    change(&mut |bytes| bytes.extend_from_within(len.saturating_sub(16)..));
    out
}
