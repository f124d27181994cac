//! The manager: its inputs and queries.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::config::Config;
use super::connection::{ConnId, Connection, Info, PeerState, Pending};
use super::event::{Action, CloseReason, Counts, Direction, Event, OpenReason};
use crate::overlay::Prefix;

/// The connections of a node; see the [module](super).
#[derive(Debug)]
pub struct Connections<P> {
    pub(super) config: Config,
    /// Ids are given in order of admission, so the first one is the oldest.
    pub(super) pending: BTreeMap<ConnId, Pending>,
    pub(super) pending_inbound: BTreeMap<Option<Prefix>, usize>,
    pub(super) open: BTreeMap<ConnId, Connection<P>>,
    pub(super) inbound: BTreeMap<Option<Prefix>, usize>,
    pub(super) peers: BTreeMap<P, PeerState>,
    /// Number of peers with tags or protections.
    pub(super) marked: usize,
    /// Handshakes and idle connections.
    pub(super) timers: BTreeSet<(Duration, ConnId)>,
    pub(super) next_trim: Option<Duration>,
    actions: VecDeque<Action>,
    pub(super) events: VecDeque<Event<P>>,
    pub(super) counts: Counts,
    pub(super) last_id: u64,
}

impl<P: Clone + Ord> Connections<P> {
    /// Creates a manager without connections.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            pending: BTreeMap::new(),
            pending_inbound: BTreeMap::new(),
            open: BTreeMap::new(),
            inbound: BTreeMap::new(),
            peers: BTreeMap::new(),
            marked: 0,
            timers: BTreeSet::new(),
            next_trim: None,
            actions: VecDeque::new(),
            events: VecDeque::new(),
            counts: Counts::default(),
            last_id: 0,
        }
    }

    /// Records that a pending connection failed.
    pub fn handle_failed(&mut self, id: ConnId) {
        self.remove_pending(id);
    }

    /// Records that an open or pending connection ended.
    pub fn handle_closed(&mut self, id: ConnId, reason: CloseReason) {
        self.remove_pending(id);
        self.remove(id, reason);
    }

    /// Closes a connection. Returns whether it was open or pending.
    pub fn close(&mut self, id: ConnId) -> bool {
        self.end(id, CloseReason::Local)
    }

    /// Closes all open connections of a peer. Returns their number.
    pub fn close_peer(&mut self, peer: &P) -> usize {
        let ids = self
            .peers
            .get(peer)
            .map(|state| state.connections.clone())
            .unwrap_or_default();
        ids.iter().filter(|id| self.close(**id)).count()
    }

    /// Records that either side opened a stream.
    pub fn handle_stream_opened(&mut self, now: Duration, id: ConnId) {
        if let Some(connection) = self.open.get_mut(&id) {
            connection.streams += 1;
            connection.used = now;
            self.update(now, id);
        }
    }

    /// Records that a stream ended.
    pub fn handle_stream_closed(&mut self, now: Duration, id: ConnId) {
        if let Some(connection) = self.open.get_mut(&id) {
            connection.streams = connection.streams.saturating_sub(1);
            connection.used = now;
            self.update(now, id);
        }
    }

    /// Returns the next action, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns the next event, in order.
    pub fn poll_event(&mut self) -> Option<Event<P>> {
        self.events.pop_front()
    }

    /// Returns the time of the next [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Duration> {
        let timer = self.timers.first().map(|(due, _)| *due);
        timer.into_iter().chain(self.next_trim).min()
    }

    /// Closes pending connections that took too long and connections that nothing needs, and trims.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some((due, id)) = self.timers.first().copied()
            && due <= now
        {
            let reason = if self.pending.contains_key(&id) {
                self.counts.handshake_timeouts += 1;
                CloseReason::HandshakeTimedOut
            } else {
                self.counts.idle += 1;
                CloseReason::Idle
            };
            self.end(id, reason);
            self.timers.remove(&(due, id));
        }
        if self.next_trim.is_some_and(|due| due <= now) {
            self.trim(now);
        }
    }

    /// Returns the oldest open connection of a peer, which should be used.
    pub fn best(&self, peer: &P) -> Option<ConnId> {
        self.peers.get(peer)?.connections.first().copied()
    }

    /// Returns the open connections of a peer, the oldest first.
    pub fn of_peer(&self, peer: &P) -> &[ConnId] {
        self.peers.get(peer).map_or(&[][..], |state| &state.connections)
    }

    /// Returns the state of an open connection.
    pub fn info(&self, id: ConnId) -> Option<Info<P>> {
        let connection = self.open.get(&id)?;
        let state = self.peers.get(&connection.peer)?;
        Some(Info {
            id,
            peer: connection.peer.clone(),
            direction: connection.direction,
            since: connection.since,
            streams: connection.streams,
            value: state.value(),
            is_protected: state.is_protected(),
        })
    }

    /// Iterates over the open connections, in order of admission.
    pub fn iter(&self) -> impl Iterator<Item = Info<P>> + '_ {
        self.open.keys().filter_map(|id| self.info(*id))
    }

    /// Returns the number of open connections.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Returns whether no connection is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Returns the number of pending connections.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Returns the counters.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the reasons for which a connection is open: none if it is not open, and at least one
    /// otherwise.
    pub fn why_open(&self, now: Duration, id: ConnId) -> Vec<OpenReason> {
        let Some(connection) = self.open.get(&id) else {
            return Vec::new();
        };
        let mut reasons = Vec::new();
        if connection.streams > 0 {
            reasons.push(OpenReason::Streams(connection.streams));
        }
        if let Some(state) = self.peers.get(&connection.peer) {
            let names = state.protections.iter().cloned();
            reasons.extend(names.map(OpenReason::Protected));
            let value = Some(state.value()).filter(|value| *value > 0);
            reasons.extend(value.map(OpenReason::Tagged));
        }
        let protocols = connection.keep_alive.iter().cloned();
        reasons.extend(protocols.map(OpenReason::KeepAlive));
        if let Some(until) = connection.idle_until {
            reasons.push(OpenReason::Idle { until });
        }
        let until = connection.since.saturating_add(self.config.grace);
        if until > now {
            reasons.push(OpenReason::Grace { until });
        }
        reasons
    }

    /// Returns the state of the peer of an open connection.
    pub(super) fn state_of(&self, connection: &Connection<P>) -> Option<&PeerState> {
        self.peers.get(&connection.peer)
    }

    /// Starts or stops the idle timer of a connection after a change.
    pub(super) fn update(&mut self, now: Duration, id: ConnId) {
        let Some(connection) = self.open.get_mut(&id) else {
            return;
        };
        let state = self.peers.get(&connection.peer);
        let is_wanted = state.is_some_and(|state| state.is_protected() || state.value() > 0);
        let is_needed = connection.streams > 0 || !connection.keep_alive.is_empty() || is_wanted;
        if is_needed {
            if let Some(until) = connection.idle_until.take() {
                self.timers.remove(&(until, id));
            }
        } else if connection.idle_until.is_none() {
            connection.used = now;
            let until = now.saturating_add(self.config.idle_timeout);
            connection.idle_until = Some(until);
            if until < Duration::MAX {
                self.timers.insert((until, id));
            }
        }
    }

    /// Ends a connection, pending or open, and tells the driver. Returns whether there was one.
    pub(super) fn end(&mut self, id: ConnId, reason: CloseReason) -> bool {
        let is_ended = self.remove_pending(id) || self.remove(id, reason);
        if is_ended {
            self.actions.push_back(Action::Close { id, reason });
        }
        is_ended
    }

    /// Removes a pending connection. Returns whether there was one.
    pub(super) fn remove_pending(&mut self, id: ConnId) -> bool {
        let Some(pending) = self.pending.remove(&id) else {
            return false;
        };
        self.timers.remove(&(pending.deadline, id));
        if pending.direction == Direction::Inbound {
            take_one(&mut self.pending_inbound, &pending.prefix);
        }
        true
    }

    /// Removes an open connection. Returns whether there was one.
    fn remove(&mut self, id: ConnId, reason: CloseReason) -> bool {
        let Some(connection) = self.open.remove(&id) else {
            return false;
        };
        if let Some(until) = connection.idle_until {
            self.timers.remove(&(until, id));
        }
        if connection.direction == Direction::Inbound {
            take_one(&mut self.inbound, &connection.prefix);
        }
        let peer = connection.peer;
        let mut is_last = true;
        if let Some(state) = self.peers.get_mut(&peer) {
            state.connections.retain(|other| *other != id);
            is_last = state.connections.is_empty();
            if is_last && !state.is_marked() {
                self.peers.remove(&peer);
            }
        }
        if self.open.len() <= self.config.high_water {
            self.next_trim = None;
        }
        self.events.push_back(Event::Disconnected {
            id,
            peer,
            reason,
            is_last,
        });
        true
    }
}

/// Subtracts one from a count, and removes it at zero.
fn take_one<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}
