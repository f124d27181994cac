//! A message as it is received.

use crate::Packet;

/// A message: who sent it, to which of our addresses, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<A> {
    /// Who sent it; can be told to.
    pub src: A,
    /// Which of the receiver's addresses it was sent to.
    pub dst: A,
    /// What it says.
    pub payload: Packet,
}

impl<A> Message<A> {
    /// The same message with both addresses translated.
    pub fn map_addrs<B>(self, mut translate: impl FnMut(A) -> B) -> Message<B> {
        Message {
            src: translate(self.src),
            dst: translate(self.dst),
            payload: self.payload,
        }
    }
}
