//! Trimming between the water marks.

use std::time::Duration;

use super::connection::{ConnId, Connection};
use super::event::CloseReason;
use super::manager::Connections;

/// The order of trimming, the lowest first: the peer's value, the open streams, the last use.
type Rank = (i64, usize, Duration, ConnId);

impl<P: Clone + Ord> Connections<P> {
    /// Closes connections down to the low mark, if there are more than the high mark. If too few may be
    /// closed, this is due again when the next one may be.
    pub(super) fn trim(&mut self, now: Duration) {
        self.next_trim = None;
        if self.open.len() <= self.config.high_water {
            return;
        }
        let mut candidates: Vec<Rank> = Vec::new();
        let mut next: Option<Duration> = None;
        for (id, connection) in &self.open {
            let Some(value) = self.value_to_trim(connection) else {
                continue;
            };
            let end = connection.since.saturating_add(self.config.grace);
            if end <= now {
                candidates.push((value, connection.streams, connection.used, *id));
            } else {
                next = Some(next.map_or(end, |next| next.min(end)));
            }
        }
        candidates.sort_unstable();
        let low = self.config.low_water.min(self.config.high_water);
        let count = self.open.len().saturating_sub(low);
        for (.., id) in candidates.into_iter().take(count) {
            self.counts.trimmed += 1;
            self.end(id, CloseReason::Trimmed);
        }
        if self.open.len() > self.config.high_water {
            self.next_trim = next;
        }
    }

    /// Returns the value of the peer of a connection, if it is not protected.
    fn value_to_trim(&self, connection: &Connection<P>) -> Option<i64> {
        let state = self.state_of(connection)?;
        (!state.is_protected()).then(|| state.value())
    }
}
