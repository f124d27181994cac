//! Laws of `tell` to stopped readers and closed nodes, and of tells to others meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use p2p::{Addr, Packet, Swarm as _};
use tokio::time::{Instant, timeout};

use crate::harness::{PLAIN, Tells, breathe, broken, ensure, in_time, number, numbered_payload, settle};
use crate::kind::Node;
use crate::report::{Outcome, Unmet};
use crate::testbed::{Testbed, chain};

/// Floods a node that does not receive, and tells one that does; no refused message may arrive.
pub async fn an_error_means_it_did_not_leave<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let dst = b.addr()?;
    let results = testbed.flood(&a, &dst).await;
    for number in testbed.drain_numbers(&b, 4 * results.len()).await? {
        if let Some(Err(error)) = results.get(number as usize) {
            broken!("a message arrived although telling it failed with: {error}");
        }
    }
    let first = results.len() as u32;
    let mut refused = BTreeSet::new();
    for number in first..first + testbed.amount(1000) as u32 {
        let tell = a.tell(&dst, Packet::from(numbered_payload(number, PLAIN).as_slice()));
        if in_time("a tell", testbed.patience(), tell).await?.is_err() {
            refused.insert(number);
        }
        if (number as usize).is_multiple_of(testbed.window()) {
            for number in testbed.drain_numbers(&b, testbed.window()).await? {
                ensure!(
                    !refused.contains(&number),
                    "a message arrived although telling it failed"
                );
            }
        }
    }
    let late = testbed.drain_numbers(&b, usize::MAX).await?;
    ensure!(
        !late.iter().any(|number| refused.contains(number)),
        "a message arrived although telling it failed"
    );
    Ok(())
}

/// Tells more than any queue holds to a node that does not receive, and again after it has received.
pub async fn a_tell_never_waits_for_the_reader<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let dst = b.addr()?;
    let mut count = testbed.the_profile().flood();
    for _ in 0..3 {
        for number in 0..count {
            let tell = a.tell(&dst, Packet::from(numbered_payload(number, PLAIN).as_slice()));
            if timeout(testbed.patience(), tell).await.is_err() {
                broken!(
                    "after {number} messages that were not read, a tell waits for {:?}",
                    testbed.patience()
                );
            }
            breathe(number).await;
        }
        // The number kept the first time is enough the next time.
        count = testbed.drain(&b, usize::MAX).await?.len() as u32 * 2 + 64;
        count = count.min(testbed.the_profile().flood());
    }
    Ok(())
}

/// Tells more than may be kept, and then counts the kept messages.
pub async fn a_stopped_reader_costs_bounded_memory<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    for _ in 0..2 {
        let told = testbed.flood(&a, &b.addr()?).await.len();
        settle(testbed).await;
        let kept: BTreeSet<u32> = testbed.drain_numbers(&b, 4 * told).await?.into_iter().collect();
        let (kept, most) = (kept.len(), testbed.the_profile().holds);
        ensure!(
            kept <= most,
            "{kept} of {told} messages were kept for a reader that stopped, more than {most}"
        );
    }
    Ok(())
}

/// Returns how many payloads of a flood, numbered from `first`, a node kept.
async fn kept<A: Addr>(testbed: &Testbed<A>, node: &Node<A>, first: u32) -> Outcome<usize> {
    let mut kept = BTreeSet::new();
    // A late reader must not take a pause for the end.
    while let Ok(message) = timeout(5 * testbed.settle(), node.receive()).await {
        kept.extend(number(&message?.payload).filter(|number| *number >= first));
    }
    Ok(kept.len())
}

/// Floods a node three times without receiving; it receives in between.
pub async fn a_second_flood_keeps_no_more<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [mut a, mut b] = testbed.nodes().await?;
    let (mut told, mut first) = (0, 0);
    // A medium that drops without counting keeps fewer messages of a flood when the machine is busy: the
    // maximum of three pairs of nodes counts.
    for pair in 0..3 {
        if pair > 0 {
            [a, b] = testbed.nodes().await?;
        }
        // Layers that accept messages only while a caller waits start with the first caller.
        testbed.deliver(&a, &b, &numbered_payload(0, PLAIN)).await?;
        told = testbed.flood(&a, &b.addr()?).await.len();
        let kept = kept(testbed, &b, 0).await?;
        if kept >= told {
            // Another law covers the case that nothing was too much yet.
            return Ok(());
        }
        first = first.max(kept);
    }
    let dst = b.addr()?;
    let mut later = Vec::new();
    let mut next = told as u32;
    for _ in 0..2 {
        let count = (2 * first + 64) as u32;
        for number in next..next + count {
            let tell = a.tell(&dst, Packet::from(numbered_payload(number, PLAIN).as_slice()));
            if timeout(testbed.settle(), tell).await.is_err() {
                return Ok(());
            }
            breathe(number).await;
        }
        settle(testbed).await;
        later.push(kept(testbed, &b, next).await?);
        next += count;
    }
    let least = later.iter().min().copied().unwrap_or(0);
    ensure!(
        least <= first + first / 2 + 16,
        "of a flood {first} messages were kept for a reader that stopped, and of later ones {later:?}"
    );
    Ok(())
}

