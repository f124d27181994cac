//! Requests and their responses.

use std::fmt;
use std::num::NonZeroU8;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Addr, Message, Packet, Result, Swarm};

/// A swarm that also carries requests with responses.
///
/// # Example
/// A client and a server on any swarm with asks:
///
/// ```
/// use p2p::{Addr, AskSwarm};
///
/// async fn client<A: Addr>(swarm: &impl AskSwarm<A>, server: &A) -> p2p::Result<usize> {
///     let response = swarm.ask(server, swarm.packet(b"how long is this?")).await?;
///     Ok(response.len())
/// }
///
/// async fn server<A: Addr>(swarm: &impl AskSwarm<A>) -> p2p::Result<()> {
///     loop {
///         let request = swarm.receive_ask().await?;
///         let response = swarm.packet(&request.message.payload);
///         // An error concerns this one response: the asking node may be gone.
///         let _ = request.respond(response).await;
///     }
/// }
/// ```
///
/// [`serve_asks`](crate::serve_asks) is such a server with a limit on concurrent requests.
#[diagnostic::on_unimplemented(
    message = "no layer of `{Self}` carries asks between addresses of type `{A}`",
    label = "tells, and does not ask",
    note = "put a layer that carries asks on top: `mbapp` over datagrams, or `quic`",
    note = "a layer above that passes no asks on, such as `fragment`, hides those of the layers below it"
)]
pub trait AskSwarm<A: Addr>: Swarm<A> {
    /// Sends `request` to `dst` and waits for its response, or one error.
    ///
    /// The handler on the other node runs at most once for each ask, also when the medium duplicates
    /// messages.
    ///
    /// # Errors
    /// [`Rejected`](crate::Error::Rejected) if the other node dropped or rejected the request,
    /// [`TimedOut`](crate::Error::TimedOut) if a layer has a deadline,
    /// [`MtuExceeded`](crate::Error::MtuExceeded) for a request over [`mtu`](Swarm::mtu).
    ///
    /// # Cancel safety
    /// A cancelled ask frees its slot; the other node may have processed the request.
    fn ask(&self, dst: &A, request: Packet) -> impl Future<Output = Result<Packet>> + Send;

    /// Waits for the next request. Each request goes to exactly one caller.
    ///
    /// # Cancel safety
    /// Cancelling loses no request: the next caller receives it.
    fn receive_ask(&self) -> impl Future<Output = Result<Request<A>>> + Send;
}

impl<A: Addr, S: AskSwarm<A>> AskSwarm<A> for Arc<S> {
    crate::pass_through!(*: ask, receive_ask);
}

/// A received request that waits for its response. Dropping it rejects the request at once.
///
/// Both fields are public: a handler may keep the responder and pass the message on.
pub struct Request<A> {
    /// The request: its source, its destination and its payload.
    pub message: Message<A>,
    /// The handle that answers it.
    pub responder: Responder,
}

impl<A> Request<A> {
    /// Creates a request with `respond` as the handler of its outcome.
    pub fn new(message: Message<A>, respond: impl Respond) -> Self {
        let responder = Responder::new(respond);
        Self { message, responder }
    }

    /// Sends the response. Waits for local room until the response is sent, or is queued to be sent together
    /// with the responses to other waiting requests.
    ///
    /// # Errors
    /// [`MtuExceeded`](crate::Error::MtuExceeded) for a response over the swarm's MTU. After any error the
    /// request is rejected at once, if the asking node is still reachable.
    ///
    /// # Cancel safety
    /// Cancelling before the response is sent rejects the request.
    pub async fn respond(self, response: Packet) -> Result<()> {
        self.responder.respond(response).await
    }

    /// Rejects the request with a reason.
    pub fn reject(self, why: Rejection) {
        self.responder.reject(why);
    }

    /// Limits the response to `mtu` bytes, unless its limit is lower already.
    ///
    /// A layer with a smaller MTU than the swarm below calls this for the requests that it passes up.
    #[must_use]
    pub fn limit_response(mut self, mtu: usize) -> Self {
        self.responder.mtu = self.responder.mtu.min(mtu);
        self
    }

    /// Translates both addresses and keeps the rest.
    pub fn map_addrs<B>(self, translate: impl FnMut(A) -> B) -> Request<B> {
        Request {
            message: self.message.map_addrs(translate),
            responder: self.responder,
        }
    }
}

impl<A: fmt::Debug> fmt::Debug for Request<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Request");
        shown.field("message", &self.message);
        shown.finish_non_exhaustive()
    }
}

/// The handle that answers one request. Dropping it rejects the request.
pub struct Responder {
    respond: Option<Box<dyn Respond>>,
    /// Maximum length of the response in bytes: the smallest limit of the layers that the request passed.
    mtu: usize,
}

impl Responder {
    /// Creates a responder that passes the outcome to `respond`.
    pub fn new(respond: impl Respond) -> Self {
        Self {
            respond: Some(Box::new(respond)),
            mtu: usize::MAX,
        }
    }

    /// Sends the response; see [`Request::respond`].
    pub async fn respond(mut self, response: Packet) -> Result<()> {
        if let Err(error) = response.check_mtu(self.mtu) {
            self.reject(Rejection::OVERSIZE);
            return Err(error);
        }
        match self.respond.take() {
            Some(respond) => respond.respond(response).await,
            None => Ok(()),
        }
    }

    /// Rejects the request; see [`Request::reject`].
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

/// Sends the outcome of one request. A swarm that receives asks implements it for its [`Request`]s.
#[async_trait]
pub trait Respond: Send + Sync + 'static {
    /// Sends the response. On an error, and if the future is dropped before the response is sent, the
    /// implementation rejects the request instead.
    async fn respond(self: Box<Self>, response: Packet) -> Result<()>;

    /// Sends a rejection. Never waits.
    fn reject(self: Box<Self>, why: Rejection);
}

/// The reason for refusing a request: a code from 1 to 255, the same on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rejection(NonZeroU8);

impl Rejection {
    /// The request was dropped without an answer.
    pub const DROPPED: Rejection = Rejection(NonZeroU8::MIN);
    /// The node is serving its maximum number of requests.
    pub const BUSY: Rejection = Rejection(NonZeroU8::MIN.saturating_add(1));
    /// The request or the response is longer than the node's MTU.
    pub const OVERSIZE: Rejection = Rejection(NonZeroU8::MIN.saturating_add(2));
    /// No reader is open on that channel.
    pub const NO_CHANNEL: Rejection = Rejection(NonZeroU8::MIN.saturating_add(3));

    /// The node denies the asking node's address.
    pub const DENIED: Rejection = Rejection(NonZeroU8::MIN.saturating_add(4));

    /// The request may have been served before; the node no longer has the outcome and does not serve it
    /// again.
    pub const FORGOTTEN: Rejection = Rejection(NonZeroU8::MIN.saturating_add(5));

    /// Creates a rejection with an application's code. Codes below 16 are reserved for this crate.
    pub const fn new(code: NonZeroU8) -> Self {
        Self(code)
    }

    /// Returns the code.
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
            Self::NO_CHANNEL => f.write_str("no reader is open on that channel"),
            Self::DENIED => f.write_str("the asking node is not allowed there"),
            Self::FORGOTTEN => {
                f.write_str("the request may have been served before, and its outcome was forgotten")
            }
            Self(code) => write!(f, "code {code}"),
        }
    }
}
