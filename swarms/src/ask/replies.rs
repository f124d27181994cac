//! The way back of requests: while others wait to be served, responses wait for theirs, and leave together.
//!
//! Who serves one request after another would send a datagram at a time. So a response that is followed by requests
//! waits for their responses; the last of them takes all along. A task that is spawned with the first one sends what waits
//! as soon as it runs, in case that whoever serves turns to something else.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use p2p::{Addr, Error, Packet, Rejection, Respond, Result, Swarm};
use p2p_protocols::ask::ServeId;
use tokio::runtime::Handle;

use super::shared::Shared;

/// Datagrams of replies that wait for one another, at most.
const TOGETHER: usize = 64;

/// The way back of one request. It does not keep the swarm alive.
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
    /// Once the engine has the response it is kept, so that a responder that is cancelled here rejects nothing: the
    /// asker gets the response when it inquires.
    async fn respond(self: Box<Self>, response: Packet) -> Result<()> {
        let shared = self.shared.upgrade().ok_or(Error::Closed)?;
        shared.state().check_open()?;
        let (mut datagrams, fits) = shared.answer(&self.id, Ok(response));
        if shared.put_off(&mut datagrams) {
            return fits;
        }
        match datagrams.pop() {
            // Alone, it leaves together with tells that are made at the same time.
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
            shared.send_detached(datagrams);
        }
    }
}

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    /// Gives the engine the outcome of a request; returns what is to be sent, and whether the response fits.
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

    /// Keeps `datagrams` if others are to follow, and says so; if there are none to follow, adds those that were kept.
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

    /// Has the replies that wait sent, should nobody else do.
    fn see_off(self: &Arc<Self>) {
        let shared = self.clone();
        let send = move || {
            let replies = std::mem::take(&mut shared.state().replies);
            shared.send_detached(replies);
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move { send() })),
            Err(_) => send(),
        }
    }
}
