//! Closing a node or a session: sent data is acknowledged before a connection is closed, within a time limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use p2p::{Addr, DropReason};
use quinn::Endpoint;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::CLOSE_TIMEOUT;
use super::node::Node;
use super::session::Session;

/// Maximum wait, so that no clock overflows.
const LONGEST: Duration = Duration::from_secs(1 << 30);

impl<A: Addr> Node<A> {
    /// Closes the node: all further calls fail. A task waits until sent data is acknowledged, closes the
    /// connections, and frees the port.
    pub(super) fn close(self: &Arc<Self>) {
        if self.closed.swap(true, SeqCst) {
            return;
        }
        self.tells
            .add_dropped_many(DropReason::Closed, self.messages.close());
        self.asks
            .add_dropped_many(DropReason::Closed, self.requests.close());
        let sessions = self.sessions().take(false);
        for session in &sessions {
            // Askers learn at once that there will be no response.
            session.replies.clear();
        }
        self.closing.close();
        self.tasks.close();
        let ended = Ended(self.ended.clone());
        let node = self.clone();
        self.runtime.spawn(async move {
            let until = Instant::now() + node.config.linger.min(LONGEST);
            let mut sending = node.sending.subscribe();
            // Messages that were told while their peer was being dialled are sent first.
            let _ = timeout_at(until, sending.wait_for(|sending| *sending == 0)).await;
            let mut sessions = sessions;
            sessions.extend(node.sessions().take(true));
            node.linger(&sessions, until).await;
            drop(sessions);
            if let Some(endpoint) = node.take_endpoint() {
                close_endpoint(endpoint).await;
            }
            node.mapping.release();
            // Here, since a caller of `close` may give up.
            if node.closes_below.load(SeqCst) {
                node.mapping.close().await;
            }
            drop(ended);
        });
    }

    /// Closes sessions of a closed node once their data is acknowledged, at the latest at `until`.
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

    /// Closes a session that the node no longer uses; at once if nothing is in flight, or if many sessions
    /// are closing.
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

/// Closes all connections, and waits until the reachable peers have acknowledged that.
async fn close_endpoint(endpoint: Endpoint) {
    endpoint.close(0_u32.into(), b"");
    let _ = timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await;
}

/// Marks that the node has ended, also if the runtime ends first.
struct Ended(Arc<Semaphore>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// One of the sessions that are closing in the background.
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
