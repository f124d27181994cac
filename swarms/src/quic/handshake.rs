//! Establishes sessions, outbound and inbound.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use p2p::{Addr, DropReason, Error, Result};
use quinn::{ConnectionError, ConnectionId, Endpoint, TransportErrorCode};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::addr_mapping::Pinned;
use super::node::Node;
use super::session::Session;
use super::sessions::{Dialled, Sessions};
use super::tls;
use super::transport::INCOMING;
use crate::KeyAddr;
use crate::allowed_peers::Permits as _;

/// The TLS alert "access denied", which peers receive that are not allowed.
const ACCESS_DENIED: u8 = 49;

/// Initial and maximum delay before a busy peer is dialled again; doubled each time, minus up to a half.
const AGAIN: Duration = Duration::from_millis(50);
pub(super) const AGAIN_MAX: Duration = Duration::from_millis(500);

impl<A: Addr> Node<A> {
    /// Returns the session with `peer`; dials if there is none.
    pub(super) async fn session(self: &Arc<Self>, peer: &KeyAddr<A>) -> Result<Arc<Session<A>>> {
        self.check_open()?;
        let mut dial = {
            let mut sessions = self.sessions();
            if let Some(session) = sessions.find(peer) {
                return Ok(session);
            }
            match sessions.dial(peer) {
                Some(dial) => dial,
                None => self.begin_dial(&mut sessions, peer)?,
            }
        };
        // The sender is dropped without a result only when the node ends.
        let dialled = dial.wait_for(Option::is_some).await.map_err(|_| Error::Closed)?;
        match &*dialled {
            Some(Ok(session)) => Ok(session.clone()),
            Some(Err(error)) => Err(error.clone()),
            None => Err(Error::Closed),
        }
    }

    pub(super) fn begin_dial(
        self: &Arc<Self>,
        sessions: &mut Sessions<A>,
        peer: &KeyAddr<A>,
    ) -> Result<watch::Receiver<Dialled<A>>> {
        if !self.config.allow.permits(&peer.id) {
            return Err(Error::denied(peer));
        }
        let limit = self.config.max_handshakes;
        let full = move || Error::Limit {
            what: "dials under way",
            limit,
        };
        let mut permit = self.dials.take(&peer.addr, &self.config).ok_or_else(full)?;
        let (number, receiver) = sessions.begin_dial(peer);
        let (node, peer) = (self.clone(), peer.clone());
        tokio::spawn(async move {
            let limit = node.config.handshake_timeout;
            let doing = "the handshake with the peer";
            let connected = tokio::select! {
                biased;
                connected = timeout(limit, node.connect(&peer)) => {
                    connected.unwrap_or(Err(Error::TimedOut { doing, limit }))
                }
                () = permit.is_revoked() => Err(full()),
            };
            drop(permit);
            let mut sessions = node.sessions();
            let waiting = sessions.end_dial(&peer, Some(number));
            let session = sessions.find(&peer);
            drop(sessions);
            // If there is a session, the waiting callers already have it: this one, or one that the peer
            // dialled meanwhile.
            let Some(waiting) = waiting else { return };
            let ended = || Error::unreachable(&peer, "the session ended at once");
            let dialled = session.map_or_else(|| Err(connected.err().unwrap_or_else(ended)), Ok);
            let _ = waiting.send(Some(dialled));
        });
        Ok(receiver)
    }

