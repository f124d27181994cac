//! The send path: a tell is one unidirectional stream, an ask one bidirectional stream.

use std::future::poll_fn;
use std::num::NonZeroU8;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use p2p::{Addr, BatchError, BatchOutcome, DropReason, Error, Packet, Rejection, Result};
use quinn::{ConnectionError, RecvStream, SendStream, VarInt, WriteError};
use tokio::time::{Instant, sleep, timeout};

use super::handshake::AGAIN_MAX;
use super::node::Node;
use super::session::{Session, is_turned_away};
use super::stream::{Cut, Incoming, Outgoing, at_once, frame, within};
use crate::KeyAddr;

/// How long a peer that answered asks may take to permit another stream, before it is assumed never to do so,
/// and is dialled again; at least three round trips.
const GRACE: Duration = Duration::from_millis(250);
/// Maximum number of sessions that an ask tries: one that has ended unnoticed, one without further streams,
/// and a new one.
const TRIES: usize = 3;

/// The progress of a tell without waiting.
pub(super) enum Tell<A: Addr> {
    Done(Result<()>),
    /// There is no session, or no room in it.
    Unsent(Packet),
    /// The remaining bytes find no room.
    Begun(Arc<Session<A>>, Outgoing, Bytes),
}

impl<A: Addr> Node<A> {
    pub(super) async fn tell(self: &Arc<Self>, peer: &KeyAddr<A>, packet: Packet) -> Result<()> {
        match self.tell_at_once(peer, packet) {
            Tell::Done(result) => result,
            rest => self.tell_rest(peer, rest).await,
        }
    }

    /// Messages do not wait for those to other peers, and the batch does not wait for a dial, unless more
    /// messages wait for it than [`Waiting`](super::waiting::Waiting) holds.
    pub(super) async fn tell_batch(
        self: &Arc<Self>,
        batch: &mut Vec<(KeyAddr<A>, Packet)>,
    ) -> Result<(), BatchError> {
        let mut outcome = BatchOutcome::default();
        let mut waiting = FuturesUnordered::new();
        for (peer, packet) in batch.drain(..) {
            let told = match self.tell_at_once(&peer, packet) {
                Tell::Unsent(packet) => self.tell_later(&peer, packet),
                told => told,
            };
            match told {
                Tell::Done(result) => outcome.record(result),
                rest => waiting.push(async move { self.tell_rest(&peer, rest).await }),
            }
        }
        while let Some(result) = waiting.next().await {
            outcome.record(result);
        }
        outcome.finish()
    }

    fn tell_at_once(&self, peer: &KeyAddr<A>, packet: Packet) -> Tell<A> {
        let checked = self.check_open().and_then(|()| packet.check_mtu(self.config.mtu));
        if let Err(error) = checked {
            return Tell::Done(Err(error));
        }
        let session = self.sessions().find(peer);
        let Some(session) = session else {
            return Tell::Unsent(packet);
        };
        let Some(Ok(send)) = at_once(session.connection.open_uni()) else {
            return Tell::Unsent(packet);
        };
        let (mut send, mut rest) = (Outgoing::new(send), packet.into_bytes());
        let mut noop = Context::from_waker(Waker::noop());
        match send.poll_send(&mut noop, &mut rest, &session.sent) {
            Poll::Ready(result) => Tell::Done(self.told(peer, result)),
            Poll::Pending => Tell::Begun(session, send, rest),
        }
    }

    async fn tell_rest(self: &Arc<Self>, peer: &KeyAddr<A>, tell: Tell<A>) -> Result<()> {
        self.unless_closed(self.tell_waiting(peer, tell)).await
    }

