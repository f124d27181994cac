//! One node's view of a group of nodes that send messages to one another.

use std::sync::Arc;

use crate::{Addr, BatchError, BatchOutcome, Counters, Headroom, Message, Packet, Result};

/// One node's view of a swarm.
///
/// Every call takes `&self`, may be made from many tasks at once, and fails with
/// [`Error::Closed`](crate::Error::Closed) after [`close`](Self::close). The laws that an implementation
/// must keep are functions in the crate `p2p-swarmtest`, each named by the law it states.
pub trait Swarm<A: Addr>: Send + Sync + 'static {
    /// Sends `packet` to `dst`: whole or not at all, at most once, in no order.
    ///
    /// Waits for room on this node only, never for the reader at the other end. `Ok` promises nothing
    /// about delivery; `Err` means that the message did not leave.
    ///
    /// # Errors
    /// [`MtuExceeded`](crate::Error::MtuExceeded) for a payload over [`mtu`](Self::mtu); an empty payload is
    /// a message like any other. [`Closed`](crate::Error::Closed) after `close`.
    ///
    /// # Cancel safety
    /// A cancelled tell may or may not have left; it never leaves in part.
    fn tell(&self, dst: &A, packet: Packet) -> impl Future<Output = Result<()>> + Send;

    /// Waits for the next message. Each message goes to exactly one caller.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing: the message goes to the next caller.
    fn receive(&self) -> impl Future<Output = Result<Message<A>>> + Send;

    /// Bytes that one message carries at most: a floor that never changes.
    fn mtu(&self) -> usize;

    /// The addresses at which other nodes reach this one, the best first.
    fn local_addrs(&self) -> Vec<A>;

    /// The address that `text` spells: the inverse of the address's `Display`.
    ///
    /// # Errors
    /// [`InvalidAddr`](crate::Error::InvalidAddr), which says where the text stops making sense.
    fn parse_addr(&self, text: &str) -> Result<A>;

    /// Ends this swarm and the ones below it. Idempotent.
    ///
    /// Three steps, in this order: pending receives and every later call fail with
    /// [`Error::Closed`](crate::Error::Closed); what `tell` and `respond` accepted before is sent, within a bound that
    /// the layer states, so that it arrives where the medium loses nothing; the address is freed. When `close` has
    /// returned, another swarm can be bound to the address. Dropping a swarm without closing it frees the address soon
    /// afterwards, and may lose what was accepted last.
    ///
    /// # Cancel safety
    /// The swarm is closed from the first poll on; cancelling only stops waiting for what is being freed.
    fn close(&self) -> impl Future<Output = ()> + Send;

    /// Sends every message of `batch`, each as [`tell`](Self::tell) does; `batch` is empty afterwards and
    /// keeps its capacity.
    ///
    /// A message that is refused does not hold up the ones behind it.
    ///
    /// # Cancel safety
    /// Any part of the batch may have left; each message whole or not at all.
    fn tell_batch(
        &self,
        batch: &mut Vec<(A, Packet)>,
    ) -> impl Future<Output = Result<(), BatchError>> + Send {
        async move {
            let mut outcome = BatchOutcome::default();
            for (dst, packet) in batch.drain(..) {
                outcome.record(self.tell(&dst, packet).await);
            }
            outcome.finish()
        }
    }

    /// Waits for at least one message, then appends to `out` what is there already, up to `max` messages;
    /// returns how many. With a `max` of 0 it returns 0 at once.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing: what is in `out` is received, the rest goes to the next caller. For this an
    /// implementation does not wait again once it appended, since the layer above has yet to look at it.
    fn receive_batch(
        &self,
        out: &mut Vec<Message<A>>,
        max: usize,
    ) -> impl Future<Output = Result<usize>> + Send {
        async move {
            if max == 0 {
                return Ok(0);
            }
            out.push(self.receive().await?);
            Ok(1)
        }
    }

    /// The room that this swarm and the ones below it want around a payload. A packet without it is
    /// copied on the way down.
    fn headroom(&self) -> Headroom {
        Headroom::default()
    }

    /// A packet of `payload` with the room that this stack wants around it.
    fn packet(&self, payload: &[u8]) -> Packet {
        Packet::new(self.headroom(), payload)
    }

    /// Shows the counters of each layer, this one first, then the ones below it.
    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        let _ = visit;
    }
}

impl<A: Addr, S: Swarm<A>> Swarm<A> for Arc<S> {
    crate::pass_through!(*: tell, receive, mtu, local_addrs, parse_addr, close, tell_batch, receive_batch,
        headroom, visit_counters);
}
