//! What all handles and tasks of one node share: how sessions come to be, and what arrives in them.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use p2p::{Addr, Counters, Error, Message, PeerId, Reason, Rejection, Request, Result};
use quinn::{ConnectionError, Endpoint, RecvStream, SendStream};
use rustls::crypto::CryptoProvider;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::QuicConfig;
use super::ask::Reply;
use super::crew::{Crew, Kind};
use super::medium::{Medium, Pinned};
use super::session::{Dialled, Session, Sessions};
use super::stream::{Budget, Cut, Incoming, Outgoing, receive};
use super::tls::{self, Check, Identity};
use crate::KeyAddr;
use crate::inbox::{Inbox, Queued};

/// Streams that one session hands over before others have their turn.
const BURST: usize = 16;

pub(super) struct Node<A: Addr> {
    pub(super) identity: Identity,
    pub(super) config: Arc<QuicConfig>,
    pub(super) crypto: Arc<CryptoProvider>,
    pub(super) transport: Arc<quinn::TransportConfig>,
    pub(super) medium: Arc<dyn Medium<A>>,
    pub(super) endpoint: Mutex<Option<Endpoint>>,
    pub(super) sessions: Mutex<Sessions<A>>,
    pub(super) crew: Arc<Crew>,
    pub(super) messages: Inbox<Message<KeyAddr<A>>>,
    pub(super) requests: Inbox<Request<KeyAddr<A>>>,
    pub(super) budget: Arc<Budget>,
    pub(super) tells: Arc<Counters>,
    pub(super) asks: Arc<Counters>,
    pub(super) handshakes: Arc<Counters>,
    pub(super) accepting: Arc<AtomicUsize>,
    pub(super) closed: AtomicBool,
}

