//! Nodes that are dropped right after a tell, and closes that are given up or called beside others.

use std::collections::BTreeMap;

use p2p::{Addr, Packet, Swarm as _};
use tokio::time::Instant;

use super::close;
use super::frees::{Usage, taken_again, taken_at_once, three, use_node};
use crate::harness::{Held, MIN_PAYLOAD, PLAIN, broken, ensure, in_time, mtu, number, numbered_payload};
use crate::kind::Node;
use crate::report::{Outcome, Unmet};
use crate::testbed::Testbed;

/// Tells some messages and drops the node at once, alone and in a batch, on new nodes each time. What was told last may be
/// lost; what arrives is whole and arrives once, and the address is free soon.
pub async fn dropping_after_a_tell_harms_no_message<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    testbed.undamaged()?;
    for (round, count) in [1, 16, 1, 2, 16, 5].into_iter().enumerate() {
        let count = count.min(testbed.window() as u32);
        // Nodes of an overlay may join through the first one, which therefore stays.
        let [c, b, a] = testbed.nodes().await?;
        let (addr, dst, most) = (a.addr()?, b.addr()?, mtu(&a)?.min(8 << 10));
        if round % 2 == 1 {
            testbed
                .deliver(&a, &b, &numbered_payload(u32::MAX, PLAIN))
                .await?;
        }
        let told = |number: u32| {
            numbered_payload(
                number,
                MIN_PAYLOAD + (number as usize * 397 + round * 31) % (most - MIN_PAYLOAD),
            )
        };
        let mut batch: Vec<_> = (0..count)
            .map(|number| (dst.clone(), Packet::from(told(number))))
            .collect();
        if round % 3 == 2 {
            // What it says is another law's business.
            let _ = in_time("tell_batch", testbed.patience(), a.tell_batch(&mut batch)).await?;
        } else {
            for (dst, packet) in batch {
                let _ = in_time("a tell", testbed.patience(), a.tell(&dst, packet)).await?;
            }
        }
        drop(a);
        let mut came = BTreeMap::<u32, usize>::new();
        for message in testbed.drain(&b, usize::MAX).await? {
            let Some(number) = number(&message.payload).filter(|number| *number != u32::MAX) else {
                continue;
            };
            ensure!(
                number < count && message.payload == *told(number).as_slice(),
                "a message of {} bytes from a node that was dropped right after its tells arrived changed",
                message.payload.len()
            );
            *came.entry(number).or_default() += 1;
        }
        ensure!(
            testbed.the_profile().duplicates || came.values().all(|times| *times == 1),
            "a message from a node that was dropped right after its tell arrived more than once"
        );
        testbed
            .deliver(&c, &b, &numbered_payload(u32::MAX - 1, PLAIN))
            .await?;
        match testbed.rebound(&addr).await {
            Err(Unmet::Waived(_)) => {}
            Err(Unmet::Broken(how)) => broken!("after a node was dropped right after {count} tells, {how}"),
            Ok(node) => {
                let until = Instant::now() + testbed.the_profile().ask_patience;
                // A session of the node before may be in the way for a while.
                while let Err(Unmet::Broken(how)) = testbed
                    .deliver(&node, &b, &numbered_payload(u32::MAX - 2, PLAIN))
                    .await
                {
                    ensure!(
                        Instant::now() < until,
                        "after a node was dropped right after its tells, one at its address reaches no other: {how}"
                    );
                }
            }
        }
    }
    Ok(())
}

/// Nodes that are closed.
const TRIALS: u32 = 4;

/// Closes a node while an earlier close is held; the address is free when the second one has returned.
pub async fn a_second_close_frees_the_address_as_well<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let mut refused = 0;
    for trial in 0..TRIALS {
        let ([_a, b, c], addr) = three(testbed, trial).await?;
        let mut first = Held::new(b.close());
        let first = first.poll().is_pending().then_some(first);
        close(testbed, &b).await?;
        taken_at_once(testbed, &c, &addr, &mut refused).await?;
        if let Some(first) = first {
            in_time("the first of two closes", testbed.patience(), first.future()).await?;
        }
    }
    Ok(())
}

/// Polls `close` once and gives it up, and keeps the node: its address is free soon all the same. The nodes are
/// in every kind of use, and some have messages in flight.
pub async fn a_close_that_is_given_up_frees_the_address<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    for trial in 0..TRIALS {
        let ([a, b, c], addr) = three(testbed, trial).await?;
        if trial > 0 {
            testbed.tell_each(&b, &a.addr()?, 0..4).await?;
        }
        given_up(testbed, &b, &c, &addr).await?;
    }
    for usage in Usage::ALL {
        let [a, b, other, c] = testbed.nodes().await?;
        let addr = b.addr()?;
        let held = use_node(testbed, [&a, &b, &other], usage).await?;
        if let Err(Unmet::Broken(how)) = given_up(testbed, &b, &c, &addr).await {
            broken!("after {usage:?} and a close that was given up, {how}");
        }
        drop(held);
    }
    Ok(())
}

async fn given_up<A: Addr>(testbed: &Testbed<A>, node: &Node<A>, other: &Node<A>, addr: &A) -> Outcome {
    let _ = Held::new(node.close()).poll();
    taken_again(testbed, other, addr).await
}
