//! Counters over the whole life of a node.

use p2p::{Addr, CounterSnapshot, Swarm as _};
use tokio::time::Instant;

use super::{snapshots, sums, top};
use crate::harness::{PLAIN, ensure, in_time, numbered_payload, settle};
use crate::kind::Node;
use crate::laws::Law;
use crate::report::{Outcome, Unmet};
use crate::testbed::Testbed;

/// What counters of a node counted, in all layers: sent, received, delivered, duplicated and dropped.
fn all<A: Addr>(node: &Node<A>) -> [u64; 5] {
    let mut sum = CounterSnapshot::default();
    for snapshot in snapshots(node) {
        sum += snapshot;
    }
    [
        sum.sent,
        sum.received,
        sum.delivered,
        sum.duplicated,
        sum.dropped_total(),
    ]
}

/// Looks at the counters of two nodes after messages in both directions, after a flood, and after `close`.
pub async fn they_never_fall<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let nodes: [_; 2] = testbed.nodes().await?;
    top(&nodes[0])?;
    let mut last = [all(&nodes[0]), all(&nodes[1])];
    let mut look = |when: &str| {
        for (node, last) in nodes.iter().zip(&mut last) {
            let now = all(node);
            ensure!(
                now.iter().zip(&*last).all(|(now, last)| now >= last),
                "counters of sent, received, delivered, duplicated and dropped went from {last:?} to {now:?} {when}"
            );
            *last = now;
        }
        Ok(())
    };
    let [a, b] = &nodes;
    for _ in 0..testbed.amount(30) {
        testbed.series(a, b, &[PLAIN; 12], |_, _| Ok(())).await?;
        testbed.series(b, a, &[PLAIN; 3], |_, _| Ok(())).await?;
        look("while two nodes talked")?;
    }
    testbed.flood(a, &b.addr()?).await;
    settle(testbed).await;
    look("in a flood")?;
    in_time("close", testbed.patience(), b.close()).await?;
    look("when one of two nodes closed")?;
    in_time("close", testbed.patience(), a.close()).await?;
    look("when both nodes closed")
}

/// Tells a node that does not read, and closes it: all that it had is counted.
pub async fn what_waits_at_close_is_counted<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    // What a medium drops without a count, it drops at close as well.
    let counted = Law::named("counters::every_drop_is_counted");
    if let Some(why) = counted.and_then(|law| testbed.the_profile().waiver(law)) {
        return Err(Unmet::Waived(why.to_owned()));
    }
    for round in 0..testbed.amount(6) as u32 {
        let nodes: [_; 2] = testbed.nodes().await?;
        let [a, b] = &nodes;
        top(a)?;
        testbed.deliver(a, b, &numbered_payload(u32::MAX, PLAIN)).await?;
        testbed.drain(b, usize::MAX).await?;
        let before = sums(&nodes);
        let count = (1 + 5 * round).min(testbed.window() as u32);
        testbed.tell_each(a, &b.addr()?, 0..count).await?;
        settle(testbed).await;
        in_time("close", testbed.patience(), b.close()).await?;
        // A medium with a delay brings messages to the closed node later.
        let begin = Instant::now();
        let (sent, ended) = loop {
            settle(testbed).await;
            let after = sums(&nodes);
            let sent = after.sent - before.sent;
            let ended = after.delivered - before.delivered + after.dropped - before.dropped;
            if ended >= sent || begin.elapsed() >= testbed.patience() {
                break (sent, ended);
            }
        };
        ensure!(
            ended >= sent,
            "{sent} messages were sent to a node that closed without reading, and {ended} counted as dropped"
        );
    }
    Ok(())
}