    async fn tell_waiting(self: &Arc<Self>, peer: &KeyAddr<A>, tell: Tell<A>) -> Result<()> {
        let (session, mut send, mut rest) = match tell {
            Tell::Done(result) => return result,
            Tell::Begun(session, send, rest) => (session, send, rest),
            Tell::Unsent(packet) => {
                let (session, send) = self.open_tell(peer).await?;
                (session, send, packet.into_bytes())
            }
        };
        let sending = poll_fn(|cx| send.poll_send(cx, &mut rest, &session.sent));
        match within(self.config.send_timeout, sending).await {
            Some(result) => self.told(peer, result),
            None => Err(self.no_room()),
        }
    }

    /// Sends a message in this session; returns `None` if it finds no room in time.
    pub(super) async fn send_whole(
        &self,
        session: &Session<A>,
        packet: Packet,
    ) -> Option<Result<(), WriteError>> {
        let limit = self.config.send_timeout;
        let send = match within(limit, session.connection.open_uni()).await? {
            Ok(send) => send,
            Err(error) => return Some(Err(WriteError::ConnectionLost(error))),
        };
        let (mut send, mut rest) = (Outgoing::new(send), packet.into_bytes());
        within(limit, poll_fn(|cx| send.poll_send(cx, &mut rest, &session.sent))).await
    }

    fn told(&self, peer: &KeyAddr<A>, result: Result<(), WriteError>) -> Result<()> {
        match result {
            Ok(()) => {
                self.tells.add_sent(1);
                Ok(())
            }
            Err(WriteError::ConnectionLost(error)) => Err(self.lost(peer, &error)),
            Err(error) => {
                self.check_open()?;
                Err(Error::unreachable(peer, error.to_string()))
            }
        }
    }

    fn no_room(&self) -> Error {
        Error::TimedOut {
            doing: "waiting for room for a message",
            limit: self.config.send_timeout,
        }
    }

    async fn open_tell(self: &Arc<Self>, peer: &KeyAddr<A>) -> Result<(Arc<Session<A>>, Outgoing)> {
        // The second session is for a peer that ended the first one.
        for _ in 0..2 {
            let session = self.session(peer).await?;
            match within(self.config.send_timeout, session.connection.open_uni()).await {
                Some(Ok(send)) => return Ok((session, Outgoing::new(send))),
                Some(Err(error)) => self.forget(&session, &error)?,
                None => return Err(self.no_room()),
            }
        }
        Err(Error::unreachable(peer, "every session ended immediately"))
    }

    /// Removes a session that ended, so that another one can be dialled.
    fn forget(&self, session: &Arc<Session<A>>, error: &ConnectionError) -> Result<()> {
        self.sessions().remove(session);
        tracing::debug!(layer = "quic", peer = %session.peer, %error, "the session ended");
        self.check_open()
    }

    pub(super) async fn ask(self: &Arc<Self>, peer: &KeyAddr<A>, request: Packet) -> Result<Packet> {
        self.check_open()?;
        request.check_mtu(self.config.mtu)?;
        self.unless_closed(self.ask_waiting(peer, request)).await
    }

