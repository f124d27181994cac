//! Calls that move between tasks, and messages that wait for a reader.

use std::pin::Pin;

use p2p::{Addr, Packet, Result, Swarm as _};
use rand::RngExt as _;
use tokio::time::timeout;

use crate::harness::{Held, PLAIN, broken, in_time, numbered_payload, pending, settle};
use crate::ledger::Ledger;
use crate::payloads::{KINDS, contents};
use crate::report::Outcome;
use crate::testbed::Testbed;

/// Polls a receive in one task, moves it to another, and tells a message: the waker of the last poll is the one to wake.
pub async fn a_waiting_receive_may_move_to_another_task<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let dst = b.addr()?;
    for round in 0..testbed.amount(40) as u32 {
        let mut again = testbed.again(PLAIN);
        while again.next() {
            if again.times == 1 || !testbed.lossless() {
                testbed.drain(&b, usize::MAX).await?;
            }
            let node = b.clone();
            let call: Pin<Box<dyn Future<Output = Result<()>> + Send>> = if round % 2 == 0 {
                Box::pin(async move { node.receive().await.map(drop) })
            } else {
                Box::pin(async move { node.receive_batch(&mut Vec::new(), 4).await.map(drop) })
            };
            let mut held = Held::new(call);
            if held.poll().is_ready() {
                continue;
            }
            let mut moved = pending([held.future()]).await;
            testbed.tell_each(&a, &dst, [round]).await?;
            match timeout(testbed.quiet(), moved.join_next()).await {
                Ok(Some(Ok(ended))) => {
                    ended?;
                    again = testbed.again(PLAIN);
                    break;
                }
                _ if testbed.lossless() => {
                    broken!(
                        "a message came, and a receive that was polled in two tasks was not woken in the second"
                    )
                }
                _ => {}
            }
        }
        if again.times > 0 {
            broken!(
                "messages were told {} times, and no receive that was polled in two tasks was woken",
                again.times
            );
        }
    }
    Ok(())
}

/// Most messages that are told before any is read.
const WAITING: usize = 400;

/// Longest of them.
const LONGEST: usize = 256;

/// Lets three nodes tell one that does not read, and compares what was kept with what was told.
pub async fn messages_that_wait_stay_as_they_were<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    testbed.undamaged()?;
    let mut rng = testbed.rng();
    for _ in 0..testbed.amount(3) {
        let nodes: [_; 4] = testbed.nodes().await?;
        let dst = nodes[3].addr()?;
        let mut ledger = Ledger::new(testbed.the_profile(), &nodes);
        let longest = testbed.longest(&nodes[0])?.min(LONGEST);
        // More than may be kept, so that what is kept is as much as can be.
        for _ in 0..WAITING.min(testbed.the_profile().holds.saturating_mul(2)) {
            let (from, kind, len) = (
                rng.random_range(0..3),
                rng.random_range(0..KINDS),
                rng.random_range(0..=longest),
            );
            let payload = contents(&mut rng, kind, len);
            ledger.tell(from, 3, &payload);
            let tell = nodes[from].tell(&dst, Packet::from(&payload[..]));
            if in_time("a tell", testbed.patience(), tell).await?.is_err() {
                ledger.refused(from, 3, &payload);
            }
        }
        settle(testbed).await;
        let mut out = Vec::new();
        loop {
            let read = nodes[3].receive_batch(&mut out, rng.random_range(1..=65));
            let Ok(count) = timeout(testbed.settle(), read).await else {
                break;
            };
            count?;
        }
        for message in &out {
            ledger.came(3, &nodes[3], message)?;
        }
        // How many are kept is another law's business.
        testbed
            .deliver(&nodes[0], &nodes[3], &numbered_payload(0, PLAIN))
            .await?;
    }
    Ok(())
}
