//! Drives the engines: carries out their actions, passes their events on, and keeps their time.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use multiaddr::Multiaddr;
use p2p::{Error, Result};
use p2p_protocols::connections::{self, CloseReason, ConnId, Direction};
use p2p_protocols::dial::{self, AttemptId, Failure};
use tokio::sync::oneshot;
use tokio::time::sleep_until;

use super::engines::{Admitted, Attempt, Destination, DialKey, Engines, Failed, KnownPeer, ip_of};
use super::events::HostEvent;
use super::port::Lease;
use super::results::{self, refused};
use super::shared::Shared;
use crate::addr::HostAddr;
use crate::connection::{Acceptor, Connection, ConnectionInfo, Opener, Transport};
use crate::key::PublicKey;

/// The longest sleep of the timer.
const LONGEST_SLEEP: Duration = Duration::from_hours(24);

impl Shared {
    /// Changes the engines, and carries out what they decide.
    ///
    /// No stream may be dropped within `change`: that takes the same lock.
    pub(super) fn drive<T>(self: &Arc<Self>, change: impl FnOnce(&mut Engines, Duration) -> T) -> T {
        let mut engines = self.engines.lock();
        let now = self.now();
        let result = change(&mut engines, now);
        self.carry_out(&mut engines, now);
        result
    }

