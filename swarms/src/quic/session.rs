//! One connection to a peer that proved its key.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use p2p::{Addr, Counters, Reason};
use p2p_formats::x509::PublicKey;
use quinn::{Connection, ConnectionError, VarInt};
use tokio::time::{Instant, timeout};

use super::budget::Budget;
use super::medium::Pinned;
use super::sent::Unacknowledged;
use super::stream::{Outgoing, at_once};
use crate::KeyAddr;

/// How long a peer that dialled may take to open its first stream before its session counts as unused.
const FIRST_STREAM: Duration = Duration::from_secs(2);

/// The code with which a session ends that found no room, or made room before its peer used it. Nothing that the peer sent in
/// it was taken.
const NO_ROOM: VarInt = VarInt::from_u32(1);

/// Whether a peer ended a session with [`NO_ROOM`].
pub(super) fn is_turned_away(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::ApplicationClosed(close) if close.error_code == NO_ROOM)
}

pub(super) struct Session<A: Addr> {
    pub(super) peer: KeyAddr<A>,
    /// Which of our addresses the peer knows.
    pub(super) local: KeyAddr<A>,
    pub(super) key: PublicKey,
    pub(super) connection: Connection,
    pub(super) budget: Arc<Budget>,
    /// This node dialled.
    pub(super) outbound: bool,
    pub(super) since: Instant,
    pub(super) usage: Usage,
    pub(super) asking: Asking,
    pub(super) replies: Replies,
    pub(super) sent: Unacknowledged,
    pub(super) heard: Heard,
    /// Its address stays known as long as the session does.
    pub(super) _pinned: Pinned<A>,
}

impl<A: Addr> Session<A> {
    /// Ends it at once. Messages that were told in it and are not acknowledged may be lost, and count as dropped.
    pub(super) fn close(&self, tells: &Counters) {
        self.lose(tells);
        self.connection.close(VarInt::from_u32(0), b"");
    }

    /// Ends it for want of room, so that the peer may dial again, unless something of the peer was taken; returns whether it
    /// did.
    pub(super) fn turn_away(&self) -> bool {
        let unheard = self.heard.refuse();
        if unheard {
            self.connection.close(NO_ROOM, b"");
        }
        unheard
    }

    /// Counts what the end of its connection may have lost.
    pub(super) fn lose(&self, tells: &Counters) {
        tells.dropped_many(Reason::Lost, self.sent.end());
    }

    /// Ends it once what was sent is acknowledged, and at the latest after `limit`.
    pub(super) async fn linger(&self, limit: Duration, tells: &Counters) {
        let _ = timeout(limit, self.sent.acknowledged()).await;
        self.close(tells);
    }

    /// Counts the messages that arrived and are not taken any more.
    pub(super) fn discard(&self, tells: &Counters) {
        while let Some(Ok(_)) = at_once(self.connection.accept_uni()) {
            tells.received(1);
            tells.dropped_at(Reason::Closed, &self.peer);
        }
    }

    /// Whether asks are under way, of this node or of the peer.
    pub(super) fn is_busy(&self) -> bool {
        !(self.asking.is_over() && self.replies.is_empty())
    }

    /// Whether the peer dialled a moment ago, and what it dialled for may be on its way.
    pub(super) fn is_fresh(&self) -> bool {
        !self.outbound && !self.heard.is_heard() && self.since.elapsed() < FIRST_STREAM
    }
}

/// Whether anything of the peer was taken in a session: a stream that it opened, or its answer to an ask.
#[derive(Default)]
pub(super) struct Heard(AtomicU8);

const HEARD: u8 = 1;
const REFUSED: u8 = 2;

impl Heard {
    pub(super) fn is_heard(&self) -> bool {
        self.0.load(Relaxed) == HEARD
    }

    /// Notes that something is taken; false if nothing may be, as the peer was told so.
    pub(super) fn hear(&self) -> bool {
        self.is_heard() || !matches!(self.0.compare_exchange(0, HEARD, SeqCst, SeqCst), Err(REFUSED))
    }

    /// Takes nothing from now on; false if something was taken.
    fn refuse(&self) -> bool {
        !matches!(self.0.compare_exchange(0, REFUSED, SeqCst, SeqCst), Err(HEARD))
    }
}

/// When a session was last used, in turns that all sessions of a node count together.
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

/// Asks of ours that wait for their response, and whether the peer makes room for others when it answered.
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

    /// None waits.
    pub(super) fn is_over(&self) -> bool {
        self.now.load(Relaxed) == 0
    }

    /// Fewer wait than the peer had room for, and so, where there is no room, it gives none back.
    pub(super) fn is_below_most(&self) -> bool {
        self.now.load(Relaxed) < self.most.load(Relaxed)
    }

    /// The session is of no use for further asks.
    pub(super) fn is_spent(&self) -> bool {
        self.spent.load(Relaxed)
    }

    pub(super) fn spend(&self) {
        self.spent.store(true, Relaxed);
    }
}

/// The streams on which the peer's asks are answered. They are kept here, because each of them keeps the connection and
/// its socket, and a request that is kept elsewhere must not.
#[derive(Default)]
pub(super) struct Replies(Mutex<Open>);

#[derive(Default)]
struct Open {
    streams: Vec<Option<Outgoing>>,
    free: Vec<usize>,
}

impl Replies {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no request waits for its response.
    pub(super) fn is_empty(&self) -> bool {
        let open = self.open();
        open.streams.len() == open.free.len()
    }

    /// Takes all back: there will be no responses.
    pub(super) fn clear(&self) {
        let open = std::mem::take(&mut *self.open());
        drop(open);
    }

    /// Keeps a stream; returns by what [`take`](Self::take) finds it.
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
