//! Laws of long exchanges: they check the statements of other laws together, on thousands of messages that
//! are told and read in mixed ways.
//!
//! All choices come from the law's generator. The messages in flight to a node are limited to what small
//! queues hold, and further ones follow when those have arrived.

mod crowd;

use p2p::{Addr, Error, Message, Packet, Swarm as _};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::{Instant, timeout};

pub use crowd::{ids_of_messages_may_wrap, many_calls_at_once_lose_nothing};

use crate::harness::{Held, PLAIN, broken, ensure, in_time, mtu, numbered_payload};
use crate::kind::Node;
use crate::ledger::Ledger;
use crate::payloads::{KINDS, contents, length};
use crate::report::Outcome;
use crate::series::{WINDOW, WINDOW_BYTES};
use crate::testbed::{Testbed, chain};

/// Maximum length of messages of an exchange.
const LONGEST: usize = 64 << 10;

/// Exchanges messages of all lengths and contents among four nodes.
pub async fn a_long_exchange_keeps_every_message<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    testbed.undamaged()?;
    let nodes: [_; 4] = testbed.nodes().await?;
    let pair = |rng: &mut StdRng| {
        let from = rng.random_range(0..4);
        (from, (from + rng.random_range(1..4)) % 4)
    };
    exchange(testbed, &nodes, LONGEST, testbed.amount(4000), pair).await
}

/// Exchanges many short messages between two nodes.
pub async fn two_nodes_exchange_thousands<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    testbed.undamaged()?;
    let nodes: [_; 2] = testbed.nodes().await?;
    let pair = |rng: &mut StdRng| {
        if rng.random_range(0..4) == 0 {
            (1, 0)
        } else {
            (0, 1)
        }
    };
    exchange(testbed, &nodes, 256, testbed.amount(6000), pair).await
}

/// Tells one reader from seven nodes; the reader tells them sometimes.
pub async fn many_senders_are_told_apart<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    testbed.undamaged()?;
    let nodes: [_; 8] = testbed.nodes().await?;
    let pair = |rng: &mut StdRng| {
        let other = rng.random_range(1..8);
        if rng.random_range(0..8) == 0 {
            (0, other)
        } else {
            (other, 0)
        }
    };
    exchange(testbed, &nodes, 1024, testbed.amount(3000), pair).await
}

/// Tells `count` messages between pairs of nodes and reads them.
async fn exchange<A: Addr>(
    testbed: &Testbed<A>,
    nodes: &[Node<A>],
    longest: usize,
    count: usize,
    pair: impl Fn(&mut StdRng) -> (usize, usize),
) -> Outcome {
    let mut exchange = Exchange::new(testbed, nodes, longest)?;
    // A slow swarm is told fewer messages, and does not fail.
    let until = Instant::now() + testbed.the_profile().limit / 4;
    let mut told = 0;
    while told < count && Instant::now() < until {
        told += exchange.tell_some(count - told, &pair).await?;
        for at in 0..nodes.len() {
            exchange.read(at).await?;
        }
    }
    exchange.end().await
}

/// The nodes of an exchange, and what they have told one another.
struct Exchange<'a, A> {
    testbed: &'a Testbed<A>,
    nodes: &'a [Node<A>],
    addrs: Vec<A>,
    ledger: Ledger<A>,
    rng: StdRng,
    mtu: usize,
    longest: usize,
}

/// Messages of one sender, with their destination nodes.
type Batch = Vec<(usize, Vec<u8>)>;

impl<'a, A: Addr> Exchange<'a, A> {
    fn new(testbed: &'a Testbed<A>, nodes: &'a [Node<A>], longest: usize) -> Outcome<Self> {
        let mtu = mtu(&nodes[0])?;
        Ok(Self {
            testbed,
            nodes,
            addrs: nodes.iter().map(Node::addr).collect::<Outcome<_>>()?,
            ledger: Ledger::new(testbed.the_profile(), nodes),
            rng: testbed.rng(),
            mtu,
            longest: testbed.longest(&nodes[0])?.min(longest),
        })
    }

