//! Packets cut from large buffers that are used again: sending in bulk without an allocation a message.

use std::collections::VecDeque;

use bytes::BytesMut;

use crate::{Headroom, Packet};

/// Makes packets that share large buffers, each of which is used again once all of its packets are dropped.
///
/// Packets are cut one after the other. A batch of them lies in memory as one piece, which a base that sends
/// batches can hand to the system as it is, provided that the layers above it filled the room in front.
///
/// A pool belongs to whoever fills packets: it is a plain value without locks. Its packets can go anywhere. One
/// packet that is kept keeps a buffer of 64 KiB alive, so a pool is for packets that are told at once.
///
/// # Limits
/// The pool remembers 16 buffers, 1 MiB. While more are in use, each further one is allocated, and forgotten.
///
/// ```
/// use p2p::{Headroom, PacketPool};
///
/// let mut pool = PacketPool::new(Headroom::new(8, 0));
/// let mut packet = pool.packet(b"payload");
/// packet.push_front(b"header");
/// assert_eq!(packet, b"headerpayload");
/// ```
#[derive(Debug)]
pub struct PacketPool {
    room: Headroom,
    /// What is not cut yet; its length is always 0.
    current: BytesMut,
    /// Empty handles of buffers that are all cut, the oldest first.
    cut: VecDeque<BytesMut>,
}

/// Bytes of a buffer: what one segmented send takes.
const BUFFER: usize = 1 << 16;

/// Buffers that are remembered.
const REMEMBERED: usize = 16;

impl PacketPool {
    /// A pool of packets with `room`, which is best the [`headroom`](crate::Swarm::headroom) of the swarm that
    /// they are told through. Allocates nothing yet.
    pub fn new(room: Headroom) -> Self {
        Self {
            room,
            current: BytesMut::with_capacity(BUFFER),
            cut: VecDeque::new(),
        }
    }

    /// A packet with a copy of `payload`.
    pub fn packet(&mut self, payload: &[u8]) -> Packet {
        let Headroom { front, back } = self.room;
        let len = front + payload.len();
        if len + back > BUFFER {
            return Packet::new(self.room, payload);
        }
        if self.current.capacity() < len + back {
            self.turn();
        }
        self.current.resize(front, 0);
        self.current.extend_from_slice(payload);
        self.current.resize(len + back, 0);
        let mut buf = self.current.split();
        // The room behind keeps its capacity.
        buf.truncate(len);
        Packet::from_buffer(buf, front)
    }

    /// Goes on with another buffer: the oldest one, if it is free again.
    fn turn(&mut self) {
        // Packets are dropped in about the order in which they were made, so the oldest is the one to ask.
        let free = self
            .cut
            .front_mut()
            .is_some_and(|oldest| oldest.try_reclaim(BUFFER));
        if !free && self.cut.len() == REMEMBERED {
            self.cut.pop_front();
        }
        let next = if free { self.cut.pop_front() } else { None };
        let next = next.unwrap_or_else(|| BytesMut::with_capacity(BUFFER));
        let cut = std::mem::replace(&mut self.current, next);
        self.cut.push_back(cut);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_have_their_room_and_lie_in_one_piece() {
        let mut pool = PacketPool::new(Headroom::new(3, 2));
        let (mut first, mut second) = (pool.packet(b"one"), pool.packet(b"two"));
        assert_eq!(
            (first.room(), second.room()),
            (Headroom::new(3, 2), Headroom::new(3, 2))
        );
        first.push_front(b"abc");
        first.push_back(b"de");
        second.push_front(b"fgh");
        assert_eq!(first, b"abconede");
        assert_eq!(second, b"fghtwo");
        assert_eq!(first.as_ptr_range().end, second.as_ptr());
    }

    #[test]
    fn buffers_are_used_again_once_their_packets_are_dropped() {
        let mut pool = PacketPool::new(Headroom::default());
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            seen.insert(pool.packet(&[7; 16_384]).as_ptr());
        }
        assert!(seen.len() <= 8, "{}", seen.len());
    }

    #[test]
    fn packets_that_are_kept_keep_their_bytes_and_the_pool_remembers_no_more_than_its_limit() {
        let mut pool = PacketPool::new(Headroom::new(5, 5));
        let kept: Vec<_> = (0..200_u8).map(|at| pool.packet(&[at; 15_000])).collect();
        assert!(pool.cut.len() <= REMEMBERED);
        for (at, packet) in (0..200_u8).zip(&kept) {
            assert_eq!(*packet, &[at; 15_000]);
        }
        drop(kept);
        assert_eq!(&*pool.packet(&vec![1; 100_000]), vec![1; 100_000]);
    }
}
