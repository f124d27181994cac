//! Buffers of packets that were dropped, kept for the next packets of the same thread.
//!
//! A datagram is about as long as the next one, and mostly dropped where the next one is made. A general allocator
//! takes longer over such blocks than the copy into them does.
//!
//! # Limits
//! A thread keeps [`KEPT`] buffers of [`SIZE`] bytes, 512 KiB, until it ends. Beyond that, buffers are freed at once.

use std::cell::RefCell;

use bytes::BytesMut;

/// Bytes of a buffer: a datagram of an ordinary link, with room around it.
pub(crate) const SIZE: usize = 2048;

/// Packets that need less are left to the allocator, which is quick about them, so that a short message is charged what
/// it is long.
const LEAST: usize = 768;

/// Buffers that a thread keeps.
const KEPT: usize = 256;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of [`SIZE`] bytes, whatever they are, for a packet that needs `len` of them; `None` if that is none of its
/// size.
pub(crate) fn take(len: usize) -> Option<BytesMut> {
    if !(LEAST..=SIZE).contains(&len) {
        return None;
    }
    // A thread that ends has no list any more.
    let spare = SPARE.try_with(|spare| spare.try_borrow_mut().ok()?.pop());
    Some(spare.ok().flatten().unwrap_or_else(|| BytesMut::zeroed(SIZE)))
}

/// Gives back what [`take`] gave, of which no part was split off.
pub(crate) fn give(buf: BytesMut) {
    // It may have been cut or have grown, and a buffer is not to be zeroed again.
    if buf.len() != SIZE || buf.capacity() != SIZE {
        return;
    }
    let _ = SPARE.try_with(|spare| {
        if let Ok(mut spare) = spare.try_borrow_mut()
            && spare.len() < KEPT
        {
            spare.push(buf);
        }
    });
}

#[cfg(test)]
mod tests {
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
        let front = rest.split_front(600);
        drop(rest);
        assert_eq!(kept(), 0);
        drop(Packet::new(Headroom::default(), &[4; 1200]));
        assert_eq!(front, &[3; 600]);
    }

    #[test]
    fn what_left_its_packet_does_not_come_back() {
        let packet = Packet::new(Headroom::default(), &[5; 1200]);
        let (buf, start) = packet.into_buffer();
        assert_eq!((buf.len(), start, kept()), (1200, 0, 0));
        let mut long = Packet::new(Headroom::default(), &[5; 1200]);
        long.push_back(&[6; 2000]);
        assert_eq!(long.len(), 3200);
        drop(long);
        assert_eq!(kept(), 1, "it moved, and gave the short buffer back");
    }

    #[test]
    fn a_thread_keeps_no_more_than_its_limit() {
        let packets: Vec<_> = (0..2 * KEPT)
            .map(|_| Packet::new(Headroom::default(), &[7; 1200]))
            .collect();
        drop(packets);
        assert_eq!(kept(), KEPT);
    }
}
