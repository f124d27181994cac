//! One buffer for a message on its whole way down and up a stack: bytes with room in front and behind.
//!
//! A layer writes its header into the room in front ([`Packet::push_front`]), a cipher writes its tag into
//! the room behind ([`Packet::push_back`]), and both are removed on the way up by moving an edge. No layer
//! copies the payload. If the room is too short, the packet moves to a larger buffer, so correctness never
//! depends on the [`Headroom`] that a sender chose.
//!
//! Deliberately absent: shared payloads. A packet is the only owner of its bytes, so that a layer can encrypt
//! and decrypt in place. Sending one payload to many peers copies it once for each.

use std::fmt;
use std::ops::{Deref, DerefMut};

use bytes::{Bytes, BytesMut};

use crate::{Error, Result, pool};

/// Bytes that the layers below add in front of a message and behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headroom {
    /// Bytes of headers in front.
    pub front: usize,
    /// Bytes of authentication tags or padding behind.
    pub back: usize,
}

impl Headroom {
    /// Creates room for `front` bytes in front and `back` bytes behind.
    pub const fn new(front: usize, back: usize) -> Self {
        Self { front, back }
    }

    /// Returns the room of this layer and of the layers below it together.
    #[must_use]
    pub const fn plus(self, below: Headroom) -> Self {
        Self {
            front: self.front + below.front,
            back: self.back + below.back,
        }
    }
}

/// The bytes of a message, with room to grow in front and behind.
///
/// Dereferences to the payload. Equality and `Debug` use the payload only.
///
/// # Example
/// ```
/// use p2p::{Headroom, Packet};
///
/// let mut packet = Packet::new(Headroom::new(4, 16), b"payload");
/// packet.push_front(b"head"); // uses the room, does not move the payload
/// assert_eq!(packet, b"headpayload");
///
/// assert_eq!(packet.pop_front::<4>(), Some(*b"head"));
/// assert_eq!(packet.room().front, 4); // the removed header is room again
/// assert_eq!(packet, b"payload");
/// ```
///
/// # Limits
/// A packet that needs between 768 and 2048 bytes, room included, takes a 2048-byte buffer from a pool. The
/// pool keeps up to 256 dropped buffers for each thread (512 KiB), and 512 more for all threads together.
#[derive(Default)]
pub struct Packet {
    /// `buf[start..end]` is the payload; the rest, including spare capacity, is room.
    buf: BytesMut,
    start: usize,
    end: usize,
    /// Whether `buf` came from the pool in [`pool`] and was never split.
    is_pooled: bool,
}

/// Room around a packet that had to move, so that the next header does not move it again.
const REGROW: Headroom = Headroom::new(64, 32);

impl Packet {
    /// Copies `payload` into a new buffer with `room` around it.
    pub fn new(room: Headroom, payload: &[u8]) -> Self {
        let mut packet = Self::with_capacity(room, payload.len());
        packet.push_back(payload);
        packet
    }

    /// Creates an empty packet with `room` around a payload of up to `capacity` bytes;
    /// [`push_back`](Self::push_back) fills it.
    pub fn with_capacity(room: Headroom, capacity: usize) -> Self {
        let (start, len) = (room.front, room.front + capacity + room.back);
        let Some(buf) = pool::take(len) else {
            let mut buf = BytesMut::with_capacity(len);
            buf.resize(start, 0);
            return Self::from_buffer(buf, start);
        };
        Self {
            buf,
            start,
            end: start,
            is_pooled: true,
        }
    }

    /// Takes `buf` without copying: the first `start` bytes are room, the rest is payload.
    ///
    /// A `start` beyond the end counts as the end.
    pub fn from_buffer(buf: BytesMut, start: usize) -> Self {
        let start = start.min(buf.len());
        Self {
            end: buf.len(),
            buf,
            start,
            is_pooled: false,
        }
    }

    /// Returns the buffer and the offset of the payload in it, without copying.
    pub fn into_buffer(mut self) -> (BytesMut, usize) {
        self.is_pooled = false;
        let mut buf = std::mem::take(&mut self.buf);
        buf.truncate(self.end);
        (buf, self.start)
    }

    /// Converts the payload into [`Bytes`], without copying.
    pub fn into_bytes(self) -> Bytes {
        let (mut buf, start) = self.into_buffer();
        bytes::Buf::advance(&mut buf, start);
        buf.freeze()
    }

    /// Returns the length of the payload in bytes.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Returns whether the payload is empty. An empty packet is a valid message.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the room that is left in front and behind.
    pub fn room(&self) -> Headroom {
        Headroom {
            front: self.start,
            back: self.buf.capacity() - self.end,
        }
    }

