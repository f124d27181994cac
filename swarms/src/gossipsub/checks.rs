//! Verifies signatures of one batch on all idle worker threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use p2p_protocols::gossipsub::{Check, PolicyError};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::driver::yield_to_woken;

/// Number of signatures that a thread takes at a time: about 160 µs.
const SHARE: usize = 4;

type Outcome = Result<(), PolicyError>;

struct Checks {
    all: Vec<Check>,
    /// Index of the first check that no thread has taken.
    next: AtomicUsize,
    /// Results, each with the index of its check.
    outcomes: Mutex<Vec<(usize, Outcome)>>,
    /// Notified when all results are there.
    done: Notify,
}

/// Returns the result of each check with its index. Does not wait for threads that start after all checks
/// were taken.
///
/// # Cancel safety
/// After cancellation, the helping threads stop after the checks that they have taken.
pub(super) async fn verify_all(checks: Vec<Check>, threads: Option<&Handle>) -> Vec<(usize, Outcome)> {
    let count = checks.len();
    let Some(threads) = threads.filter(|_| count > SHARE) else {
        return checks.iter().map(Check::verify).enumerate().collect();
    };
    let shared = Arc::new(Checks {
        outcomes: Mutex::new(Vec::with_capacity(count)),
        all: checks,
        next: AtomicUsize::new(0),
        done: Notify::new(),
    });
    let others = threads.metrics().num_workers().saturating_sub(1);
    for _ in 0..others.min(count / SHARE) {
        threads.spawn(shared.clone().work());
    }
    shared.clone().work().await;
    shared.done.notified().await;
    let mut outcomes = shared.outcomes.lock();
    std::mem::take(&mut *outcomes)
}

impl Checks {
    async fn work(self: Arc<Self>) {
        while self.step() {
            yield_to_woken().await;
        }
    }

    /// Takes the next checks and verifies them. Returns whether there were any.
    fn step(&self) -> bool {
        let from = self.next.fetch_add(SHARE, Relaxed);
        let share = self.all.iter().enumerate().skip(from).take(SHARE);
        let share: Vec<_> = share.map(|(at, check)| (at, check.verify())).collect();
        if share.is_empty() {
            return false;
        }
        let mut outcomes = self.outcomes.lock();
        outcomes.extend(share);
        if outcomes.len() == self.all.len() {
            // The waiting task may start to wait later, so one notification is stored.
            self.done.notify_one();
        }
        true
    }
}