/// Floods a node that does not receive, lets it read all, and exchanges messages with it as before;
/// repeatedly.
pub async fn messages_arrive_again_after_a_flood<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    for _ in 0..3 {
        testbed.flood(&a, &b.addr()?).await;
        kept(testbed, &b, 0).await?;
        testbed
            .deliver(&a, &b, &numbered_payload(testbed.the_profile().flood(), PLAIN))
            .await?;
        testbed.drain(&b, usize::MAX).await?;
        testbed
            .series_of(&a, &b, 100, |_, _| Ok(()))
            .await?
            .arrived(testbed.worst_loss())?;
        testbed
            .series_of(&b, &a, 30, |_, _| Ok(()))
            .await?
            .arrived(testbed.worst_loss())?;
        for _ in 0..4 {
            testbed
                .deliver_packet(&a, &b.addr()?, &b, Tells::Once, &Packet::default)
                .await?;
        }
    }
    Ok(())
}

/// Lets several nodes flood one that does not read, each with half of what may be kept.
pub async fn many_senders_cost_no_more_memory<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [stopped, senders @ ..]: [_; 6] = testbed.nodes().await?;
    let (dst, most) = (stopped.addr()?, testbed.the_profile().holds);
    let each = (most / 2 + 16) as u32;
    for (first, sender) in (0..).step_by(each as usize).zip(&senders) {
        for number in first..first + each {
            let tell = sender.tell(&dst, Packet::from(numbered_payload(number, PLAIN).as_slice()));
            if timeout(testbed.settle(), tell).await.is_err() {
                // A tell that waits for the reader breaks another law.
                break;
            }
            breathe(number).await;
        }
    }
    settle(testbed).await;
    let kept: BTreeSet<u32> = testbed
        .drain_numbers(&stopped, usize::MAX)
        .await?
        .into_iter()
        .collect();
    ensure!(
        kept.len() <= most,
        "{} messages of {} nodes were kept for a reader that stopped, more than {most}",
        kept.len(),
        senders.len()
    );
    Ok(())
}

/// Floods one node that does not read, and talks between all the others.
pub async fn a_stopped_reader_stalls_no_other<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, stopped, c] = testbed.nodes().await?;
    testbed.flood(&a, &stopped.addr()?).await;
    let number = testbed.the_profile().flood();
    for (from, to, number) in [
        (&a, &c, number),
        (&c, &a, number),
        (&stopped, &a, number + 1),
        (&stopped, &c, number + 1),
    ] {
        testbed
            .deliver(from, to, &numbered_payload(number, PLAIN))
            .await?;
        testbed.drain(to, usize::MAX).await?;
        testbed
            .series_of(from, to, 150, |_, _| Ok(()))
            .await?
            .arrived(testbed.worst_loss())?;
    }
    Ok(())
}

/// Returns a duration that is longer than a comparable one by more than a busy machine explains.
fn much_longer(than: Duration, testbed: Duration) -> Duration {
    than * 10 + 5 * testbed
}

/// Tells an active and a stopped reader alternately, and compares the durations. A trial is measured in parts,
/// and the shortest duration of each part among some trials counts: a busy machine interrupts nearly every
/// trial, but rarely the same part of all of them.
pub async fn telling_a_stopped_reader_takes_no_longer<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    const TRIALS: usize = 5;
    const PARTS: usize = 4;
    let [a, reading, stopped] = testbed.nodes().await?;
    let dst = [reading.addr()?, stopped.addr()?];
    testbed.flood(&a, &dst[1]).await;
    testbed.deliver(&a, &reading, &numbered_payload(0, PLAIN)).await?;
    let count = testbed.amount(400) as u32;
    let mut least = [[Duration::MAX; PARTS]; 2];
    for _ in 0..TRIALS {
        for (to, least) in [0, 1].into_iter().zip(&mut least) {
            let mut took = [Duration::ZERO; PARTS];
            for number in 0..count {
                let packet = Packet::from(numbered_payload(number, PLAIN).as_slice());
                let started = Instant::now();
                if timeout(testbed.patience(), a.tell(&dst[to], packet))
                    .await
                    .is_err()
                {
                    // Another law covers a tell that never ends.
                    return Ok(());
                }
                took[number as usize * PARTS / count as usize] += started.elapsed();
                if to == 0 && (number as usize).is_multiple_of(testbed.window()) {
                    // Lost messages are not awaited.
                    let _ = timeout(testbed.settle(), reading.receive_batch(&mut Vec::new(), 64)).await;
                }
            }
            for (least, took) in least.iter_mut().zip(took) {
                *least = took.min(*least);
            }
        }
        testbed.drain(&reading, usize::MAX).await?;
    }
    let [reading, stopped] = least.map(|parts| parts.iter().sum::<Duration>());
    ensure!(
        stopped <= much_longer(reading, testbed.settle()),
        "telling {count} messages takes {stopped:?} if the reader stopped, and {reading:?} if it reads"
    );
    Ok(())
}