    /// Returns the memory that this packet holds at least, in bytes: room, payload and spare capacity.
    ///
    /// A packet that was split from a larger receive buffer keeps all of that buffer alive; see
    /// [`reallocate`](Self::reallocate).
    pub fn capacity(&self) -> usize {
        self.buf.capacity()
    }

    /// Checks the length of the payload.
    ///
    /// # Errors
    /// [`Error::MtuExceeded`] if the payload is longer than `mtu` bytes.
    pub fn check_mtu(&self, mtu: usize) -> Result<()> {
        if self.len() <= mtu {
            Ok(())
        } else {
            Err(Error::MtuExceeded {
                size: self.len(),
                mtu,
            })
        }
    }

    /// Writes `header` in front of the payload, into the room if it is large enough.
    pub fn push_front(&mut self, header: &[u8]) {
        self.grow_front(header.len()).copy_from_slice(header);
    }

    /// Moves the front edge by `len` bytes and returns them for writing.
    pub fn grow_front(&mut self, len: usize) -> &mut [u8] {
        if self.start < len {
            self.move_to(Headroom::new(len + REGROW.front, REGROW.back));
        }
        let end = self.start;
        self.start -= len;
        &mut self.buf[self.start..end]
    }

    /// Removes the first `N` bytes of the payload and returns them, or `None` if the payload is shorter. They
    /// become room.
    pub fn pop_front<const N: usize>(&mut self) -> Option<[u8; N]> {
        let header = *self.first_chunk::<N>()?;
        self.start += N;
        Some(header)
    }

    /// Removes the first `len` bytes of the payload, or all of it if it is shorter. They become room.
    pub fn advance(&mut self, len: usize) {
        self.start += len.min(self.len());
    }

    /// Writes `tail` behind the payload, into the room if it is large enough.
    pub fn push_back(&mut self, tail: &[u8]) {
        let end = self.end + tail.len();
        if let Some(room) = self.buf.get_mut(self.end..end) {
            self.end = end;
            room.copy_from_slice(tail);
            return;
        }
        if self.room().back < tail.len() {
            self.move_to(Headroom::new(
                REGROW.front.max(self.start),
                tail.len() + REGROW.back,
            ));
        }
        self.buf.truncate(self.end);
        self.buf.extend_from_slice(tail);
        self.end = self.buf.len();
    }

    /// Shortens the payload to its first `len` bytes; has no effect on a shorter one. The rest becomes room.
    pub fn truncate(&mut self, len: usize) {
        self.end = self.start + len.min(self.len());
    }

    /// Removes the last `N` bytes of the payload and returns them, or `None` if the payload is shorter. They
    /// become room.
    pub fn pop_back<const N: usize>(&mut self) -> Option<[u8; N]> {
        let tail = *self.last_chunk::<N>()?;
        self.truncate(self.len() - N);
        Some(tail)
    }

    /// Splits the first `len` bytes of the payload off into another packet, without copying.
    ///
    /// The returned packet keeps the room in front and has none behind; `self` has none in front. A `len`
    /// beyond the end takes the whole payload.
    #[must_use]
    pub fn split_front(&mut self, len: usize) -> Packet {
        self.is_pooled = false;
        let at = self.start + len.min(self.len());
        let front = self.buf.split_to(at);
        self.end -= at;
        Packet::from_buffer(front, std::mem::take(&mut self.start))
    }

    /// Copies the payload into a new buffer, so that it does not keep a larger buffer alive.
    ///
    /// A queue calls this for small packets that must wait.
    pub fn reallocate(&mut self, room: Headroom) {
        self.move_to(room);
    }

    /// Moves the payload into a new buffer with `room` around it.
    fn move_to(&mut self, room: Headroom) {
        *self = Packet::new(room, self);
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        if self.is_pooled {
            pool::give(std::mem::take(&mut self.buf));
        }
    }
}

impl Clone for Packet {
    /// Copies the payload, with the room in front and room for a tag behind.
    fn clone(&self) -> Self {
        let room = Headroom::new(self.start, self.room().back.min(REGROW.back));
        Packet::new(room, self)
    }
}

impl Deref for Packet {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }
}

impl DerefMut for Packet {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..self.end]
    }
}

