//! Laws of `tell`.

mod bounds;
mod readers;

use std::collections::BTreeSet;

use p2p::{Addr, Headroom, Packet, Swarm as _};
use rand::RngExt as _;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use bounds::*;
pub use readers::*;

use crate::chance::arrive_at_least;
use crate::harness::{
    Held, MIN_PAYLOAD, PLAIN, Tells, broken, ensure, in_time, mtu, number, numbered_payload,
};
use crate::kind::Node;
use crate::payloads::length;
use crate::report::{Outcome, Unmet};
use crate::series::{any, lengths};
use crate::testbed::Testbed;

/// Every length up to this one is told.
const EACH: usize = 2048;

/// Total bytes of messages longer than these.
const LONG_BYTES: usize = 64 << 20;

/// Sizes at which layers plausibly split messages.
const CHUNKS: [usize; 12] = [
    508, 512, 1024, 1200, 1232, 1280, 1400, 1452, 1472, 1500, 4096, 16_384,
];

/// Returns all lengths up to 2,048, and those around boundaries: the MTU, powers of two, and multiples of
/// sizes at which layers split. In a quick run a tenth of them, but always those around powers of two.
pub(crate) fn all_lengths<A: Addr>(testbed: &Testbed<A>, least: usize, mtu: usize) -> Vec<usize> {
    let mut rng = testbed.rng();
    let powers = (3..usize::BITS)
        .map(|bits| 1_usize << bits)
        .take_while(|power| *power <= mtu);
    let powers: Vec<usize> = powers
        .flat_map(|power| [power - 1, power, power + 1, power + power / 2])
        .collect();
    let mut others: Vec<usize> = (least..=EACH.min(mtu)).collect();
    others.extend((1..64).map(|less| mtu.saturating_sub(less)));
    for chunk in CHUNKS {
        for times in [1, 2, 3, 4, 7, 8, 15, 16, 32, 45] {
            others.extend([chunk * times - 1, chunk * times, chunk * times + 1]);
        }
    }
    others.extend((0..64).map(|_| rng.random_range(least..=mtu.max(least))));
    let tenths = testbed.amount(10);
    others.retain(|_| rng.random_range(0..10) < tenths);
    let wanted: BTreeSet<usize> = [powers, others].concat().into_iter().collect();
    let mut long = testbed.amount(LONG_BYTES);
    let mut lengths: Vec<usize> = wanted
        .into_iter()
        .filter(|len| (least..mtu).contains(len))
        .collect();
    lengths.retain(|len| {
        let fits = *len <= EACH || *len <= long;
        long -= if *len > EACH && fits { *len } else { 0 };
        fits
    });
    lengths
}

/// Tells payloads of all lengths, each until it arrives.
pub async fn every_length_up_to_the_mtu_arrives<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let mut lengths = all_lengths(testbed, MIN_PAYLOAD, testbed.longest(&a)?);
    let mut again = testbed.again(usize::MAX);
    while again.next() {
        let series = testbed.series(&a, &b, &lengths, |_, _| Ok(())).await?;
        let told = series.told();
        if testbed.worst_loss() <= 0.0 {
            if let Some((_, len)) = series.missing().next() {
                broken!(
                    "a message of {len} bytes did not arrive within {:?}",
                    testbed.patience()
                );
            }
            return Ok(());
        }
        lengths = series.missing().map(|(_, len)| len).collect();
        if lengths.is_empty() {
            return Ok(());
        }
        ensure!(lengths.len() <= told, "more is missing than was told");
    }
    broken!(
        "messages of {:?} bytes, told {} times, did not arrive",
        &lengths[..lengths.len().min(8)],
        again.times
    )
}