    /// Returns the result of `call`, unless the node is closed meanwhile.
    pub(super) async fn unless_closed<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            result = call => result,
            () = self.closed() => Err(Error::Closed),
        }
    }

    async fn ask_waiting(self: &Arc<Self>, peer: &KeyAddr<A>, mut request: Packet) -> Result<Packet> {
        frame(&mut request);
        let mut request = request.into_bytes();
        let mut until = None;
        loop {
            let (session, send, recv) = self.open_ask(peer).await?;
            // A peer that refused the session processed nothing of it.
            let copy = (!session.heard.is_heard()).then(|| request.clone());
            let limit = self.config.ask_timeout;
            let exchange = timeout(limit, self.exchange(&session, send, recv, request)).await;
            let exchanged = exchange.map_err(|_| Error::TimedOut {
                doing: "waiting for the response",
                limit,
            })?;
            match (exchanged, copy) {
                (Ok(response), _) => {
                    self.asks.add_sent(1);
                    return Ok(response);
                }
                (Err(Cut::Lost(error)), Some(copy)) if is_turned_away(&error) => {
                    self.forget(&session, &error)?;
                    let until = *until.get_or_insert_with(|| Instant::now() + self.config.handshake_timeout);
                    if Instant::now() >= until {
                        return Err(self.lost(peer, &error));
                    }
                    sleep(AGAIN_MAX.mul_f64(rand::random_range(0.1..0.5))).await;
                    request = copy;
                }
                (Err(cut), _) => return Err(self.unanswered(peer, cut)),
            }
        }
    }

    /// Sends a request, and waits for its response.
    async fn exchange(
        &self,
        session: &Session<A>,
        send: SendStream,
        recv: RecvStream,
        mut request: Bytes,
    ) -> Result<Packet, Cut> {
        let _asking = session.asking.begin();
        let mut send = Outgoing::new(send);
        let mut incoming = Incoming::response(recv, self.config.mtu);
        let response = poll_fn(|cx| {
            // A peer that stops the request stream may have answered it already.
            if let Err(WriteError::ConnectionLost(error)) =
                ready!(send.poll_send(cx, &mut request, &session.sent))
            {
                return Poll::Ready(Err(Cut::Lost(error)));
            }
            incoming.poll(cx, &session.budget)
        });
        let response = response.await;
        if response.is_ok() {
            session.heard.hear();
        }
        response
    }

    fn unanswered(&self, peer: &KeyAddr<A>, cut: Cut) -> Error {
        match cut {
            Cut::Short(0) => Error::Rejected(Rejection::DROPPED),
            Cut::Short(_) => Error::invalid("response", "the response is shorter than its length field"),
            Cut::Reset(code) => Error::Rejected(rejection(code)),
            Cut::Lost(error) => self.lost(peer, &error),
            Cut::Dropped(DropReason::Budget) => Error::Limit {
                what: "bytes of incomplete messages",
                limit: self.config.reassembly,
            },
            Cut::Dropped(reason) => Error::invalid("response", reason.as_str()),
        }
    }

    async fn open_ask(
        self: &Arc<Self>,
        peer: &KeyAddr<A>,
    ) -> Result<(Arc<Session<A>>, SendStream, RecvStream)> {
        for _ in 0..TRIES {
            let session = self.session(peer).await?;
            let opened = match at_once(session.connection.open_bi()) {
                Some(opened) => Some(opened),
                None => self.wait_for_room(&session).await?,
            };
            match opened {
                Some(Ok((send, recv))) => return Ok((session, send, recv)),
                Some(Err(error)) => self.forget(&session, &error)?,
                None => {}
            }
        }
        Err(Error::unreachable(peer, "no session permits another ask"))
    }

    /// Waits for room for an ask, until another session is to be used.
    ///
    /// A Go server never frees the streams of asks: once they are used up, only another session helps.
    async fn wait_for_room(
        &self,
        session: &Arc<Session<A>>,
    ) -> Result<Option<Result<(SendStream, RecvStream), ConnectionError>>> {
        let (began, limit) = (Instant::now(), self.config.send_timeout);
        let grace = GRACE.max(3 * session.connection.rtt()).min(limit);
        let mut open = pin!(session.connection.open_bi());
        loop {
            if let Ok(opened) = timeout(grace, open.as_mut()).await {
                return Ok(Some(opened));
            }
            if session.asking.is_below_most() {
                let third = self.sessions().retire(session);
                if let Some(third) = third {
                    self.end_session(third);
                }
            }
            if !self.sessions().takes(session) {
                return Ok(None);
            }
            if began.elapsed() >= limit {
                return Err(Error::TimedOut {
                    doing: "waiting for room for an ask",
                    limit,
                });
            }
        }
    }
}

/// Translates a peer's stream error code.
fn rejection(code: VarInt) -> Rejection {
    u8::try_from(code.into_inner())
        .ok()
        .and_then(NonZeroU8::new)
        .map_or(Rejection::DROPPED, Rejection::new)
}
