//! A bounded table of node addresses: entries are learned, expire, and are replaced when a node moves.
//!
//! # Limits
//! The table distinguishes nodes that this node looked up ([`learn`](AddressBook::learn)) from nodes that sent a
//! message first ([`meet`](AddressBook::meet)). In a full table a newcomer replaces, of up to eight candidates, the
//! least recently heard node. Nodes that sent first do not replace looked-up nodes, unless they have less
//! than a quarter of all places. In a full table, a network (see [`Prefix`]) with an eighth of all places
//! gets no more of them by sending first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use p2p::{Addr, PeerId};

use super::Prefix;
use crate::hash::HashMap;

/// Number of candidates for eviction.
const LOOKED_AT: usize = 8;

/// The route to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<A> {
    /// Directly, at this address.
    Direct(A),
    /// Through one of these nodes, which know it.
    Relayed(Vec<A>),
}

/// The result of [`AddressBook::find`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<A> {
    /// The route to the node.
    pub route: Route<A>,
    /// Whether the node should be looked up again, because nothing was heard from it for some time. Returned
    /// once in that time.
    pub is_due: bool,
}

#[derive(Debug)]
struct Entry<A> {
    route: Route<A>,
    /// Nanoseconds. Both change under a shared borrow.
    heard: AtomicU64,
    asked: AtomicU64,
    from: From,
    /// Its position in the queue of its kind.
    turn: u64,
}

/// The origin of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// This node looked it up.
    Sought,
    /// It sent first, from this network.
    Met(Option<Prefix>),
}

/// Addresses by id.
///
/// The operations for each message (finding an address, recording that a node was heard) need shared access
/// only.
#[derive(Debug)]
pub struct AddressBook<A> {
    entries: HashMap<PeerId, Entry<A>>,
    sought: Queue,
    met: Queue,
    /// Number of nodes that sent first, by network.
    networks: HashMap<Prefix, usize>,
    max: usize,
    turns: u64,
    /// Silence in nanoseconds after which a node should be looked up again.
    due_after: u64,
    /// Silence in nanoseconds after which a node is forgotten.
    forget_after: u64,
    swept: u64,
}

/// Entries of one kind, in the order in which they are considered for eviction.
#[derive(Debug, Default)]
struct Queue {
    /// Each entry with its turn; obsolete if the entry has another turn or is gone.
    order: VecDeque<(u64, PeerId)>,
    len: usize,
}

impl<A: Addr> AddressBook<A> {
    /// Records that a node sent a message from this address; replaces the previous route. Returns whether the
    /// node had another route before.
    pub fn meet(&mut self, now: Duration, id: PeerId, addr: A) -> bool {
        let prefix = Prefix::of(&addr);
        self.take(now, id, Route::Direct(addr), From::Met(prefix))
    }
}

impl<A: Clone + Eq> AddressBook<A> {
    /// Creates a table of at most `max` nodes. A silent node is due for a lookup after `due_after`, and
    /// forgotten after `forget_after`.
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

    /// Returns the number of nodes, including expired ones.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the route to a node for a message of this node, and whether to look the node up again, if it is known.
    pub fn find(&self, now: Duration, id: &PeerId) -> Option<Found<A>> {
        let entry = self.entry(now, id)?;
        let now = nanos(now);
        let last = entry.heard.load(Relaxed).max(entry.asked.load(Relaxed));
        let is_due = now.saturating_sub(last) >= self.due_after;
        if is_due {
            entry.asked.store(now, Relaxed);
        }
        Some(Found {
            route: entry.route.clone(),
            is_due,
        })
    }

    /// Returns the route to a node, if it is known, for a message that other nodes caused: they must neither cause a lookup nor
    /// use up one that is due.
    pub fn route(&self, now: Duration, id: &PeerId) -> Option<Route<A>> {
        self.entry(now, id).map(|entry| entry.route.clone())
    }

    /// Returns the entry of a node, unless it has been silent for too long.
    fn entry(&self, now: Duration, id: &PeerId) -> Option<&Entry<A>> {
        let entry = self.entries.get(id)?;
        let silence = nanos(now).saturating_sub(entry.heard.load(Relaxed));
        (silence < self.forget_after).then_some(entry)
    }

    /// Returns whether a node has an entry.
    pub fn contains(&self, id: &PeerId) -> bool {
        self.entries.contains_key(id)
    }

    /// Records that a node was heard at an address. Returns `false` if it is not known at this address; then
    /// [`learn`](Self::learn) it.
    #[must_use]
    pub fn heard(&self, now: Duration, id: &PeerId, addr: &A) -> bool {
        let entry = self.entries.get(id);
        let entry = entry.filter(|entry| matches!(&entry.route, Route::Direct(known) if known == addr));
        if let Some(entry) = entry {
            entry.heard.store(nanos(now), Relaxed);
        }
        entry.is_some()
    }

    /// Records the route to a node that this node looked up; replaces the previous route. Returns whether the
    /// node had another route before.
    pub fn learn(&mut self, now: Duration, id: PeerId, route: Route<A>) -> bool {
        self.take(now, id, route, From::Sought)
    }

    /// Removes a node that is not reachable, unless it was heard after `since`. Returns whether it was
    /// removed.
    pub fn forget(&mut self, id: &PeerId, since: Duration) -> bool {
        let entry = self.entries.get(id);
        let gone = entry.is_some_and(|entry| entry.heard.load(Relaxed) <= nanos(since));
        gone && self.remove(id)
    }

    fn take(&mut self, now: Duration, id: PeerId, route: Route<A>, from: From) -> bool {
        let now = nanos(now);
        if let Some(known) = self.entries.get_mut(&id) {
            let moved = known.route != route;
            known.route = route;
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
            route,
            heard: AtomicU64::new(now),
            asked: AtomicU64::new(now),
            from,
            turn,
        };
        self.entries.insert(id, entry);
        false
    }

    /// Counts an entry in its queue. Returns its turn.
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

    /// Makes room for one entry of this kind. Returns whether there is room.
    fn make_room(&mut self, now: u64, from: From) -> bool {
        // Scanning the whole table for each newcomer would cost too much in a flood.
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
        // Candidates that stay go to the end of the queue.
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
    /// A looked-up node remains one if it sends later.
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
