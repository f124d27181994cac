//! A received message and its addresses.

use crate::Packet;

/// A received message: its source, its destination and its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<A> {
    /// The address of the sender. A [`tell`](crate::Swarm::tell) to it reaches the sender.
    pub src: A,
    /// The receiver's own address that the message was sent to.
    pub dst: A,
    /// The bytes of the message.
    pub payload: Packet,
}

impl<A> Message<A> {
    /// Translates both addresses and keeps the payload.
    pub fn map_addrs<B>(self, mut translate: impl FnMut(A) -> B) -> Message<B> {
        Message {
            src: translate(self.src),
            dst: translate(self.dst),
            payload: self.payload,
        }
    }
}