/// Compares arriving payloads of many lengths with those told.
pub async fn a_message_arrives_whole<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    testbed.undamaged()?;
    let [a, b] = testbed.nodes().await?;
    let most = testbed.longest(&a)?;
    let mut lengths = lengths(&mut testbed.rng(), most, testbed.amount(1000));
    lengths.extend(
        [MIN_PAYLOAD, 31, 48, 96, 200, 1000, most / 2, most - 1].map(|len| len.clamp(MIN_PAYLOAD, most)),
    );
    testbed
        .series(&a, &b, &lengths, |message, told| {
            let (came, differ) = (&*message.payload, |(one, other)| one != other);
            if came != told {
                let at = came.iter().zip(told).position(differ);
                broken!(
                    "of {} bytes {} arrived, which differ from byte {} on",
                    told.len(),
                    came.len(),
                    at.unwrap_or(came.len().min(told.len()))
                );
            }
            Ok(())
        })
        .await
        .and_then(|series| match series.unknown.first() {
            Some(len) => broken!("a message of {len} bytes arrived that was never told"),
            None => Ok(()),
        })
}

/// Tells bursts without a pause and counts all arrivals.
pub async fn a_burst_arrives_as_far_as_the_medium_lets_it<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let burst_len = testbed.window() as u32;
    let bursts = testbed.amount(80) as u32;
    let [a, b] = testbed.nodes().await?;
    let dst = b.addr()?;
    let mut arrived = BTreeSet::new();
    for burst in 0..bursts {
        if testbed.lossless() && arrived.len() < (burst * burst_len) as usize {
            break;
        }
        let numbers = burst * burst_len..(burst + 1) * burst_len;
        testbed.tell_each(&a, &dst, numbers.clone()).await?;
        while arrived.len() < numbers.end as usize {
            let Ok(message) = timeout(testbed.quiet(), b.receive()).await else {
                break;
            };
            arrived.extend(number(&message?.payload));
        }
    }
    let (told, came) = ((burst_len * bursts) as usize, arrived.len());
    let least = arrive_at_least(told, testbed.the_profile().loss);
    ensure!(
        came >= least,
        "of {told} messages told in bursts of {burst_len}, {came} arrived instead of {least}"
    );
    Ok(())
}

/// Tells from several tasks, a few messages each; repeats it when they have arrived.
pub async fn tells_of_many_tasks_all_arrive<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    const EACH: u32 = 3;
    /// More concurrent messages than these exceed small queues.
    const TASKS: u32 = 5;
    let (each, tasks) = match testbed.window() as u32 {
        room if room >= EACH * TASKS => (EACH, TASKS),
        room => (1, room),
    };
    let waves = testbed.amount(80) as u32;
    let [a, b] = testbed.nodes().await?;
    let dst = b.addr()?;
    let mut arrived = BTreeSet::new();
    for wave in 0..waves {
        if testbed.lossless() && arrived.len() < (wave * tasks * each) as usize {
            break;
        }
        let mut tellers = JoinSet::new();
        for task in wave * tasks..(wave + 1) * tasks {
            let (testbed, a, dst) = (testbed.clone(), a.clone(), dst.clone());
            tellers.spawn(async move {
                for number in task * each..(task + 1) * each {
                    testbed.tell_each(&a, &dst, [number]).await?;
                    tokio::task::yield_now().await;
                }
                Ok::<_, Unmet>(())
            });
        }
        while let Some(done) = tellers.join_next().await {
            done.map_err(|error| Unmet::Broken(error.to_string()))??;
        }
        while arrived.len() < ((wave + 1) * tasks * each) as usize {
            let Ok(message) = timeout(testbed.quiet(), b.receive()).await else {
                break;
            };
            arrived.extend(number(&message?.payload));
        }
    }
    let (told, came) = ((tasks * each * waves) as usize, arrived.len());
    let least = arrive_at_least(told, testbed.the_profile().loss);
    ensure!(
        came >= least,
        "of {told} messages told by {tasks} concurrent tasks, {came} arrived instead of {least}"
    );
    Ok(())
}

/// Checks two bystanders after others have exchanged messages.
pub async fn a_message_reaches_its_destination_alone<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b, one, other] = testbed.nodes().await?;
    testbed.series_of(&a, &b, 300, |_, _| Ok(())).await?;
    testbed.series_of(&b, &a, 100, |_, _| Ok(())).await?;
    for bystander in [&one, &other] {
        let overheard = testbed.drain_numbers(bystander, 8).await?;
        ensure!(
            overheard.is_empty(),
            "a third node got {} messages that were told to another",
            overheard.len()
        );
    }
    Ok(())
}

