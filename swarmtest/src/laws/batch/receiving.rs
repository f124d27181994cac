//! Laws of `receive_batch`.

use std::task::Poll;

use p2p::{Addr, Message, Swarm as _};
use rand::RngExt as _;
use tokio::time::timeout;

use crate::chance::arrive_at_least;
use crate::harness::{Held, PLAIN, ensure, in_time, number, numbered_payload, settle};
use crate::kind::Node;
use crate::report::Outcome;
use crate::testbed::Testbed;

/// The values of `max` for `receive_batch` that are tried.
const MAXIMA: std::ops::RangeInclusive<usize> = 1..=65;

/// Returns the values of `max` to try: each, or in a quick run a tenth of them and 2.
fn maxima<A: Addr>(testbed: &Testbed<A>) -> Vec<usize> {
    let step = MAXIMA.count() / testbed.amount(MAXIMA.count()).min(MAXIMA.count());
    let mut maxima: Vec<usize> = MAXIMA.step_by(step.max(1)).collect();
    maxima.push(2);
    maxima
}

/// Tells payloads to `b` one by one, so that some wait, and reads them with `receive_batch` of this `max`;
/// passes the call's result, and the length of the buffer before and after, to `look`. Returns the numbers of
/// told and received payloads.
async fn taken<A: Addr>(
    testbed: &Testbed<A>,
    [a, b]: [&Node<A>; 2],
    max: usize,
    kept: &[Message<A>],
    mut look: impl FnMut(usize, &[Message<A>]) -> Outcome,
) -> Outcome<(usize, usize)> {
    let count = waiting_for(testbed, max);
    testbed.tell_each(a, &b.addr()?, 0..count as u32).await?;
    tokio::task::yield_now().await;
    let mut came = 0;
    while came < count {
        let mut out = kept.to_vec();
        let Ok(taken) = timeout(testbed.quiet(), b.receive_batch(&mut out, max)).await else {
            break;
        };
        look(taken?, &out)?;
        // Another law checks that the buffer keeps its contents.
        came += out.len().saturating_sub(kept.len()).max(1);
    }
    Ok((count, came.min(count)))
}

/// Returns how many messages are told for this `max`: more than it, but no more than small queues hold.
fn waiting_for<A: Addr>(testbed: &Testbed<A>, max: usize) -> usize {
    let most = if testbed.lossless() {
        testbed.the_profile().holds.clamp(1, 60)
    } else {
        testbed.window()
    };
    (max + 3).min(most)
}

/// Reads messages with `receive_batch` only, with every value of `max`.
pub async fn receive_batch_takes_what_receives_would<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    testbed.undamaged()?;
    let [a, b] = testbed.nodes().await?;
    let (mut told, mut came) = (0, 0);
    for max in maxima(testbed) {
        for _ in 0..3 {
            let mut next = 0;
            let sum = taken(testbed, [&a, &b], max.min(16), &[], |_, out| {
                for message in out {
                    let number = number(&message.payload);
                    ensure!(
                        number.is_none_or(
                            |number| message.payload == *numbered_payload(number, PLAIN).as_slice()
                        ),
                        "a message of receive_batch with a maximum of {max} was damaged"
                    );
                    next += usize::from(number.is_some());
                }
                Ok(())
            });
            told += sum.await?.0;
            came += next;
            if testbed.lossless() && came < told {
                break;
            }
        }
    }
    let least = arrive_at_least(told, testbed.the_profile().loss);
    ensure!(
        came >= least,
        "of {told} messages receive_batch returned {came} instead of {least}"
    );
    Ok(())
}

/// Receives with every value of `max` while more messages wait.
pub async fn receive_batch_keeps_to_its_maximum<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    for max in maxima(testbed) {
        testbed
            .tell_each(&a, &b.addr()?, 0..waiting_for(testbed, max) as u32)
            .await?;
        if max % 8 == 2 {
            settle(testbed).await;
        }
        let mut out = Vec::new();
        let mut last = false;
        while !last {
            let Ok(taken) = timeout(testbed.settle(), b.receive_batch(&mut out, max)).await else {
                break;
            };
            let taken = taken?.max(out.len());
            ensure!(
                taken <= max,
                "receive_batch with a maximum of {max} returned {taken} messages"
            );
            last = out
                .iter()
                .any(|message| number(&message.payload) == Some(waiting_for(testbed, max) as u32 - 1));
            out.clear();
        }
    }
    Ok(())
}

