//! Ways to consume a swarm: serve its asks with a handler, read its messages as a stream.

use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, Stream, unfold};

use crate::{Addr, AskSwarm, Error, Message, Packet, Rejection, Responder, Result, Swarm};

/// What a handler of [`serve_asks`] is given: a request without its way back.
#[derive(Clone, Debug)]
pub struct Asked<A> {
    /// Who asks.
    pub src: A,
    /// Which of our addresses was asked.
    pub dst: A,
    /// What is asked.
    pub payload: Packet,
}

/// Answers the asks of `swarm` with `handler`, at most `limit` of them at a time (at least one), until the
/// swarm is closed.
///
/// At the limit no further ask is received: asks wait in the swarm's own bounded queue. All handlers run in
/// the caller's task; a handler that computes for long should move to a thread or task of its own.
///
/// # Errors
/// The first error of [`receive_ask`](AskSwarm::receive_ask) other than [`Error::Closed`], which is `Ok`.
///
/// # Cancel safety
/// Cancelling rejects the asks whose handlers are still running.
///
/// ```
/// # async fn example<A: p2p::Addr>(swarm: impl p2p::AskSwarm<A>) -> p2p::Result<()> {
/// p2p::serve_asks(&swarm, 64, async |asked| Ok(asked.payload)).await
/// # }
/// ```
///
/// A handler borrows its state. A server that is spawned owns both, and lends the state to the handler:
///
/// ```
/// # use std::sync::atomic::{AtomicU64, Ordering};
/// # fn spawn(_: impl Future + Send + 'static) {}
/// # fn example<A: p2p::Addr>(swarm: impl p2p::AskSwarm<A>) {
/// spawn(async move {
///     let served = AtomicU64::new(0);
///     let handler = async |asked: p2p::Asked<A>| {
///         served.fetch_add(1, Ordering::Relaxed);
///         Ok(asked.payload)
///     };
///     p2p::serve_asks(&swarm, 64, handler).await
/// });
/// # }
/// ```
// Not `AsyncFn`: the compiler cannot prove that the futures of a handler that borrows are `Send` (rust-lang/rust#110338),
// so that such a server could not be spawned.
pub async fn serve_asks<A, S, H, F>(swarm: &S, limit: usize, handler: H) -> Result<()>
where
    A: Addr,
    S: AskSwarm<A>,
    H: Fn(Asked<A>) -> F,
    F: Future<Output = Result<Packet, Rejection>>,
{
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() >= limit.max(1) {
            running.next().await;
        }
        // One receive at a time; it is kept across the handlers that end meanwhile.
        let mut next = Box::pin(swarm.receive_ask());
        let request = loop {
            if running.is_empty() {
                break next.await;
            }
            match select(next, running.next()).await {
                Either::Left((request, _)) => break request,
                Either::Right((_, still_next)) => next = still_next,
            }
        };
        match request {
            Ok(request) => {
                let (src, dst, payload, responder) = request.into_parts();
                running.push(answer(handler(Asked { src, dst, payload }), responder));
            }
            Err(Error::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Sends back what a handler returns.
async fn answer(handling: impl Future<Output = Result<Packet, Rejection>>, responder: Responder) {
    match handling.await {
        // What cannot be sent back is the asker's loss alone, and the swarm has counted it.
        Ok(response) => drop(responder.respond(response).await),
        Err(why) => responder.reject(why),
    }
}

/// The messages of `swarm` as a stream, which ends when the swarm is closed.
///
/// # Errors
/// An item is what [`receive`](Swarm::receive) returned; after an error the stream goes on.
pub fn messages<A: Addr, S: Swarm<A>>(swarm: S) -> impl Stream<Item = Result<Message<A>>> + Send {
    unfold(swarm, async |swarm| match swarm.receive().await {
        Err(Error::Closed) => None,
        item => Some((item, swarm)),
    })
}
