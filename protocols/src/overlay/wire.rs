//! The bytes in front of each message and request of an overlay: what it is, and where that is not known, whose.
//!
//! | first byte | then | where | what follows |
//! | --- | --- | --- | --- |
//! | 0 | | addresses below prove ids | the payload |
//! | 1 | | requests | one of the engine |
//! | 2 | source, destination | they do not | the payload |
//! | 3 | hops left (1 byte), source, destination | messages | a message on its way over others |
//!
//! Ids are their 32 bytes. Responses have no header.

use p2p::{Packet, PeerId};

/// What follows is the payload; the address below says who sent it.
const DIRECT: u8 = 0;
/// What follows is a request of the engine.
const ENGINE: u8 = 1;
/// The sender's id and the receiver's follow, then the payload.
const NAMED: u8 = 2;
/// The hops left and the ids of sender and receiver follow, then the payload.
const RELAYED: u8 = 3;

/// Bytes of the longest header of a message or a request that goes straight to its destination.
pub const MAX_DIRECT: usize = 1 + 2 * ID;
/// Bytes of the header of a message that goes over others.
pub const MAX_RELAYED: usize = 2 + 2 * ID;

const ID: usize = 32;

/// What stands in front of a message or a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A payload from who the address below proves.
    Direct,
    /// A request of the engine.
    Engine,
    /// A payload whose source and destination are what its sender says.
    Named {
        /// Who says to have sent it.
        src: PeerId,
        /// For whom it is.
        dst: PeerId,
    },
    /// A message on its way over others.
    Relayed {
        /// How often it may be passed on.
        hops: u8,
        /// Who says to have sent it.
        src: PeerId,
        /// For whom it is.
        dst: PeerId,
    },
}

impl Header {
    /// Its bytes.
    pub const fn len(&self) -> usize {
        match self {
            Self::Direct | Self::Engine => 1,
            Self::Named { .. } => MAX_DIRECT,
            Self::Relayed { .. } => MAX_RELAYED,
        }
    }

    /// Whether it has none, which is never so.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes it in front of a packet.
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

    /// Takes it off a packet; a packet without one is no message of an overlay.
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
