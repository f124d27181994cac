//! A bounded store for items of many sources: at a limit, the oldest item is evicted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use crate::hash::HashMap;

/// Limits of a [`BoundedStore`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) bytes: usize,
    pub(super) source_bytes: usize,
    pub(super) source_items: usize,
}

/// Items by source and key. Every item is charged its memory and its bookkeeping.
#[derive(Debug)]
pub(super) struct BoundedStore<A, K, V> {
    bounds: Bounds,
    sources: HashMap<A, Source<K>>,
    /// By serial number: in insertion order.
    items: BTreeMap<u64, Item<A, K, V>>,
    /// Expiry times with serial numbers, the earliest first. The first one always belongs to a stored item;
    /// of the others, some may be obsolete.
    deadlines: BinaryHeap<Reverse<(Duration, u64)>>,
    bytes: usize,
    next: u64,
}

#[derive(Debug)]
pub(super) struct Item<A, K, V> {
    pub(super) source: A,
    pub(super) key: K,
    /// Expiry time.
    pub(super) until: Duration,
    pub(super) value: V,
    held: usize,
}

#[derive(Debug)]
struct Source<K> {
    serials: HashMap<K, u64>,
    /// Serial numbers of its items, the oldest first.
    order: VecDeque<u64>,
    bytes: usize,
}

impl<A: Clone + Eq + Hash, K: Copy + Eq + Hash, V> BoundedStore<A, K, V> {
    /// Bookkeeping of an item: tree nodes may be half full, and a table may be growing to twice its size.
    const ITEM: usize = 2 * size_of::<(u64, Item<A, K, V>)>()
        + 4 * size_of::<(K, u64)>()
        + 4 * size_of::<u64>()
        + 4 * size_of::<(Duration, u64)>();
    /// Bookkeeping of a source.
    const SOURCE: usize = 4 * size_of::<(A, Source<K>)>() + 256;

    /// Creates an empty store. The limits are raised so that one item of `largest` bytes fits.
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

    /// Returns the serial number of an item.
    pub(super) fn find(&self, source: &A, key: &K) -> Option<u64> {
        self.sources.get(source)?.serials.get(key).copied()
    }

    pub(super) fn get_mut(&mut self, serial: u64) -> Option<&mut V> {
        self.items.get_mut(&serial).map(|item| &mut item.value)
    }

    /// Stores a new item that holds `held` bytes; the caller must call [`evict`](Self::evict) afterwards.
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

    /// Updates the bytes that an item holds; the caller must call [`evict`](Self::evict) afterwards.
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
            // Serial numbers only increase, so the order is sorted. Mostly the item is the first or the last
            // one.
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

    /// Removes an item if `source`, or the whole store, exceeds its limits. Call it until it returns `None`.
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

    /// Removes an expired item, if there is one.
    pub(super) fn expire(&mut self, now: Duration) -> Option<Item<A, K, V>> {
        let &Reverse((until, serial)) = self.deadlines.peek()?;
        if until > now {
            return None;
        }
        self.remove(serial)
    }

    /// Removes obsolete deadlines: those in front, and all if they outnumber the others.
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

    /// Returns the time at which [`expire`](Self::expire) has work.
    pub(super) fn next_expiry(&self) -> Option<Duration> {
        self.deadlines.peek().map(|Reverse((until, _))| *until)
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns the bytes charged: within the limits after eviction.
    pub(super) fn held(&self) -> usize {
        self.bytes
    }
}
