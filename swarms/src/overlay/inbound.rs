//! The receive path and the driver's loop: receives from below, serves and sends the engine's requests, and
//! handles its timeouts.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use p2p::engine::{Failure, RequestId, RequestTransmit};
use p2p::{
    Addr, AskSwarm, BoxAskSwarm, DropReason, Error, Headroom, Message, Packet, PeerId, Rejection, Request,
    Result, Swarm,
};
use p2p_protocols::overlay::wire::Header;
use tokio::time::{sleep, timeout};

use super::core::Core;
use super::relay::RelayedMessage;
use super::router::Router;
use crate::driver::{Interest, PAUSE, Sleeper};

/// Maximum number of consecutive message batches before other events are handled.
const IN_A_ROW: u32 = 8;

/// The next event of the driver's loop.
enum WorkEvent<A> {
    Messages,
    Request(Request<A>),
    Answer(A, RequestId, Result<Packet>),
    Timeout,
    /// A relayed message, decrypted.
    Relayed(Message<PeerId>),
    RelayedRequest(Request<PeerId>),
    Failed(Error),
    /// The engine has requests to send.
    Requests,
}

type Asking<A> = FuturesUnordered<BoxFuture<'static, (A, RequestId, Result<Packet>)>>;

impl<A: Addr, S: AskSwarm<A>, R: Router<A>> Core<A, S, R> {
    /// Receives from below and from `relay`, until the swarm below is closed.
    pub(super) async fn work(self: Arc<Self>, relay: Option<BoxAskSwarm<PeerId>>) {
        let (inner, relay) = (self.inner.clone(), relay.as_ref());
        let (mut pulled, mut sleeper, mut asking) = (Vec::new(), Sleeper::default(), Asking::new());
        // These two futures persist over iterations.
        let mut requests = pin!(inner.receive_ask());
        let mut relayed_messages = pin!(relay.map(Swarm::receive));
        let mut relayed_requests = pin!(relay.map(AskSwarm::receive_ask));
        let mut in_a_row = 0_u32;
        loop {
            for transmit in self.take_requests() {
                asking.push(self.request(transmit));
            }
            let event = {
                let mut receiving = pin!(inner.receive_batch(&mut pulled, self.config.batch));
                let mut messages = |cx: &mut Context<'_>| match receiving.as_mut().poll(cx) {
                    Poll::Ready(Ok(_)) => Some(WorkEvent::Messages),
                    Poll::Ready(Err(error)) => Some(WorkEvent::Failed(error)),
                    Poll::Pending => None,
                };
                poll_fn(|cx| {
                    if in_a_row < IN_A_ROW
                        && let Some(event) = messages(cx)
                    {
                        return Poll::Ready(event);
                    }
                    if let Poll::Ready(request) = requests.as_mut().poll(cx) {
                        requests.set(inner.receive_ask());
                        return Poll::Ready(request.map_or_else(WorkEvent::Failed, WorkEvent::Request));
                    }
                    if !asking.is_empty()
                        && let Poll::Ready(Some((to, id, answer))) = asking.poll_next_unpin(cx)
                    {
                        return Poll::Ready(WorkEvent::Answer(to, id, answer));
                    }
                    if self.timer.poll(cx, &mut sleeper).is_ready() {
                        return Poll::Ready(WorkEvent::Timeout);
                    }
                    if let Some(told) = poll_some(relayed_messages.as_mut(), cx) {
                        relayed_messages.set(relay.map(Swarm::receive));
                        return Poll::Ready(told.map_or_else(WorkEvent::Failed, WorkEvent::Relayed));
                    }
                    if let Some(asked) = poll_some(relayed_requests.as_mut(), cx) {
                        relayed_requests.set(relay.map(AskSwarm::receive_ask));
                        return Poll::Ready(asked.map_or_else(WorkEvent::Failed, WorkEvent::RelayedRequest));
                    }
                    if in_a_row >= IN_A_ROW
                        && let Some(event) = messages(cx)
                    {
                        return Poll::Ready(event);
                    }
                    if self.has_requests() {
                        return Poll::Ready(WorkEvent::Requests);
                    }
                    Poll::Pending
                })
                .await
            };
            in_a_row = if matches!(event, WorkEvent::Messages) {
                in_a_row + 1
            } else {
                0
            };
            match event {
                WorkEvent::Requests => {}
                WorkEvent::Messages => {
                    self.handle_batch(&mut pulled);
                    self.driver.yield_to_leader().await;
                }
                WorkEvent::Request(request) => self.handle_request_below(request),
                WorkEvent::Answer(to, id, answer) => self.handle_answer(&to, id, answer),
                WorkEvent::Timeout => {
                    let mut state = self.state();
                    if let Some(engine) = &mut state.engine {
                        engine.handle_timeout(self.timer.now());
                    }
                    self.drain_engine(&mut state);
                }
                WorkEvent::Relayed(message) => {
                    self.tells.add_received(1);
                    self.deliver([message]);
                }
                WorkEvent::RelayedRequest(request) => {
                    self.asks.add_received(1);
                    self.deliver_request(request);
                }
                WorkEvent::Failed(Error::Closed) => return self.close(),
                WorkEvent::Failed(error) => {
                    tracing::debug!(layer = R::LAYERS[0], %error, "receiving failed");
                    self.driver.fail(error);
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Sends a request of the engine.
    fn request(&self, transmit: RequestTransmit<A>) -> BoxFuture<'static, (A, RequestId, Result<Packet>)> {
        let inner = self.inner.clone();
        let limit = match &self.state().engine {
            Some(engine) => engine.request_timeout(),
            None => Duration::ZERO,
        };
        self.requests.add_sent(1);
        Box::pin(async move {
            let RequestTransmit { to, id, request } = transmit;
            let header = Header::Engine;
            let room = Headroom::new(header.len(), 0).plus(inner.headroom());
            let mut packet = Packet::new(room, &request);
            header.push(&mut packet);
            let doing = "asking a node of the overlay";
            let answer = timeout(limit, inner.ask(&to, packet)).await;
            let answer = answer.unwrap_or(Err(Error::TimedOut { doing, limit }));
            (to, id, answer)
        })
    }

    fn handle_answer(&self, to: &A, id: RequestId, answer: Result<Packet>) {
        let now = self.timer.now();
        if answer.is_ok()
            && let Some(peer) = to.peer_id()
        {
            // The result is ignored: the address may be unknown.
            let _ = self.book().heard(now, &peer, to);
        }
        let mut state = self.state();
        let Some(engine) = &mut state.engine else { return };
        match answer {
            Ok(answer) => engine.handle_answer(now, id, &answer),
            Err(Error::Rejected(_)) => engine.handle_failure(now, id, Failure::Rejected),
            Err(error) => {
                tracing::trace!(layer = R::LAYERS[3], peer = %to, %error, "no response");
                engine.handle_failure(now, id, Failure::Unreachable);
            }
        }
        self.drain_engine(&mut state);
    }

    /// Delivers received messages. Never waits.
    fn handle_batch(self: &Arc<Self>, pulled: &mut Vec<Message<A>>) {
        let now = self.timer.now();
        let (mut moved, mut relayed) = (Vec::new(), Vec::new());
        let book = self.book();
        // Messages of one node usually follow one another.
        let mut last: Option<(PeerId, A)> = None;
        let own = pulled.drain(..).filter_map(|message| {
            let Message { src, mut payload, .. } = message;
            let header = Header::pop(&mut payload);
            if let Some(Header::Relayed { hops, src: id, dst }) = header {
                relayed.push(RelayedMessage {
                    from: src,
                    hops,
                    src: id,
                    dst,
                    payload,
                });
                return None;
            }
            self.tells.add_received(1);
            let id = match self.source(header, &src) {
                Ok(id) => id,
                Err(reason) => {
                    self.tells.add_dropped_from(reason, &src);
                    return None;
                }
            };
            if last.as_ref().is_none_or(|(known, at)| *known != id || *at != src) {
                if !book.heard(now, &id, &src) {
                    moved.push((id, src.clone()));
                }
                last = Some((id, src));
            }
            Some(Message {
                src: id,
                dst: self.id,
                payload,
            })
        });
        self.deliver(own);
        drop(book);
        for (id, addr) in moved {
            self.meet(now, id, addr);
        }
        for relayed in relayed {
            self.handle_relayed(now, relayed);
        }
    }

    /// Returns the source of a message that `src` sent directly.
    fn source(&self, header: Option<Header>, src: &A) -> Result<PeerId, DropReason> {
        match header {
            Some(Header::Direct) if self.proven => src.peer_id().ok_or(DropReason::Unauthenticated),
            Some(Header::Named { src, dst }) if !self.proven => {
                if dst == self.id {
                    Ok(src)
                } else {
                    Err(DropReason::NoPeer)
                }
            }
            _ => Err(DropReason::Malformed),
        }
    }

    pub(super) fn deliver(&self, messages: impl IntoIterator<Item = Message<PeerId>>) {
        let put = self.told.extend(&self.driver, (), messages);
        for message in put.refused {
            self.tells.add_dropped_from(put.reason, &message.src);
        }
    }

    fn handle_request_below(self: &Arc<Self>, request: Request<A>) {
        let Request { message, responder } = request;
        let (src, mut payload) = (message.src, message.payload);
        let now = self.timer.now();
        let header = Header::pop(&mut payload);
        if header == Some(Header::Engine) {
            self.requests.add_received(1);
            self.still_known(now, &src);
            let served = {
                let mut state = self.state();
                let Some(engine) = &mut state.engine else { return };
                let served = engine.handle_request(now, &src, &payload);
                self.drain_engine(&mut state);
                served
            };
            match served {
                Ok(answer) => {
                    self.requests.add_delivered(1);
                    let answer = Packet::new(self.inner.headroom(), &answer);
                    let responding = async move { drop(responder.respond(answer).await) };
                    if let Err(reason) = self.background_sends.send(responding) {
                        self.requests.add_dropped_from(reason, &src);
                    }
                }
                Err(why) => {
                    self.requests.add_dropped_from(DropReason::Refused, &src);
                    responder.reject(why);
                }
            }
            return;
        }
        self.asks.add_received(1);
        match self.source(header, &src) {
            Ok(id) => {
                if !self.book().heard(now, &id, &src) {
                    self.meet(now, id, src);
                }
                let (src, dst) = (id, self.id);
                let message = Message { src, dst, payload };
                let request = Request { message, responder };
                self.deliver_request(request.limit_response(self.mtu));
            }
            Err(reason) => {
                self.asks.add_dropped_from(reason, &src);
                responder.reject(Rejection::DROPPED);
            }
        }
    }

    /// Updates the address of a known node that has moved: a node that sends an engine request is at its
    /// source address.
    fn still_known(&self, now: Duration, src: &A) {
        let Some(id) = src.peer_id() else { return };
        let moved = {
            let book = self.book();
            book.contains(&id) && !book.heard(now, &id, src)
        };
        if moved {
            self.meet(now, id, src.clone());
        }
    }

    fn deliver_request(&self, request: Request<PeerId>) {
        if let Err(refused) = self.asked.push(request) {
            for request in refused.items {
                self.asks.add_dropped_from(refused.reason, &request.message.src);
                request.reject(Rejection::BUSY);
            }
        }
    }

    pub(super) async fn receive_ask(&self) -> Result<Request<PeerId>> {
        let mut pop = pin!(self.asked.pop());
        let request = self
            .driver
            .wait(Interest::Own(()), |cx| pop.as_mut().poll(cx))
            .await?;
        self.asks.add_delivered(1);
        Ok(request)
    }
}

/// Polls a future that may be absent.
fn poll_some<F: Future>(future: Pin<&mut Option<F>>, cx: &mut Context<'_>) -> Option<F::Output> {
    match future.as_pin_mut()?.poll(cx) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
