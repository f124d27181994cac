//! Buffers of packets that were dropped, kept for the next packets.
//!
//! A datagram is about as long as the next one, and mostly dropped by the thread that makes the next one. A general
//! allocator takes longer over such blocks than the copy into them does. Where one thread makes what another drops, buffers
//! go back through a depot that all threads share, many at a time (Bonwick and Adams, "Magazines and Vmem", 2001).
//!
//! # Limits
//! A thread keeps [`KEPT`] buffers of [`SIZE`] bytes, 512 KiB, until it ends, and the depot [`DEPOT`] times [`CASE`] of
//! them, 1 MiB. Beyond that, buffers are freed at once.

use std::cell::RefCell;
use std::sync::Mutex;

use bytes::BytesMut;

/// Bytes of a buffer: a datagram of an ordinary link, with room around it.
pub(crate) const SIZE: usize = 2048;

/// Packets that need less are left to the allocator, which is quick about them, so that a short message is charged what
/// it is long.
const LEAST: usize = 768;

/// Buffers that a thread keeps.
const KEPT: usize = 256;

/// Buffers that go to the depot and come from it together.
const CASE: usize = 64;

/// Cases that the depot keeps.
const DEPOT: usize = 8;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

static SHARED: Depot = Depot(Mutex::new(Vec::new()));

/// Cases of buffers, which threads that have too many leave for those that have none.
struct Depot(Mutex<Vec<Vec<BytesMut>>>);

impl Depot {
    /// A buffer of a thread's own, or one of the depot's, whose case comes with it.
    fn take(&self, own: &mut Vec<BytesMut>) -> Option<BytesMut> {
        if own.is_empty() {
            let mut case = self.0.lock().ok()?.pop()?;
            own.append(&mut case);
        }
        own.pop()
    }

    /// Adds a buffer to a thread's own. Where these are too many, a case of them goes to the depot, or is freed.
    fn give(&self, own: &mut Vec<BytesMut>, buf: BytesMut) {
        if own.len() >= KEPT {
            let case = own.split_off(KEPT - CASE);
            if let Ok(mut cases) = self.0.lock()
                && cases.len() < DEPOT
            {
                cases.push(case);
            }
        }
        own.push(buf);
    }
}

/// A buffer of [`SIZE`] bytes, whatever they are, for a packet that needs `len` of them; `None` if that is none of its
/// size.
pub(crate) fn take(len: usize) -> Option<BytesMut> {
    if !(LEAST..=SIZE).contains(&len) {
        return None;
    }
    // A thread that ends has no list any more.
    let spare = SPARE.try_with(|spare| SHARED.take(&mut *spare.try_borrow_mut().ok()?));
    Some(spare.ok().flatten().unwrap_or_else(|| BytesMut::zeroed(SIZE)))
}

/// Gives back what [`take`] gave, of which no part was split off.
pub(crate) fn give(buf: BytesMut) {
    // It may have been cut or have grown, and a buffer is not to be zeroed again.
    if buf.len() != SIZE || buf.capacity() != SIZE {
        return;
    }
    let _ = SPARE.try_with(|spare| {
        if let Ok(mut spare) = spare.try_borrow_mut() {
            SHARED.give(&mut spare, buf);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{Headroom, Packet};

    fn kept() -> usize {
        SPARE.with(|spare| spare.borrow().len())
    }

    #[test]
    fn the_buffer_of_a_dropped_packet_is_that_of_the_next_one() {
        let first = Packet::new(Headroom::new(10, 10), &[1; 1200]);
        let at = first.as_ptr();
        drop(first);
        let second = Packet::new(Headroom::new(10, 10), &[2; 1300]);
        assert_eq!(second.as_ptr(), at);
        assert_eq!(second, &[2; 1300]);
        assert_eq!(second.room(), Headroom::new(10, SIZE - 1310));
    }

    #[test]
    fn a_buffer_of_which_a_part_lives_on_is_not_used_again() {
        let mut rest = Packet::new(Headroom::default(), &[3; 1200]);
        let before = kept();
        let front = rest.split_front(600);
        drop(rest);
        assert_eq!(kept(), before);
        drop(Packet::new(Headroom::default(), &[4; 1200]));
        assert_eq!(front, &[3; 600]);
    }

    #[test]
    fn what_left_its_packet_does_not_come_back() {
        let packet = Packet::new(Headroom::default(), &[5; 1200]);
        let before = kept();
        let (buf, start) = packet.into_buffer();
        assert_eq!((buf.len(), start, kept()), (1200, 0, before));
        let mut long = Packet::new(Headroom::default(), &[5; 1200]);
        let before = kept();
        long.push_back(&[6; 2000]);
        assert_eq!(long.len(), 3200);
        drop(long);
        assert_eq!(kept(), before + 1, "it moved, and gave the short buffer back");
    }

    /// Where these buffers are.
    fn places<'a>(bufs: impl IntoIterator<Item = &'a BytesMut>) -> BTreeSet<*const u8> {
        bufs.into_iter().map(|buf| buf.as_ptr()).collect()
    }

    #[test]
    fn what_one_thread_drops_another_takes_and_neither_keeps_more_than_its_limit() {
        let (depot, mut dropping, mut taking) = (Depot(Mutex::default()), Vec::new(), Vec::new());
        let bufs: Vec<_> = (0..KEPT + 2 * DEPOT * CASE)
            .map(|_| BytesMut::zeroed(SIZE))
            .collect();
        let all = places(&bufs);
        for buf in bufs {
            depot.give(&mut dropping, buf);
            assert!(dropping.len() <= KEPT && depot.0.lock().expect("no panic").len() <= DEPOT);
        }
        let left = places(&dropping);
        assert_eq!(left.len(), KEPT);

        let taken: Vec<_> = std::iter::from_fn(|| depot.take(&mut taking)).collect();
        let places = places(&taken);
        assert_eq!((taken.len(), places.len()), (DEPOT * CASE, DEPOT * CASE));
        assert!(places.is_subset(&all) && places.is_disjoint(&left));
    }
}
