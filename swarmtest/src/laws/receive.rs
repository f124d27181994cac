//! Laws of `receive`.

mod waiting;

use std::collections::BTreeSet;
use std::task::Poll;

use p2p::{Addr, Message, Packet, Result, Swarm as _};
use rand::RngExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use waiting::{a_waiting_receive_may_move_to_another_task, messages_that_wait_stay_as_they_were};

use crate::chance::arrive_at_least;
use crate::harness::{Held, PLAIN, broken, ensure, number, numbered_payload, pending};
use crate::kind::Node;
use crate::report::{Outcome, Unmet};
use crate::testbed::Testbed;

/// Receives from several tasks concurrently and compares their messages.
pub async fn a_message_goes_to_one_caller<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    if testbed.the_profile().duplicates {
        return Err(Unmet::Waived(
            "the medium duplicates, and its duplicates look the same".into(),
        ));
    }
    testbed.undamaged()?;
    let [a, b] = testbed.nodes().await?;
    let (results, mut got) = mpsc::unbounded_channel();
    let mut callers = JoinSet::new();
    for caller in 0..6 {
        let (b, results) = (b.clone(), results.clone());
        callers.spawn(async move {
            let mut out = Vec::new();
            // Some receive batches.
            while let Ok(message) = match caller {
                0..4 => b.receive().await.map(|message| out.push(message)),
                _ => b.receive_batch(&mut out, caller).await.map(drop),
            } {
                let () = message;
                for message in out.drain(..) {
                    let _ = results.send(number(&message.payload));
                }
            }
        });
    }
    let dst = b.addr()?;
    let (mut rng, mut told) = (testbed.rng(), 0);
    let mut seen = BTreeSet::new();
    for _ in 0..testbed.amount(120) {
        let burst = rng.random_range(1..=testbed.window().min(8) as u32);
        testbed.tell_each(&a, &dst, told..told + burst).await?;
        told += burst;
        while seen.len() < told as usize {
            let Ok(Some(number)) = timeout(testbed.settle(), got.recv()).await else {
                break;
            };
            if let Some(number) = number {
                ensure!(seen.insert(number), "a message went to two callers of receive");
            }
        }
    }
    while let Ok(Some(number)) = timeout(testbed.settle(), got.recv()).await {
        if let Some(number) = number {
            ensure!(seen.insert(number), "a message went to two callers of receive");
        }
    }
    let (told, came) = (told as usize, seen.len());
    let least = arrive_at_least(told, testbed.the_profile().loss);
    ensure!(
        came >= least,
        "of {told} messages {came} went to one of six callers, instead of {least}"
    );
    Ok(())
}

/// Maximum number of attempts to have several messages arrive together, unless even single ones need more.
const MOST_ATTEMPTS: usize = 250;

/// Lets several tasks wait, tells as many messages at once, and expects each task to return.
pub async fn every_waiting_caller_is_woken<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    // The messages arrive together often enough to repeat until all of them do.
    let enough = |count: &usize| {
        let count = i32::try_from(*count).unwrap_or(i32::MAX);
        testbed.again_all(count).least() <= MOST_ATTEMPTS
    };
    let together = (1..=testbed.window()).rev().find(enough).unwrap_or(1);
    for round in 0..testbed.amount(30) {
        // More callers would need more concurrent messages than small queues hold.
        let callers = match round {
            0 => 4.min(together),
            _ => 1 + (round * 5) % together,
        };
        woken(testbed, &a, &b, callers, round % 2 == 1).await?;
    }
    Ok(())
}

