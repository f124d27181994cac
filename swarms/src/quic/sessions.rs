//! The sessions of a node by peer address: dialled once, reused, bounded.

use std::collections::HashMap;
use std::sync::Arc;

use p2p::{Addr, Packet, Result};
use tokio::sync::watch;

use super::QuicConfig;
use super::quotas::Quotas;
use super::session::Session;
use super::waiting::Waiting;
use crate::KeyAddr;

/// The result of a dial, once it has ended.
pub(super) type Dialled<A> = Option<Result<Arc<Session<A>>>>;

pub(super) struct Sessions<A: Addr> {
    slots: HashMap<KeyAddr<A>, Slot<A>>,
    /// The session that was used last, found without a lookup.
    last: Option<Arc<Session<A>>>,
    count: usize,
    next_dial: u64,
}

/// The sessions with one peer at one address.
struct Slot<A: Addr> {
    /// The session for new messages.
    live: Option<Arc<Session<A>>>,
    /// A session that the peer may still use: the other one of two that were dialled at the same time, or the
    /// previous one.
    older: Option<Arc<Session<A>>>,
    /// The dial in progress, and the callers that wait for it.
    dial: Option<(u64, watch::Sender<Dialled<A>>)>,
    /// Messages that wait for the dial, until the task that sends them finds none.
    waiting: Option<Waiting>,
}

impl<A: Addr> Default for Sessions<A> {
    fn default() -> Self {
        Self {
            slots: HashMap::new(),
            last: None,
            count: 0,
            next_dial: 0,
        }
    }
}

impl<A: Addr> Default for Slot<A> {
    fn default() -> Self {
        Self {
            live: None,
            older: None,
            dial: None,
            waiting: None,
        }
    }
}

impl<A: Addr> Sessions<A> {
    /// Returns the session for messages to `peer`.
    pub(super) fn find(&mut self, peer: &KeyAddr<A>) -> Option<Arc<Session<A>>> {
        let session = match &self.last {
            Some(last) if last.peer == *peer => last.clone(),
            _ => {
                let session = self.slots.get(peer)?.live.clone()?;
                self.last = Some(session.clone());
                session
            }
        };
        session.usage.touch();
        Some(session)
    }

    /// Returns the result channel of the dial to `peer` that is in progress.
    pub(super) fn dial(&self, peer: &KeyAddr<A>) -> Option<watch::Receiver<Dialled<A>>> {
        let (_, dial) = self.slots.get(peer)?.dial.as_ref()?;
        Some(dial.subscribe())
    }

    /// Records a dial in progress; returns its number as well.
    pub(super) fn begin_dial(&mut self, peer: &KeyAddr<A>) -> (u64, watch::Receiver<Dialled<A>>) {
        let (sender, receiver) = watch::channel(None);
        let number = self.next_dial;
        self.next_dial += 1;
        self.slots.entry(peer.clone()).or_default().dial = Some((number, sender));
        (number, receiver)
    }

    /// Removes the dial to `peer`, with this number or any, and returns the channel of its waiting callers.
    pub(super) fn end_dial(
        &mut self,
        peer: &KeyAddr<A>,
        number: Option<u64>,
    ) -> Option<watch::Sender<Dialled<A>>> {
        let slot = self.slots.get_mut(peer)?;
        let is_it = |(known, _): &mut (u64, _)| number.is_none_or(|number| *known == number);
        let (_, waiting) = slot.dial.take_if(is_it)?;
        self.tidy(peer);
        Some(waiting)
    }

