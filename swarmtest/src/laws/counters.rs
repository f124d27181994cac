//! Laws of counters, for swarms that have them.

mod lasting;

pub use lasting::{they_never_fall, what_waits_at_close_is_counted};

use futures_util::future::try_join_all;
use p2p::{Addr, CounterSnapshot, Packet, Swarm as _};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::{Instant, timeout};

use crate::harness::{PLAIN, ensure, in_time, mtu, numbered_payload, settle};
use crate::kind::Node;
use crate::profile::Effort;
use crate::report::{Outcome, Unmet};
use crate::testbed::Testbed;

/// Returns the counters of a node's layers, the top layer first.
fn snapshots<A: Addr>(node: &Node<A>) -> Vec<CounterSnapshot> {
    let mut snapshots = Vec::new();
    node.visit_counters(&mut |counters| snapshots.push(counters.snapshot()));
    snapshots
}

/// Returns the counters of a node's top layer.
fn top<A: Addr>(node: &Node<A>) -> Outcome<CounterSnapshot> {
    let first = snapshots(node).into_iter().next();
    first.ok_or_else(|| Unmet::Waived("the swarm has no counters".into()))
}

/// Sums of the counters of nodes: messages that their top layers sent and delivered, and that all layers
/// duplicated and dropped.
#[derive(Default)]
struct Sums {
    sent: u64,
    delivered: u64,
    duplicated: u64,
    /// Messages that the top layers alone duplicated.
    doubled: u64,
    dropped: u64,
}

fn sums<A: Addr>(nodes: &[Node<A>]) -> Sums {
    let mut sums = Sums::default();
    for node in nodes {
        let layers = snapshots(node);
        sums.sent += layers.first().map_or(0, |top| top.sent);
        sums.delivered += layers.first().map_or(0, |top| top.delivered);
        sums.doubled += layers.first().map_or(0, |top| top.duplicated);
        sums.duplicated += layers.iter().map(|layer| layer.duplicated).sum::<u64>();
        sums.dropped += layers.iter().map(CounterSnapshot::dropped_total).sum::<u64>();
    }
    sums
}

/// Returns the drops in all layers of both nodes.
fn dropped<A: Addr>(nodes: [&Node<A>; 2]) -> u64 {
    nodes
        .into_iter()
        .flat_map(snapshots)
        .map(|snapshot| snapshot.dropped_total())
        .sum()
}

/// Compares successful tells with the counter, one at a time and in batches, some of them refused.
pub async fn sent_is_what_left<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let (dst, before, most) = (b.addr()?, top(&a)?.sent, mtu(&a)?);
    let packet = |number, len| Packet::from(numbered_payload(number, len).as_slice());
    let mut told = 0;
    let mut rng = testbed.rng();
    for round in 0..testbed.amount(60) as u32 {
        for number in 0..8 {
            // A refused message does not count.
            let len = if number == 7 { most + 1 } else { PLAIN };
            let tell = a.tell(&dst, packet(number, len));
            told += u64::from(in_time("a tell", testbed.patience(), tell).await?.is_ok());
        }
        let count = if round == 0 { 3 } else { rng.random_range(0..=100) };
        let mut batch: Vec<_> = (0..count)
            .map(|number| (dst.clone(), packet(number, PLAIN)))
            .collect();
        if round % 3 == 1 {
            let at = rng.random_range(0..=batch.len());
            batch.insert(at, (dst.clone(), packet(0, most + 1)));
        }
        told += match in_time("tell_batch", testbed.patience(), a.tell_batch(&mut batch)).await? {
            Ok(()) => u64::from(count),
            Err(error) => error.sent as u64,
        };
        settle(testbed).await;
        let sent = top(&a)?.sent - before;
        ensure!(
            sent == told,
            "{told} tells succeeded, and the counter of sent messages grew by {sent}"
        );
    }
    Ok(())
}

