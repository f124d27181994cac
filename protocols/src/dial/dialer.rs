//! The dialer: the dials of all peers, and its inputs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::config::Config;
use super::event::{Action, AttemptId, DialId, Event, Failure, Full};
use super::failed::FailedAddrs;
use super::maintain::Maintained;
use super::peer_dial::PeerDial;
use super::rank::DialAddr;
use super::slots::Slots;

/// Decides which addresses of which peers are dialled when; see the [module](super).
#[derive(Debug)]
pub struct Dialer<P, A> {
    pub(super) config: Config,
    pub(super) rng: StdRng,
    pub(super) peers: BTreeMap<P, PeerDial<A>>,
    pub(super) callers: BTreeMap<DialId, P>,
    pub(super) attempts: Slots<P>,
    /// Peers that wait for one of the attempts in total, in turn.
    pub(super) waiting: VecDeque<P>,
    pub(super) timers: BTreeSet<(Duration, P)>,
    pub(super) failed: FailedAddrs<P, A>,
    pub(super) maintained: BTreeMap<P, Maintained>,
    pub(super) reconnects: BTreeSet<(Duration, P)>,
    pub(super) actions: VecDeque<Action<P, A>>,
    pub(super) events: VecDeque<Event<P, A>>,
    pub(super) last_id: u64,
}

impl<P: Clone + Ord, A: Clone + Ord> Dialer<P, A> {
    /// Creates a dialer. `seed` seeds the jitter of backoffs.
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            rng: StdRng::seed_from_u64(seed),
            peers: BTreeMap::new(),
            callers: BTreeMap::new(),
            attempts: Slots::new(),
            waiting: VecDeque::new(),
            timers: BTreeSet::new(),
            failed: FailedAddrs::new(),
            maintained: BTreeMap::new(),
            reconnects: BTreeSet::new(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            last_id: 0,
        }
    }

    /// Dials a peer at these addresses, together with other dials of the same peer. An [`Event`] with the
    /// returned id has the result.
    ///
    /// This dials also if the peer is connected; a caller that wants any connection looks for one first.
    ///
    /// # Errors
    /// [`Full`] if too many peers are dialled, or too many callers wait.
    pub fn dial(
        &mut self,
        now: Duration,
        peer: &P,
        addrs: impl IntoIterator<Item = DialAddr<A>>,
    ) -> Result<DialId, Full> {
        let Config { peers, callers, .. } = self.config;
        if !self.peers.contains_key(peer) && self.peers.len() >= peers {
            let (what, limit) = ("peers that are dialled", peers);
            return Err(Full { what, limit });
        }
        if self.callers.len() >= callers {
            let (what, limit) = ("callers of dials", callers);
            return Err(Full { what, limit });
        }
        let id = DialId(self.next_id());
        let ranked = self.plan(now, peer, addrs);
        self.callers.insert(id, peer.clone());
        let dial = self.peers.entry(peer.clone());
        let dial = dial.or_insert_with(PeerDial::new);
        dial.callers
            .insert(id, now.saturating_add(self.config.dial_timeout));
        dial.plan(now, &self.config, ranked);
        self.progress(now, peer);
        Ok(id)
    }

    /// Cancels a dial, which then has no event. With the last dial of a peer, its attempts are aborted.
    pub fn cancel(&mut self, now: Duration, id: DialId) {
        let Some(peer) = self.callers.remove(&id) else {
            return;
        };
        let Some(dial) = self.peers.get_mut(&peer) else {
            return;
        };
        dial.callers.remove(&id);
        if dial.callers.is_empty() {
            self.end(&peer);
            self.resume(now);
        }
    }

    /// Records that an attempt has a connection to its peer, and ends the dial.
    pub fn handle_connected(&mut self, now: Duration, attempt: AttemptId) {
        let Some(peer) = self.attempts.remove(attempt) else {
            return;
        };
        let flight = self
            .peers
            .get_mut(&peer)
            .and_then(|dial| dial.in_flight.remove(&attempt));
        if let Some(flight) = flight {
            self.failed.forget(&(peer.clone(), flight.addr));
        }
        self.succeed(now, &peer, Some(attempt));
    }

    /// Records that an attempt failed.
    pub fn handle_failed(&mut self, now: Duration, attempt: AttemptId, failure: Failure) {
        if let Some(peer) = self.attempts.peer(attempt).cloned() {
            self.fail(now, &peer, attempt, failure);
            self.progress(now, &peer);
            self.resume(now);
        }
    }

    /// Records that a peer opened a connection, and ends its dials. Attempts in progress are not aborted: if
    /// both peers aborted theirs for the connection of the other, none would be left.
    pub fn handle_peer_connected(&mut self, now: Duration, peer: &P) {
        let Some(dial) = self.peers.get_mut(peer) else {
            self.maintained_is_connected(now, peer);
            return;
        };
        let callers = dial.stop();
        self.report(peer, callers, None);
        self.maintained_is_connected(now, peer);
        self.progress(now, peer);
        self.resume(now);
    }

    /// Returns the next action, in order.
    pub fn poll_action(&mut self) -> Option<Action<P, A>> {
        self.actions.pop_front()
    }

    /// Returns the next event, in order.
    pub fn poll_event(&mut self) -> Option<Event<P, A>> {
        self.events.pop_front()
    }

    /// Returns the time of the next [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Duration> {
        let timers = [self.timers.first(), self.reconnects.first()];
        let timers = timers.into_iter().flatten().map(|(due, _)| *due);
        let slow = self.attempts.slowest().filter(|_| !self.waiting.is_empty());
        timers.chain(slow.map(|(slow_at, _)| slow_at)).min()
    }

    /// Starts addresses that are due, ends attempts that took too long, and reconnects.
    pub fn handle_timeout(&mut self, now: Duration) {
        while self.timers.first().is_some_and(|(due, _)| *due <= now)
            && let Some((_, peer)) = self.timers.pop_first()
        {
            let Some(dial) = self.peers.get_mut(&peer) else {
                continue;
            };
            dial.due = None;
            for (attempt, timeout) in dial.late(now) {
                self.actions.push_back(Action::Abort { attempt });
                self.fail(now, &peer, attempt, Failure::TimedOut(timeout));
            }
            self.expire(now, &peer);
            self.progress(now, &peer);
        }
        self.resume(now);
        self.give_way(now);
        self.reconnect(now);
    }

    /// Returns the number of attempts in progress.
    pub fn attempts(&self) -> usize {
        self.attempts.len()
    }

    /// Returns the number of peers that are dialled.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Returns the number of addresses that are remembered because they failed.
    pub fn failed_addrs(&self) -> usize {
        self.failed.len()
    }

    /// Returns whether a peer is being dialled.
    pub fn is_dialling(&self, peer: &P) -> bool {
        self.peers.contains_key(peer)
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn chance(&mut self) -> f64 {
        self.rng.random_range(-1.0..=1.0)
    }
}