impl<A: Addr> Node<A> {
    pub(super) fn sessions(&self) -> MutexGuard<'_, Sessions<A>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.is_closed() {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        let endpoint = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        endpoint.clone()
    }

    /// Ends everything; returns the endpoint, whose port is free once it is dropped and its connections are drained.
    pub(super) fn shut(&self) -> Option<Endpoint> {
        let first = !self.closed.swap(true, SeqCst);
        let mut endpoint = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoint = endpoint.take();
        if first {
            self.tells.dropped_many(Reason::Closed, self.messages.close());
            self.asks.dropped_many(Reason::Closed, self.requests.close());
            if let Some(endpoint) = &endpoint {
                endpoint.close(0_u32.into(), b"");
            }
            self.sessions().clear();
            self.crew.close();
        }
        endpoint
    }

    /// What the end of a connection means to a call.
    pub(super) fn lost(&self, peer: &KeyAddr<A>, error: &ConnectionError) -> Error {
        if self.is_closed() {
            return Error::Closed;
        }
        match error {
            ConnectionError::TimedOut => Error::TimedOut {
                doing: "waiting for the peer",
                limit: self.config.idle_timeout,
            },
            error => Error::unreachable(peer, error.to_string()),
        }
    }

    /// The session with `peer`; dials where there is none.
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
        // The sender is dropped without a result only where the runtime ends.
        let dialled = dial.wait_for(Option::is_some).await.map_err(|_| Error::Closed)?;
        match &*dialled {
            Some(Ok(session)) => Ok(session.clone()),
            Some(Err(error)) => Err(error.again()),
            None => Err(Error::Closed),
        }
    }

    fn begin_dial(
        self: &Arc<Self>,
        sessions: &mut Sessions<A>,
        peer: &KeyAddr<A>,
    ) -> Result<watch::Receiver<Dialled<A>>> {
        if !self.config.allows(&peer.id) {
            return Err(Error::denied(peer));
        }
        let limit = self.config.max_handshakes;
        if sessions.dials() >= limit {
            let what = "dials under way";
            return Err(Error::Limit { what, limit });
        }
        let sender = sessions.begin_dial(peer);
        let receiver = sender.subscribe();
        let (node, peer) = (self.clone(), peer.clone());
        tokio::spawn(async move {
            let limit = node.config.handshake_timeout;
            let dialled = match timeout(limit, node.connect(&peer)).await {
                Ok(result) => result,
                Err(_) => Err(Error::TimedOut {
                    doing: "the handshake with the peer",
                    limit,
                }),
            };
            node.sessions().end_dial(&peer);
            // Nobody may wait any more.
            let _ = sender.send(Some(dialled));
        });
        Ok(receiver)
    }

    async fn connect(self: &Arc<Self>, peer: &KeyAddr<A>) -> Result<Arc<Session<A>>> {
        let pinned = Pinned::addr(&self.medium, &peer.addr)?;
        let check = Check {
            config: self.config.clone(),
            expected: Some(peer.id),
            counters: self.handshakes.clone(),
            refusal: Arc::default(),
        };
        let refusal = check.refusal.clone();
        let crypto = tls::client(&self.identity, check, self.crypto.clone())?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.transport.clone());
        let endpoint = self.endpoint().ok_or(Error::Closed)?;
        let connecting = endpoint
            .connect_with(config, pinned.at, "p2p")
            .map_err(|error| Error::unreachable(peer, error.to_string()))?;
        let connection = connecting.await.map_err(|error| match refusal.get() {
            Some(refusal) => Error::unreachable(peer, refusal.as_str()),
            None => self.lost(peer, &error),
        })?;
        let local = self.medium.local_addrs().into_iter().next();
        let local = KeyAddr::new(self.identity.id, local.unwrap_or_else(|| peer.addr.clone()));
        self.begin_session(connection, Some(peer), peer.addr.clone(), local, pinned)
    }

    /// Takes whoever dials this node, until the endpoint is closed.
    pub(super) async fn listen(self: Arc<Self>, endpoint: Endpoint) {
        while let Some(incoming) = endpoint.accept().await {
            let limit = self.config.max_handshakes;
            let under_way = self.accepting.load(Relaxed);
            self.handshakes.received(1);
            if under_way >= limit {
                self.handshakes.dropped(Reason::Budget);
                incoming.refuse();
                continue;
            }
            if under_way >= limit.div_ceil(4) && incoming.may_retry() {
                self.handshakes.dropped(Reason::Unauthenticated);
                // It fails for those alone who proved their address already.
                let _ = incoming.retry();
                continue;
            }
            let (at, local) = (incoming.remote_address(), incoming.local_ip());
            let Some((pinned, src, dst)) = Pinned::source(&self.medium, at, local) else {
                self.handshakes.dropped(Reason::NoPeer);
                incoming.ignore();
                continue;
            };
            let Ok(connecting) = incoming.accept() else {
                self.handshakes.dropped(Reason::Malformed);
                continue;
            };
            let place = Place::take(&self.accepting);
            let node = self.clone();
            tokio::spawn(async move {
                let shaken = timeout(node.config.handshake_timeout, connecting).await;
                drop(place);
                if let Ok(Ok(connection)) = shaken {
                    let local = KeyAddr::new(node.identity.id, dst);
                    match node.begin_session(connection, None, src, local, pinned) {
                        Ok(_) => node.handshakes.delivered(1),
                        Err(error) => tracing::debug!(layer = "quic", %error, "no session"),
                    }
                }
            });
        }
        // Closed, or what is below is.
        drop(self.shut());
    }

    fn begin_session(
        self: &Arc<Self>,
        connection: quinn::Connection,
        dialled: Option<&KeyAddr<A>>,
        addr: A,
        local: KeyAddr<A>,
        pinned: Pinned<A>,
    ) -> Result<Arc<Session<A>>> {
        let (key, id) = tls::peer(&connection, &self.config)
            .ok_or_else(|| Error::unreachable(&addr, "the peer showed no certificate"))?;
        if let Some(dialled) = dialled
            && dialled.id != id
        {
            return Err(Error::unreachable(
                dialled,
                format!("another identity is there: {id}"),
            ));
        }
        let total = Some(self.budget.clone());
        let session = Arc::new(Session {
            peer: KeyAddr::new(id, addr),
            local,
            key,
            connection,
            budget: Arc::new(Budget::new(self.config.session_reassembly, total)),
            outbound: dialled.is_some(),
            since: Instant::now(),
            used: AtomicU64::new(0),
            asking: AtomicUsize::new(0),
            spent: AtomicBool::new(false),
            _pinned: pinned,
        });
        let mut sessions = self.sessions();
        // Under the lock: after `shut` there is no further session.
        self.check_open()?;
        let replaced = sessions.add(&session, self.config.max_sessions, self.config.handshake_timeout);
        drop(sessions);
        for replaced in replaced {
            replaced.close();
        }
        self.crew.join(attend(self.clone(), session.clone()));
        Ok(session)
    }

    /// Ends the sessions that `pick` picks.
    pub(super) fn end_sessions(&self, pick: impl Fn(&Session<A>) -> bool) -> usize {
        let mut sessions = self.sessions();
        let ended = sessions.list(pick);
        for session in &ended {
            sessions.remove(session);
        }
        drop(sessions);
        for session in &ended {
            session.close();
        }
        ended.len()
    }

    pub(super) fn retire(&self, session: &Arc<Session<A>>) {
        let third = self.sessions().retire(session);
        if let Some(third) = third {
            third.close();
        }
    }

    fn put_message(&self, session: &Session<A>, received: Result<p2p::Packet, Cut>) {
        let payload = match received {
            Ok(payload) => payload,
            Err(cut) => return dropped(&self.tells, session, &cut),
        };
        self.tells.received(1);
        let message = Message {
            src: session.peer.clone(),
            dst: session.local.clone(),
            payload,
        };
        match self.messages.push(message) {
            Ok(()) => self.crew.notify(Kind::Message),
            Err(refused) => self.tells.dropped_at(refused.reason, &session.peer),
        }
    }

    fn put_request(&self, session: &Session<A>, received: Result<p2p::Packet, Cut>, send: Outgoing) {
        let payload = match received {
            Ok(payload) => payload,
            Err(cut) => return dropped(&self.asks, session, &cut),
        };
        self.asks.received(1);
        let reply = Reply {
            send,
            mtu: self.config.mtu,
            limit: self.config.send_timeout,
        };
        let (src, dst) = (session.peer.clone(), session.local.clone());
        match self.requests.push(Request::new(src, dst, payload, reply)) {
            Ok(()) => self.crew.notify(Kind::Ask),
            Err(refused) => {
                self.asks.dropped_at(refused.reason, &session.peer);
                let (_, _, _, responder) = refused.item.into_parts();
                responder.reject(Rejection::BUSY);
            }
        }
    }

    fn begin_tell(
        self: &Arc<Self>,
        session: &Arc<Session<A>>,
        recv: RecvStream,
        cx: &mut std::task::Context<'_>,
    ) {
        let mut incoming = Incoming::tell(recv, self.config.mtu, session.budget.clone());
        match incoming.poll(cx) {
            Poll::Ready(received) => self.put_message(session, received),
            Poll::Pending => {
                let (node, session) = (self.clone(), session.clone());
                self.crew.join(async move {
                    let received = node.finish(&mut incoming).await;
                    node.put_message(&session, received);
                });
            }
        }
    }

    fn begin_ask(
        self: &Arc<Self>,
        session: &Arc<Session<A>>,
        (send, recv): (SendStream, RecvStream),
        cx: &mut std::task::Context<'_>,
    ) {
        let send = Outgoing::new(send);
        let mut incoming = Incoming::framed(recv, self.config.mtu, session.budget.clone());
        match incoming.poll(cx) {
            // Dropping the receiving half tells a peer that keeps its side open that no more is wanted, which frees the
            // stream.
            Poll::Ready(received) => self.put_request(session, received, send),
            Poll::Pending => {
                let (node, session) = (self.clone(), session.clone());
                self.crew.join(async move {
                    let received = node.finish(&mut incoming).await;
                    drop(incoming);
                    node.put_request(&session, received, send);
                });
            }
        }
    }

    /// Receives the rest of a message, which has so long to come.
    async fn finish(&self, incoming: &mut Incoming) -> Result<p2p::Packet, Cut> {
        let received = timeout(self.config.message_timeout, receive(incoming)).await;
        received.unwrap_or(Err(Cut::Dropped(Reason::Expired)))
    }
}