    async fn connect(self: &Arc<Self>, peer: &KeyAddr<A>) -> Result<()> {
        let pinned = Pinned::addr(&self.mapping, &peer.addr)?;
        let check = tls::Check::only(peer.id, self.config.clone());
        let refusal = check.refusal();
        let crypto = tls::client(&self.identity, check, self.crypto.clone())?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.transport_config.clone());
        let mut patience = AGAIN;
        let connection = loop {
            let endpoint = self.endpoint().ok_or(Error::Closed)?;
            let connecting = endpoint
                .connect_with(config.clone(), pinned.at, "p2p")
                .map_err(|error| Error::unreachable(peer, error.to_string()))?;
            // The endpoint must not outlive the node for this dial.
            drop(endpoint);
            match (connecting.await, refusal.get()) {
                (Ok(connection), _) => break connection,
                (Err(_), Some(refusal)) => return Err(Error::unreachable(peer, refusal.as_str())),
                // The peer exists and has no room at the moment. The caller bounds the total time.
                (Err(error), None) if is_busy(&error) && self.dials(peer) => {
                    sleep(patience.mul_f64(rand::random_range(0.5..1.0))).await;
                    patience = (2 * patience).min(AGAIN_MAX);
                }
                (Err(error), None) => return Err(self.lost(peer, &error)),
            }
        };
        let local = self.mapping.local_addrs().into_iter().next();
        let local = local.unwrap_or_else(|| peer.addr.clone());
        self.begin_session(connection, true, peer.addr.clone(), local, pinned)
    }

    /// Returns whether to keep dialling a peer: while the node is open, and after that for messages that were
    /// told before.
    fn dials(&self, peer: &KeyAddr<A>) -> bool {
        self.check_open().is_ok() || self.sessions().waiting(peer).is_some()
    }

    /// Accepts inbound dials until the endpoint is closed.
    pub(super) async fn listen(self: Arc<Self>, endpoint: Endpoint) {
        let accepting = Arc::default();
        let mut refused = Refused::default();
        while let Some(incoming) = endpoint.accept().await {
            self.handshakes.add_received(1);
            if let Err(reason) = self.accept(incoming, &accepting, &mut refused) {
                self.handshakes.add_dropped(reason);
            }
        }
        // The endpoint, or the transport below, is closed.
        self.close();
    }

    fn accept(
        self: &Arc<Self>,
        incoming: quinn::Incoming,
        accepting: &Arc<AtomicUsize>,
        refused: &mut Refused,
    ) -> Result<(), DropReason> {
        let limit = self.config.max_handshakes;
        if self.check_open().is_err() {
            incoming.refuse();
            return Err(DropReason::Closed);
        }
        if refused.knows(&incoming, self.config.handshake_timeout) {
            incoming.refuse();
            return Err(DropReason::Duplicate);
        }
        let Some(permit) = HandshakePermit::take(accepting, limit) else {
            refused.refuse(incoming, limit);
            return Err(DropReason::Budget);
        };
        let number = permit.number();
        // Also if dials without that proof would take much of the room that is left for sessions.
        let is_full = number > limit.div_ceil(4) || !self.sessions().admits(4 * number, &self.config);
        if is_full && incoming.may_retry() {
            // `retry` fails only for peers that have already proved their address.
            let _ = incoming.retry();
            return Err(DropReason::Unauthenticated);
        }
        if !self.sessions().admits(number, &self.config) {
            refused.refuse(incoming, limit);
            return Err(DropReason::Budget);
        }
        let (at, local) = (incoming.remote_address(), incoming.local_ip());
        let Some((pinned, src, dst)) = Pinned::source(&self.mapping, at, local) else {
            incoming.ignore();
            return Err(DropReason::NoPeer);
        };
        let connecting = incoming.accept().map_err(|_| DropReason::Malformed)?;
        let node = self.clone();
        tokio::spawn(async move {
            let shaken = timeout(node.config.handshake_timeout, connecting).await;
            let begun = match shaken {
                Ok(Ok(connection)) => {
                    node.begin_session(connection, false, src, dst, pinned)
                        .map_err(|error| match error {
                            Error::Denied { .. } => DropReason::Denied,
                            Error::Closed => DropReason::Closed,
                            Error::Limit { .. } => DropReason::Budget,
                            _ => DropReason::Unauthenticated,
                        })
                }
                Ok(Err(error)) => Err(refusal(&error)),
                Err(_) => Err(DropReason::Expired),
            };
            // By now it either has a session or never will.
            drop(permit);
            match begun {
                Ok(()) => node.handshakes.add_delivered(1),
                Err(reason) => node.handshakes.add_dropped_from(reason, &at),
            }
        });
        Ok(())
    }
}

/// Returns whether a dialled peer had no room for another handshake or session.
fn is_busy(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::CONNECTION_REFUSED)
}

/// Returns why an inbound handshake failed.
fn refusal(error: &ConnectionError) -> DropReason {
    match error {
        ConnectionError::TransportError(error) if error.code == TransportErrorCode::crypto(ACCESS_DENIED) => {
            DropReason::Denied
        }
        ConnectionError::LocallyClosed => DropReason::Closed,
        ConnectionError::TimedOut => DropReason::Expired,
        // The peer gave up.
        ConnectionError::ConnectionClosed(_) | ConnectionError::ApplicationClosed(_) => DropReason::Lost,
        _ => DropReason::Unauthenticated,
    }
}

/// Recently refused dials. A retransmitted initial packet that was sent before the refusal arrived would
/// start a handshake that its peer does not know of, and that takes room until its timeout.
#[derive(Default)]
struct Refused(VecDeque<(ConnectionId, Instant)>);

impl Refused {
    /// Returns whether this dial was refused within `time`.
    fn knows(&mut self, incoming: &quinn::Incoming, time: Duration) -> bool {
        while self.0.front().is_some_and(|(_, since)| since.elapsed() > time) {
            self.0.pop_front();
        }
        let dial = incoming.orig_dst_cid();
        self.0.iter().any(|(refused, _)| *refused == dial)
    }

    /// Refuses a dial, and remembers a number of them for each of `handshakes`.
    fn refuse(&mut self, incoming: quinn::Incoming, handshakes: usize) {
        self.remember(incoming.orig_dst_cid(), handshakes);
        incoming.refuse();
    }

    fn remember(&mut self, dial: ConnectionId, handshakes: usize) {
        if self.0.len() >= INCOMING * handshakes {
            self.0.pop_front();
        }
        self.0.push_back((dial, Instant::now()));
    }
}

/// The slot of one handshake.
struct HandshakePermit(Arc<AtomicUsize>, usize);

impl HandshakePermit {
    /// Takes a slot, unless `limit` are taken.
    fn take(taken: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let number = taken.fetch_add(1, Relaxed) + 1;
        let permit = Self(taken.clone(), number);
        (number <= limit).then_some(permit)
    }

    /// Returns how many slots are taken, including this one.
    fn number(&self) -> usize {
        self.1
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_refused_dials_is_remembered_within_a_bound_the_latest_first() {
        let mut refused = Refused::default();
        for dial in 0..10_000_u32 {
            refused.remember(ConnectionId::new(&dial.to_be_bytes()), 16);
            assert!(refused.0.len() <= INCOMING * 16);
        }
        let latest = refused.0.back().map(|(dial, _)| *dial);
        assert_eq!(latest, Some(ConnectionId::new(&9999_u32.to_be_bytes())));
    }
}
