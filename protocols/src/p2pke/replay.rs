//! Replay protection: a window of received counters that moves with the newest authentic one.

use super::wire::COUNTER_LIMIT;

const BLOCK_BITS: u32 = u64::BITS;
const BLOCKS: u32 = 128;

/// Size of the window: counters farther behind the newest one are refused.
pub const WINDOW: u32 = (BLOCKS - 1) * BLOCK_BITS;

/// A sliding window of counters (RFC 6479): a ring of blocks of bits, one of which is always cleared.
///
/// Pass authenticated counters only. Its size is 1 KiB.
#[derive(Debug)]
pub struct ReplayWindow {
    newest: u32,
    ring: [u64; BLOCKS as usize],
}

impl ReplayWindow {
    /// Creates a window in which every counter is new.
    pub const fn new() -> Self {
        Self {
            newest: 0,
            ring: [0; BLOCKS as usize],
        }
    }

    /// Returns whether [`accept`](Self::accept) would accept this counter. Changes nothing.
    pub fn is_new(&self, counter: u32) -> bool {
        counter < COUNTER_LIMIT
            && (counter > self.newest
                || (self.newest - counter <= WINDOW && self.ring[slot(counter)] & bit(counter) == 0))
    }

    /// Marks a counter as received. Returns whether it was new.
    pub fn accept(&mut self, counter: u32) -> bool {
        if !self.is_new(counter) {
            return false;
        }
        if counter > self.newest {
            let from = self.newest / BLOCK_BITS;
            let steps = (counter / BLOCK_BITS - from).min(BLOCKS);
            for step in 1..=steps {
                self.ring[((from + step) % BLOCKS) as usize] = 0;
            }
            self.newest = counter;
        }
        self.ring[slot(counter)] |= bit(counter);
        true
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

/// In range by construction: a remainder modulo the length of the ring.
const fn slot(counter: u32) -> usize {
    (counter / BLOCK_BITS % BLOCKS) as usize
}

const fn bit(counter: u32) -> u64 {
    1 << (counter % BLOCK_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn accepts_each_counter_once_and_none_behind_the_window(
            start in prop_oneof![Just(0), Just(COUNTER_LIMIT - 20_000)],
            steps in proptest::collection::vec(prop_oneof![0..300u32, 7_900..8_500u32, 0..20_000u32], 0..400),
        ) {
            let (mut window, mut seen, mut newest) = (ReplayWindow::new(), BTreeSet::new(), 0u32);
            for step in steps {
                let counter = start + step;
                let new = counter < COUNTER_LIMIT
                    && newest.saturating_sub(counter) <= WINDOW
                    && !seen.contains(&counter);
                prop_assert_eq!(window.is_new(counter), new);
                prop_assert_eq!(window.accept(counter), new);
                if new {
                    seen.insert(counter);
                    newest = newest.max(counter);
                }
            }
        }
    }
}
