//! What is kept for strangers: items of many sources within one budget, the oldest first to go.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use crate::hash::HashMap;

/// Bounds of a [`Shelf`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) bytes: usize,
    pub(super) source_bytes: usize,
    pub(super) source_items: usize,
}

/// Items by source and key. Every item is charged what it holds and what keeping it takes.
#[derive(Debug)]
pub(super) struct Shelf<A, K, V> {
    bounds: Bounds,
    sources: HashMap<A, Source<K>>,
    /// By serial number: in the order in which they came.
    items: BTreeMap<u64, Item<A, K, V>>,
    /// When items are over, by serial number, the next one first. It is always of an item that is here; of those behind it
    /// some may have gone.
    deadlines: BinaryHeap<Reverse<(Duration, u64)>>,
    bytes: usize,
    next: u64,
}

#[derive(Debug)]
pub(super) struct Item<A, K, V> {
    pub(super) source: A,
    pub(super) key: K,
    /// When it is over.
    pub(super) until: Duration,
    pub(super) value: V,
    held: usize,
}

#[derive(Debug)]
struct Source<K> {
    serials: HashMap<K, u64>,
    /// Of its items, the oldest first.
    order: VecDeque<u64>,
    bytes: usize,
}

impl<A: Clone + Eq + Hash, K: Copy + Eq + Hash, V> Shelf<A, K, V> {
    /// What keeping an item takes: nodes may be half full, and a table may be moving to twice its size.
    const ITEM: usize = 2 * size_of::<(u64, Item<A, K, V>)>()
        + 4 * size_of::<(K, u64)>()
        + 4 * size_of::<u64>()
        + 4 * size_of::<(Duration, u64)>();
    /// The same for a source.
    const SOURCE: usize = 4 * size_of::<(A, Source<K>)>() + 256;

    /// An empty shelf. The bounds are raised so that one item of `largest` bytes has its place.
    pub(super) fn new(bounds: Bounds, largest: usize) -> Self {
        let source_bytes = bounds.source_bytes.max(largest.saturating_add(Self::ITEM));
        Self {
            bounds: Bounds {
                bytes: bounds.bytes.max(source_bytes.saturating_add(Self::SOURCE)),
                source_bytes,
                source_items: bounds.source_items.max(1),
            },
            sources: HashMap::default(),
            items: BTreeMap::new(),
            deadlines: BinaryHeap::new(),
            bytes: 0,
            next: 0,
        }
    }

    /// The serial number of an item.
    pub(super) fn find(&self, source: &A, key: &K) -> Option<u64> {
        self.sources.get(source)?.serials.get(key).copied()
    }

    pub(super) fn get_mut(&mut self, serial: u64) -> Option<&mut V> {
        self.items.get_mut(&serial).map(|item| &mut item.value)
    }

    /// Keeps a new item that holds `held` bytes; [`evict`](Self::evict) must follow.
    pub(super) fn insert(&mut self, source: &A, key: K, until: Duration, value: V, held: usize) -> u64 {
        let serial = self.next;
        self.next += 1;
        let kept = self.sources.entry(source.clone()).or_insert_with(|| {
            self.bytes += Self::SOURCE;
            Source {
                serials: HashMap::default(),
                order: VecDeque::new(),
                bytes: 0,
            }
        });
        self.deadlines.push(Reverse((until, serial)));
        kept.serials.insert(key, serial);
        kept.order.push_back(serial);
        kept.bytes += Self::ITEM + held;
        self.bytes += Self::ITEM + held;
        self.items.insert(
            serial,
            Item {
                source: source.clone(),
                key,
                until,
                value,
                held,
            },
        );
        serial
    }

    /// Says that an item holds `held` bytes by now; [`evict`](Self::evict) must follow.
    pub(super) fn charge(&mut self, serial: u64, held: usize) {
        if let Some(item) = self.items.get_mut(&serial)
            && item.held != held
            && let Some(source) = self.sources.get_mut(&item.source)
        {
            source.bytes = source.bytes - item.held + held;
            self.bytes = self.bytes - item.held + held;
            item.held = held;
        }
    }

    pub(super) fn remove(&mut self, serial: u64) -> Option<Item<A, K, V>> {
        let item = self.items.remove(&serial)?;
        self.tidy_deadlines();
        let bytes = Self::ITEM + item.held;
        self.bytes -= bytes;
        if let Some(source) = self.sources.get_mut(&item.source) {
            source.bytes -= bytes;
            source.serials.remove(&item.key);
            // Serial numbers only grow, so the order is sorted. Mostly it is the first or the last one.
            if source.order.back() == Some(&serial) {
                source.order.pop_back();
            } else if let Ok(at) = source.order.binary_search(&serial) {
                source.order.remove(at);
            }
            if source.order.is_empty() {
                self.sources.remove(&item.source);
                self.bytes -= Self::SOURCE;
            }
        }
        Some(item)
    }

    /// Takes an item out that must go because `source`, or all together, exceed their bounds. To be called until
    /// there is none.
    pub(super) fn evict(&mut self, source: &A) -> Option<Item<A, K, V>> {
        let oldest = match self.sources.get(source) {
            Some(kept)
                if kept.bytes > self.bounds.source_bytes || kept.order.len() > self.bounds.source_items =>
            {
                kept.order.front().copied()
            }
            _ if self.bytes > self.bounds.bytes => self.items.first_key_value().map(|(serial, _)| *serial),
            _ => None,
        };
        self.remove(oldest?)
    }

    /// Takes an item out that is over, if there is one.
    pub(super) fn expire(&mut self, now: Duration) -> Option<Item<A, K, V>> {
        let &Reverse((until, serial)) = self.deadlines.peek()?;
        if until > now {
            return None;
        }
        self.remove(serial)
    }

    /// Forgets deadlines of items that have gone: those in front, and all once they are more than the others.
    fn tidy_deadlines(&mut self) {
        let items = &self.items;
        if self.deadlines.len() > 2 * items.len() + 64 {
            self.deadlines
                .retain(|Reverse((_, serial))| items.contains_key(serial));
        }
        while let Some(Reverse((_, serial))) = self.deadlines.peek()
            && !items.contains_key(serial)
        {
            self.deadlines.pop();
        }
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(super) fn next_expiry(&self) -> Option<Duration> {
        self.deadlines.peek().map(|Reverse((until, _))| *until)
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Bytes charged: within the bounds after each eviction.
    pub(super) fn held(&self) -> usize {
        self.bytes
    }
}