/// Tells payloads of many lengths once each and counts the duplicates.
pub async fn a_message_arrives_at_most_once<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    if testbed.the_profile().duplicates {
        return Err(Unmet::Waived("the medium duplicates".into()));
    }
    testbed.undamaged()?;
    let [a, b] = testbed.nodes().await?;
    let most = testbed.longest(&a)?;
    let mut lengths = lengths(&mut testbed.rng(), most, testbed.amount(500));
    lengths.extend([MIN_PAYLOAD, PLAIN, 64, 120, 160, 200, 1000].map(|len| len.min(most)));
    let mut series = testbed.series(&a, &b, &lengths, |_, _| Ok(())).await?;
    testbed.rest(&b, &mut series).await?;
    match series.repeated() {
        Some((len, times)) => broken!("a message of {len} bytes that was told once arrived {times} times"),
        None => Ok(()),
    }
}

/// Drops tells after some polls and checks the arrivals.
pub async fn a_cancelled_tell_leaves_whole_or_not_at_all<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    testbed.undamaged()?;
    let [a, b] = testbed.nodes().await?;
    let (dst, most) = (b.addr()?, testbed.longest(&a)?);
    let mut rng = testbed.rng();
    let rounds = testbed
        .amount(30)
        .max(testbed.again(most).least() / testbed.window() + 1);
    let mut lengths: Vec<usize> = Vec::new();
    for _ in 0..rounds {
        let mut bytes = 0;
        for _ in 0..testbed.window() {
            let len = match rng.random_range(0..3) {
                0 => most.min(200),
                _ => length(&mut rng, most.min(64 << 10)).max(MIN_PAYLOAD),
            };
            bytes += len;
            if bytes > len && bytes > crate::series::WINDOW_BYTES {
                break;
            }
            let told = numbered_payload(lengths.len() as u32, len);
            lengths.push(len);
            let mut tell = Held::new(a.tell(&dst, Packet::from(&told[..])));
            for _ in 0..=rng.random_range(0..3) {
                if tell.poll().is_ready() {
                    break;
                }
            }
        }
        // Refused and unsent messages are not awaited.
        for message in testbed.drain(&b, 2 * lengths.len()).await? {
            let number = number(&message.payload);
            let told =
                number.and_then(|number| Some(numbered_payload(number, *lengths.get(number as usize)?)));
            ensure!(
                told.is_some_and(|told| message.payload == *told.as_slice()),
                "a part of a cancelled tell arrived: {} bytes",
                message.payload.len()
            );
        }
    }
    Ok(())
}

/// Tells packets with no, too little and enough headroom, of several lengths.
pub async fn short_room_is_no_fault<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    testbed.undamaged()?;
    let [a, b] = testbed.nodes().await?;
    let (dst, most, enough) = (b.addr()?, testbed.longest(&a)?, a.headroom());
    let mut rng = testbed.rng();
    for count in 0..testbed.amount(150) {
        let room = match count {
            0 => Headroom::new(0, 0),
            1 => Headroom::new(1, 0),
            2 => Headroom::new(0, 1),
            3 => enough,
            _ => Headroom::new(
                any(
                    &mut rng,
                    &[
                        0,
                        0,
                        1,
                        3,
                        enough.front / 2,
                        enough.front.saturating_sub(1),
                        enough.front + 5,
                    ],
                ),
                any(
                    &mut rng,
                    &[
                        0,
                        0,
                        1,
                        enough.back / 2,
                        enough.back.saturating_sub(1),
                        enough.back + 5,
                    ],
                ),
            ),
        };
        let len = match count {
            0..4 => PLAIN,
            // Multiples of a cipher's block, too, in small buffers, where no room is to spare.
            _ if count % 2 == 0 => (16 * rng.random_range(1..=40)).min(most),
            _ => any(&mut rng, &[MIN_PAYLOAD, PLAIN, 100, 999, most - 1, most]).min(most),
        };
        let told = numbered_payload(count as u32, len);
        let message = testbed
            .deliver_packet(&a, &dst, &b, Tells::Once, &|| Packet::new(room, &told))
            .await?;
        ensure!(
            message.payload == *told.as_slice(),
            "a packet of {len} bytes with {} bytes of room in front and {} behind was damaged",
            room.front,
            room.back
        );
    }
    Ok(())
}

