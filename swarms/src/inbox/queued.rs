//! What waits in an inbox, and what it is charged.

use std::collections::hash_map::RandomState;

use p2p::{Addr, Message, Packet, Request};

use super::Source;

/// An item of an [`Inbox`](super::Inbox).
pub trait Queued {
    /// Returns the packet that the item carries.
    fn payload(&self) -> &Packet;
    /// Returns the packet mutably, so that it can be copied out of a larger buffer.
    fn payload_mut(&mut self) -> &mut Packet;
    /// The source that a place in a full inbox is charged to. By default all items have one source, so a full inbox
    /// refuses new ones.
    fn source(&self, hasher: &RandomState) -> Source {
        let _ = hasher;
        Source::default()
    }
}

impl Queued for Packet {
    fn payload(&self) -> &Packet {
        self
    }
    fn payload_mut(&mut self) -> &mut Packet {
        self
    }
}

impl<A: Addr> Queued for Message<A> {
    fn payload(&self) -> &Packet {
        &self.payload
    }
    fn payload_mut(&mut self) -> &mut Packet {
        &mut self.payload
    }
    fn source(&self, hasher: &RandomState) -> Source {
        Source::of(&self.src, hasher)
    }
}

impl<A: Addr> Queued for Request<A> {
    fn payload(&self) -> &Packet {
        &self.message.payload
    }
    fn payload_mut(&mut self) -> &mut Packet {
        &mut self.message.payload
    }
    fn source(&self, hasher: &RandomState) -> Source {
        Source::of(&self.message.src, hasher)
    }
}

/// An item with a note of the layer, such as its deadline.
impl<N, T: Queued> Queued for (N, T) {
    fn payload(&self) -> &Packet {
        self.1.payload()
    }
    fn payload_mut(&mut self) -> &mut Packet {
        self.1.payload_mut()
    }
    fn source(&self, hasher: &RandomState) -> Source {
        self.1.source(hasher)
    }
}

/// Returns the cost of an item: the memory of its packet, and its slot in the queue.
pub(super) fn charge<T: Queued>(item: &T) -> usize {
    item.payload().capacity() + size_of::<T>()
}
