//! A pool of packet buffers: dropped packets leave their buffers for new ones.
//!
//! Datagrams are of similar length, and the thread that drops one mostly makes the next. A general allocator
//! takes longer for a block of this size than copying a datagram into it. When one thread allocates packets
//! and another drops them, buffers return in batches, magazines, through a pool that all threads share
//! (Bonwick and Adams, "Magazines and Vmem", 2001).
//!
//! # Limits
//! A thread keeps at most [`KEPT`] buffers of [`SIZE`] bytes, 512 KiB, until it ends. The shared pool keeps
//! at most [`MAX_MAGAZINES`] magazines of [`MAGAZINE`] buffers, 1 MiB. Buffers beyond these limits are freed.

use std::cell::RefCell;
use std::sync::Mutex;

use bytes::BytesMut;

/// Size of a buffer in bytes: a datagram of an ordinary link, with room around it.
pub(crate) const SIZE: usize = 2048;

/// Packets that need less memory use the allocator, which is fast for small blocks, so that a short message
/// is charged its own length only.
const LEAST: usize = 768;

/// Maximum number of buffers in a thread's list.
const KEPT: usize = 256;

/// Number of buffers in a [`Magazine`].
const MAGAZINE: usize = 64;

/// Maximum number of magazines in the shared pool.
const MAX_MAGAZINES: usize = 8;

thread_local! {
    /// The buffers of this thread.
    static LOCAL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

static SHARED: BufferPool = BufferPool(Mutex::new(Vec::new()));

/// Buffers that move to or from the shared pool at once.
type Magazine = Vec<BytesMut>;

/// The shared pool: magazines of threads that have too many buffers, for threads that have none.
struct BufferPool(Mutex<Vec<Magazine>>);

impl BufferPool {
    /// Takes a buffer from the thread's list; refills an empty list with one magazine of the shared pool.
    fn take(&self, own: &mut Vec<BytesMut>) -> Option<BytesMut> {
        if own.is_empty() {
            let mut magazine = self.0.lock().ok()?.pop()?;
            own.append(&mut magazine);
        }
        own.pop()
    }

    /// Adds a buffer to the thread's list. If the list is full, moves a magazine to the shared pool, or
    /// frees it if the pool is full.
    fn give(&self, own: &mut Vec<BytesMut>, buf: BytesMut) {
        if own.len() >= KEPT {
            let magazine = own.split_off(KEPT - MAGAZINE);
            if let Ok(mut magazines) = self.0.lock()
                && magazines.len() < MAX_MAGAZINES
            {
                magazines.push(magazine);
            }
        }
        own.push(buf);
    }
}

/// Returns a buffer of [`SIZE`] bytes with arbitrary contents for a packet of `len` bytes, or `None` if a
/// packet of that length does not use the pool.
pub(crate) fn take(len: usize) -> Option<BytesMut> {
    if !(LEAST..=SIZE).contains(&len) {
        return None;
    }
    // The thread-local list of an ending thread is already destroyed.
    let buf = LOCAL.try_with(|local| SHARED.take(&mut *local.try_borrow_mut().ok()?));
    Some(buf.ok().flatten().unwrap_or_else(|| BytesMut::zeroed(SIZE)))
}

/// Returns a buffer of [`take`] to the pool. The caller must not have split it.
pub(crate) fn give(buf: BytesMut) {
    // A buffer that was shortened or reallocated is freed, because restoring its length would mean zeroing it
    // again.
    if buf.len() != SIZE || buf.capacity() != SIZE {
        return;
    }
    let _ = LOCAL.try_with(|local| {
        if let Ok(mut local) = local.try_borrow_mut() {
            SHARED.give(&mut local, buf);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{Headroom, Packet};

    fn kept() -> usize {
        LOCAL.with(|local| local.borrow().len())
    }

    #[test]
    fn the_buffer_of_a_dropped_packet_is_used_again() {
        let first = Packet::new(Headroom::new(10, 10), &[1; 1200]);
        let at = first.as_ptr();
        drop(first);
        let second = Packet::new(Headroom::new(10, 10), &[2; 1300]);
        assert_eq!(second.as_ptr(), at);
        assert_eq!(second, &[2; 1300]);
        assert_eq!(second.room(), Headroom::new(10, SIZE - 1310));
    }

    #[test]
    fn a_split_buffer_is_not_used_again() {
        let mut rest = Packet::new(Headroom::default(), &[3; 1200]);
        let before = kept();
        let front = rest.split_front(600);
        drop(rest);
        assert_eq!(kept(), before);
        drop(Packet::new(Headroom::default(), &[4; 1200]));
        assert_eq!(front, &[3; 600]);
    }

    #[test]
    fn a_buffer_taken_out_of_a_packet_does_not_return_to_the_pool() {
        let packet = Packet::new(Headroom::default(), &[5; 1200]);
        let before = kept();
        let (buf, start) = packet.into_buffer();
        assert_eq!((buf.len(), start, kept()), (1200, 0, before));
        let mut long = Packet::new(Headroom::default(), &[5; 1200]);
        let before = kept();
        long.push_back(&[6; 2000]);
        assert_eq!(long.len(), 3200);
        drop(long);
        assert_eq!(
            kept(),
            before + 1,
            "the packet moved and returned the short buffer"
        );
    }

    /// Returns the addresses of the buffers.
    fn addresses<'a>(bufs: impl IntoIterator<Item = &'a BytesMut>) -> BTreeSet<*const u8> {
        bufs.into_iter().map(|buf| buf.as_ptr()).collect()
    }

    #[test]
    fn threads_share_buffers_and_no_list_exceeds_its_limit() {
        let (pool, mut dropping, mut taking) = (BufferPool(Mutex::default()), Vec::new(), Vec::new());
        let bufs: Vec<_> = (0..KEPT + 2 * MAX_MAGAZINES * MAGAZINE)
            .map(|_| BytesMut::zeroed(SIZE))
            .collect();
        let all = addresses(&bufs);
        for buf in bufs {
            pool.give(&mut dropping, buf);
            assert!(dropping.len() <= KEPT && pool.0.lock().expect("no panic").len() <= MAX_MAGAZINES);
        }
        let left = addresses(&dropping);
        assert_eq!(left.len(), KEPT);

        let taken: Vec<_> = std::iter::from_fn(|| pool.take(&mut taking)).collect();
        let reused = addresses(&taken);
        assert_eq!(
            (taken.len(), reused.len()),
            (MAX_MAGAZINES * MAGAZINE, MAX_MAGAZINES * MAGAZINE)
        );
        assert!(reused.is_subset(&all) && reused.is_disjoint(&left));
    }
}