/// Compares received messages with the counter: before any is read, and after single messages and batches.
pub async fn delivered_is_what_was_received<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let (dst, before) = (b.addr()?, top(&b)?.delivered);
    let mut received = 0;
    for round in 0..testbed.amount(60) {
        // Now and then as many as a large batch takes, where they may wait.
        let count = if round % 5 == 4 {
            testbed.the_profile().holds.clamp(8, 60)
        } else {
            8
        };
        testbed.tell_each(&a, &dst, 0..count as u32).await?;
        let single = round % 3 == 0;
        let mut out = Vec::new();
        while out.len() < count {
            let came = if single {
                let message = timeout(testbed.settle(), b.receive()).await;
                message.map(|message| message.map(|message| out.push(message)))
            } else {
                let taken = b.receive_batch(&mut out, [1 + round % 7, 64][usize::from(count > 8)]);
                timeout(testbed.settle(), taken)
                    .await
                    .map(|taken| taken.map(drop))
            };
            let Ok(came) = came else { break };
            came?;
            let delivered = top(&b)?.delivered - before;
            let now = received + out.len() as u64;
            ensure!(
                delivered == now,
                "{now} messages were received, and the counter of delivered messages grew by {delivered}"
            );
        }
        received += out.len() as u64;
        settle(testbed).await;
        let delivered = top(&b)?.delivered - before;
        ensure!(
            delivered == received,
            "{received} messages were received, and the counter of delivered messages grew by {delivered}"
        );
    }
    Ok(())
}

/// Floods a node that does not receive, reads the rest, and expects the others among the drops; then tells it
/// in large batches.
pub async fn every_drop_is_counted<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    top(&a)?;
    let dst = b.addr()?;
    let before = dropped([&a, &b]);
    let results = testbed.flood(&a, &dst).await;
    let mut told = results.iter().filter(|result| result.is_ok()).count() as u64;
    // Messages in flight arrive in time.
    let accounted = async |told: u64, mut received: u64| {
        let until = Instant::now() + testbed.patience();
        loop {
            received += testbed.drain(&b, usize::MAX).await?.len() as u64;
            let lost = dropped([&a, &b]) - before;
            if received + lost >= told {
                return Ok::<_, Unmet>(received);
            }
            ensure!(
                Instant::now() < until,
                "{told} messages left and {received} were received, but only {lost} drops were counted"
            );
        }
    };
    let mut received = accounted(told, 0).await?;
    let mut rng = testbed.rng();
    for _ in 0..testbed.amount(20) {
        let count = rng.random_range(1..=200);
        let mut batch = (0..count)
            .map(|number| {
                (
                    dst.clone(),
                    Packet::from(numbered_payload(number, PLAIN).as_slice()),
                )
            })
            .collect();
        told += match in_time("tell_batch", testbed.patience(), a.tell_batch(&mut batch)).await? {
            Ok(()) => u64::from(count),
            Err(error) => error.sent as u64,
        };
        received = accounted(told, received).await?;
    }
    Ok(())
}

/// Tells among several nodes in small bursts, and sums all counters after all arrivals were read. In the end
/// one node closes while messages wait for it, and others go on to tell it: if one message to it is counted
/// as dropped then, all must be.
pub async fn they_balance_over_all_nodes<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let nodes: [_; 4] = testbed.nodes().await?;
    top(&nodes[0])?;
    let addrs = nodes.iter().map(Node::addr).collect::<Outcome<Vec<A>>>()?;
    let mut balance = Balance {
        testbed,
        layers: snapshots(&nodes[0]).len(),
        start: sums(&nodes),
        nodes: &nodes,
        addrs,
        rng: testbed.rng(),
        number: 0,
    };
    // Each burst waits until it is over, and a quick run is over within a second.
    let bursts = match testbed.the_profile().effort {
        Effort::Quick => 6,
        effort => effort.amount(120),
    };
    for _ in 0..bursts {
        balance.burst(None).await?;
        balance.read(4, 0).await?;
    }
    balance.burst(Some(3)).await?;
    settle(testbed).await;
    in_time("close", testbed.patience(), nodes[3].close()).await?;
    // Messages that waited there may be missing in all counters, if the medium below does not count its
    // drops.
    balance.rest().await?;
    let (before, now) = (balance.open(), dropped([&nodes[0], &nodes[1]]));
    // As many as a lossy medium does not drop by chance.
    let probes = testbed.again(PLAIN).least();
    for _ in 0..probes {
        let packet = Packet::from(&numbered_payload(u32::MAX, PLAIN)[..]);
        let _ = nodes[0].tell(&balance.addrs[3], packet).await;
    }
    balance.rest().await?;
    if dropped([&nodes[0], &nodes[1]]) >= now + probes as u64 {
        for _ in 0..testbed.amount(20) {
            balance.burst(Some(3)).await?;
            balance.read(3, before).await?;
        }
    }
    Ok(())
}

