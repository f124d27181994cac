//! Peers to which this node stays connected.

use std::time::Duration;

use super::dialer::Dialer;
use super::event::{Action, Full};

/// The state of a peer that is reconnected.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Maintained {
    /// Failures and short connections in a row.
    failures: u32,
    is_connected: bool,
    /// When the peer was connected, if it is.
    since: Duration,
    /// The time of the next reconnection, if the peer is not connected.
    next: Option<Duration>,
}

impl<P: Clone + Ord, A: Clone + Ord> Dialer<P, A> {
    /// Keeps a peer connected: reconnects it at once, unless `is_connected`, and whenever its last connection
    /// ends.
    ///
    /// # Errors
    /// [`Full`] if too many peers are maintained.
    pub fn maintain(&mut self, now: Duration, peer: &P, is_connected: bool) -> Result<(), Full> {
        if self.maintained.contains_key(peer) {
            return Ok(());
        }
        let (what, limit) = ("maintained peers", self.config.maintained);
        if self.maintained.len() >= limit {
            return Err(Full { what, limit });
        }
        let state = Maintained {
            is_connected,
            since: now,
            ..Maintained::default()
        };
        self.maintained.insert(peer.clone(), state);
        if !is_connected {
            self.schedule(peer, now);
            self.reconnect(now);
        }
        Ok(())
    }

    /// Stops reconnecting a peer. Its connections and dials stay.
    pub fn release(&mut self, peer: &P) {
        if let Some(next) = self.maintained.remove(peer).and_then(|state| state.next) {
            self.reconnects.remove(&(next, peer.clone()));
        }
    }

    /// Records that the last connection of a peer ended.
    pub fn handle_peer_disconnected(&mut self, now: Duration, peer: &P) {
        let stable_after = self.config.stable_after;
        let Some(state) = self.maintained.get_mut(peer) else {
            return;
        };
        if !std::mem::take(&mut state.is_connected) {
            return;
        }
        if now.saturating_sub(state.since) >= stable_after {
            state.failures = 0;
        }
        self.retry(now, peer);
    }

    /// Emits the reconnections that are due.
    pub(super) fn reconnect(&mut self, now: Duration) {
        while self.reconnects.first().is_some_and(|(due, _)| *due <= now)
            && let Some((_, peer)) = self.reconnects.pop_first()
        {
            if let Some(state) = self.maintained.get_mut(&peer) {
                state.next = None;
            }
            // If the driver does not dial, or the dial has no end in time, this asks again.
            let chance = self.chance();
            let pause = self.config.backoff(self.failures(&peer), chance);
            let patience = self.config.dial_timeout.saturating_add(pause);
            self.schedule(&peer, now.saturating_add(patience));
            self.actions.push_back(Action::Reconnect { peer });
        }
    }

    pub(super) fn maintained_is_connected(&mut self, now: Duration, peer: &P) {
        let Some(state) = self.maintained.get_mut(peer) else {
            return;
        };
        if !std::mem::replace(&mut state.is_connected, true) {
            state.since = now;
        }
        if let Some(next) = state.next.take() {
            self.reconnects.remove(&(next, peer.clone()));
        }
    }

    pub(super) fn maintained_has_failed(&mut self, now: Duration, peer: &P) {
        let state = self.maintained.get(peer);
        if state.is_some_and(|state| !state.is_connected) {
            self.retry(now, peer);
        }
    }

    /// Schedules the next reconnection after one more failure.
    fn retry(&mut self, now: Duration, peer: &P) {
        let chance = self.chance();
        let pause = self.config.backoff(self.failures(peer), chance);
        if let Some(state) = self.maintained.get_mut(peer) {
            state.failures = state.failures.saturating_add(1);
        }
        self.schedule(peer, now.saturating_add(pause));
    }

    fn failures(&self, peer: &P) -> u32 {
        self.maintained.get(peer).map_or(0, |state| state.failures)
    }

    fn schedule(&mut self, peer: &P, at: Duration) {
        let Some(state) = self.maintained.get_mut(peer) else {
            return;
        };
        if let Some(old) = state.next.replace(at) {
            self.reconnects.remove(&(old, peer.clone()));
        }
        self.reconnects.insert((at, peer.clone()));
    }
}
