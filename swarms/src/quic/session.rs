//! Sessions by the address of the peer: dialled once, reused, bounded.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use p2p::{Addr, Result};
use p2p_formats::x509::PublicKey;
use quinn::{Connection, VarInt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::medium::Pinned;
use super::stream::Budget;
use crate::KeyAddr;

/// A connection to a peer that proved its key.
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
    /// When it was last used, in turns of [`Sessions`].
    pub(super) used: AtomicU64,
    /// Asks of ours that wait for their response.
    pub(super) asking: AtomicUsize,
    /// The peer gives no room for further asks, although it answered all of them.
    pub(super) spent: AtomicBool,
    /// Its address stays known as long as the session does.
    pub(super) _pinned: Pinned<A>,
}

impl<A: Addr> Session<A> {
    pub(super) fn close(&self) {
        self.connection.close(VarInt::from_u32(0), b"");
    }
}

/// What a dial ended with, once it did.
pub(super) type Dialled<A> = Option<Result<Arc<Session<A>>>>;

/// The sessions with one peer at one address.
struct Slot<A: Addr> {
    /// What new messages take.
    live: Option<Arc<Session<A>>>,
    /// What the peer may still use: the other one of two that were dialled at the same time, or the one before.
    older: Option<Arc<Session<A>>>,
    dial: Option<watch::Receiver<Dialled<A>>>,
}

impl<A: Addr> Default for Slot<A> {
    fn default() -> Self {
        Self {
            live: None,
            older: None,
            dial: None,
        }
    }
}

pub(super) struct Sessions<A: Addr> {
    slots: HashMap<KeyAddr<A>, Slot<A>>,
    /// The session that was used last; it is found without a look-up.
    last: Option<Arc<Session<A>>>,
    count: usize,
    dials: usize,
    turn: u64,
}

impl<A: Addr> Default for Sessions<A> {
    fn default() -> Self {
        Self {
            slots: HashMap::new(),
            last: None,
            count: 0,
            dials: 0,
            turn: 0,
        }
    }
}

impl<A: Addr> Sessions<A> {
    /// The session for messages to `peer`.
    pub(super) fn find(&mut self, peer: &KeyAddr<A>) -> Option<Arc<Session<A>>> {
        if let Some(last) = &self.last
            && last.peer == *peer
        {
            return Some(last.clone());
        }
        let session = self.slots.get(peer)?.live.clone()?;
        self.turn += 1;
        session.used.store(self.turn, Relaxed);
        self.last = Some(session.clone());
        Some(session)
    }

    /// Notes that the peer used the session.
    pub(super) fn touch(&mut self, session: &Session<A>) {
        self.turn += 1;
        session.used.store(self.turn, Relaxed);
    }

    /// The dial to `peer` that is under way.
    pub(super) fn dial(&self, peer: &KeyAddr<A>) -> Option<watch::Receiver<Dialled<A>>> {
        self.slots.get(peer)?.dial.clone()
    }

    /// How many dials are under way.
    pub(super) fn dials(&self) -> usize {
        self.dials
    }

    pub(super) fn begin_dial(&mut self, peer: &KeyAddr<A>) -> watch::Sender<Dialled<A>> {
        let (sender, receiver) = watch::channel(None);
        self.slots.entry(peer.clone()).or_default().dial = Some(receiver);
        self.dials += 1;
        sender
    }

    pub(super) fn end_dial(&mut self, peer: &KeyAddr<A>) {
        if let Some(slot) = self.slots.get_mut(peer)
            && slot.dial.take().is_some()
        {
            self.dials -= 1;
        }
        self.tidy(peer);
    }

    /// Adds a session, and returns those that it replaces, to be closed.
    ///
    /// Of two sessions that both ends dialled at the same time, both ends take the one that the smaller id dialled.
    /// Otherwise the newest is taken: whoever dials again has lost the one before. The other one stays for what the peer
    /// still sends on it; a third one ends it.
    pub(super) fn add(
        &mut self,
        session: &Arc<Session<A>>,
        max: usize,
        same_time: std::time::Duration,
    ) -> Vec<Arc<Session<A>>> {
        let mut closed = Vec::new();
        while self.count >= max {
            let Some(oldest) = self.least_recently_used() else {
                break;
            };
            self.remove(&oldest);
            closed.push(oldest);
        }
        self.last = None;
        self.touch(session);
        let slot = self.slots.entry(session.peer.clone()).or_default();
        let newer = session.clone();
        self.count += 1;
        let (live, older) = match slot.live.take() {
            None => (newer, None),
            Some(live) => {
                let crossed = live.outbound != newer.outbound && live.since.elapsed() < same_time;
                let ours_counts = newer.local.id < newer.peer.id;
                if crossed && live.outbound == ours_counts && !live.spent.load(Relaxed) {
                    (live, Some(newer))
                } else {
                    (newer, Some(live))
                }
            }
        };
        slot.live = Some(live);
        if let Some(older) = older
            && let Some(third) = slot.older.replace(older)
        {
            self.count -= 1;
            closed.push(third);
        }
        closed
    }

    fn least_recently_used(&self) -> Option<Arc<Session<A>>> {
        let sessions = self
            .slots
            .values()
            .flat_map(|slot| slot.live.iter().chain(&slot.older));
        sessions.min_by_key(|session| session.used.load(Relaxed)).cloned()
    }

    /// Forgets a session, if it is known.
    pub(super) fn remove(&mut self, session: &Arc<Session<A>>) {
        self.last = None;
        let Some(slot) = self.slots.get_mut(&session.peer) else {
            return;
        };
        let is_this = |known: &mut Arc<Session<A>>| Arc::ptr_eq(known, session);
        if slot.live.take_if(is_this).is_some() {
            slot.live = slot.older.take_if(|older| !older.spent.load(Relaxed));
            self.count -= 1;
        } else if slot.older.take_if(is_this).is_some() {
            self.count -= 1;
        }
        self.tidy(&session.peer);
    }

    /// New messages do not take this session any more; what is under way in it goes on.
    pub(super) fn retire(&mut self, session: &Arc<Session<A>>) -> Option<Arc<Session<A>>> {
        session.spent.store(true, Relaxed);
        self.last = None;
        let slot = self.slots.get_mut(&session.peer)?;
        let live = slot.live.take_if(|live| Arc::ptr_eq(live, session))?;
        let third = slot.older.replace(live);
        if third.is_some() {
            self.count -= 1;
        }
        third
    }

    fn tidy(&mut self, peer: &KeyAddr<A>) {
        if let Some(slot) = self.slots.get(peer)
            && slot.live.is_none()
            && slot.older.is_none()
            && slot.dial.is_none()
        {
            self.slots.remove(peer);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Every session that `pick` picks.
    pub(super) fn list(&self, pick: impl Fn(&Session<A>) -> bool) -> Vec<Arc<Session<A>>> {
        let sessions = self
            .slots
            .values()
            .flat_map(|slot| slot.live.iter().chain(&slot.older));
        sessions.filter(|session| pick(session)).cloned().collect()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.last = None;
        self.count = 0;
        self.dials = 0;
    }
}