/// Traffic whose counters are summed.
struct Balance<'a, A> {
    testbed: &'a Testbed<A>,
    nodes: &'a [Node<A>],
    addrs: Vec<A>,
    layers: usize,
    start: Sums,
    rng: StdRng,
    number: u32,
}

impl<'a, A: Addr> Balance<'a, A> {
    /// Tells some messages, alone and in batches: to any node, sequentially; or to this one, concurrently,
    /// since a call takes as long as a search if the node is closed.
    async fn burst(&mut self, only: Option<usize>) -> Outcome {
        let (mut room, mut calls) = (self.testbed.window(), Vec::new());
        while room > 0 {
            let from = self.rng.random_range(0..3);
            let to = only.unwrap_or((from + self.rng.random_range(1..4)) % 4);
            let count = if self.rng.random_range(0..4) == 0 {
                room.min(5)
            } else {
                1
            };
            room -= count;
            let mut batch = Vec::new();
            for _ in 0..count {
                self.number += 1;
                let packet = Packet::from(&numbered_payload(self.number, PLAIN)[..]);
                batch.push((self.addrs[to].clone(), packet));
            }
            calls.push(self.call(from, batch));
        }
        if only.is_some() {
            return try_join_all(calls).await.map(drop);
        }
        for call in calls {
            call.await?;
        }
        Ok(())
    }

    /// Tells one message or a batch. A refused message is not sent, and not counted.
    fn call(&self, from: usize, mut batch: Vec<(A, Packet)>) -> impl Future<Output = Outcome> + use<'a, A> {
        let (node, limit) = (&self.nodes[from], self.testbed.patience());
        async move {
            if let [(dst, packet)] = &batch[..] {
                let _ = in_time("a tell", limit, node.tell(dst, packet.clone())).await?;
            } else {
                let _ = in_time("tell_batch", limit, node.tell_batch(&mut batch)).await?;
            }
            Ok(())
        }
    }

    /// Returns the numbers of messages sent or duplicated, delivered, and dropped.
    fn sums(&self) -> [u64; 3] {
        let end = sums(self.nodes);
        [
            (end.sent - self.start.sent) + (end.duplicated - self.start.duplicated),
            end.delivered - self.start.delivered,
            end.dropped - self.start.dropped,
        ]
    }

    /// Returns the number of messages without a counted end.
    fn open(&self) -> u64 {
        let [_, delivered, dropped] = self.sums();
        self.due().saturating_sub(delivered + dropped)
    }

    /// Returns the number of messages that must be delivered or dropped. If nothing arrives twice, a layer
    /// may treat duplicates from below as the same message, as retransmitting layers do.
    fn due(&self) -> u64 {
        let (start, end) = (&self.start, sums(self.nodes));
        let copies = if self.testbed.the_profile().duplicates {
            end.duplicated - start.duplicated
        } else {
            end.doubled - start.doubled
        };
        (end.sent - start.sent) + copies
    }

    /// Reads the waiting messages.
    async fn rest(&self) -> Outcome {
        for node in &self.nodes[..3] {
            self.testbed.drain(node, usize::MAX).await?;
        }
        Ok(())
    }

    /// Reads at the first `readers` nodes until all but `lost` messages are accounted for.
    async fn read(&self, readers: usize, lost: u64) -> Outcome {
        let started = Instant::now();
        loop {
            let mut came = 0;
            let before = sums(self.nodes).delivered;
            for node in &self.nodes[..readers] {
                came += self.testbed.drain(node, usize::MAX).await?.len() as u64;
            }
            let after = sums(self.nodes).delivered;
            ensure!(
                after - before == came,
                "{came} messages were read, and the counters of delivered messages grew by {}",
                after - before
            );
            let [made, delivered, dropped] = self.sums();
            ensure!(
                delivered <= made,
                "{made} messages were sent or duplicated, and {delivered} delivered"
            );
            // If only one layer counts, nothing is counted twice.
            let exact = self.layers > 1 || lost > 0 || delivered + dropped <= made;
            if delivered + dropped + lost >= self.due() && exact {
                return Ok(());
            }
            ensure!(
                exact && started.elapsed() < self.testbed.patience(),
                "{made} messages were sent or duplicated and all were read, but {delivered} were delivered and {dropped} dropped"
            );
        }
    }
}
