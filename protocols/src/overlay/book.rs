//! Where nodes are, as far as was heard: learnt, aged, replaced when a node moves, and never more than so many.
//!
//! # Limits
//! Nodes that this node looked for ([`learn`](Book::learn)) and nodes that spoke first ([`meet`](Book::meet)) are told apart. In a
//! full book a node leaves for a newcomer, of a few the one that was not heard of for the longest time. Those that spoke first
//! take no place of those that were looked for, unless they have less than a quarter of all places. In a full book a network (see
//! [`Prefix`]) that has an eighth of all places gets no more of them by speaking first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use p2p::{Addr, PeerId};

use super::Prefix;
use crate::hash::HashMap;

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
    from: From,
    /// Its place in the queue of its kind.
    turn: u64,
}

/// How a node came into the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// This node looked for it.
    Sought,
    /// It spoke first, from this network.
    Met(Option<Prefix>),
}

/// Addresses by id.
///
/// What is done for each message (looking an address up, noting that it was heard of) needs the book for reading only.
#[derive(Debug)]
pub struct Book<A> {
    entries: HashMap<PeerId, Entry<A>>,
    sought: Queue,
    met: Queue,
    /// How many of those that spoke first are in each network.
    networks: HashMap<Prefix, usize>,
    max: usize,
    turns: u64,
    /// After how long without a word a node should be looked for again.
    due_after: u64,
    /// After how long it is forgotten.
    forget_after: u64,
    swept: u64,
}

/// Entries of one kind in the order in which they are looked at for one that leaves.
#[derive(Debug, Default)]
struct Queue {
    /// Each with its turn; one whose entry has another turn, or is gone, means nothing.
    order: VecDeque<(u64, PeerId)>,
    len: usize,
}

impl<A: Addr> Book<A> {
    /// Notes that a node speaks, at this address, in place of what was known. Returns whether it was reached otherwise before.
    pub fn meet(&mut self, now: Duration, id: PeerId, addr: A) -> bool {
        let prefix = Prefix::of(&addr);
        self.take(now, id, Way::Direct(addr), From::Met(prefix))
    }
}

impl<A: Clone + Eq> Book<A> {
    /// A book of at most `max` nodes. One that is not heard of is to be looked for after `due_after`, and forgotten after
    /// `forget_after`.
    pub fn new(max: usize, due_after: Duration, forget_after: Duration) -> Self {
        Self {
            entries: HashMap::default(),
            sought: Queue::default(),
            met: Queue::default(),
            networks: HashMap::default(),
            max: max.max(1),
            turns: 0,
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

    /// Takes in how a node is reached that this node looked for, in place of what was known. Returns whether it was reached
    /// otherwise before.
    pub fn learn(&mut self, now: Duration, id: PeerId, way: Way<A>) -> bool {
        self.take(now, id, way, From::Sought)
    }

    /// Forgets a node that is not there, unless it was heard of after `since`.
    pub fn forget(&mut self, id: &PeerId, since: Duration) -> bool {
        let entry = self.entries.get(id);
        let gone = entry.is_some_and(|entry| entry.heard.load(Relaxed) <= nanos(since));
        gone && self.remove(id)
    }

    fn take(&mut self, now: Duration, id: PeerId, way: Way<A>, from: From) -> bool {
        let now = nanos(now);
        if let Some(known) = self.entries.get_mut(&id) {
            let moved = known.way != way;
            known.way = way;
            known.heard.store(now, Relaxed);
            known.asked.store(now, Relaxed);
            let (before, after) = (known.from, known.from.or(from));
            if before != after {
                known.from = after;
                self.uncount(before);
                let turn = self.count(id, after);
                if let Some(known) = self.entries.get_mut(&id) {
                    known.turn = turn;
                }
            }
            return moved;
        }
        if self.entries.len() >= self.max && !self.make_room(now, from) {
            return false;
        }
        let turn = self.count(id, from);
        let entry = Entry {
            way,
            heard: AtomicU64::new(now),
            asked: AtomicU64::new(now),
            from,
            turn,
        };
        self.entries.insert(id, entry);
        false
    }

    /// Counts an entry as one of its kind, and returns its turn.
    fn count(&mut self, id: PeerId, from: From) -> u64 {
        self.turns += 1;
        if let From::Met(Some(prefix)) = from {
            *self.networks.entry(prefix).or_default() += 1;
        }
        let (turn, max) = (self.turns, self.max);
        let entries = &self.entries;
        let queue = match from {
            From::Sought => &mut self.sought,
            From::Met(_) => &mut self.met,
        };
        queue.len += 1;
        if queue.order.len() > 2 * max {
            let is_there =
                |(turn, id): &(u64, PeerId)| entries.get(id).is_some_and(|entry| entry.turn == *turn);
            queue.order.retain(is_there);
        }
        queue.order.push_back((turn, id));
        turn
    }

    fn uncount(&mut self, from: From) {
        match from {
            From::Sought => self.sought.len -= 1,
            From::Met(prefix) => {
                self.met.len -= 1;
                if let Some(prefix) = prefix
                    && let Some(count) = self.networks.get_mut(&prefix)
                {
                    *count -= 1;
                    if *count == 0 {
                        self.networks.remove(&prefix);
                    }
                }
            }
        }
    }

    fn remove(&mut self, id: &PeerId) -> bool {
        let Some(entry) = self.entries.remove(id) else {
            return false;
        };
        self.uncount(entry.from);
        true
    }

    /// Makes room for one entry of this kind. Returns whether there is some.
    fn make_room(&mut self, now: u64, from: From) -> bool {
        // To look through all each time would cost too much in a flood.
        if now.saturating_sub(self.swept) >= self.due_after {
            self.swept = now;
            let old = |entry: &Entry<A>| now.saturating_sub(entry.heard.load(Relaxed)) >= self.forget_after;
            let old: Vec<PeerId> = self
                .entries
                .iter()
                .filter(|(_, it)| old(it))
                .map(|(id, _)| *id)
                .collect();
            for id in old {
                self.remove(&id);
            }
        }
        if self.entries.len() < self.max {
            return true;
        }
        if let From::Met(Some(prefix)) = from {
            let count = self.networks.get(&prefix).copied().unwrap_or(0);
            if count >= prefix.limit(self.max.div_ceil(8)) {
                return false;
            }
        }
        let quarter = self.max / 4;
        let enough = match from {
            From::Sought => self.met.len > quarter,
            From::Met(_) => self.met.len >= quarter,
        };
        let of_met = self.sought.len == 0 || (enough && self.met.len > 0);
        let queue = if of_met { &mut self.met } else { &mut self.sought };
        // Those that are looked at and stay are looked at again last.
        let mut looked_at: Vec<(u64, u64, PeerId)> = Vec::with_capacity(LOOKED_AT);
        while looked_at.len() < LOOKED_AT
            && let Some((turn, id)) = queue.order.pop_front()
        {
            let entry = self.entries.get(&id).filter(|entry| entry.turn == turn);
            looked_at.extend(entry.map(|entry| (entry.heard.load(Relaxed), turn, id)));
        }
        looked_at.sort_unstable_by_key(|(heard, turn, _)| (*heard, *turn));
        let mut looked_at = looked_at.into_iter();
        let leaves = looked_at.next();
        queue.order.extend(looked_at.map(|(_, turn, id)| (turn, id)));
        leaves.is_some_and(|(_, _, id)| self.remove(&id))
    }
}

impl From {
    /// A node that was looked for stays one though it speaks later.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Sought, _) | (_, Self::Sought) => Self::Sought,
            (_, met) => met,
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
