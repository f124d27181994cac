//! Admission of inbound dials: handshakes under way are counted, in total and by network.

use std::collections::HashMap;
use std::sync::Arc;

use p2p_protocols::overlay::Prefix;
use parking_lot::Mutex;

/// Counts the handshakes of inbound dials.
#[derive(Debug)]
pub(super) struct Admission {
    max: usize,
    max_per_prefix: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    /// Networks with a handshake under way.
    by_prefix: HashMap<Prefix, usize>,
}

/// A handshake under way. Dropping it makes room for another.
#[derive(Debug)]
pub(super) struct Handshake {
    admission: Arc<Admission>,
    prefix: Option<Prefix>,
}

impl Admission {
    pub(super) fn new(max: usize, max_per_prefix: usize) -> Self {
        Self {
            max,
            max_per_prefix,
            counts: Mutex::default(),
        }
    }

    /// Returns a handshake from this network, unless a limit is reached.
    pub(super) fn begin(self: &Arc<Self>, prefix: Option<Prefix>) -> Option<Handshake> {
        let mut counts = self.counts.lock();
        if counts.total >= self.max {
            return None;
        }
        if let Some(prefix) = prefix {
            let count = counts.by_prefix.entry(prefix).or_default();
            if *count >= prefix.limit(self.max_per_prefix) {
                return None;
            }
            *count += 1;
        }
        counts.total += 1;
        let admission = self.clone();
        Some(Handshake { admission, prefix })
    }

    /// Returns whether more than half of the handshakes are under way, so that a peer should prove its address
    /// before it costs more.
    pub(super) fn is_busy(&self) -> bool {
        self.counts.lock().total > self.max / 2
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock();
        counts.total = counts.total.saturating_sub(1);
        if let Some(prefix) = self.prefix
            && let Some(count) = counts.by_prefix.get_mut(&prefix)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.by_prefix.remove(&prefix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn addr(text: &str) -> Option<Prefix> {
        Prefix::of(&text.parse::<SocketAddr>().expect("an address"))
    }

    #[test]
    fn one_network_leaves_room_for_another() {
        let admission = Arc::new(Admission::new(4, 2));
        let first = admission.begin(addr("192.0.2.1:1"));
        let second = admission.begin(addr("192.0.2.2:1"));
        assert!(first.is_some() && second.is_some());
        assert!(
            admission.begin(addr("192.0.2.3:1")).is_none(),
            "the network is full"
        );
        let other = admission.begin(addr("198.51.100.1:1"));
        assert!(other.is_some());
        drop(first);
        assert!(admission.begin(addr("192.0.2.3:1")).is_some());
    }

    #[test]
    fn the_total_is_bounded_and_no_network_is_kept() {
        let admission = Arc::new(Admission::new(3, 2));
        let held: Vec<_> = (0..5_u8)
            .map(|net| admission.begin(Some(Prefix::V4([20, net, 0]))))
            .collect();
        assert_eq!(held.iter().flatten().count(), 3);
        assert!(admission.is_busy());
        drop(held);
        assert!(admission.counts.lock().by_prefix.is_empty());
        assert!(!admission.is_busy());
    }
}
