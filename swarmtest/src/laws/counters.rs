//! Laws of the counters, for swarms that show them.

use futures_util::future::try_join_all;
use p2p::{Addr, Packet, Snapshot, Swarm as _};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::{Instant, timeout};

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

/// The counters of nodes added up: what their top layers sent and delivered, and what all layers duplicated and dropped.
#[derive(Default)]
struct Sums {
    sent: u64,
    delivered: u64,
    duplicated: u64,
    /// What the top layers alone duplicated.
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
        sums.dropped += layers.iter().map(Snapshot::dropped_total).sum::<u64>();
    }
    sums
}

/// Drops in all layers of both nodes.
fn dropped<A: Addr>(nodes: [&Node<A>; 2]) -> u64 {
    nodes
        .into_iter()
        .flat_map(snapshots)
        .map(|snapshot| snapshot.dropped_total())
        .sum()
}

/// Compares tells that succeeded with the counter, one at a time and in batches, with refused ones among them.
pub async fn sent_is_what_left<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let (dst, before, most) = (b.addr()?, top(&a)?.sent, mtu(&a)?);
    let packet = |number, len| Packet::from(letter(number, len).as_slice());
    let mut told = 0;
    let mut rng = bed.rng();
    for round in 0..bed.amount(60) as u32 {
        for number in 0..8 {
            // One that is refused counts as nothing.
            let len = if number == 7 { most + 1 } else { PLAIN };
            let tell = a.tell(&dst, packet(number, len));
            told += u64::from(in_time("a tell", bed.patience(), tell).await?.is_ok());
        }
        let count = if round == 0 { 3 } else { rng.random_range(0..=100) };
        let mut batch: Vec<_> = (0..count)
            .map(|number| (dst.clone(), packet(number, PLAIN)))
            .collect();
        if round % 3 == 1 {
            let at = rng.random_range(0..=batch.len());
            batch.insert(at, (dst.clone(), packet(0, most + 1)));
        }
        told += match in_time("tell_batch", bed.patience(), a.tell_batch(&mut batch)).await? {
            Ok(()) => u64::from(count),
            Err(error) => error.sent as u64,
        };
        settle(bed).await;
        let sent = top(&a)?.sent - before;
        ensure!(
            sent == told,
            "{told} tells succeeded, and the counter of sent messages grew by {sent}"
        );
    }
    Ok(())
}

/// Compares what a reader received with the counter: before it reads, and after single messages and batches.
pub async fn delivered_is_what_was_received<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let (dst, before) = (b.addr()?, top(&b)?.delivered);
    let mut received = 0;
    for round in 0..bed.amount(60) {
        bed.tell_each(&a, &dst, 0..8).await?;
        let single = round % 3 == 0;
        let mut out = Vec::new();
        while out.len() < 8 {
            let came = if single {
                let message = timeout(bed.settle(), b.receive()).await;
                message.map(|message| message.map(|message| out.push(message)))
            } else {
                let taken = b.receive_batch(&mut out, 1 + round % 7);
                timeout(bed.settle(), taken).await.map(|taken| taken.map(drop))
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
        settle(bed).await;
        let delivered = top(&b)?.delivered - before;
        ensure!(
            delivered == received,
            "{received} messages were received, and the counter of delivered messages grew by {delivered}"
        );
    }
    Ok(())
}

/// Floods a node that does not read, reads what is left, and looks for the rest among the drops; then tells it in large
/// batches.
pub async fn every_drop_is_counted<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    top(&a)?;
    let dst = b.addr()?;
    let before = dropped([&a, &b]);
    let results = bed.flood(&a, &dst).await;
    let mut told = results.iter().filter(|result| result.is_ok()).count() as u64;
    // What is on its way arrives in time.
    let accounted = async |told: u64, mut received: u64| {
        let until = Instant::now() + bed.patience();
        loop {
            received += bed.drain(&b, usize::MAX).await?.len() as u64;
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
    let mut rng = bed.rng();
    for _ in 0..bed.amount(20) {
        let count = rng.random_range(1..=200);
        let mut batch = (0..count)
            .map(|number| (dst.clone(), Packet::from(letter(number, PLAIN).as_slice())))
            .collect();
        told += match in_time("tell_batch", bed.patience(), a.tell_batch(&mut batch)).await? {
            Ok(()) => u64::from(count),
            Err(error) => error.sent as u64,
        };
        received = accounted(told, received).await?;
    }
    Ok(())
}

/// Tells among several nodes in small bursts, and adds up all counters when all that came was read. In the end one node closes
/// while messages wait for it, and others go on to tell it: where one that is told then is counted as dropped, all are.
pub async fn they_balance_over_all_nodes<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let nodes: [_; 4] = bed.nodes().await?;
    top(&nodes[0])?;
    let addrs = nodes.iter().map(Node::addr).collect::<Outcome<Vec<A>>>()?;
    let mut balance = Balance {
        bed,
        layers: snapshots(&nodes[0]).len(),
        start: sums(&nodes),
        nodes: &nodes,
        addrs,
        rng: bed.rng(),
        number: 0,
    };
    for _ in 0..bed.amount(60) {
        balance.burst(None).await?;
        balance.read(4, 0).await?;
    }
    balance.burst(Some(3)).await?;
    settle(bed).await;
    in_time("close", bed.patience(), nodes[3].close()).await?;
    // What waited there may be lost to all counters, where the medium beneath does not say what it drops.
    balance.rest().await?;
    let (before, now) = (balance.open(), dropped([&nodes[0], &nodes[1]]));
    // As many as a medium that loses does not drop by chance.
    let probes = bed.again(PLAIN).least();
    for _ in 0..probes {
        let packet = Packet::from(&letter(u32::MAX, PLAIN)[..]);
        let _ = nodes[0].tell(&balance.addrs[3], packet).await;
    }
    balance.rest().await?;
    if dropped([&nodes[0], &nodes[1]]) >= now + probes as u64 {
        for _ in 0..bed.amount(20) {
            balance.burst(Some(3)).await?;
            balance.read(3, before).await?;
        }
    }
    Ok(())
}

/// Traffic whose counters are added up.
struct Balance<'a, A> {
    bed: &'a Testbed<A>,
    nodes: &'a [Node<A>],
    addrs: Vec<A>,
    layers: usize,
    start: Sums,
    rng: StdRng,
    number: u32,
}

