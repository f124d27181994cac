//! Buffers of messages that were delivered, for the next messages: sparing the system making new ones.

use bytes::BytesMut;

/// Buffers that are remembered.
const REMEMBERED: usize = 4;

/// Bytes of a buffer that is worth remembering: an allocator keeps smaller ones at hand itself.
const SMALLEST: usize = 8 << 10;

/// Bytes of a buffer that is remembered at most.
const LARGEST: usize = 256 << 10;

/// What is remembered, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Spares {
    /// Empty handles, and how large the buffers are.
    lent: Vec<(BytesMut, usize)>,
    held: usize,
}

impl Spares {
    /// Bytes that are remembered, whether their messages are still in use or not.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// A buffer for `whole` bytes or up to twice as many, if one is free.
    pub(super) fn take(&mut self, whole: usize) -> Option<BytesMut> {
        let fits = |bytes: usize| (whole..=2 * whole).contains(&bytes);
        let free = |(buf, bytes): &mut (BytesMut, usize)| fits(*bytes) && buf.try_reclaim(*bytes);
        let at = self.lent.iter_mut().position(free)?;
        let (buf, bytes) = self.lent.remove(at);
        self.held -= bytes;
        Some(buf)
    }

    /// Remembers a buffer that is about to be delivered, in place of the oldest if there are many.
    pub(super) fn remember(&mut self, buf: &mut BytesMut) {
        let bytes = buf.capacity();
        if (SMALLEST..=LARGEST).contains(&bytes) {
            if self.lent.len() == REMEMBERED {
                self.forget();
            }
            self.lent.push((buf.split_off(bytes), bytes));
            self.held += bytes;
        }
    }

    /// Forgets the oldest; returns false if there was none.
    pub(super) fn forget(&mut self) -> bool {
        let some = !self.lent.is_empty();
        if some {
            self.held -= self.lent.remove(0).1;
        }
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_taken_again_once_its_message_is_dropped_and_only_for_one_of_its_size() {
        let mut spares = Spares::default();
        let mut buf = BytesMut::zeroed(SMALLEST);
        let at = buf.as_ptr();
        spares.remember(&mut buf);
        assert!(spares.take(SMALLEST).is_none(), "it is in use");
        drop(buf);
        assert!(spares.take(SMALLEST + 1).is_none(), "it is too small");
        assert!(spares.take(SMALLEST / 2 - 1).is_none(), "it is too large");
        let taken = spares.take(SMALLEST - 1).expect("it is free");
        assert_eq!(
            (taken.as_ptr(), taken.capacity(), spares.held()),
            (at, SMALLEST, 0)
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut spares = Spares::default();
        for bytes in [1, SMALLEST - 1, LARGEST + 1] {
            spares.remember(&mut BytesMut::zeroed(bytes));
        }
        assert_eq!(spares.held(), 0);
        for _ in 0..100 {
            spares.remember(&mut BytesMut::zeroed(LARGEST));
        }
        assert_eq!(spares.held(), REMEMBERED * LARGEST);
        assert_eq!((0..100).take_while(|_| spares.forget()).count(), REMEMBERED);
        assert_eq!(spares.held(), 0);
    }
}