    /// Returns whether a message of `len` bytes may be told to this node now.
    fn has_room(&self, to: usize, len: usize) -> bool {
        let (count, bytes) = self.ledger.open(to);
        count == 0 || (count < self.testbed.window() && bytes + len <= WINDOW_BYTES)
    }

    /// Returns whether messages to this node are in flight.
    fn is_open(&self, to: usize) -> bool {
        self.ledger.open(to).0 > 0
    }

    /// Returns the contents of a message that is told now.
    fn payload(&mut self, from: usize, to: usize, len: usize) -> Vec<u8> {
        let kind = self.rng.random_range(0..KINDS);
        let payload = contents(&mut self.rng, kind, len);
        self.ledger.tell(from, to, &payload);
        payload
    }

    /// Tells up to `most` messages, some alone and some in batches; returns their number.
    async fn tell_some(
        &mut self,
        most: usize,
        pair: impl Fn(&mut StdRng) -> (usize, usize),
    ) -> Outcome<usize> {
        let mut batches: Vec<Batch> = vec![Batch::new(); self.nodes.len()];
        let wanted = self.rng.random_range(1..=2 * WINDOW).min(most);
        for _ in 0..wanted {
            let (from, to) = pair(&mut self.rng);
            let len = length(&mut self.rng, self.longest);
            if !self.has_room(to, len) {
                continue;
            }
            let payload = self.payload(from, to, len);
            match self.rng.random_range(0..12) {
                0..5 => batches[from].push((to, payload)),
                5 => self.tell_and_cancel(from, to, &payload),
                _ => self.tell(from, to, &payload).await?,
            }
        }
        for (from, batch) in batches.into_iter().enumerate() {
            if !batch.is_empty() {
                self.tell_batch(from, batch).await?;
            }
        }
        Ok(wanted)
    }

    async fn tell(&mut self, from: usize, to: usize, payload: &[u8]) -> Outcome {
        let tell = self.nodes[from].tell(&self.addrs[to], Packet::from(payload));
        match in_time("a tell", self.testbed.patience(), tell).await? {
            Ok(()) => Ok(()),
            Err(error) => self.refused(from, to, payload, &error),
        }
    }

    /// Handles a tell that failed.
    fn refused(&mut self, from: usize, to: usize, payload: &[u8], error: &Error) -> Outcome {
        ensure!(
            !self.testbed.lossless(),
            "a tell of {} bytes failed: {}",
            payload.len(),
            chain(error)
        );
        self.ledger.refused(from, to, payload);
        Ok(())
    }

    fn tell_and_cancel(&mut self, from: usize, to: usize, payload: &[u8]) {
        let mut tell = Held::new(self.nodes[from].tell(&self.addrs[to], Packet::from(payload)));
        for _ in 0..self.rng.random_range(0..3) {
            if let std::task::Poll::Ready(told) = tell.poll() {
                if told.is_err() {
                    self.ledger.refused(from, to, payload);
                }
                return;
            }
        }
        drop(tell);
        self.ledger.doubt(from, to, payload);
    }

    async fn tell_batch(&mut self, from: usize, batch: Batch) -> Outcome {
        let packets = batch
            .iter()
            .map(|(to, payload)| (self.addrs[*to].clone(), Packet::from(&payload[..])));
        let mut packets: Vec<_> = packets.collect();
        let mut over = 0;
        if self.rng.random_range(0..4) == 0 {
            over = self.rng.random_range(1..=3);
            for _ in 0..over {
                let at = self.rng.random_range(0..=packets.len());
                let packet = Packet::from(&vec![0x5a; self.mtu + self.rng.random_range(1..64)][..]);
                packets.insert(at, (self.addrs[batch[0].0].clone(), packet));
            }
        }
        let told = self.nodes[from].tell_batch(&mut packets);
        let told = in_time("tell_batch", self.testbed.patience(), told).await?;
        ensure!(
            packets.is_empty(),
            "{} messages are left in a batch that was told",
            packets.len()
        );
        let refused = told.as_ref().err().map_or(0, |error| error.refused);
        if self.testbed.lossless() {
            ensure!(
                refused == over,
                "of a batch of {} messages and {over} over the MTU {refused} were refused",
                batch.len()
            );
        } else if refused > over {
            // The error does not name them.
            for (to, payload) in &batch {
                self.ledger.doubt(from, *to, payload);
            }
        }
        Ok(())
    }

