//! Helpers that consume a swarm: a request server and a stream of messages.

use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, Stream, unfold};

use crate::{Addr, AskSwarm, Error, Message, Packet, Rejection, Responder, Result, Swarm};

/// Answers the asks of `swarm` with `handler` until the swarm is closed. At most `limit` handlers run at a
/// time (at least one).
///
/// At the limit no further ask is received; asks wait in the swarm's bounded queue. All handlers run in the
/// caller's task, so a handler with long computations should move them to another thread or task.
///
/// # Errors
/// The first error of [`receive_ask`](AskSwarm::receive_ask) other than [`Error::Closed`], which is `Ok`.
///
/// # Cancel safety
/// Cancelling rejects the asks that have running handlers.
///
/// ```
/// # async fn example<A: p2p::Addr>(swarm: impl p2p::AskSwarm<A>) -> p2p::Result<()> {
/// p2p::serve_asks(&swarm, 64, async |request| Ok(request.payload)).await
/// # }
/// ```
///
/// A handler borrows its state. A spawned server owns the swarm and the state, and lends the state to the
/// handler:
///
/// ```
/// # use std::sync::atomic::{AtomicU64, Ordering};
/// # fn spawn(_: impl Future + Send + 'static) {}
/// # fn example<A: p2p::Addr>(swarm: impl p2p::AskSwarm<A>) {
/// spawn(async move {
///     let served = AtomicU64::new(0);
///     let handler = async |request: p2p::Message<A>| {
///         served.fetch_add(1, Ordering::Relaxed);
///         Ok(request.payload)
///     };
///     p2p::serve_asks(&swarm, 64, handler).await
/// });
/// # }
/// ```
// Not `AsyncFn`: the compiler cannot prove that the futures of a handler that borrows are `Send`
// (rust-lang/rust#110338), so a task could not spawn such a server.
pub async fn serve_asks<A, S, H, F>(swarm: &S, limit: usize, handler: H) -> Result<()>
where
    A: Addr,
    S: AskSwarm<A>,
    H: Fn(Message<A>) -> F,
    F: Future<Output = Result<Packet, Rejection>>,
{
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() >= limit.max(1) {
            running.next().await;
        }
        // The receive future is kept while handlers end, so that no request is lost.
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
                running.push(answer(handler(request.message), request.responder));
            }
            Err(Error::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Sends the handler's result back to the asking node.
async fn answer(handling: impl Future<Output = Result<Packet, Rejection>>, responder: Responder) {
    match handling.await {
        // A failed response affects the asking node only, and the swarm has counted it.
        Ok(response) => drop(responder.respond(response).await),
        Err(why) => responder.reject(why),
    }
}

/// Returns the messages of `swarm` as a stream, which ends when the swarm is closed.
///
/// # Errors
/// Each item is the result of one [`receive`](Swarm::receive); the stream continues after an error.
pub fn messages<A: Addr, S: Swarm<A>>(swarm: S) -> impl Stream<Item = Result<Message<A>>> + Send {
    unfold(swarm, async |swarm| match swarm.receive().await {
        Err(Error::Closed) => None,
        item => Some((item, swarm)),
    })
}
