//! A cache of the buffers of delivered messages, which saves allocations for the next messages.

use bytes::BytesMut;

/// Maximum number of cached buffers.
const REMEMBERED: usize = 4;

/// Minimum size of a cached buffer in bytes: allocators cache smaller ones themselves.
const SMALLEST: usize = 8 << 10;

/// Maximum size of a cached buffer in bytes.
const LARGEST: usize = 256 << 10;

/// The cached buffers, the oldest first.
#[derive(Debug, Default)]
pub(super) struct BufferCache {
    /// Empty handles, with the sizes of the buffers.
    lent: Vec<(BytesMut, usize)>,
    held: usize,
}

impl BufferCache {
    /// Returns the bytes of the cached buffers, whether their messages are still in use or not.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Returns a buffer for `whole` bytes, with up to twice that size, if one is free.
    pub(super) fn take(&mut self, whole: usize) -> Option<BytesMut> {
        let fits = |bytes: usize| (whole..=2 * whole).contains(&bytes);
        let free = |(buf, bytes): &mut (BytesMut, usize)| fits(*bytes) && buf.try_reclaim(*bytes);
        let at = self.lent.iter_mut().position(free)?;
        let (buf, bytes) = self.lent.remove(at);
        self.held -= bytes;
        Some(buf)
    }

    /// Caches a buffer that is about to be delivered; at the limit, replaces the oldest.
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

    /// Removes the oldest buffer. Returns `false` if there was none.
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
    fn a_buffer_is_reused_after_its_message_is_dropped_and_for_a_similar_size_only() {
        let mut buffers = BufferCache::default();
        let mut buf = BytesMut::zeroed(SMALLEST);
        let at = buf.as_ptr();
        buffers.remember(&mut buf);
        assert!(buffers.take(SMALLEST).is_none(), "the buffer is in use");
        drop(buf);
        assert!(buffers.take(SMALLEST + 1).is_none(), "the buffer is too small");
        assert!(
            buffers.take(SMALLEST / 2 - 1).is_none(),
            "the buffer is too large"
        );
        let taken = buffers.take(SMALLEST - 1).expect("the buffer is free");
        assert_eq!(
            (taken.as_ptr(), taken.capacity(), buffers.held()),
            (at, SMALLEST, 0)
        );
    }

    #[test]
    fn the_cache_is_bounded() {
        let mut buffers = BufferCache::default();
        for bytes in [1, SMALLEST - 1, LARGEST + 1] {
            buffers.remember(&mut BytesMut::zeroed(bytes));
        }
        assert_eq!(buffers.held(), 0);
        for _ in 0..100 {
            buffers.remember(&mut BytesMut::zeroed(LARGEST));
        }
        assert_eq!(buffers.held(), REMEMBERED * LARGEST);
        assert_eq!((0..100).take_while(|_| buffers.forget()).count(), REMEMBERED);
        assert_eq!(buffers.held(), 0);
    }
}
