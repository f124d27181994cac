//! The bounds of an inbox.

use p2p::{Headroom, Packet};

/// Maximum number of items with larger payloads that wait in the buffers that they arrived in. UDP reads into
/// buffers of 64 KiB, so these hold at most 4 MiB beyond what they are charged.
const UNCOPIED: usize = 64;

/// A payload of this length occupies a quarter of such a buffer, and is not copied.
const LARGE: usize = 16 << 10;

/// Maximum headroom of a copied packet: headers and tags of a few layers.
const KEPT_ROOM: Headroom = Headroom::new(64, 32);

/// Bounds of an [`Inbox`](super::Inbox).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Items that wait at most; beyond them, one of the source with the most is dropped. At 0 nothing gets in.
    pub items: usize,
    /// Bytes that waiting items hold at most, their bookkeeping included; beyond them, items of the source with the most
    /// are dropped. An item that exceeds them alone is refused.
    pub bytes: usize,
    /// A payload shorter than this many bytes is copied into a buffer of its own when it must wait, so that
    /// it does not keep the large receive buffer that it arrived in. Behind 64 waiting items, payloads of up
    /// to 16 KiB are copied: the memory held is then hardly more than what is charged. 0 disables copying,
    /// for packets that are known to own their buffers.
    pub copy_below: usize,
}

impl Default for Limits {
    /// Returns 1024 items, 4 MiB, and copying of payloads under 256 bytes.
    fn default() -> Self {
        Self {
            items: 1024,
            bytes: 4 << 20,
            copy_below: 256,
        }
    }
}

impl Limits {
    /// Returns the limits of messages that were reassembled in buffers of their own: 1024 items, 16 MiB, and no copying.
    /// They hold several messages of 1 MiB.
    pub const fn reassembled() -> Self {
        Self {
            items: 1024,
            bytes: 16 << 20,
            copy_below: 0,
        }
    }

    /// Copies a small payload, about to wait behind the given number of items, out of its receive buffer. A
    /// reader that keeps up takes a batch before that many wait, and no large payload is copied.
    pub(crate) fn copy_out(&self, packet: &mut Packet, behind: usize) {
        let below = match self.copy_below {
            0 => 0,
            below if behind < UNCOPIED => below,
            below => below.max(LARGE),
        };
        if packet.len() < below {
            let room = packet.room();
            packet.reallocate(Headroom::new(
                room.front.min(KEPT_ROOM.front),
                room.back.min(KEPT_ROOM.back),
            ));
        }
    }
}
