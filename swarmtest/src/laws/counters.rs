//! Laws of the counters, for swarms that show them.

use p2p::{Addr, Packet, Snapshot, Swarm as _};

use crate::field::{PLAIN, ensure, in_time, letter, mtu, settle};
use crate::kind::Node;
use crate::report::{Outcome, Unmet};
use crate::testbed::Testbed;

/// The counters of a node, the top layer's first.
fn snapshots<A: Addr>(node: &Node<A>) -> Vec<Snapshot> {
    let mut snapshots = Vec::new();
    node.visit_counters(&mut |counters| snapshots.push(counters.snapshot()));
    snapshots
}

/// The counters of a node's top layer.
fn top<A: Addr>(node: &Node<A>) -> Outcome<Snapshot> {
    let first = snapshots(node).into_iter().next();
    first.ok_or_else(|| Unmet::Waived("the swarm shows no counters".into()))
}

/// Drops in all layers of both nodes.
fn dropped<A: Addr>(nodes: [&Node<A>; 2]) -> u64 {
    nodes
        .into_iter()
        .flat_map(snapshots)
        .map(|snapshot| snapshot.dropped_total())
        .sum()
}

/// Compares tells that succeeded with the counter, one at a time and as a batch.
pub async fn sent_is_what_left<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let (dst, before) = (b.addr()?, top(&a)?.sent);
    let packet = |number, len| Packet::from(letter(number, len).as_slice());
    let mut told = 0;
    for number in 0..8 {
        told += u64::from(
            in_time("a tell", bed.patience(), a.tell(&dst, packet(number, PLAIN)))
                .await?
                .is_ok(),
        );
    }
    // One that is refused counts as nothing.
    let over = packet(8, mtu(&a)? + 1);
    told += u64::from(
        in_time("a tell", bed.patience(), a.tell(&dst, over))
            .await?
            .is_ok(),
    );
    let mut batch = (9..12)
        .map(|number| (dst.clone(), packet(number, PLAIN)))
        .collect();
    told += match in_time("tell_batch", bed.patience(), a.tell_batch(&mut batch)).await? {
        Ok(()) => 3,
        Err(error) => error.sent as u64,
    };
    settle(bed).await;
    let sent = top(&a)?.sent - before;
    ensure!(
        sent == told,
        "{told} tells succeeded, and the counter of sent messages grew by {sent}"
    );
    Ok(())
}

/// Compares what a reader received with the counter.
pub async fn delivered_is_what_was_received<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let (dst, before) = (b.addr()?, top(&b)?.delivered);
    bed.tell_each(&a, &dst, 0..8).await?;
    let received = bed.drain(&b, usize::MAX).await?.len() as u64;
    let delivered = top(&b)?.delivered - before;
    ensure!(
        delivered == received,
        "{received} messages were received, and the counter of delivered messages grew by {delivered}"
    );
    Ok(())
}

/// Floods a node that does not read, reads what is left, and looks for the rest among the drops.
pub async fn every_drop_is_counted<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    top(&a)?;
    let before = dropped([&a, &b]);
    let results = bed.flood(&a, &b.addr()?).await;
    let told = results.iter().filter(|result| result.is_ok()).count() as u64;
    let received = bed.drain(&b, usize::MAX).await?.len() as u64;
    let lost = dropped([&a, &b]) - before;
    ensure!(
        received + lost >= told,
        "{told} messages left and {received} were received, but only {lost} drops were counted"
    );
    Ok(())
}
