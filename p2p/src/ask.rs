//! Requests and their responses.

use std::fmt;
use std::num::NonZeroU8;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Addr, Packet, Result, Swarm};

/// A swarm whose nodes also ask one another.
#[diagnostic::on_unimplemented(
    message = "no layer of `{Self}` carries asks between addresses of type `{A}`",
    label = "tells, and does not ask",
    note = "put a layer that carries asks on top: `mbapp` over datagrams, or `quic`",
    note = "a layer above that passes no asks on, such as `fragment`, hides those of the layers below it"
)]
pub trait AskSwarm<A: Addr>: Swarm<A> {
    /// Sends `request` to `dst` and waits for its one response, or one error.
    ///
    /// The handler at the other end runs at most once for each ask, also where the medium duplicates.
    ///
    /// # Errors
    /// [`Rejected`](crate::Error::Rejected) if the other side dropped or rejected it,
    /// [`TimedOut`](crate::Error::TimedOut) where a layer has a deadline,
    /// [`MtuExceeded`](crate::Error::MtuExceeded) for a request over [`mtu`](Swarm::mtu).
    ///
    /// # Cancel safety
    /// A cancelled ask frees its slot; the other side may have acted on it.
    fn ask(&self, dst: &A, request: Packet) -> impl Future<Output = Result<Packet>> + Send;

    /// Waits for the next request. Each request goes to exactly one caller.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing: the request goes to the next caller.
    fn receive_ask(&self) -> impl Future<Output = Result<Request<A>>> + Send;
}

impl<A: Addr, S: AskSwarm<A>> AskSwarm<A> for Arc<S> {
    crate::pass_through!(*: ask, receive_ask);
}

/// A request that waits for its response. Dropping it rejects it, which the asker learns at once.
pub struct Request<A> {
    /// Who asks; can be told to.
    pub src: A,
    /// Which of the receiver's addresses was asked.
    pub dst: A,
    /// What is asked.
    pub payload: Packet,
    responder: Responder,
}

impl<A> Request<A> {
    /// A request whose outcome goes to `respond`.
    pub fn new(src: A, dst: A, payload: Packet, respond: impl Respond) -> Self {
        Self {
            src,
            dst,
            payload,
            responder: Responder {
                respond: Some(Box::new(respond)),
                mtu: usize::MAX,
            },
        }
    }

    /// Answers, and waits for local room until the response left, or will leave by itself, together with those to
    /// requests that wait.
    ///
    /// # Errors
    /// [`MtuExceeded`](crate::Error::MtuExceeded) for a response over the swarm's MTU. After any error the
    /// asker gets a rejection at once, where it can still be reached.
    ///
    /// # Cancel safety
    /// Cancelling before the response left rejects the request.
    pub async fn respond(self, response: Packet) -> Result<()> {
        self.responder.respond(response).await
    }

    /// Answers that there will be no response, and why.
    pub fn reject(self, why: Rejection) {
        self.responder.reject(why);
    }

    /// The request without its responder, which can then be moved elsewhere: `payload` may be read, or
    /// taken and sent on, while the responder waits.
    pub fn into_parts(self) -> (A, A, Packet, Responder) {
        (self.src, self.dst, self.payload, self.responder)
    }

    /// The inverse of [`into_parts`](Self::into_parts), for a layer that translates or holds back a request.
    pub fn from_parts(src: A, dst: A, payload: Packet, responder: Responder) -> Self {
        Self {
            src,
            dst,
            payload,
            responder,
        }
    }

    /// Bounds the response to `mtu` bytes, if it is not bounded to fewer already.
    ///
    /// A layer whose MTU is smaller than the one below does this to the requests that it passes up.
    #[must_use]
    pub fn limit_response(mut self, mtu: usize) -> Self {
        self.responder.mtu = self.responder.mtu.min(mtu);
        self
    }

    /// The same request with both addresses translated.
    pub fn map_addrs<B>(self, mut translate: impl FnMut(A) -> B) -> Request<B> {
        let (src, dst) = (translate(self.src), translate(self.dst));
        Request {
            src,
            dst,
            payload: self.payload,
            responder: self.responder,
        }
    }
}

impl<A: fmt::Debug> fmt::Debug for Request<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Request");
        shown
            .field("src", &self.src)
            .field("dst", &self.dst)
            .field("payload", &self.payload);
        shown.finish_non_exhaustive()
    }
}

/// The way back of one request. Dropping it rejects the request.
pub struct Responder {
    respond: Option<Box<dyn Respond>>,
    /// Bytes that a response carries at most, by the layers that the request came through.
    mtu: usize,
}

impl Responder {
    /// See [`Request::respond`].
    pub async fn respond(mut self, response: Packet) -> Result<()> {
        if let Err(error) = response.check(self.mtu) {
            self.reject(Rejection::OVERSIZE);
            return Err(error);
        }
        match self.respond.take() {
            Some(respond) => respond.respond(response).await,
            None => Ok(()),
        }
    }

    /// See [`Request::reject`].
    pub fn reject(mut self, why: Rejection) {
        if let Some(respond) = self.respond.take() {
            respond.reject(why);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(respond) = self.respond.take() {
            respond.reject(Rejection::DROPPED);
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Responder")
    }
}

/// What a swarm that receives asks gives each [`Request`]: the way its outcome goes back.
#[async_trait]
pub trait Respond: Send + Sync + 'static {
    /// Sends the response. On an error, and when the future is dropped before the response left, the
    /// implementation rejects the request instead.
    async fn respond(self: Box<Self>, response: Packet) -> Result<()>;

    /// Tells the asker that there will be no response. Never waits.
    fn reject(self: Box<Self>, why: Rejection);
}

/// Why a request gets no response: a code from 1 to 255, which goes over the wire as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rejection(NonZeroU8);

impl Rejection {
    /// The request was dropped without an answer.
    pub const DROPPED: Rejection = Rejection(NonZeroU8::MIN);
    /// The node serves as many requests as it will at a time.
    pub const BUSY: Rejection = Rejection(NonZeroU8::MIN.saturating_add(1));
    /// The request or the response is longer than the node's MTU.
    pub const OVERSIZE: Rejection = Rejection(NonZeroU8::MIN.saturating_add(2));
    /// Nobody answers on that channel.
    pub const NO_CHANNEL: Rejection = Rejection(NonZeroU8::MIN.saturating_add(3));

    /// The node has forbidden the asker's address.
    pub const DENIED: Rejection = Rejection(NonZeroU8::MIN.saturating_add(4));

    /// The request may have been served before; the node has forgotten what became of it, and does not serve it again.
    pub const FORGOTTEN: Rejection = Rejection(NonZeroU8::MIN.saturating_add(5));

    /// A rejection with a code of the application's own. Codes below 16 are this crate's.
    pub const fn new(code: NonZeroU8) -> Self {
        Self(code)
    }

    /// The code.
    pub const fn code(self) -> NonZeroU8 {
        self.0
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::DROPPED => f.write_str("dropped without an answer"),
            Self::BUSY => f.write_str("the node is busy"),
            Self::OVERSIZE => f.write_str("the request or the response exceeds the MTU"),
            Self::NO_CHANNEL => f.write_str("nobody answers on that channel"),
            Self::DENIED => f.write_str("the asker is not allowed there"),
            Self::FORGOTTEN => f.write_str("it may have been served before, and the node forgot the outcome"),
            Self(code) => write!(f, "code {code}"),
        }
    }
}
