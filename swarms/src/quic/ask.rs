//! Asks: one bidirectional stream each.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use async_trait::async_trait;
use p2p::{Addr, Error, Packet, Rejection, Respond, Result};
use quinn::{ConnectionError, RecvStream, SendStream, VarInt, WriteError};
use tokio::time::{Instant, timeout};

use super::node::Node;
use super::session::Session;
use super::stream::{Cut, Incoming, Outgoing, frame, receive, within};
use crate::KeyAddr;

/// How long a peer that answered everything may take to make room for another ask, before it counts as one that never
/// does, and is dialled again.
const GRACE: Duration = Duration::from_millis(250);

/// The way back of one request.
pub(super) struct Reply {
    pub(super) send: Outgoing,
    pub(super) mtu: usize,
    pub(super) limit: Duration,
}

#[async_trait]
impl Respond for Reply {
    async fn respond(mut self: Box<Self>, mut response: Packet) -> Result<()> {
        if let Err(error) = response.check(self.mtu) {
            self.reject(Rejection::OVERSIZE);
            return Err(error);
        }
        frame(&mut response);
        let Reply { send, limit, .. } = *self;
        match within(limit, send.send(response)).await {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(Error::unreachable(&"the asker", error.to_string())),
            None => Err(Error::TimedOut {
                doing: "waiting for room for a response",
                limit,
            }),
        }
    }

    /// A request that was dropped is answered with the end of the stream and no bytes, as the Go library does it. For any
    /// other reason the stream is reset, with the code.
    fn reject(mut self: Box<Self>, why: Rejection) {
        if why == Rejection::DROPPED {
            self.send.finish();
        } else {
            self.send.reset(why);
        }
    }
}

/// What a peer's code for a stream that it ended says.
fn rejection(code: VarInt) -> Rejection {
    u8::try_from(code.into_inner())
        .ok()
        .and_then(std::num::NonZeroU8::new)
        .map_or(Rejection::DROPPED, Rejection::new)
}

/// An ask that waits for its response.
struct Asking<'a, A: Addr>(&'a Session<A>);

impl<A: Addr> Drop for Asking<'_, A> {
    fn drop(&mut self) {
        self.0.asking.fetch_sub(1, Relaxed);
    }
}

/// Why there is no stream to ask on.
enum NoStream {
    /// The session is of no further use; another one may be.
    Session,
    Fail(Error),
}

impl<A: Addr> Node<A> {
    pub(super) async fn ask(self: &Arc<Self>, peer: &KeyAddr<A>, mut request: Packet) -> Result<Packet> {
        self.check_open()?;
        request.check(self.config.mtu)?;
        frame(&mut request);
        let mut failed = None;
        // The second session is for a peer that ended the first one, or that gives no more room in it.
        for _ in 0..3 {
            let session = self.session(peer).await?;
            match self.open_ask(&session).await {
                Ok((send, recv)) => {
                    let _asking = Asking(&session);
                    let asked = self.exchange(&session, send, recv, request);
                    let limit = self.config.ask_timeout;
                    let response = timeout(limit, asked).await.unwrap_or(Err(Error::TimedOut {
                        doing: "waiting for the response",
                        limit,
                    }));
                    if response.is_ok() {
                        self.asks.sent(1);
                    }
                    return response;
                }
                Err(NoStream::Session) => failed = Some(Error::unreachable(peer, "the session ended")),
                Err(NoStream::Fail(error)) => return Err(error),
            }
            self.check_open()?;
        }
        Err(failed.unwrap_or(Error::Closed))
    }

    /// A stream for an ask, counted as asking.
    async fn open_ask(&self, session: &Arc<Session<A>>) -> Result<(SendStream, RecvStream), NoStream> {
        let began = Instant::now();
        let limit = self.config.send_timeout;
        let mut open = std::pin::pin!(session.connection.open_bi());
        loop {
            match within(GRACE.min(limit), open.as_mut()).await {
                Some(Ok(streams)) => {
                    session.asking.fetch_add(1, Relaxed);
                    return Ok(streams);
                }
                Some(Err(error)) => return Err(self.ended(session, &error)),
                // A Go server never frees the streams of asks: when they ran out, only another session helps.
                None if session.spent.load(Relaxed) || session.asking.load(Relaxed) == 0 => {
                    self.retire(session);
                    return Err(NoStream::Session);
                }
                None if began.elapsed() >= limit => {
                    return Err(NoStream::Fail(Error::TimedOut {
                        doing: "waiting for room for an ask",
                        limit,
                    }));
                }
                None => {}
            }
        }
    }

    fn ended(&self, session: &Arc<Session<A>>, error: &ConnectionError) -> NoStream {
        self.sessions().remove(session);
        if self.is_closed() {
            return NoStream::Fail(Error::Closed);
        }
        tracing::debug!(layer = "quic", peer = %session.peer, %error, "the session ended");
        NoStream::Session
    }

    async fn exchange(
        &self,
        session: &Session<A>,
        send: SendStream,
        recv: RecvStream,
        request: Packet,
    ) -> Result<Packet> {
        // Whoever stops the request may have answered it already.
        if let Err(WriteError::ConnectionLost(error)) = Outgoing::new(send).send(request).await {
            return Err(self.lost(&session.peer, &error));
        }
        let mut incoming = Incoming::framed(recv, self.config.mtu, session.budget.clone());
        receive(&mut incoming).await.map_err(|cut| match cut {
            Cut::Short(0) => Error::Rejected(Rejection::DROPPED),
            Cut::Short(_) => Error::invalid("response", "it ends before its length"),
            Cut::Reset(code) => Error::Rejected(rejection(code)),
            Cut::Lost(error) => self.lost(&session.peer, &error),
            Cut::Dropped(p2p::Reason::Budget) => Error::Limit {
                what: "bytes of messages under way",
                limit: self.config.reassembly,
            },
            Cut::Dropped(reason) => Error::invalid("response", reason.as_str()),
        })
    }

    pub(super) async fn tell(self: &Arc<Self>, peer: &KeyAddr<A>, packet: Packet) -> Result<()> {
        self.check_open()?;
        packet.check(self.config.mtu)?;
        let limit = self.config.send_timeout;
        let full = || Error::TimedOut {
            doing: "waiting for room for a message",
            limit,
        };
        for _ in 0..2 {
            let session = self.session(peer).await?;
            let send = match within(limit, session.connection.open_uni()).await {
                Some(Ok(send)) => Outgoing::new(send),
                Some(Err(error)) => match self.ended(&session, &error) {
                    NoStream::Session => continue,
                    NoStream::Fail(error) => return Err(error),
                },
                None => return Err(full()),
            };
            return match within(limit, send.send(packet)).await {
                Some(Ok(())) => {
                    self.tells.sent(1);
                    Ok(())
                }
                Some(Err(WriteError::ConnectionLost(error))) => Err(self.lost(peer, &error)),
                Some(Err(error)) => Err(Error::unreachable(peer, error.to_string())),
                None => Err(full()),
            };
        }
        Err(Error::unreachable(peer, "every session ended at once"))
    }
}