/// Tells a closed node, and others concurrently, alone and in one batch with it.
pub async fn a_destination_that_is_gone_delays_no_other<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b, gone] = testbed.nodes().await?;
    let dst = gone.addr()?;
    testbed.deliver(&a, &gone, &numbered_payload(0, PLAIN)).await?;
    in_time("close", testbed.patience(), gone.close()).await?;
    drop(gone);
    testbed.deliver(&a, &b, &numbered_payload(0, PLAIN)).await?;
    let (there, mut slow, mut longest) = (b.addr()?, [0_usize; 2], Duration::ZERO);
    let mut took = Vec::new();
    let mut missing = 0;
    let most = testbed.amount(100) as u32;
    let mut rounds = 0;
    // If many are late, the first of them suffice to show it.
    let until = Instant::now() + testbed.patience() * 3;
    for round in 1..=most {
        if Instant::now() > until && round > 8 {
            break;
        }
        rounds = round;
        for beside in [false, true] {
            let told = numbered_payload(2 * round + u32::from(beside), PLAIN);
            let (to_gone, to_there) = (
                (dst.clone(), Packet::from(&told[..])),
                (there.clone(), Packet::from(&told[..])),
            );
            let started = Instant::now();
            // The closed one first, so that the other waits if anything does.
            let telling = async {
                let mut batch = vec![to_there.clone()];
                if beside && round % 2 == 0 {
                    batch.insert(0, to_gone);
                    let _ = a.tell_batch(&mut batch).await;
                } else {
                    let all = async {
                        if beside {
                            let _ = a.tell(&to_gone.0, to_gone.1).await;
                        }
                    };
                    // Both concurrently: the result of the first does not matter.
                    let _ = tokio::join!(all, a.tell(&there, to_there.1.clone()));
                }
            };
            let arriving = testbed.arrival(&b, &told, testbed.quiet());
            let mut telling = std::pin::pin!(timeout(testbed.patience(), telling));
            let mut arriving = std::pin::pin!(arriving);
            let came = tokio::select! {
                biased;
                came = &mut arriving => came,
                _ = &mut telling => arriving.await,
            }?;
            missing += usize::from(came.is_none());
            if came.is_none() && testbed.lossless() {
                broken!(
                    "a message told concurrently with one to a closed node did not arrive within {:?}",
                    testbed.quiet()
                );
            }
            took.push((beside, started.elapsed(), came.is_some()));
        }
    }
    let usual = took
        .iter()
        .filter(|(beside, _, came)| !beside && *came)
        .map(|(_, took, _)| *took);
    let mut usual: Vec<Duration> = usual.collect();
    usual.sort();
    let median = usual.get(usual.len() / 2).copied().unwrap_or(testbed.patience());
    let most = much_longer(median, testbed.settle());
    for (beside, took, _) in took.iter().filter(|(_, took, came)| *came && *took > most) {
        slow[usize::from(*beside)] += 1;
        longest = longest.max(*took);
    }
    // A busy machine slows both.
    ensure!(
        slow[1] <= 2 + 3 * slow[0],
        "of {rounds} messages told concurrently with one to a closed node, {} took up to {longest:?}, where {median:?} is the median",
        slow[1]
    );
    let least = crate::chance::arrive_at_least(2 * rounds as usize, testbed.the_profile().loss);
    ensure!(
        2 * rounds as usize - missing >= least,
        "of {} messages told concurrently with one to a closed node, {missing} did not arrive",
        2 * rounds
    );
    Ok(())
}

/// Floods the sibling of the swarm under test, on the same nodes, which does not receive, and exchanges
/// messages on the swarm under test.
pub async fn a_full_sibling_stalls_nothing<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [(a, beside_a), (b, beside_b)] = testbed.with_siblings().await?;
    // A late duplicate must not count as a payload of the series.
    testbed
        .deliver(&a, &b, &numbered_payload(u32::MAX, PLAIN))
        .await?;
    let dst = beside_b
        .addr()
        .map_err(|_| Unmet::Broken("a sibling has no address".into()))?;
    for number in 0..testbed.the_profile().flood() {
        let tell = beside_a.tell(&dst, Packet::from(numbered_payload(number, PLAIN).as_slice()));
        match timeout(testbed.patience(), tell).await {
            Ok(Err(error)) if number == 0 => broken!("a sibling cannot be told: {}", chain(&error)),
            Ok(_) => {}
            Err(_) => broken!("telling a sibling did not end within {:?}", testbed.patience()),
        }
        breathe(number).await;
    }
    // A flood that took no time may still fill the medium. A swarm that waits for the sibling's reader stays full.
    settle(testbed).await;
    for (from, to) in [(&a, &b), (&b, &a)] {
        let mut series = testbed.series_of(from, to, 300, |_, _| Ok(())).await?;
        series.arrived(testbed.worst_loss())?;
        testbed.rest(to, &mut series).await?;
        if let (Some((len, _)), false) = (series.repeated(), testbed.the_profile().duplicates) {
            broken!("a message of {len} bytes arrived twice, or at the sibling's neighbour");
        }
    }
    Ok(())
}
