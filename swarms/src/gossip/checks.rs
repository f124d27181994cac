//! Signatures that came together, checked by as many threads as have nothing else to do.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use p2p_protocols::gossipsub::{Check, PolicyError};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::driver::step_aside;

/// Signatures that a thread takes at a time: some 160 µs.
const SHARE: usize = 4;

type Outcome = Result<(), PolicyError>;

struct Checks {
    all: Vec<Check>,
    /// The first one that nobody took.
    next: AtomicUsize,
    /// Each with its place among the checks.
    outcomes: Mutex<Vec<(usize, Outcome)>>,
    /// All outcomes are there.
    done: Notify,
}

/// What comes of each check, with its place among them. Threads that come too late to help are not waited for.
///
/// # Cancel safety
/// If it is cancelled, those who help stop after what they have taken.
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
    let mut outcomes = shared.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *outcomes)
}

impl Checks {
    async fn work(self: Arc<Self>) {
        while self.step() {
            step_aside().await;
        }
    }

    /// Takes some that nobody took, and checks them. Whether there were any.
    fn step(&self) -> bool {
        let from = self.next.fetch_add(SHARE, Relaxed);
        let share = self.all.iter().enumerate().skip(from).take(SHARE);
        let share: Vec<_> = share.map(|(at, check)| (at, check.verify())).collect();
        if share.is_empty() {
            return false;
        }
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.extend(share);
        if outcomes.len() == self.all.len() {
            // Whoever waits for it may begin to do so later.
            self.done.notify_one();
        }
        true
    }
}
