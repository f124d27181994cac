//! The event queue of the simulation, ordered by time, then by the order of planning.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A binary heap of small entries. The contents of an entry lie in a [`Slab`].
#[derive(Debug)]
pub(super) struct Queue<T> {
    heap: BinaryHeap<Entry<T>>,
    planned: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    at: u64,
    order: u64,
    what: T,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            planned: 0,
        }
    }

    /// Plans `what` for the time `at`, in nanoseconds.
    pub(super) fn push(&mut self, at: u64, what: T) {
        let order = self.planned;
        self.planned += 1;
        self.heap.push(Entry { at, order, what });
    }

    /// Returns the time of the next entry.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.at)
    }

    pub(super) fn pop(&mut self) -> Option<(u64, T)> {
        self.heap.pop().map(|entry| (entry.at, entry.what))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap returns its greatest entry first, so the earliest is the greatest.
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

/// Items under reused numbers, so that a running simulation allocates nothing for them.
#[derive(Debug)]
pub(super) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self {
            items: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(super) fn insert(&mut self, item: T) -> u32 {
        if let Some(key) = self.free.pop() {
            self.items[key as usize] = Some(item);
            return key;
        }
        let key = u32::try_from(self.items.len()).expect("fewer than 2^32 things are under way");
        self.items.push(Some(item));
        key
    }

    pub(super) fn get(&self, key: u32) -> Option<&T> {
        self.items.get(key as usize)?.as_ref()
    }

    pub(super) fn remove(&mut self, key: u32) -> Option<T> {
        let item = self.items.get_mut(key as usize)?.take()?;
        self.free.push(key);
        Some(item)
    }

    /// Counts the items one by one.
    pub(super) fn count(&self) -> usize {
        self.items.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_ordered_by_time_and_ties_by_the_order_of_planning() {
        let mut queue = Queue::new();
        for (at, what) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b')] {
            queue.push(at, what);
        }
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, what)| what).collect();
        assert_eq!(order, "abcd");
    }

    #[test]
    fn a_slab_reuses_numbers() {
        let mut slab = Slab::new();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.insert('c'), a);
        assert_eq!(
            (slab.get(a), slab.get(b), slab.count()),
            (Some(&'c'), Some(&'b'), 2)
        );
    }
}
