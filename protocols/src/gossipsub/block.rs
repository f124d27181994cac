//! Frames one behind the other in blocks of memory, which many of them share.
//!
//! Messages come and go in the same order, so a block is given back as a whole, and a message costs no allocation. Only what
//! is kept equally long belongs into one: one frame keeps its block in memory.

use bytes::{Bytes, BytesMut};

/// Bytes of a block at most. A frame longer than a quarter of it has memory of its own.
pub(super) const BLOCK: usize = 16 << 10;

/// What is left of the newest block. The first is as long as its first frame, and each twice as long as the one before it.
#[derive(Debug, Default)]
pub struct Block {
    left: BytesMut,
    /// Bytes of the newest block.
    len: usize,
}

impl Block {
    /// A frame of at most `len` bytes, which `write` appends.
    pub(super) fn frame(&mut self, len: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
        if len > BLOCK / 4 {
            let mut frame = BytesMut::with_capacity(len);
            write(&mut frame);
            return frame.freeze();
        }
        if self.left.capacity() < len {
            self.len = (2 * self.len).clamp(len, BLOCK);
            self.left = BytesMut::with_capacity(self.len);
        }
        write(&mut self.left);
        self.left.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(block: &mut Block, len: usize) -> Bytes {
        let frame = block.frame(len, |frame| frame.resize(len, 7));
        assert_eq!(frame, vec![7; len]);
        frame
    }

    #[test]
    fn blocks_grow_with_what_comes() {
        let mut block = Block::default();
        let mut blocks = Vec::new();
        // All are kept, so that no memory is used twice.
        let frames: Vec<Bytes> = (0..100)
            .map(|_| {
                let frame = frame(&mut block, 1000);
                blocks.push(block.len);
                frame
            })
            .collect();
        assert_eq!(blocks[..8], [1000, 2000, 2000, 4000, 4000, 4000, 4000, 8000]);
        assert_eq!(blocks[99], BLOCK);
        assert_eq!(frames[2].as_ptr(), frames[1].as_ptr().wrapping_add(1000));
    }

    #[test]
    fn long_frames_stand_alone() {
        let mut block = Block {
            left: BytesMut::new(),
            len: BLOCK,
        };
        let first = frame(&mut block, 10);
        let long = frame(&mut block, BLOCK / 4 + 1);
        let second = frame(&mut block, BLOCK / 4);
        assert_eq!(second.as_ptr(), first.as_ptr().wrapping_add(10));
        assert_eq!(long.len(), BLOCK / 4 + 1);
    }
}