    /// Adds a session, and returns those that it replaces, to be closed.
    ///
    /// If both ends dialled at the same time, both use the session that the smaller id dialled. Otherwise the
    /// newest is used: a peer that dials again has lost the previous one. The other session stays for data
    /// that the peer still sends on it; a third one closes it.
    ///
    /// Nothing is added, and `None` returned, if no session can be evicted.
    pub(super) fn add(
        &mut self,
        session: &Arc<Session<A>>,
        config: &QuicConfig,
    ) -> Option<Vec<Arc<Session<A>>>> {
        let same_time = config.handshake_timeout;
        let mut closed: Vec<_> = Quotas::of(config).make_room(self, session)?.into_iter().collect();
        for gone in &closed {
            self.remove(gone);
        }
        self.last = None;
        session.usage.touch();
        let slot = self.slots.entry(session.peer.clone()).or_default();
        let newer = session.clone();
        self.count += 1;
        let (live, older) = match slot.live.take() {
            None => (newer, None),
            Some(live) => {
                let crossed = live.outbound != newer.outbound && live.since.elapsed() < same_time;
                let ours_counts = newer.local.id < newer.peer.id;
                if crossed && live.outbound == ours_counts && !live.asking.is_spent() {
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
        Some(closed)
    }

    /// Returns whether an inbound dial may have a session, with `pending` inbound handshakes in progress.
    pub(super) fn admits(&self, pending: usize, config: &QuicConfig) -> bool {
        Quotas::of(config).admit(self, pending)
    }

    /// Returns the messages that wait for the dial to `peer`.
    pub(super) fn waiting(&mut self, peer: &KeyAddr<A>) -> Option<&mut Waiting> {
        self.slots.get_mut(peer)?.waiting.as_mut()
    }

    /// Records that messages wait for the dial to `peer`.
    pub(super) fn wait(&mut self, peer: &KeyAddr<A>, waiting: Waiting) {
        self.slots.entry(peer.clone()).or_default().waiting = Some(waiting);
    }

    /// Returns the next message that waits for the dial to `peer`; removes the queue after the last one.
    pub(super) fn next_waiting(&mut self, peer: &KeyAddr<A>) -> Option<Packet> {
        let slot = self.slots.get_mut(peer)?;
        let next = slot.waiting.as_mut().and_then(Waiting::pop);
        if next.is_none() {
            slot.waiting = None;
            self.tidy(peer);
        }
        next
    }

    /// Removes and returns every session. Dials in progress end, except those with waiting messages, which
    /// continue until `ended`.
    pub(super) fn take(&mut self, ended: bool) -> Vec<Arc<Session<A>>> {
        (self.last, self.count) = (None, 0);
        let mut taken = Vec::new();
        for slot in self.slots.values_mut() {
            taken.extend(slot.live.take().into_iter().chain(slot.older.take()));
            if ended || slot.waiting.is_none() {
                slot.dial = None;
            }
        }
        self.slots.retain(|_, slot| slot.waiting.is_some());
        taken
    }

    /// Removes a session, if it is known.
    pub(super) fn remove(&mut self, session: &Arc<Session<A>>) {
        self.last = None;
        let Some(slot) = self.slots.get_mut(&session.peer) else {
            return;
        };
        let is_this = |known: &mut Arc<Session<A>>| Arc::ptr_eq(known, session);
        if slot.live.take_if(is_this).is_some() {
            slot.live = slot.older.take_if(|older| !older.asking.is_spent());
            self.count -= 1;
        } else if slot.older.take_if(is_this).is_some() {
            self.count -= 1;
        }
        self.tidy(&session.peer);
    }

    /// Returns whether new messages use this session.
    pub(super) fn takes(&self, session: &Arc<Session<A>>) -> bool {
        let slot = self.slots.get(&session.peer);
        let live = slot.and_then(|slot| slot.live.as_ref());
        live.is_some_and(|live| Arc::ptr_eq(live, session))
    }

    /// Retires this session: new messages do not use it, and messages in flight continue. Does nothing if
    /// asks are in flight in an older session, which would have to be closed. Returns a session to close.
    pub(super) fn retire(&mut self, session: &Arc<Session<A>>) -> Option<Arc<Session<A>>> {
        let slot = self.slots.get_mut(&session.peer)?;
        if slot.older.as_ref().is_some_and(|older| !older.asking.is_over()) {
            return None;
        }
        let live = slot.live.take_if(|live| Arc::ptr_eq(live, session))?;
        session.asking.spend();
        self.last = None;
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
            && slot.waiting.is_none()
        {
            self.slots.remove(peer);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Session<A>>> {
        let slots = self.slots.values();
        slots.flat_map(|slot| slot.live.iter().chain(&slot.older))
    }

    /// Returns every session that `pick` selects.
    pub(super) fn list(&self, pick: impl Fn(&Session<A>) -> bool) -> Vec<Arc<Session<A>>> {
        self.all().filter(|session| pick(session)).cloned().collect()
    }
}
