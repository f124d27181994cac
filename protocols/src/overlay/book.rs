//! Where nodes are, as far as was heard: learnt, aged, replaced when a node moves, and never more than so many.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::hash::HashMap;
use p2p::PeerId;

/// Entries that are looked at to find one that leaves.
const LOOKED_AT: usize = 8;

/// How a node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way<A> {
    /// At this address.
    Direct(A),
    /// Over one of these nodes, which know it.
    Over(Vec<A>),
}

/// What a [`Book`] says of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<A> {
    /// How it is reached.
    pub way: Way<A>,
    /// Whether it should be looked for again, since nothing was heard of it for some time. Said once in that time.
    pub is_due: bool,
}

#[derive(Debug)]
struct Entry<A> {
    way: Way<A>,
    /// Nanoseconds. Both change while the book is only read.
    heard: AtomicU64,
    asked: AtomicU64,
}

/// Addresses by id.
///
/// What is done for each message (looking an address up, noting that it was heard of) needs the book for reading only.
#[derive(Debug)]
pub struct Book<A> {
    entries: HashMap<PeerId, Entry<A>>,
    max: usize,
    /// After how long without a word a node should be looked for again.
    due_after: u64,
    /// After how long it is forgotten.
    forget_after: u64,
    swept: u64,
}

impl<A: Clone + Eq> Book<A> {
    /// A book of at most `max` nodes. One that is not heard of is to be looked for after `due_after`, and forgotten after
    /// `forget_after`.
    pub fn new(max: usize, due_after: Duration, forget_after: Duration) -> Self {
        Self {
            entries: HashMap::default(),
            max: max.max(1),
            due_after: nanos(due_after),
            forget_after: nanos(forget_after),
            swept: 0,
        }
    }

    /// Nodes in it, with those that are to be forgotten.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How a node is reached, if that is known.
    pub fn find(&self, now: Duration, id: &PeerId) -> Option<Found<A>> {
        let now = nanos(now);
        let entry = self.entries.get(id)?;
        let heard = entry.heard.load(Relaxed);
        if now.saturating_sub(heard) >= self.forget_after {
            return None;
        }
        let last = heard.max(entry.asked.load(Relaxed));
        let is_due = now.saturating_sub(last) >= self.due_after;
        if is_due {
            entry.asked.store(now, Relaxed);
        }
        Some(Found {
            way: entry.way.clone(),
            is_due,
        })
    }

    /// Whether anything is known of a node.
    pub fn contains(&self, id: &PeerId) -> bool {
        self.entries.contains_key(id)
    }

    /// Notes that a node was heard of at an address. Says no if it is not known to be there; then
    /// [`learn`](Self::learn) it.
    #[must_use]
    pub fn heard(&self, now: Duration, id: &PeerId, addr: &A) -> bool {
        let entry = self.entries.get(id);
        let entry = entry.filter(|entry| matches!(&entry.way, Way::Direct(known) if known == addr));
        if let Some(entry) = entry {
            entry.heard.store(nanos(now), Relaxed);
        }
        entry.is_some()
    }

    /// Takes in how a node is reached, in place of what was known. Says whether it was reached otherwise before.
    ///
    /// In a full book somebody else leaves: all that are to be forgotten, or else of a few the one that was not heard of
    /// for the longest time.
    pub fn learn(&mut self, now: Duration, id: PeerId, way: Way<A>) -> bool {
        let now = nanos(now);
        let known = self.entries.get(&id);
        let moved = known.is_some_and(|known| known.way != way);
        if known.is_none() && self.entries.len() >= self.max {
            self.make_room(now);
        }
        let entry = Entry {
            way,
            heard: AtomicU64::new(now),
            asked: AtomicU64::new(now),
        };
        self.entries.insert(id, entry);
        moved
    }

    /// Forgets a node that is not there, unless it was heard of after `since`.
    pub fn forget(&mut self, id: &PeerId, since: Duration) -> bool {
        let entry = self.entries.get(id);
        let gone = entry.is_some_and(|entry| entry.heard.load(Relaxed) <= nanos(since));
        gone && self.entries.remove(id).is_some()
    }

    fn make_room(&mut self, now: u64) {
        // To look through all each time would cost too much in a flood.
        if now.saturating_sub(self.swept) >= self.due_after {
            self.swept = now;
            let forget_after = self.forget_after;
            self.entries
                .retain(|_, entry| now.saturating_sub(entry.heard.load(Relaxed)) < forget_after);
        }
        if self.entries.len() >= self.max {
            let some = self.entries.iter().take(LOOKED_AT);
            let oldest = some.min_by_key(|(_, entry)| entry.heard.load(Relaxed));
            if let Some(id) = oldest.map(|(id, _)| *id) {
                self.entries.remove(&id);
            }
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
