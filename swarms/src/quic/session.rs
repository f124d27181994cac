//! One connection to an authenticated peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use p2p::{Addr, Counters, DropReason};
use p2p_formats::x509::PublicKey;
use parking_lot::{Mutex, MutexGuard};
use quinn::{Connection, ConnectionError, VarInt};
use tokio::time::{Instant, timeout};

use super::addr_mapping::Pinned;
use super::budget::Budget;
use super::sent::Unacknowledged;
use super::stream::{Outgoing, at_once};
use crate::KeyAddr;

/// How long an inbound peer may take to open its first stream before its session counts as unused.
const FIRST_STREAM: Duration = Duration::from_secs(2);

/// The error code of a session that is closed because there was no room, before its peer used it. No data of
/// the peer was processed.
const NO_ROOM: VarInt = VarInt::from_u32(1);

/// Returns whether a peer closed a session with [`NO_ROOM`].
pub(super) fn is_turned_away(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::ApplicationClosed(close) if close.error_code == NO_ROOM)
}

pub(super) struct Session<A: Addr> {
    pub(super) peer: KeyAddr<A>,
    /// The local address that the peer knows.
    pub(super) local: KeyAddr<A>,
    pub(super) key: PublicKey,
    pub(super) connection: Connection,
    pub(super) budget: Arc<Budget>,
    /// Whether this node dialled.
    pub(super) outbound: bool,
    pub(super) since: Instant,
    pub(super) usage: Usage,
    pub(super) asking: Asking,
    pub(super) replies: Replies,
    pub(super) sent: Unacknowledged,
    pub(super) heard: Heard,
    /// Keeps the address mapping as long as the session exists.
    pub(super) _pinned: Pinned<A>,
}

impl<A: Addr> Session<A> {
    /// Closes it at once. Unacknowledged tells may be lost, and count as dropped.
    pub(super) fn close(&self, tells: &Counters) {
        self.lose(tells);
        self.connection.close(VarInt::from_u32(0), b"");
    }

    /// Closes it because there is no room, so that the peer may dial again, unless data of the peer was
    /// processed. Returns whether it was closed.
    pub(super) fn turn_away(&self) -> bool {
        let unheard = self.heard.refuse();
        if unheard {
            self.connection.close(NO_ROOM, b"");
        }
        unheard
    }

    /// Counts the messages that the end of the connection may have lost.
    pub(super) fn lose(&self, tells: &Counters) {
        tells.add_dropped_many(DropReason::Lost, self.sent.end());
    }

    /// Closes it once sent data is acknowledged, at the latest after `limit`.
    pub(super) async fn linger(&self, limit: Duration, tells: &Counters) {
        let _ = timeout(limit, self.sent.acknowledged()).await;
        self.close(tells);
    }

    /// Counts the messages that arrived and are no longer delivered.
    pub(super) fn discard(&self, tells: &Counters) {
        while let Some(Ok(_)) = at_once(self.connection.accept_uni()) {
            tells.add_received(1);
            tells.add_dropped_from(DropReason::Closed, &self.peer);
        }
    }

    /// Returns whether asks are in flight, of this node or of the peer.
    pub(super) fn is_busy(&self) -> bool {
        !(self.asking.is_over() && self.replies.is_empty())
    }

    /// Returns whether the peer has just dialled, and its first message may be in flight.
    pub(super) fn is_fresh(&self) -> bool {
        !self.outbound && !self.heard.is_heard() && self.since.elapsed() < FIRST_STREAM
    }
}

/// Records whether any data of the peer was processed in a session: a stream that it opened, or its response
/// to an ask.
#[derive(Default)]
pub(super) struct Heard(AtomicU8);

const HEARD: u8 = 1;
const REFUSED: u8 = 2;

impl Heard {
    pub(super) fn is_heard(&self) -> bool {
        self.0.load(Relaxed) == HEARD
    }

    /// Records that data is processed. Returns false if the peer was told that none is.
    pub(super) fn hear(&self) -> bool {
        self.is_heard() || !matches!(self.0.compare_exchange(0, HEARD, SeqCst, SeqCst), Err(REFUSED))
    }

    /// Refuses all further data. Returns false if some was processed.
    fn refuse(&self) -> bool {
        !matches!(self.0.compare_exchange(0, REFUSED, SeqCst, SeqCst), Err(HEARD))
    }
}

/// When a session was last used, counted in turns over all sessions of a node.
pub(super) struct Usage {
    turn: Arc<AtomicU64>,
    last: AtomicU64,
}

impl Usage {
    pub(super) fn new(turn: Arc<AtomicU64>) -> Self {
        let last = AtomicU64::new(0);
        Self { turn, last }
    }

    pub(super) fn touch(&self) {
        self.last.store(self.turn.fetch_add(1, Relaxed), Relaxed);
    }

    pub(super) fn last(&self) -> u64 {
        self.last.load(Relaxed)
    }
}

/// This node's asks that wait for their response, and whether the peer permits further streams.
#[derive(Default)]
pub(super) struct Asking {
    now: AtomicUsize,
    most: AtomicUsize,
    spent: AtomicBool,
}

impl Asking {
    /// Counts an ask, until the result is dropped.
    pub(super) fn begin(&self) -> impl Drop + '_ {
        struct One<'a>(&'a Asking);
        impl Drop for One<'_> {
            fn drop(&mut self) {
                self.0.now.fetch_sub(1, Relaxed);
            }
        }
        let now = self.now.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(now, Relaxed);
        One(self)
    }

    /// Returns whether no ask is waiting.
    pub(super) fn is_over(&self) -> bool {
        self.now.load(Relaxed) == 0
    }

    /// Returns whether fewer asks wait than the peer once permitted; if there is still no room, it does not
    /// free streams.
    pub(super) fn is_below_most(&self) -> bool {
        self.now.load(Relaxed) < self.most.load(Relaxed)
    }

    /// Returns whether the session is unusable for further asks.
    pub(super) fn is_spent(&self) -> bool {
        self.spent.load(Relaxed)
    }

    pub(super) fn spend(&self) {
        self.spent.store(true, Relaxed);
    }
}

/// The streams for responses to the peer's asks. They are stored here because each of them keeps the
/// connection and its socket alive, which a request that the application holds must not.
#[derive(Default)]
pub(super) struct Replies(Mutex<Open>);

#[derive(Default)]
struct Open {
    streams: Vec<Option<Outgoing>>,
    free: Vec<usize>,
}

impl Replies {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock()
    }

    /// Returns whether no request waits for its response.
    pub(super) fn is_empty(&self) -> bool {
        let open = self.open();
        open.streams.len() == open.free.len()
    }

    /// Resets all streams: there will be no responses.
    pub(super) fn clear(&self) {
        let open = std::mem::take(&mut *self.open());
        drop(open);
    }

    /// Stores a stream; returns the index for [`take`](Self::take).
    pub(super) fn keep(&self, stream: Outgoing) -> usize {
        let mut open = self.open();
        let at = open.free.pop().unwrap_or(open.streams.len());
        match open.streams.get_mut(at) {
            Some(free) => *free = Some(stream),
            None => open.streams.push(Some(stream)),
        }
        at
    }

    pub(super) fn take(&self, at: usize) -> Option<Outgoing> {
        let mut open = self.open();
        let stream = open.streams.get_mut(at)?.take()?;
        open.free.push(at);
        Some(stream)
    }
}
