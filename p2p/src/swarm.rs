//! The trait of all swarms: one node's view of a group of nodes that send messages to one another.

use std::sync::Arc;

use crate::{Addr, BatchError, BatchOutcome, Counters, Error, Headroom, Message, Packet, Result};

/// One node's view of a swarm.
///
/// Every call takes `&self`, may be made from many tasks at once, and fails with
/// [`Error::Closed`](crate::Error::Closed) after [`close`](Self::close). The laws that an implementation must
/// keep are functions in the crate `p2p-swarmtest`, each named by the law it states.
///
/// # Example
/// A node that sends back each message that it receives, on any swarm:
///
/// ```
/// use p2p::{Addr, Error, Swarm};
///
/// async fn echo<A: Addr>(swarm: &impl Swarm<A>) -> p2p::Result<()> {
///     loop {
///         let message = match swarm.receive().await {
///             Ok(message) => message,
///             Err(Error::Closed) => return Ok(()),
///             Err(error) => return Err(error),
///         };
///         // The received packet is reused: the room of its old headers takes the new ones.
///         swarm.tell(&message.src, message.payload).await?;
///     }
/// }
///
/// async fn hello<A: Addr>(swarm: &impl Swarm<A>, text: &str) -> p2p::Result<()> {
///     let dst = swarm.parse_addr(text)?;
///     swarm.tell(&dst, swarm.packet(b"hello")).await
/// }
/// ```
pub trait Swarm<A: Addr>: Send + Sync + 'static {
    /// Sends `packet` to `dst`: whole or not at all, at most once, in no order.
    ///
    /// Waits for room on this node only, never for the reader at the other end. `Ok` promises nothing about
    /// delivery; `Err` means that the message was not sent.
    ///
    /// # Errors
    /// [`MtuExceeded`](crate::Error::MtuExceeded) for a payload over [`mtu`](Self::mtu); an empty payload is
    /// a valid message. [`Closed`](crate::Error::Closed) after `close`.
    ///
    /// # Cancel safety
    /// A cancelled tell may or may not have sent the message; it never sends a part of it.
    fn tell(&self, dst: &A, packet: Packet) -> impl Future<Output = Result<()>> + Send;

    /// Waits for the next message. Each message goes to exactly one caller.
    ///
    /// # Cancel safety
    /// Cancelling loses no message: the next caller receives it.
    fn receive(&self) -> impl Future<Output = Result<Message<A>>> + Send;

    /// Returns the maximum payload of one message, in bytes. The value never changes.
    fn mtu(&self) -> usize;

    /// Returns the addresses at which other nodes reach this one, in order of preference.
    fn local_addrs(&self) -> Vec<A>;

    /// Returns the first of [`local_addrs`](Self::local_addrs).
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid) if this node has no address.
    fn local_addr(&self) -> Result<A> {
        let first = self.local_addrs().into_iter().next();
        first.ok_or_else(|| Error::invalid("swarm", "it has no local address"))
    }

    /// Parses an address; the inverse of the address's `Display`.
    ///
    /// # Errors
    /// [`InvalidAddr`](crate::Error::InvalidAddr), with the position of the first invalid byte.
    fn parse_addr(&self, text: &str) -> Result<A>;

    /// Closes this swarm and the swarms below it. Idempotent.
    ///
    /// Closing has three steps, in this order. First, pending receives and every later call fail with
    /// [`Error::Closed`](crate::Error::Closed). Second, the swarm sends what `tell` and `respond` accepted
    /// before, within a time limit that the layer documents; it arrives if the medium loses nothing. Third,
    /// the address is freed: when `close` has returned, another swarm can be bound to it. Dropping a swarm
    /// without closing it frees the address soon afterwards, and may lose the messages that were accepted
    /// last.
    ///
    /// # Cancel safety
    /// The swarm is closed from the first poll on. Cancelling only ends the wait for the release of the address.
    fn close(&self) -> impl Future<Output = ()> + Send;

    /// Sends every message of `batch` as [`tell`](Self::tell) does. Leaves `batch` empty, with its capacity.
    ///
    /// A refused message does not delay the messages behind it.
    ///
    /// # Cancel safety
    /// Any part of the batch may have been sent; each message whole or not at all.
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

    /// Waits for at least one message, then appends the messages that are ready to `out`, up to `max` of
    /// them. Returns the number of appended messages. With a `max` of 0 it returns 0 at once.
    ///
    /// # Cancel safety
    /// Cancelling loses no message: messages in `out` are received, the next caller receives the others. An
    /// implementation must therefore not await again after it appended a message, because the layer above has
    /// not seen that message yet.
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

    /// Returns the room that this swarm and the swarms below it need around a payload. A packet without this
    /// room is copied on the way down.
    fn headroom(&self) -> Headroom {
        Headroom::default()
    }

    /// Makes a packet of `payload` with the room that this stack needs around it.
    fn packet(&self, payload: &[u8]) -> Packet {
        Packet::new(self.headroom(), payload)
    }

    /// Calls `visit` with the counters of each layer, from this layer down to the base.
    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        let _ = visit;
    }
}

impl<A: Addr, S: Swarm<A>> Swarm<A> for Arc<S> {
    crate::pass_through!(*: tell, receive, mtu, local_addrs, parse_addr, close, tell_batch, receive_batch,
        headroom, visit_counters);
}
