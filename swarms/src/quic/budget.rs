//! What messages hold whose end is still missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes of unfinished messages, over all sessions or in one.
#[derive(Debug)]
pub(super) struct Budget {
    held: AtomicUsize,
    max: usize,
    above: Option<Arc<Budget>>,
}

impl Budget {
    pub(super) fn new(max: usize, above: Option<Arc<Budget>>) -> Self {
        Self {
            held: AtomicUsize::new(0),
            max,
            above,
        }
    }

    fn take(&self, bytes: usize) -> bool {
        if self.held.fetch_add(bytes, Relaxed).saturating_add(bytes) > self.max {
            self.held.fetch_sub(bytes, Relaxed);
            return false;
        }
        if self.above.as_ref().is_some_and(|above| !above.take(bytes)) {
            self.held.fetch_sub(bytes, Relaxed);
            return false;
        }
        true
    }

    fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
        if let Some(above) = &self.above {
            above.release(bytes);
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }
}

/// Bytes that are taken from a budget until this is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        let budget = budget.clone();
        Self { budget, bytes: 0 }
    }

    /// Charges up to so many bytes in all, if the budget has them.
    pub(super) fn raise(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let enough = more == 0 || self.budget.take(more);
        if enough {
            self.bytes += more;
        }
        enough
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_holds_in_each_session_and_in_total() {
        let total = Arc::new(Budget::new(100, None));
        let sessions = [(); 3].map(|()| Budget::new(60, Some(total.clone())));
        assert!(sessions[0].take(60) && !sessions[0].take(1));
        assert!(!sessions[1].take(41) && sessions[1].take(40) && !sessions[2].take(1));
        sessions[0].release(60);
        assert!(sessions[2].take(60));
        assert_eq!(total.held(), 100);
    }
}