/// Takes the streams that the peer opens, until the session ends.
async fn attend<A: Addr>(node: Arc<Node<A>>, session: Arc<Session<A>>) {
    let connection = session.connection.clone();
    let mut tell = pin!(connection.accept_uni());
    let mut ask = pin!(connection.accept_bi());
    std::future::poll_fn(|cx| {
        let mut taken = 0;
        while taken < BURST {
            match tell.as_mut().poll(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(recv)) => {
                    tell.set(connection.accept_uni());
                    node.begin_tell(&session, recv, cx);
                    taken += 1;
                }
            }
        }
        while taken < 2 * BURST {
            match ask.as_mut().poll(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(streams)) => {
                    ask.set(connection.accept_bi());
                    node.begin_ask(&session, streams, cx);
                    taken += 1;
                }
            }
        }
        if taken > 0 {
            node.sessions().touch(&session);
        }
        if taken >= BURST {
            // More may be there.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
    node.sessions().remove(&session);
}

/// Counts a message that did not arrive whole.
fn dropped<A: Addr>(counters: &Counters, session: &Session<A>, cut: &Cut) {
    let reason = match cut {
        Cut::Dropped(reason) => *reason,
        Cut::Short(_) => Reason::Malformed,
        // The peer took it back, or is gone: it was never sent whole.
        Cut::Reset(_) | Cut::Lost(_) => return,
    };
    counters.dropped_at(reason, &session.peer);
}

/// One of the handshakes that may be under way.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A filter for [`Node::end_sessions`]: every session with this peer.
pub(super) fn with_peer<A: Addr>(id: &PeerId) -> impl Fn(&Session<A>) -> bool + '_ {
    move |session| session.peer.id == *id
}

/// Takes up to `max` items without waiting.
pub(super) fn take_batch<T: Queued>(inbox: &Inbox<T>, out: &mut Vec<T>, max: usize) -> Result<Option<usize>> {
    let before = out.len();
    while out.len() - before < max {
        match inbox.try_pop() {
            Ok(Some(item)) => out.push(item),
            Err(error) if out.len() == before => return Err(error),
            Ok(None) | Err(_) => break,
        }
    }
    let taken = out.len() - before;
    Ok((taken > 0).then_some(taken))
}
