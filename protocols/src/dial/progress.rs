//! Starts and ends attempts, within the limits.

use std::sync::Arc;
use std::time::Duration;

use super::dialer::Dialer;
use super::event::{Action, AttemptId, DialError, DialId, Event, Failure};
use super::peer_dial::PeerDial;
use super::rank::{DialAddr, Ranked, rank};

/// The fraction (1/5) of its time after which an attempt gives way to peers that wait.
const SLOW: u32 = 5;

impl<P: Clone + Ord, A: Clone + Ord> Dialer<P, A> {
    /// Ranks addresses: those that failed a short time ago come after the others.
    pub(super) fn plan(
        &self,
        now: Duration,
        peer: &P,
        addrs: impl IntoIterator<Item = DialAddr<A>>,
    ) -> Vec<Ranked<A>> {
        let has_failed = |addr: &DialAddr<A>| self.failed.contains(now, peer, &addr.addr);
        let (failed, fresh): (Vec<_>, Vec<_>) = addrs.into_iter().partition(has_failed);
        let mut ranked = rank(&self.config, fresh);
        let offset = ranked.last().map_or(Duration::ZERO, |last| {
            last.delay.saturating_add(self.config.public_delay)
        });
        let failed = rank(&self.config, failed).into_iter().map(|mut ranked| {
            ranked.delay = ranked.delay.saturating_add(offset);
            ranked
        });
        ranked.extend(failed);
        ranked
    }

    /// Ends an attempt that failed. The caller lets the dial go on.
    pub(super) fn fail(&mut self, now: Duration, peer: &P, attempt: AttemptId, failure: Failure) {
        self.attempts.remove(attempt);
        let chance = self.chance();
        let dial = self.peers.get_mut(peer);
        let addr = dial.and_then(|dial| dial.fail(attempt, failure));
        // A refusal by this node says nothing about the address.
        if let Some(addr) = addr.filter(|_| failure != Failure::Denied) {
            self.failed.record(now, &self.config, peer, &addr, chance);
        }
    }

    /// Starts the addresses of one peer that are due, and ends its dial if nothing is left.
    pub(super) fn progress(&mut self, now: Duration, peer: &P) {
        while let Some(dial) = self.peers.get_mut(peer)
            && dial.is_ready(now, &self.config)
        {
            // Peers that wait go first.
            let is_full = self.attempts.len() >= self.config.attempts.max(1);
            if is_full || !self.waiting.is_empty() {
                if !std::mem::replace(&mut dial.is_waiting, true) {
                    self.waiting.push_back(peer.clone());
                }
                break;
            }
            if !self.start(now, peer) {
                break;
            }
        }
        match self.peers.get(peer).and_then(PeerDial::error) {
            Some(error) => self.give_up(now, peer, error),
            None => self.set_timer(peer),
        }
    }

    /// Lets peers that wait start one attempt each, in turn, while there is room.
    pub(super) fn resume(&mut self, now: Duration) {
        while self.attempts.len() < self.config.attempts.max(1)
            && let Some(peer) = self.waiting.pop_front()
        {
            let Some(dial) = self.peers.get_mut(&peer) else {
                continue;
            };
            dial.is_waiting = false;
            self.start(now, &peer);
            if let Some(dial) = self.peers.get_mut(&peer)
                && dial.is_ready(now, &self.config)
            {
                dial.is_waiting = true;
                self.waiting.push_back(peer.clone());
            }
            self.set_timer(&peer);
        }
    }

    /// While peers wait, gives up the attempts that have used a fifth of their time.
    pub(super) fn give_way(&mut self, now: Duration) {
        while !self.waiting.is_empty()
            && let Some((slow_at, attempt)) = self.attempts.slowest()
            && slow_at <= now
            && let Some(peer) = self.attempts.peer(attempt).cloned()
        {
            self.actions.push_back(Action::Abort { attempt });
            self.fail(now, &peer, attempt, Failure::Displaced);
            self.progress(now, &peer);
            self.resume(now);
        }
    }

    /// Starts the next address of a peer, if it is ready. Returns whether it was.
    fn start(&mut self, now: Duration, peer: &P) -> bool {
        let attempt = AttemptId(self.last_id + 1);
        let dial = self.peers.get_mut(peer);
        let dial = dial.filter(|dial| dial.is_ready(now, &self.config));
        let Some((addr, timeout)) = dial.and_then(|dial| dial.start(now, attempt)) else {
            return false;
        };
        self.last_id += 1;
        let slow_at = now.saturating_add(timeout / SLOW);
        self.attempts.insert(attempt, peer.clone(), slow_at);
        let peer = peer.clone();
        self.actions.push_back(Action::Start { attempt, peer, addr });
        true
    }

    fn set_timer(&mut self, peer: &P) {
        let Some(dial) = self.peers.get_mut(peer) else {
            return;
        };
        let due = dial.next_timeout(&self.config);
        if let Some(old) = dial.due.replace(due) {
            self.timers.remove(&(old, peer.clone()));
        }
        self.timers.insert((due, peer.clone()));
    }

    pub(super) fn succeed(&mut self, now: Duration, peer: &P, attempt: Option<AttemptId>) {
        let callers = self.end(peer);
        self.report(peer, callers, attempt);
        self.maintained_is_connected(now, peer);
        self.resume(now);
    }

    /// Tells these callers that the peer is connected.
    pub(super) fn report(&mut self, peer: &P, callers: Vec<DialId>, attempt: Option<AttemptId>) {
        for id in callers {
            self.callers.remove(&id);
            let peer = peer.clone();
            self.events.push_back(Event::Connected { id, peer, attempt });
        }
    }

    /// Ends the callers of a peer whose deadline has passed, and with the last of them the dial.
    pub(super) fn expire(&mut self, now: Duration, peer: &P) {
        let Some(dial) = self.peers.get_mut(peer) else {
            return;
        };
        let (late, error) = dial.expire(now, &self.config);
        if late.is_empty() {
            return;
        }
        let (is_over, error) = (dial.callers.is_empty(), Arc::new(error));
        for id in late {
            self.callers.remove(&id);
            let (peer, error) = (peer.clone(), error.clone());
            self.events.push_back(Event::Failed { id, peer, error });
        }
        if is_over {
            self.end(peer);
            self.maintained_has_failed(now, peer);
        }
    }

    pub(super) fn give_up(&mut self, now: Duration, peer: &P, error: DialError<A>) {
        let (error, callers) = (Arc::new(error), self.end(peer));
        // Without callers, a connection of the peer has ended the dial before.
        let has_failed = !callers.is_empty();
        for id in callers {
            let (peer, error) = (peer.clone(), error.clone());
            self.events.push_back(Event::Failed { id, peer, error });
        }
        if has_failed {
            self.maintained_has_failed(now, peer);
        }
    }

    /// Ends the dial of a peer, and aborts its attempts. Returns its callers.
    pub(super) fn end(&mut self, peer: &P) -> Vec<DialId> {
        let Some(dial) = self.peers.remove(peer) else {
            return Vec::new();
        };
        if let Some(due) = dial.due {
            self.timers.remove(&(due, peer.clone()));
        }
        if dial.is_waiting {
            self.waiting.retain(|waiting| waiting != peer);
        }
        for attempt in dial.in_flight.into_keys() {
            self.attempts.remove(attempt);
            self.actions.push_back(Action::Abort { attempt });
        }
        let callers: Vec<DialId> = dial.callers.into_keys().collect();
        for id in &callers {
            self.callers.remove(id);
        }
        callers
    }
}
