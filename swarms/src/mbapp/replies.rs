//! The response path: responses to consecutive requests are sent together.
//!
//! A task that serves one request after another would send one datagram at a time. So while further requests
//! wait to be served, a response waits for theirs, and the last one sends all of them. A task that is spawned
//! with the first waiting response sends them as soon as it runs, in case the serving task does something
//! else.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use p2p::{Addr, Error, Packet, Rejection, Respond, Result, Swarm};
use p2p_protocols::mbapp::ServeId;
use tokio::runtime::Handle;

use super::shared::Shared;

/// Maximum number of reply datagrams that wait for each other.
const TOGETHER: usize = 64;

/// Returns the response of one request. It does not keep the swarm alive.
pub(super) struct Reply<A: Addr, S: Swarm<A>> {
    shared: Weak<Shared<A, S>>,
    id: ServeId<A>,
}

impl<A: Addr, S: Swarm<A>> Reply<A, S> {
    pub(super) fn new(shared: &Arc<Shared<A, S>>, id: ServeId<A>) -> Self {
        let shared = Arc::downgrade(shared);
        Self { shared, id }
    }
}

#[async_trait]
impl<A: Addr, S: Swarm<A>> Respond for Reply<A, S> {
    /// The engine keeps the response, so a responder that is cancelled here rejects nothing: the asker gets
    /// the response when it retransmits the request.
    async fn respond(self: Box<Self>, response: Packet) -> Result<()> {
        let shared = self.shared.upgrade().ok_or(Error::Closed)?;
        shared.state().check_open()?;
        let (mut datagrams, fits) = shared.answer(&self.id, Ok(response));
        if shared.put_off(&mut datagrams) {
            return fits;
        }
        match datagrams.pop() {
            // A single datagram is sent together with concurrent tells.
            Some((dst, datagram)) if datagrams.is_empty() => shared.inner.tell(&dst, datagram).await?,
            last => {
                datagrams.extend(last);
                shared.send(&mut datagrams).await?;
            }
        }
        fits
    }

    fn reject(self: Box<Self>, why: Rejection) {
        if let Some(shared) = self.shared.upgrade() {
            let (datagrams, _) = shared.answer(&self.id, Err(why));
            shared.send_in_background(datagrams);
        }
    }
}

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    /// Passes the result of a request to the engine; returns the datagrams to send, and whether the response
    /// fits.
    fn answer(&self, id: &ServeId<A>, outcome: Result<Packet, Rejection>) -> (Vec<(A, Packet)>, Result<()>) {
        let now = self.now();
        let mut state = self.state();
        let fits = state.engine.respond(now, id, outcome);
        let datagrams = state.transmits();
        let sooner = self.arm(&mut state);
        drop(state);
        if sooner {
            self.driver.wake();
        }
        (datagrams, fits)
    }

    /// Stores `datagrams` if further responses are to follow, and returns true. Otherwise adds the stored
    /// ones to `datagrams`.
    fn put_off(self: &Arc<Self>, datagrams: &mut Vec<(A, Packet)>) -> bool {
        let others_wait = !self.asked.is_empty();
        let mut state = self.state();
        if !others_wait || state.replies.len() + datagrams.len() >= TOGETHER {
            if !state.replies.is_empty() {
                state.replies.append(datagrams);
                std::mem::swap(&mut state.replies, datagrams);
            }
            return false;
        }
        let first = state.replies.is_empty();
        state.replies.append(datagrams);
        drop(state);
        if first {
            self.see_off();
        }
        true
    }

    /// Spawns a task that sends the stored replies if no responder does.
    fn see_off(self: &Arc<Self>) {
        let shared = self.clone();
        let send = move || {
            let replies = std::mem::take(&mut shared.state().replies);
            shared.send_in_background(replies);
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move { send() })),
            Err(_) => send(),
        }
    }
}