impl AsRef<[u8]> for Packet {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<&[u8]> for Packet {
    fn from(payload: &[u8]) -> Self {
        Packet::new(REGROW, payload)
    }
}

impl<const N: usize> From<&[u8; N]> for Packet {
    fn from(payload: &[u8; N]) -> Self {
        Packet::new(REGROW, payload)
    }
}

impl From<&str> for Packet {
    fn from(payload: &str) -> Self {
        Packet::new(REGROW, payload.as_bytes())
    }
}

impl From<Vec<u8>> for Packet {
    /// Takes the vector without copying. It has no room in front, so the first header moves it.
    fn from(payload: Vec<u8>) -> Self {
        Packet::from_buffer(BytesMut::from(Bytes::from(payload)), 0)
    }
}

impl From<BytesMut> for Packet {
    fn from(buf: BytesMut) -> Self {
        Packet::from_buffer(buf, 0)
    }
}

impl PartialEq for Packet {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Packet {}

impl PartialEq<[u8]> for Packet {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl PartialEq<&[u8]> for Packet {
    fn eq(&self, other: &&[u8]) -> bool {
        **self == **other
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Packet {
    fn eq(&self, other: &&[u8; N]) -> bool {
        **self == other[..]
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        let (shown, more) = self.split_at(self.len().min(SHOWN));
        write!(f, "Packet({} bytes: ", self.len())?;
        shown.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(if more.is_empty() { ")" } else { "…)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_in_the_room_does_not_move_the_payload() {
        let mut packet = Packet::new(Headroom::new(4, 2), b"hello");
        let at = packet.as_ptr();
        packet.push_front(b"head");
        packet.push_back(b"ta");
        assert_eq!(packet, b"headhellota");
        assert_eq!(packet.pop_front::<4>(), Some(*b"head"));
        assert_eq!(packet.pop_back::<2>(), Some(*b"ta"));
        assert_eq!(packet.as_ptr(), at);
        assert_eq!(packet, b"hello");
    }

    #[test]
    fn a_popped_header_becomes_room() {
        let mut packet = Packet::from(b"headbody".to_vec());
        let _: Option<[u8; 4]> = packet.pop_front();
        let at = packet.as_ptr();
        packet.push_front(b"HEAD");
        packet.advance(4);
        assert_eq!(packet.as_ptr(), at);
        assert_eq!(packet, b"body");
    }

    #[test]
    fn split_parts_are_writable_and_independent() {
        let mut rest = Packet::new(Headroom::new(2, 0), b"aabbcc");
        let mut first = rest.split_front(2);
        first.push_front(b"12");
        first.push_back(b"34");
        rest.push_front(b"56");
        assert_eq!(first, b"12aa34");
        assert_eq!(rest, b"56bbcc");
    }

    /// An operation that the test applies to a packet and to a plain vector.
    #[derive(Clone, Debug)]
    enum Op {
        PushFront(Vec<u8>),
        PushBack(Vec<u8>),
        Advance(usize),
        Truncate(usize),
        Split(usize),
        Detach(usize, usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..400);
        prop_oneof![
            bytes().prop_map(Op::PushFront),
            bytes().prop_map(Op::PushBack),
            (0..900usize).prop_map(Op::Advance),
            (0..2100usize).prop_map(Op::Truncate),
            (0..900usize).prop_map(Op::Split),
            (0..90usize, 0..90usize).prop_map(|(front, back)| Op::Detach(front, back)),
        ]
    }

    proptest! {
        #[test]
        fn a_packet_behaves_like_a_vector(front in 0..80usize, back in 0..80usize,
                                 payload in proptest::collection::vec(any::<u8>(), 0..2100usize),
                                 ops in proptest::collection::vec(op(), 0..20)) {
            let mut packet = Packet::new(Headroom::new(front, back), &payload);
            let mut model = payload;
            for op in ops {
                match op {
                    Op::PushFront(bytes) => {
                        packet.push_front(&bytes);
                        model.splice(0..0, bytes);
                    }
                    Op::PushBack(bytes) => {
                        packet.push_back(&bytes);
                        model.extend(bytes);
                    }
                    Op::Advance(len) => {
                        packet.advance(len);
                        model.drain(..len.min(model.len()));
                    }
                    Op::Truncate(len) => {
                        packet.truncate(len);
                        model.truncate(len);
                    }
                    Op::Split(len) => {
                        let front = packet.split_front(len);
                        let rest = model.split_off(len.min(model.len()));
                        prop_assert_eq!(&*front, &*std::mem::replace(&mut model, rest));
                    }
                    Op::Detach(front, back) => packet.reallocate(Headroom::new(front, back)),
                }
                prop_assert_eq!(&*packet, &*model);
            }
            prop_assert_eq!(&*packet.clone(), &*model);
            prop_assert_eq!(&*packet.into_bytes(), &*model);
        }
    }
}