async fn woken<A: Addr>(
    testbed: &Testbed<A>,
    a: &Node<A>,
    b: &Node<A>,
    callers: usize,
    as_batch: bool,
) -> Outcome {
    let dst = b.addr()?;
    let mut again = testbed.again_all(i32::try_from(callers).unwrap_or(i32::MAX));
    let (count, mut most) = (callers, 0);
    // On a lossless medium each attempt counts.
    let limit = testbed.quiet();
    while again.next() {
        if !testbed.lossless() || again.times == 1 {
            testbed.drain(b, usize::MAX).await?;
        }
        let mut callers = waiting(b, count).await;
        let numbers = 0..count as u32;
        if as_batch {
            let packet = |number| Packet::from(numbered_payload(number, PLAIN).as_slice());
            let mut batch = numbers.map(|number| (dst.clone(), packet(number))).collect();
            // Other laws check the result of the batch.
            let _ = a.tell_batch(&mut batch).await;
        } else {
            testbed.tell_each(a, &dst, numbers).await?;
        }
        let mut returned = 0;
        while let Ok(Some(done)) = timeout(limit, callers.join_next()).await {
            done.map_err(|error| Unmet::Broken(error.to_string()))??;
            returned += 1;
        }
        if returned == count {
            return Ok(());
        }
        most = most.max(returned);
        if testbed.lossless() {
            break;
        }
    }
    broken!("{count} messages were told while {count} callers waited; at most {most} of them returned")
}

/// Returns tasks that wait in `receive`.
async fn waiting<A: Addr>(node: &Node<A>, count: usize) -> JoinSet<Result<Message<A>>> {
    let receive = |node: Node<A>| async move { node.receive().await };
    pending((0..count).map(|_| receive(node.clone()))).await
}

/// Cancels `receive` after zero to three polls since a message arrived, and expects later calls to get it
/// each time.
pub async fn cancelling_loses_nothing<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let (dst, mut rng) = (b.addr()?, testbed.rng());
    let rounds = testbed.amount(300).max(if testbed.lossless() { 12 } else { 60 }) as u32;
    let mut arrived = 0;
    for round in 0..rounds {
        let told = numbered_payload(round, PLAIN);
        let mut receive = Held::new(b.receive());
        // A duplicate of an earlier message may have arrived already.
        while receive.poll().is_ready() {
            receive = Held::new(b.receive());
        }
        testbed.tell_each(&a, &dst, [round]).await?;
        receive.woken(testbed.settle()).await;
        let mut got = false;
        let polls = if round < 12 {
            round % 3
        } else {
            rng.random_range(0..4)
        };
        for _ in 0..polls {
            if let Poll::Ready(message) = receive.poll() {
                got = number(&message?.payload) == Some(round);
                break;
            }
            if rng.random() {
                tokio::task::yield_now().await;
            }
        }
        drop(receive);
        if got || testbed.arrival(&b, &told, testbed.quiet()).await?.is_some() {
            arrived += 1;
        } else if testbed.lossless() {
            break;
        }
    }
    let least = arrive_at_least(rounds as usize, testbed.the_profile().loss);
    ensure!(
        arrived >= least,
        "of {rounds} messages that arrived while a receive was cancelled, {arrived} were received later instead of {least}"
    );
    Ok(())
}

/// Cancels callers that were woken before they could poll, while another one waits; one to four of them,
/// several times.
pub async fn a_cancelled_caller_passes_its_turn_on<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let dst = b.addr()?;
    for round in 0..testbed.amount(40) {
        let cancelled = 1 + round % 4;
        let mut again = testbed.again(PLAIN);
        loop {
            if !again.next() {
                broken!(
                    "a message arrived for one of {cancelled} callers that were then cancelled, and the next one was not woken"
                );
            }
            if again.times == 1 || !testbed.lossless() {
                testbed.drain(&b, usize::MAX).await?;
            }
            let mut first: Vec<_> = (0..cancelled).map(|_| Held::new(b.receive())).collect();
            if first.iter_mut().any(|receive| receive.poll().is_ready()) {
                continue;
            }
            let mut second = waiting(&b, 1).await;
            testbed.tell_each(&a, &dst, [0]).await?;
            first[0].woken(testbed.settle()).await;
            drop(first);
            if let Ok(Some(Ok(Ok(_)))) = timeout(testbed.quiet(), second.join_next()).await {
                break;
            }
            if testbed.lossless() {
                broken!(
                    "a message arrived for a caller that was then cancelled, and the next one was not woken"
                );
            }
        }
    }
    Ok(())
}
