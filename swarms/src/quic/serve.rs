//! The receive path: streams that peers open in their sessions, and the responses to their requests.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use p2p::{Addr, Counters, DropReason, Error, Message, Packet, Rejection, Request, Respond, Result};
use quinn::{RecvStream, SendStream};
use tokio::time::timeout;

use super::node::Node;
use super::session::Session;
use super::stream::{Cut, Incoming, Outgoing, frame, within};
use super::task_set::Kind;
use crate::KeyAddr;

/// Number of streams that one session delivers before it yields.
pub(super) const BURST: usize = 16;

/// Accepts the streams that the peer opens, until the session ends.
pub(super) async fn accept_streams<A: Addr>(node: Arc<Node<A>>, session: Arc<Session<A>>) {
    let connection = session.connection.clone();
    let mut tell = pin!(connection.accept_uni());
    let mut ask = pin!(connection.accept_bi());
    let (mut messages, mut requests) = (VecDeque::new(), VecDeque::new());
    let (mut no_tells, mut no_asks) = (false, false);
    poll_fn(|cx| {
        let (mut tells, mut asks) = (0, 0);
        while !no_tells
            && tells < BURST
            && let Poll::Ready(opened) = tell.as_mut().poll(cx)
        {
            tell.set(connection.accept_uni());
            let Ok(recv) = opened else {
                no_tells = true;
                break;
            };
            tells += 1;
            if !session.heard.hear() {
                node.tells.add_received(1);
                node.tells.add_dropped_from(DropReason::Budget, &session.peer);
                continue;
            }
            messages.extend(node.begin_tell(&session, recv, cx));
        }
        while !no_asks
            && asks < BURST
            && let Poll::Ready(opened) = ask.as_mut().poll(cx)
        {
            ask.set(connection.accept_bi());
            let Some(streams) = opened.ok().filter(|_| session.heard.hear()) else {
                no_asks = true;
                break;
            };
            requests.extend(node.begin_ask(&session, streams, cx));
            asks += 1;
        }
        node.put_messages(&mut messages);
        node.put_requests(&mut requests);
        if tells + asks > 0 {
            session.usage.touch();
        }
        if tells == BURST || asks == BURST {
            // More streams may be waiting.
            cx.waker().wake_by_ref();
        }
        // A session that ended still delivers earlier streams, of both kinds.
        if no_tells && no_asks {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    node.sessions().remove(&session);
    session.lose(&node.tells);
}

impl<A: Addr> Node<A> {
    /// Receives a message that has completely arrived; spawns a task for one that has not.
    fn begin_tell(
        self: &Arc<Self>,
        session: &Arc<Session<A>>,
        recv: RecvStream,
        cx: &mut Context<'_>,
    ) -> Option<Message<KeyAddr<A>>> {
        let mut incoming = Incoming::tell(recv, self.config.mtu);
        if let Poll::Ready(received) = incoming.poll(cx, &session.budget) {
            return self.message(session, received);
        }
        let (node, session) = (self.clone(), session.clone());
        self.tasks.spawn(async move {
            let mut unfinished = Unfinished(Some(node.tells.clone()));
            let received = node.finish(incoming, &session).await;
            unfinished.0 = None;
            let mut messages = node.message(&session, received).into_iter().collect();
            node.put_messages(&mut messages);
        });
        None
    }

    /// Receives a request in the same way.
    fn begin_ask(
        self: &Arc<Self>,
        session: &Arc<Session<A>>,
        (send, recv): (SendStream, RecvStream),
        cx: &mut Context<'_>,
    ) -> Option<Request<KeyAddr<A>>> {
        let send = Outgoing::new(send);
        let mut incoming = Incoming::request(recv, self.config.mtu);
        if let Poll::Ready(received) = incoming.poll(cx, &session.budget) {
            // Dropping the receiving half tells a peer that keeps its side open that no more data is wanted,
            // which frees the stream.
            return self.request(session, received, send);
        }
        let (node, session) = (self.clone(), session.clone());
        self.tasks.spawn(async move {
            let received = node.finish(incoming, &session).await;
            let mut requests = node.request(&session, received, send).into_iter().collect();
            node.put_requests(&mut requests);
        });
        None
    }

    /// Receives the rest of a message within the message timeout.
    async fn finish(&self, mut incoming: Incoming, session: &Session<A>) -> Result<Packet, Cut> {
        let rest = poll_fn(|cx| incoming.poll(cx, &session.budget));
        let received = timeout(self.config.message_timeout, rest).await;
        received.unwrap_or(Err(Cut::Dropped(DropReason::Expired)))
    }

    fn message(&self, session: &Session<A>, received: Result<Packet, Cut>) -> Option<Message<KeyAddr<A>>> {
        let payload = arrived(&self.tells, session, received)?;
        let (src, dst) = (session.peer.clone(), session.local.clone());
        Some(Message { src, dst, payload })
    }

    fn request(
        &self,
        session: &Arc<Session<A>>,
        received: Result<Packet, Cut>,
        send: Outgoing,
    ) -> Option<Request<KeyAddr<A>>> {
        let payload = arrived(&self.asks, session, received)?;
        let reply = Reply {
            session: Arc::downgrade(session),
            at: Some(session.replies.keep(send)),
            mtu: self.config.mtu,
            limit: self.config.send_timeout,
        };
        let (src, dst) = (session.peer.clone(), session.local.clone());
        Some(Request::new(Message { src, dst, payload }, reply))
    }

    fn put_messages(&self, messages: &mut VecDeque<Message<KeyAddr<A>>>) {
        if messages.is_empty() {
            return;
        }
        let put = self
            .messages
            .deliver(self.tasks.driver(), Kind::Message, messages);
        for refused in &put.refused {
            self.tells.add_dropped_from(put.reason, &refused.src);
        }
    }

    fn put_requests(&self, requests: &mut VecDeque<Request<KeyAddr<A>>>) {
        if requests.is_empty() {
            return;
        }
        let put = self.requests.deliver(self.tasks.driver(), Kind::Ask, requests);
        for refused in put.refused {
            self.asks.add_dropped_from(put.reason, &refused.message.src);
            refused.reject(Rejection::BUSY);
        }
    }
}

/// Counts a message as dropped if its task ends before the message is complete.
struct Unfinished(Option<Arc<Counters>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(counters) = &self.0 {
            counters.add_received(1);
            counters.add_dropped(DropReason::Closed);
        }
    }
}

/// Counts a received message, or the reason why it is incomplete.
fn arrived<A: Addr>(
    counters: &Counters,
    session: &Session<A>,
    received: Result<Packet, Cut>,
) -> Option<Packet> {
    let reason = match received {
        Ok(payload) => {
            counters.add_received(1);
            return Some(payload);
        }
        Err(Cut::Dropped(reason)) => reason,
        Err(Cut::Short(_)) => DropReason::Malformed,
        Err(Cut::Lost(_)) => DropReason::Lost,
        // The peer reset it: the message was never completely sent.
        Err(Cut::Reset(_)) => return None,
    };
    counters.add_received(1);
    counters.add_dropped_from(reason, &session.peer);
    None
}

/// Returns the response of one request. It keeps neither the node nor the session alive.
struct Reply<A: Addr> {
    session: Weak<Session<A>>,
    /// Index in the session's replies, until it is taken.
    at: Option<usize>,
    mtu: usize,
    limit: Duration,
}

impl<A: Addr> Reply<A> {
    fn stream(&mut self) -> Option<(Arc<Session<A>>, Outgoing)> {
        let at = self.at.take()?;
        let session = self.session.upgrade()?;
        let stream = session.replies.take(at)?;
        Some((session, stream))
    }
}

#[async_trait]
impl<A: Addr> Respond for Reply<A> {
    async fn respond(mut self: Box<Self>, mut response: Packet) -> Result<()> {
        if let Err(error) = response.check_mtu(self.mtu) {
            self.reject(Rejection::OVERSIZE);
            return Err(error);
        }
        let Some((session, mut stream)) = self.stream() else {
            return Err(Error::unreachable(&"the asker", "the session ended"));
        };
        frame(&mut response);
        let (mut rest, limit) = (response.into_bytes(), self.limit);
        let sending = poll_fn(|cx| stream.poll_send(cx, &mut rest, &session.sent));
        match within(limit, sending).await {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(Error::unreachable(&"the asker", error.to_string())),
            None => Err(Error::TimedOut {
                doing: "waiting for room for a response",
                limit,
            }),
        }
    }

    /// A dropped request is answered with the end of the stream and no bytes, as the Go library does. For any
    /// other reason the stream is reset with its code.
    fn reject(mut self: Box<Self>, why: Rejection) {
        match self.stream() {
            Some((_, mut stream)) if why == Rejection::DROPPED => stream.finish(),
            Some((_, mut stream)) => stream.reset(why),
            None => {}
        }
    }
}

/// A response that is dropped before it is sent is a rejection.
impl<A: Addr> Drop for Reply<A> {
    fn drop(&mut self) {
        drop(self.stream());
    }
}
