//! Memory bounds of incomplete messages, by peer and in total.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes of incomplete messages of one peer, over all of its sessions.
#[derive(Debug)]
pub struct Budget {
    held: AtomicUsize,
    max: usize,
    total: Arc<Total>,
}

/// Bytes of incomplete messages of all peers.
///
/// The last quarter is reserved for responses to this node's own asks, and the rest of the second half for
/// peers that hold at most one message: peers that hold much leave room for those that hold little.
#[derive(Debug)]
pub struct Total {
    held: AtomicUsize,
    max: usize,
    /// What one message may need.
    one: usize,
}

impl Total {
    /// Creates a budget of `max` bytes, where one message needs up to `one` bytes.
    pub fn new(max: usize, one: usize) -> Self {
        Self {
            held: AtomicUsize::new(0),
            max,
            one,
        }
    }

    /// Returns the limit for a peer that holds this much.
    fn limit(&self, held: usize, own: bool) -> usize {
        let share = if own {
            self.max
        } else if held <= self.one {
            self.max - self.max / 4
        } else {
            self.max / 2
        };
        share.max(self.one).min(self.max)
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }
}

/// Adds to the held bytes, unless that exceeds `max`; returns the new value.
fn add(held: &AtomicUsize, bytes: usize, max: usize) -> Option<usize> {
    let now = held.fetch_add(bytes, Relaxed).saturating_add(bytes);
    if now > max {
        held.fetch_sub(bytes, Relaxed);
        return None;
    }
    Some(now)
}

impl Budget {
    /// Creates the budget of a peer, `max` bytes, within that of all peers.
    pub fn new(max: usize, total: Arc<Total>) -> Self {
        Self {
            held: AtomicUsize::new(0),
            max,
            total,
        }
    }

    fn take(&self, bytes: usize, own: bool) -> bool {
        let Some(held) = add(&self.held, bytes, self.max) else {
            return false;
        };
        let limit = self.total.limit(held, own);
        if add(&self.total.held, bytes, limit).is_none() {
            self.held.fetch_sub(bytes, Relaxed);
            return false;
        }
        true
    }

    fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
        self.total.held.fetch_sub(bytes, Relaxed);
    }
}

/// Bytes that are charged to a budget until this is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    /// Whether it is for a response to an ask of this node.
    own: bool,
    bytes: usize,
}

impl Charge {
    /// Charges nothing yet. `own` tells whether it is for a response to an ask of this node.
    pub fn new(budget: &Arc<Budget>, own: bool) -> Self {
        let budget = budget.clone();
        Self {
            budget,
            own,
            bytes: 0,
        }
    }

    /// Raises the charge to this many bytes in total, if the budget permits. Returns whether it did.
    pub fn raise(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let enough = more == 0 || self.budget.take(more, self.own);
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
    fn a_budget_bounds_each_peer_and_the_total() {
        let total = Arc::new(Total::new(100, 10));
        let peers = [(); 4].map(|()| Budget::new(40, total.clone()));
        assert!(peers[0].take(40, false) && !peers[0].take(1, false));
        assert!(
            !peers[1].take(11, false) && peers[1].take(10, false),
            "half of the total is held"
        );
        assert!(
            !peers[2].take(11, false) && peers[2].take(10, false),
            "a peer that holds little"
        );
        assert!(
            peers[3].take(10, false) && !peers[3].take(6, false),
            "at most three quarters are held"
        );
        assert_eq!(total.held(), 70);
        assert!(
            peers[3].take(30, true) && !peers[2].take(1, true),
            "the rest is for responses"
        );
        peers[0].release(40);
        assert!(peers[2].take(1, true));
        assert_eq!(total.held(), 61);
    }

    #[test]
    fn one_message_fits_into_an_empty_budget_of_any_size() {
        let total = Arc::new(Total::new(100, 90));
        let peer = Budget::new(95, total);
        assert!(peer.take(90, false) && !peer.take(1, false));
    }
}
