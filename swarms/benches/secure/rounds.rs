//! Rounds of two sides in turn, for this bench and that of hosts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::WARM_UP;

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(400);
/// The weight of a byte, in a bench whose deliveries are bytes.
pub(crate) const GBIT: f64 = 8e-9;

/// One round with this many workers: its deliveries per second.
pub(crate) type Side<'a> = &'a dyn Fn(usize) -> f64;

/// What the command line asks for: names of benches, `ours` or `peer` for one side alone, and `rounds=N`.
pub(crate) struct Chosen {
    names: Vec<String>,
    only: Option<String>,
    rounds: usize,
}

impl Chosen {
    pub(crate) fn from_args() -> Self {
        let (mut names, mut only, mut rounds) = (Vec::new(), None, ROUNDS);
        for word in std::env::args().skip(1).filter(|word| !word.starts_with('-')) {
            if let Some(number) = word.strip_prefix("rounds=") {
                rounds = number.parse().expect("a number of rounds");
            } else if ["ours", "peer"].contains(&&*word) {
                only = Some(word);
            } else {
                names.push(word);
            }
        }
        Self { names, only, rounds }
    }

    /// Returns whether a bench is asked for: all are if none is named.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|chosen| chosen == name)
    }

    /// Runs a bench, if it is asked for, and prints its line. `unit` is the weight of a delivery.
    pub(crate) fn run(&self, name: &str, ours: Side<'_>, peer: Side<'_>, unit: f64) {
        if !self.has(name) {
            return;
        }
        match self.only.as_deref() {
            Some("ours") => self.cost(name, ours, unit),
            Some(_) => self.cost(name, peer, unit),
            None => self.compare(name, ours, peer, unit),
        }
    }

    /// Prints the rate of one side in one thread, and the processor time of a unit, which other load changes less: for
    /// profilers, and for changes that are too small for rounds.
    fn cost(&self, name: &str, side: Side<'_>, unit: f64) {
        let rounds = (0..self.rounds).map(|_| {
            let from = processor_time();
            let rate = unit * side(1);
            let used = processor_time() - from;
            (rate, used / (rate * (WARM_UP + ROUND).as_secs_f64()))
        });
        let rounds: Vec<_> = rounds.collect();
        let rate = median(rounds.iter().map(|(rate, _)| *rate));
        let cost = median(rounds.iter().map(|(_, cost)| *cost));
        println!("name={name} rate={rate:.2} processor_seconds={cost:.7}");
    }

    fn compare(&self, name: &str, ours: Side<'_>, peer: Side<'_>, unit: f64) {
        const SIDES: usize = 4;
        let sides: [(Side<'_>, usize); SIDES] = [(ours, 1), (peer, 1), (ours, 2), (peer, 2)];
        let rounds: Vec<[f64; SIDES]> = (0..self.rounds)
            .map(|round| {
                let mut rates = [0.0; SIDES];
                for turn in 0..SIDES {
                    let at = (turn + round) % SIDES;
                    let (side, workers) = sides[at];
                    rates[at] = unit * side(workers);
                }
                rates
            })
            .collect();
        let of = |at: usize| median(rounds.iter().map(|round| round[at]));
        let better = |one: usize, two: usize| if of(one) >= of(two) { one } else { two };
        let (ours, peer) = (better(0, 2), better(1, 3));
        let ratio = median(rounds.iter().map(|round| round[ours] / round[peer]));
        println!(
            "name={name} ours={:.2} peer={:.2} ratio={ratio:.3} ours_1_2={:.2},{:.2} peer_1_2={:.2},{:.2}",
            of(ours),
            of(peer),
            of(0),
            of(2),
            of(1),
            of(3)
        );
    }
}

/// Returns the seconds for which this thread has run.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds: f64 = stat
        .split(' ')
        .next()
        .and_then(|text| text.parse().ok())
        .expect("a number");
    nanoseconds / 1e9
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(crate) fn runtime(workers: usize) -> Runtime {
    let mut builder = match workers {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let builder = builder.worker_threads(workers).enable_all();
    builder.build().expect("a runtime")
}

/// Runs `work` in a task that counts deliveries until the round ends; returns the rate.
pub(crate) fn rate<F: Future<Output = ()> + Send + 'static>(
    workers: usize,
    work: impl FnOnce(Arc<AtomicU64>) -> F,
) -> f64 {
    let runtime = runtime(workers);
    let count = Arc::new(AtomicU64::new(0));
    let _work = runtime.spawn(work(count.clone()));
    let rate = runtime.block_on(async {
        tokio::time::sleep(WARM_UP).await;
        let (from, start) = (count.load(Relaxed), Instant::now());
        tokio::time::sleep(ROUND).await;
        (count.load(Relaxed) - from) as f64 / start.elapsed().as_secs_f64()
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    rate
}

/// Runs each of `futures` in a task until the round ends.
pub(crate) async fn all<F: Future<Output = ()> + Send + 'static>(futures: impl Iterator<Item = F>) {
    let mut tasks: JoinSet<()> = futures.collect();
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no panic");
    }
}