/// Tells empty messages, each of which must arrive.
pub async fn an_empty_payload_is_a_message<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let dst = b.addr()?;
    testbed.deliver(&a, &b, &[]).await?;
    let (mut told, mut came) = (0, 0);
    for _ in 0..testbed.amount(12) {
        for _ in 0..testbed.window() {
            a.tell(&dst, Packet::from(&[][..])).await?;
            told += 1;
        }
        while came < told {
            let Ok(message) = timeout(testbed.quiet(), b.receive()).await else {
                break;
            };
            came += usize::from(message?.payload.is_empty());
        }
        if testbed.lossless() && came < told {
            break;
        }
    }
    let least = arrive_at_least(told, testbed.the_profile().loss);
    ensure!(
        came >= least || testbed.the_profile().duplicates,
        "of {told} empty messages {came} arrived instead of {least}"
    );
    Ok(())
}

/// Reads the MTU before and after messages in both directions, many times, after a flood, and after `close`.
pub async fn the_mtu_never_changes<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let before = [mtu(&a)?, mtu(&b)?];
    for number in 0..testbed.amount(400) as u32 {
        if number < 4 {
            testbed.deliver(&a, &b, &numbered_payload(number, PLAIN)).await?;
            testbed.deliver(&b, &a, &numbered_payload(number, PLAIN)).await?;
        } else {
            let (from, to) = if number % 2 == 0 { (&a, &b) } else { (&b, &a) };
            from.tell(&to.addr()?, Packet::from(&numbered_payload(number, PLAIN)[..]))
                .await?;
            if number % 16 == 0 {
                testbed
                    .drain(if number % 32 == 0 { &a } else { &b }, testbed.window())
                    .await?;
            }
        }
        let now = [mtu(&a)?, mtu(&b)?];
        ensure!(
            now == before,
            "mtu() of two nodes changed from {before:?} to {now:?}"
        );
    }
    testbed.flood(&a, &b.addr()?).await;
    let after = |node: &Node<A>| node.mtu();
    ensure!(
        [after(&a), after(&b)] == before,
        "mtu() of two nodes went from {before:?} to {:?} in a flood",
        [after(&a), after(&b)]
    );
    in_time("close", testbed.patience(), b.close()).await?;
    ensure!(
        after(&b) == before[1],
        "mtu() went from {} to {} when the node closed",
        before[1],
        after(&b)
    );
    Ok(())
}

/// Answers messages at their source addresses.
pub async fn src_can_be_told_to<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let src = testbed.deliver(&a, &b, &numbered_payload(0, PLAIN)).await?.src;
    testbed
        .deliver_at(&b, &src, &a, &numbered_payload(1, PLAIN))
        .await?;
    let mut sources = BTreeSet::from([src.clone()]);
    let mut last = src;
    testbed
        .series_of(&a, &b, 300, |message, _| {
            sources.insert(message.src.clone());
            last = message.src.clone();
            Ok(())
        })
        .await?;
    // The last of them, since addresses with a lease may be few.
    sources.insert(last);
    for (number, src) in (2..).zip(sources.into_iter().rev().take(8)) {
        let packet = || Packet::from(&numbered_payload(number, PLAIN)[..]);
        testbed.deliver_packet(&b, &src, &a, Tells::Once, &packet).await?;
    }
    Ok(())
}

/// Checks that the destination of each message is one of the receiver's addresses.
pub async fn dst_is_a_local_address<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    testbed
        .series_of(&a, &b, 300, |message, _| {
            let (dst, local) = (&message.dst, b.local_addrs());
            ensure!(
                local.contains(dst),
                "the destination {dst} is not among the local addresses {local:?}"
            );
            Ok(())
        })
        .await
        .map(drop)
}
