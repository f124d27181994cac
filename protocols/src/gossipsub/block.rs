//! An arena for frames: consecutive frames share blocks of memory.
//!
//! Messages arrive and leave in the same order, so a block is freed as a whole and a message costs no
//! allocation. Frames in one block should have equal lifetimes, because one frame keeps its whole block in
//! memory.

use bytes::{Bytes, BytesMut};

/// Maximum size of a block in bytes. A frame longer than a quarter of it has its own allocation.
pub(super) const BLOCK: usize = 16 << 10;

/// The rest of the newest block. The first block has the length of its first frame; each later one is twice
/// as long as the one before.
#[derive(Debug, Default)]
pub struct Block {
    left: BytesMut,
    /// Length of the newest block in bytes.
    len: usize,
}

impl Block {
    /// Returns a frame of at most `len` bytes, which `write` appends.
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
    fn blocks_double_in_length() {
        let mut block = Block::default();
        let mut blocks = Vec::new();
        // All frames are kept, so that no memory is reused.
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
    fn long_frames_have_their_own_allocation() {
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