impl<'a, A: Addr> Balance<'a, A> {
    /// Tells some messages, alone and in batches: to any node, one call after another; or to this one, side by side, since a
    /// call takes as long as a search where the node is gone.
    async fn burst(&mut self, only: Option<usize>) -> Outcome {
        let (mut room, mut calls) = (self.bed.window(), Vec::new());
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
                let packet = Packet::from(&letter(self.number, PLAIN)[..]);
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

    /// Tells one message or a batch. What is refused is not sent, and the counters say so.
    fn call(&self, from: usize, mut batch: Vec<(A, Packet)>) -> impl Future<Output = Outcome> + use<'a, A> {
        let (node, limit) = (&self.nodes[from], self.bed.patience());
        async move {
            if let [(dst, packet)] = &batch[..] {
                let _ = in_time("a tell", limit, node.tell(dst, packet.clone())).await?;
            } else {
                let _ = in_time("tell_batch", limit, node.tell_batch(&mut batch)).await?;
            }
            Ok(())
        }
    }

    /// Messages sent or duplicated, delivered, and dropped.
    fn sums(&self) -> [u64; 3] {
        let end = sums(self.nodes);
        [
            (end.sent - self.start.sent) + (end.duplicated - self.start.duplicated),
            end.delivered - self.start.delivered,
            end.dropped - self.start.dropped,
        ]
    }

    /// Messages that no counter says the end of.
    fn open(&self) -> u64 {
        let [_, delivered, dropped] = self.sums();
        self.due().saturating_sub(delivered + dropped)
    }

    /// Messages that must be delivered or dropped. Where nothing arrives twice, a layer may take the copies that were made
    /// below it for the same message, as those do that send again what was lost.
    fn due(&self) -> u64 {
        let (start, end) = (&self.start, sums(self.nodes));
        let copies = if self.bed.the_profile().duplicates {
            end.duplicated - start.duplicated
        } else {
            end.doubled - start.doubled
        };
        (end.sent - start.sent) + copies
    }

    /// Reads what is there.
    async fn rest(&self) -> Outcome {
        for node in &self.nodes[..3] {
            self.bed.drain(node, usize::MAX).await?;
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
                came += self.bed.drain(node, usize::MAX).await?.len() as u64;
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
            // Where one layer alone counts, nothing is counted twice.
            let exact = self.layers > 1 || lost > 0 || delivered + dropped <= made;
            if delivered + dropped + lost >= self.due() && exact {
                return Ok(());
            }
            ensure!(
                exact && started.elapsed() < self.bed.patience(),
                "{made} messages were sent or duplicated and all were read, but {delivered} were delivered and {dropped} dropped"
            );
        }
    }
}
