//! The header of each message and request of an overlay: its type, and its source and destination if the
//! layer below does not authenticate them.
//!
//! | first byte | then | used for | what follows |
//! | --- | --- | --- | --- |
//! | 0 | | messages and requests, if addresses below authenticate ids | the payload |
//! | 1 | | requests | a request of the engine |
//! | 2 | source, destination | messages and requests, otherwise | the payload |
//! | 3 | hops left (1 byte), source, destination | messages | a relayed message |
//!
//! Ids are their 32 bytes. Responses have no header.

use p2p::{Packet, PeerId};

/// The payload follows; the address below identifies the sender.
const DIRECT: u8 = 0;
/// A request of the engine follows.
const ENGINE: u8 = 1;
/// The ids of the sender and the receiver follow, then the payload.
const NAMED: u8 = 2;
/// The hops left and the ids of the sender and the receiver follow, then the payload.
const RELAYED: u8 = 3;

/// Length in bytes of the longest header of a message or a request that is sent directly.
pub const MAX_DIRECT: usize = 1 + 2 * ID;
/// Length in bytes of the header of a relayed message.
pub const MAX_RELAYED: usize = 2 + 2 * ID;

const ID: usize = 32;

/// The header of a message or a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A payload with a source that the address below authenticates.
    Direct,
    /// A request of the engine.
    Engine,
    /// A payload with a source and a destination that its sender claims.
    Named {
        /// The claimed source.
        src: PeerId,
        /// The destination.
        dst: PeerId,
    },
    /// A relayed message.
    Relayed {
        /// The number of times that it may still be forwarded.
        hops: u8,
        /// The claimed source.
        src: PeerId,
        /// The destination.
        dst: PeerId,
    },
}

impl Header {
    /// Returns the length of the header in bytes.
    pub const fn len(&self) -> usize {
        match self {
            Self::Direct | Self::Engine => 1,
            Self::Named { .. } => MAX_DIRECT,
            Self::Relayed { .. } => MAX_RELAYED,
        }
    }

    /// Returns `false`: every header has at least one byte.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the header in front of a packet.
    pub fn push(&self, packet: &mut Packet) {
        let ids = |packet: &mut Packet, src: &PeerId, dst: &PeerId| {
            packet.push_front(dst.as_bytes());
            packet.push_front(src.as_bytes());
        };
        match self {
            Self::Direct => packet.push_front(&[DIRECT]),
            Self::Engine => packet.push_front(&[ENGINE]),
            Self::Named { src, dst } => {
                ids(packet, src, dst);
                packet.push_front(&[NAMED]);
            }
            Self::Relayed { hops, src, dst } => {
                ids(packet, src, dst);
                packet.push_front(&[RELAYED, *hops]);
            }
        }
    }

    /// Removes the header of a packet; `None` if the packet is not a message of an overlay.
    pub fn pop(packet: &mut Packet) -> Option<Self> {
        let [kind] = packet.pop_front()?;
        match kind {
            DIRECT => Some(Self::Direct),
            ENGINE => Some(Self::Engine),
            NAMED => {
                let (src, dst) = (pop_id(packet)?, pop_id(packet)?);
                Some(Self::Named { src, dst })
            }
            RELAYED => {
                let [hops] = packet.pop_front()?;
                let (src, dst) = (pop_id(packet)?, pop_id(packet)?);
                Some(Self::Relayed { hops, src, dst })
            }
            _ => None,
        }
    }
}

fn pop_id(packet: &mut Packet) -> Option<PeerId> {
    packet.pop_front::<ID>().map(PeerId::new)
}