    /// Reads the messages in flight to a node, in random ways.
    async fn read(&mut self, at: usize) -> Outcome {
        let node = &self.nodes[at];
        let mut out: Vec<Message<A>> = Vec::new();
        while self.is_open(at) {
            let polls = self.rng.random_range(0..3);
            let max = self.rng.random_range(1..=65);
            let kept: Vec<_> = out.iter().take(self.rng.random_range(0..3)).cloned().collect();
            out = kept.clone();
            let mut taken = None;
            match self.rng.random_range(0..8) {
                0..3 => match timeout(self.testbed.quiet(), node.receive()).await {
                    Ok(message) => out.push(message?),
                    Err(_) => self.none_came(at)?,
                },
                3..6 => match timeout(self.testbed.quiet(), node.receive_batch(&mut out, max)).await {
                    Ok(count) => taken = Some(count?),
                    Err(_) => self.none_came(at)?,
                },
                6 => {
                    let mut receive = Held::new(node.receive());
                    for _ in 0..polls {
                        if let std::task::Poll::Ready(message) = receive.poll() {
                            out.push(message?);
                            break;
                        }
                    }
                }
                _ => {
                    let mut receive = Held::new(node.receive_batch(&mut out, max));
                    for _ in 0..polls {
                        if let std::task::Poll::Ready(count) = receive.poll() {
                            taken = Some(count?);
                            break;
                        }
                    }
                }
            }
            ensure!(
                out.starts_with(&kept),
                "receive_batch changed the {} messages that were in its buffer",
                kept.len()
            );
            let added = out.len() - kept.len();
            if let Some(taken) = taken {
                ensure!(
                    taken == added && (1..=max).contains(&added),
                    "receive_batch with a maximum of {max} returned {taken} and added {added} messages"
                );
            }
            for message in &out[kept.len()..] {
                self.ledger.came(at, node, message)?;
            }
        }
        Ok(())
    }

    /// Handles the case that nothing arrived within the timeout.
    fn none_came(&mut self, at: usize) -> Outcome {
        let lost = self.ledger.give_up(at);
        ensure!(
            self.testbed.may_lose(),
            "{lost} messages to node {at} did not arrive within {:?}",
            self.testbed.quiet()
        );
        Ok(())
    }

    /// Checks late and duplicate arrivals, and losses.
    async fn settle(&mut self) -> Outcome {
        for (at, node) in self.nodes.iter().enumerate() {
            for message in self.testbed.drain(node, usize::MAX).await? {
                self.ledger.came(at, node, &message)?;
            }
        }
        self.ledger.settle()
    }

    /// Checks the same, and sources that are not local addresses.
    async fn end(mut self) -> Outcome {
        self.settle().await?;
        for (number, (addr, sender)) in self.ledger.unproven().into_iter().take(WINDOW).enumerate() {
            let from = &self.nodes[(sender + 1) % self.nodes.len()];
            let told = numbered_payload(number as u32, PLAIN);
            let came = self
                .testbed
                .deliver_at(from, &addr, &self.nodes[sender], &told)
                .await;
            if let Err(error) = came {
                broken!("{addr}, the source of messages from node {sender}, cannot be told: {error}");
            }
        }
        Ok(())
    }
}
