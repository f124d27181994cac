//! The end of a node, and of single sessions: what was sent is acknowledged before a connection ends, within a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use p2p::{Addr, Reason};
use quinn::Endpoint;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::FAREWELL;
use super::node::Node;
use super::session::Session;

/// Longer waits are cut to this, so that no clock overflows.
const LONGEST: Duration = Duration::from_secs(1 << 30);

impl<A: Addr> Node<A> {
    /// Closes the node: no call succeeds from now on. A task waits until what was sent is acknowledged, says so to peers,
    /// and frees the port.
    pub(super) fn shut(self: &Arc<Self>) {
        if self.closed.swap(true, SeqCst) {
            return;
        }
        self.tells.dropped_many(Reason::Closed, self.messages.close());
        self.asks.dropped_many(Reason::Closed, self.requests.close());
        let sessions = self.sessions().take(false);
        for session in &sessions {
            // Whoever asked hears at once that there will be no response.
            session.replies.clear();
        }
        self.closing.close();
        self.crew.close();
        let ended = Ended(self.ended.clone());
        let node = self.clone();
        self.runtime.spawn(async move {
            let until = Instant::now() + node.config.linger.min(LONGEST);
            let mut sending = node.sending.subscribe();
            // What was told while its peer was dialled is sent first.
            let _ = timeout_at(until, sending.wait_for(|sending| *sending == 0)).await;
            let mut sessions = sessions;
            sessions.extend(node.sessions().take(true));
            node.linger(&sessions, until).await;
            drop(sessions);
            if let Some(endpoint) = node.take_endpoint() {
                farewell(endpoint).await;
            }
            node.medium.release();
            drop(ended);
        });
    }

    /// Ends sessions of a closed node once what was sent is acknowledged, and at the latest at `until`.
    async fn linger(&self, sessions: &[Arc<Session<A>>], until: Instant) {
        let limit = until.saturating_duration_since(Instant::now());
        let lingering = sessions.iter().map(async |session| {
            session.linger(limit, &self.tells).await;
            session.discard(&self.tells);
        });
        let mut lingering: FuturesUnordered<_> = lingering.collect();
        while lingering.next().await.is_some() {}
    }

    /// Waits until the node is closed.
    pub(super) async fn closed(&self) {
        drop(self.closing.acquire().await);
    }

    /// Waits until the port of a closed node is free.
    pub(super) async fn ended(&self) {
        drop(self.ended.acquire().await);
    }

    /// Ends a session that the node does without; at once if nothing is under way, or where many end at the time.
    pub(super) fn end_session(&self, session: Arc<Session<A>>) {
        if session.sent.end_if_acknowledged() {
            if session.outbound || !session.turn_away() {
                session.close(&self.tells);
            }
            return;
        }
        let place = Lingering::begin(&self.lingering);
        if place.number > self.config.max_sessions {
            return session.close(&self.tells);
        }
        let (tells, limit) = (self.tells.clone(), self.config.linger);
        self.runtime.spawn(async move {
            session.linger(limit, &tells).await;
            drop(place);
        });
    }
}

/// Ends all connections, and waits until peers know, which those do at once that are there.
async fn farewell(endpoint: Endpoint) {
    endpoint.close(0_u32.into(), b"");
    let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
}

/// Says that the node has ended, also where the runtime ends first.
struct Ended(Arc<Semaphore>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// One of the sessions that end in the background.
struct Lingering {
    count: Arc<AtomicUsize>,
    number: usize,
}

impl Lingering {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        let number = count.fetch_add(1, Relaxed) + 1;
        let count = count.clone();
        Self { count, number }
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Relaxed);
    }
}