/// Receives with every value of `max` into a buffer that is not empty.
pub async fn receive_batch_appends<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let first = testbed
        .deliver(&a, &b, &numbered_payload(u32::MAX, PLAIN))
        .await?;
    for (count, max) in maxima(testbed).into_iter().enumerate() {
        let held = [1, 2, 7, 8, 33, 64, 100][count % 7];
        let kept: Vec<_> = (0..held)
            .map(|number| Message {
                payload: numbered_payload(number as u32, PLAIN).as_slice().into(),
                ..first.clone()
            })
            .collect();
        taken(testbed, [&a, &b], max, &kept, |taken, out| {
            ensure!(
                out.starts_with(&kept) && out.len() == held + taken && taken > 0,
                "receive_batch with a maximum of {max} returned {taken} and left {} messages in a buffer that held {held}",
                out.len()
            );
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Receives with a `max` of 0 while no message waits, and while some wait.
pub async fn receive_batch_of_none_returns_at_once<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, node] = testbed.nodes().await?;
    for round in 0..testbed.amount(200) {
        if round % 16 == 4 {
            testbed.tell_each(&a, &node.addr()?, 0..4).await?;
        }
        let mut out = Vec::new();
        let taken = in_time(
            "receive_batch with a maximum of 0",
            testbed.patience(),
            node.receive_batch(&mut out, 0),
        );
        let taken = taken.await??;
        ensure!(
            taken == 0 && out.is_empty(),
            "receive_batch with a maximum of 0 returned {taken} messages"
        );
        if round % 16 == 15 {
            testbed.drain(&node, 8).await?;
        }
    }
    Ok(())
}

/// Cancels `receive_batch` after zero to three polls since messages arrived; messages in its buffer count.
pub async fn cancelling_receive_batch_loses_nothing<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let (dst, mut rng) = (b.addr()?, testbed.rng());
    let rounds = testbed.amount(400).max(if testbed.lossless() { 12 } else { 60 }) as u32;
    let (mut arrived, mut told) = (0, 0);
    for round in 0..rounds {
        let count = if round < 12 {
            1
        } else {
            rng.random_range(1..=testbed.window().min(8))
        };
        // A duplicate of an earlier message may have arrived already.
        while let Poll::Ready(message) = Held::new(b.receive()).poll() {
            message?;
        }
        let mut out = Vec::new();
        let mut receive = Held::new(b.receive_batch(&mut out, rng.random_range(1..=8)));
        let mut done = receive.poll();
        let numbers = told as u32..(told + count) as u32;
        testbed.tell_each(&a, &dst, numbers.clone()).await?;
        told += count;
        if done.is_pending() {
            receive.woken(testbed.settle()).await;
        }
        let polls = if round < 12 {
            round % 3
        } else {
            rng.random_range(0..4)
        };
        for _ in 0..polls {
            if done.is_pending() {
                done = receive.poll();
            }
        }
        drop(receive);
        let mut missing: std::collections::BTreeSet<u32> = numbers.collect();
        for message in &out {
            missing.remove(&number(&message.payload).unwrap_or(u32::MAX));
        }
        while !missing.is_empty()
            && let Ok(message) = timeout(testbed.quiet(), b.receive()).await
        {
            missing.remove(&number(&message?.payload).unwrap_or(u32::MAX));
        }
        arrived += count - missing.len();
        if testbed.lossless() && !missing.is_empty() {
            break;
        }
    }
    let least = arrive_at_least(told, testbed.the_profile().loss);
    ensure!(
        arrived >= least,
        "of {told} messages that arrived while a receive_batch was cancelled, {arrived} were received instead of {least}"
    );
    Ok(())
}