    /// Returns the time since the start, the clock of the engines.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn carry_out(self: &Arc<Self>, engines: &mut Engines, now: Duration) {
        if engines.is_closed {
            return;
        }
        loop {
            if let Some(action) = engines.dialer.poll_action() {
                match action {
                    dial::Action::Start { attempt, peer, addr } => {
                        self.start_attempt(engines, now, attempt, peer, addr);
                    }
                    dial::Action::Abort { attempt } => engines.abort(attempt),
                    dial::Action::Reconnect { peer } => {
                        let places = engines.places(now, &peer, None);
                        // At the limit of dials the dialer asks again.
                        let _ = engines.dialer.dial(now, &peer, places);
                    }
                }
            } else if let Some(connections::Action::Close { id, reason }) = engines.connections.poll_action()
            {
                close(engines, now, id, reason);
            } else if let Some(event) = engines.connections.poll_event() {
                self.handle_connection_event(engines, now, &event);
            } else if let Some(event) = engines.dialer.poll_event() {
                results::answer(engines, event);
            } else {
                break;
            }
        }
        engines.succeeded.clear();
        let dialer = &engines.dialer;
        engines.errors.retain(|key, _| dialer.is_dialling(key));
        let next = engines.next_timeout();
        if next.is_some_and(|next| engines.armed.is_none_or(|armed| next < armed)) {
            self.rearm.notify_one();
        }
    }

    /// Begins an attempt in a task, unless a limit is reached.
    fn start_attempt(
        self: &Arc<Self>,
        engines: &mut Engines,
        now: Duration,
        attempt: AttemptId,
        key: DialKey,
        place: Multiaddr,
    ) {
        let id = match engines.connections.admit_outbound(now, ip_of(&place)) {
            Ok(id) => id,
            Err(refusal) => {
                let error = refused(&place, refusal);
                engines.errors.entry(key).or_default().push((place, error));
                engines.dialer.handle_failed(now, attempt, Failure::Denied);
                return;
            }
        };
        let (end, ended) = oneshot::channel();
        let to = Destination {
            place: place.clone(),
            expected: match &key {
                DialKey::Peer(peer) => Some(*peer),
                DialKey::Place(_) => None,
            },
            is_chosen: engines.is_chosen(now, &key, &place),
        };
        let pending = Attempt {
            id,
            key,
            place,
            _end: end,
        };
        engines.attempts.insert(attempt, pending);
        let shared = self.clone();
        self.spawn(async move {
            let admitted = Admitted {
                id,
                attempt: Some(attempt),
            };
            let dialled = tokio::select! {
                biased;
                _ = ended => return,
                dialled = shared.dial_place(&to, admitted) => dialled,
            };
            if let Err(failed) = dialled {
                shared.drive(|engines, now| engines.fail(now, attempt, failed));
            }
        });
    }

    fn handle_connection_event(
        self: &Arc<Self>,
        engines: &mut Engines,
        now: Duration,
        event: &connections::Event<multiaddr::PeerId>,
    ) {
        match *event {
            connections::Event::Connected {
                id, peer, direction, ..
            } => {
                let Some(connection) = engines.open.get(&id) else {
                    return;
                };
                let is_dialled = direction == Direction::Outbound;
                let place = is_dialled.then(|| connection.info.remote.clone());
                let known = KnownPeer(peer);
                // A store that is full of other connected peers remembers nothing of this one.
                if engines.peers.handle_connected(now, &known, place).is_ok() {
                    let _ = engines.peers.set_key(now, &known, connection.key.encode());
                }
                self.observers
                    .each(|observer| observer.connected(&connection.info.peer));
                self.events.send(HostEvent::Connected(connection.info.clone()));
            }
            connections::Event::Disconnected {
                id,
                peer,
                reason,
                is_last,
            } => {
                if is_last {
                    engines.peers.handle_disconnected(now, &KnownPeer(peer));
                    engines.dialer.handle_peer_disconnected(now, &DialKey::Peer(peer));
                }
                let Some(connection) = engines.open.remove(&id) else {
                    return;
                };
                self.observers
                    .each(|observer| observer.disconnected(&connection.info.peer, is_last));
                let mut info = connection.info.clone();
                info.age = now.saturating_sub(connection.since);
                self.events.send(HostEvent::Disconnected {
                    connection: info,
                    is_last,
                    reason,
                    detail: connection.detail(reason),
                });
            }
        }
    }

    /// Calls the engines when their time has come, in a task.
    pub(super) fn keep_time(self: &Arc<Self>) {
        let shared = self.clone();
        self.spawn(async move {
            loop {
                let due = {
                    let mut engines = shared.engines.lock();
                    let latest = shared.now().saturating_add(LONGEST_SLEEP);
                    let due = engines.next_timeout().unwrap_or(latest).min(latest);
                    engines.armed = Some(due);
                    due
                };
                tokio::select! {
                    () = sleep_until(shared.started + due) => {
                        shared.drive(Engines::handle_timeout);
                    }
                    () = shared.rearm.notified() => {}
                }
            }
        });
    }

    /// Takes an established connection in: the engines have it, events tell of it, and its streams are served.
    pub(super) fn adopt(
        self: &Arc<Self>,
        admitted: Admitted,
        key: PublicKey,
        remote: Multiaddr,
        transport: Transport,
        (opener, acceptor): (Opener, Acceptor),
        lease: Option<Lease>,
    ) -> Result<(), Failed> {
        let info = ConnectionInfo {
            id: admitted.id,
            peer: HostAddr::of_peer(key.peer_id()),
            remote,
            transport,
            is_dialled: admitted.attempt.is_some(),
            age: Duration::ZERO,
            streams: 0,
            reasons: Vec::new(),
        };
        let connection = Arc::new(Connection::new(info, key, opener, lease, self));
        let peer = connection.key.peer_id();
        let adopted = self.drive(|engines, now| {
            if engines.is_closed {
                return Err(Error::Closed);
            }
            if connection.key == *self.upgrader.keypair.public() {
                let reason = "this host itself listens there";
                return Err(Error::unreachable(&connection.info.remote, reason));
            }
            let established = engines.connections.handle_established(now, admitted.id, &peer);
            established.map_err(|refusal| refused(&connection.info.remote, refusal))?;
            engines.open.insert(admitted.id, connection.clone());
            let key = DialKey::Peer(peer);
            if let Some(attempt) = admitted.attempt {
                let dialled = engines.attempts.remove(&attempt);
                engines.succeeded.push((attempt, admitted.id));
                engines.dialer.handle_connected(now, attempt);
                // A dial of a place says nothing about the peer until it is there.
                if dialled.is_some_and(|dialled| dialled.key != key) {
                    engines.dialer.handle_peer_connected(now, &key);
                }
            } else {
                engines.handshakes.remove(&admitted.id);
                engines.dialer.handle_peer_connected(now, &key);
            }
            Ok(())
        });
        if let Err(error) = adopted {
            // The muxer of a refused connection is dropped, which ends it.
            connection.close();
            return Err(error.into());
        }
        self.serve(&connection, acceptor);
        self.begin_identify(&connection);
        Ok(())
    }
}

/// Closes what the connection manager gave up: a handshake, an attempt, or a connection.
fn close(engines: &mut Engines, now: Duration, id: ConnId, reason: CloseReason) {
    if engines.handshakes.remove(&id).is_some() {
        return;
    }
    if let Some(connection) = engines.open.get(&id) {
        connection.close();
        return;
    }
    let attempt = engines.attempts.iter().find(|(_, attempt)| attempt.id == id);
    if let Some((&attempt, pending)) = attempt {
        let error = Error::unreachable(&pending.place, reason.to_string());
        engines.fail(now, attempt, Failed::new(Failure::Handshake, error));
    }
}
