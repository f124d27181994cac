//! Gossipsub beside rust-libp2p's, over the memory transport of each: messages per second between two nodes,
//! and the cost of a message among twenty.
//!
//! `cargo bench -p p2p-swarms-bench-libp2p --bench gossip [-- NAME…] [rounds=N]`, with names `pair`, `many`, `signed`,
//! `unsigned`; `ours` runs this library only, for a profiler. Messages have 1 KiB. Only delivered messages
//! count, all published messages are delivered, and both sides use the same mesh parameters. The two
//! alternate, on two threads; a figure is the median of the rounds. Processor time is that of all threads of
//! the process, per delivered message.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "counts are far below 2^52, and figures have three digits"
)]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

mod ours;
mod peer;

const TOPIC: &str = "bench";
const LEN: usize = 1024;
const ROUNDS: usize = 5;
/// Maximum number of messages in flight between a pair.
const WINDOW: usize = 1024;
/// Delivered messages are credited in groups of this size.
const CREDIT: usize = 64;

const NODES: usize = 20;
/// Messages per second of all nodes together.
const RATE: u64 = 500;
const SECONDS: u64 = 2;

/// The progress of deliveries.
struct Progress {
    delivered: AtomicU64,
    /// Room for more messages in flight.
    credit: Semaphore,
    /// Nodes that know all others.
    ready: Semaphore,
}

impl Progress {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            delivered: AtomicU64::new(0),
            credit: Semaphore::new(WINDOW),
            ready: Semaphore::new(0),
        })
    }

    fn deliver(&self, len: usize) {
        assert_eq!(len, LEN);
        let delivered = self.delivered.fetch_add(1, Ordering::Relaxed) + 1;
        if delivered.is_multiple_of(CREDIT as u64) {
            self.credit.add_permits(CREDIT);
        }
    }

    fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }
}

/// Returns a message's data: its number, different for each message.
fn payload(number: u64) -> Vec<u8> {
    let mut data = vec![0; LEN];
    data[..8].copy_from_slice(&number.to_be_bytes());
    data
}

/// Returns the processor time of all live threads in microseconds.
fn processor() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
    let nanos = tasks.map(|task| -> u64 {
        let path = task.expect("a thread").path().join("schedstat");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let first = text.split_whitespace().next();
        first.and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
    });
    nanos.sum::<u64>() as f64 / 1e3
}

/// Messages per second, and microseconds of processor time for each.
struct Figures {
    rate: f64,
    cost: f64,
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("threads")
}

/// Nodes that know each other.
trait Nodes: Send + Sync + 'static {
    /// Publishes messages with these numbers from one node, as many at a time as its library accepts.
    fn publish(&self, node: usize, numbers: Range<u64>) -> impl Future<Output = ()> + Send;
}

/// One node publishes as fast as the other delivers.
async fn pair(nodes: impl Nodes, messages: u64, progress: Arc<Progress>) -> Figures {
    let (start, processor_start) = (Instant::now(), processor());
    for number in (0..messages).step_by(CREDIT) {
        let credit = progress.credit.acquire_many(CREDIT as u32).await;
        credit.expect("open").forget();
        nodes.publish(0, number..number + CREDIT as u64).await;
    }
    let all = progress.credit.acquire_many(WINDOW as u32).await;
    all.expect("open").forget();
    let time = start.elapsed();
    let delivered = progress.delivered();
    assert_eq!(delivered, messages, "all of them");
    Figures {
        rate: delivered as f64 / time.as_secs_f64(),
        cost: (processor() - processor_start) / delivered as f64,
    }
}

/// All nodes publish in turn, at a rate that all of them can handle.
async fn many(nodes: impl Nodes, progress: Arc<Progress>) -> Figures {
    // Meshes form first, and the time for that is not counted.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (start, processor_start) = (Instant::now(), processor());
    let messages = RATE * SECONDS;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE as u32);
    for number in 0..messages {
        ticks.tick().await;
        nodes.publish(number as usize % NODES, number..number + 1).await;
    }
    let all = messages * (NODES as u64 - 1);
    while progress.delivered() < all {
        assert!(
            start.elapsed() < Duration::from_mins(1),
            "some messages do not arrive"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let time = start.elapsed();
    Figures {
        rate: progress.delivered() as f64 / time.as_secs_f64(),
        cost: (processor() - processor_start) / all as f64,
    }
}

fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A benchmark: two or many nodes, and signed or unsigned messages.
#[derive(Clone, Copy)]
struct Case {
    is_pair: bool,
    signed: bool,
}

impl Case {
    fn messages(self) -> u64 {
        let messages = if self.signed { 20_000 } else { 100_000 };
        messages / CREDIT as u64 * CREDIT as u64
    }

    fn nodes(self) -> usize {
        if self.is_pair { 2 } else { NODES }
    }

    async fn run(self, nodes: impl Nodes, progress: Arc<Progress>) -> Figures {
        // A thread of the runtime publishes as well, so that there are no more threads than processors.
        let task = if self.is_pair {
            tokio::spawn(pair(nodes, self.messages(), progress))
        } else {
            tokio::spawn(many(nodes, progress))
        };
        task.await.expect("it ends")
    }

    fn ours(self) -> Figures {
        runtime().block_on(async {
            let progress = Progress::new();
            let nodes = ours::start(self.nodes(), self.signed, &progress).await;
            self.run(nodes, progress).await
        })
    }

    fn peer(self) -> Figures {
        runtime().block_on(async {
            let progress = Progress::new();
            let nodes = peer::start(self.nodes(), self.signed, &progress).await;
            self.run(nodes, progress).await
        })
    }
}

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let wanted = |one: &str, other: &str| {
        let named = |word: &str| words.iter().any(|named| named == word);
        named(one) || !named(other)
    };
    for is_pair in [true, false] {
        for signed in [false, true] {
            let (size, policy) = (
                if is_pair { "pair" } else { "many" },
                if signed { "signed" } else { "unsigned" },
            );
            let other = if is_pair { "many" } else { "pair" };
            let other_policy = if signed { "unsigned" } else { "signed" };
            if !wanted(size, other) || !wanted(policy, other_policy) {
                continue;
            }
            let case = Case { is_pair, signed };
            if words.iter().any(|word| word == "ours") {
                let Figures { rate, cost } = case.ours();
                println!("name=gossip_{size}_{policy} ours={rate:.0} cpu={cost:.1}");
                continue;
            }
            let rounds: Vec<[Figures; 2]> = (0..rounds()).map(|_| [case.ours(), case.peer()]).collect();
            print(
                &format!("gossip_{size}_{policy}"),
                "messages/s",
                &rounds,
                |figures| figures.rate,
            );
            print(&format!("gossip_{size}_{policy}_cpu"), "us", &rounds, |figures| {
                figures.cost
            });
        }
    }
}

/// Returns the number of rounds: that of an argument `rounds=N`, or [`ROUNDS`].
fn rounds() -> usize {
    std::env::args()
        .find_map(|arg| arg.strip_prefix("rounds=")?.parse().ok())
        .unwrap_or(ROUNDS)
}

fn print(name: &str, unit: &str, rounds: &[[Figures; 2]], figure: impl Fn(&Figures) -> f64) {
    let side = |side: usize| median(rounds.iter().map(|round| figure(&round[side])));
    let ratio = median(rounds.iter().map(|[ours, peer]| figure(ours) / figure(peer)));
    println!(
        "name={name} ours={:.1} peer={:.1} ratio={ratio:.3} unit={unit}",
        side(0),
        side(1)
    );
}
