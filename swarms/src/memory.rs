//! A swarm inside one process: a message is moved from the sender's hands into the receiver's queue.
//!
//! It is the medium for tests, for simulations and for nodes that share a process. It behaves as a datagram
//! network that loses nothing but what its reader has no room for: a tell never waits for the reader, and
//! a tell to an address that nobody has is lost, as it would be on UDP (`Ok`, counted as
//! [`Reason::NoPeer`]). An ask expects an answer, so there the same is an error at once.
//!
//! It also plays a secure swarm, so that layers which need keys can be tested on it. **That is no
//! security**: a [`MemoryKey`] follows from the address and proves nothing.
//!
//! Deliberately absent: latency, loss and reordering (a layer adds those to any swarm), and any copy
//! of a payload.

mod addr;
mod ask;
mod realm;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use p2p::{
    AskSwarm, BatchError, BatchOutcome, Counters, Error, Message, Packet, Reason, Request, Result,
    SecureSwarm, Swarm,
};
use tokio::task::coop::consume_budget;

use crate::inbox::Limits;

pub use addr::{MemoryAddr, MemoryKey};
pub use realm::MemoryRealm;
use realm::Node;

/// Bounds of the nodes of a realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Bytes that a message, a request or a response carries at most. Default: 64 KiB.
    pub mtu: usize,
    /// Messages that wait for a node's reader. At the limit one of the source with the most is dropped and counted by the
    /// receiver as [`Reason::QueueFull`]. Default: 1024 messages, 4 MiB, never copied.
    pub messages: Limits,
    /// Requests that wait for a node's reader. At the limit an asker with the most gets
    /// [`Rejection::BUSY`](p2p::Rejection::BUSY) at once. Default: 1024 requests, 4 MiB, never copied.
    pub asks: Limits,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        let limits = Limits {
            copy_below: 0,
            ..Limits::default()
        };
        Self {
            mtu: 64 << 10,
            messages: limits,
            asks: limits,
        }
    }
}

/// A node of a [`MemoryRealm`]. Dropping it closes it.
///
/// Counters: `mem` counts messages and `mem-ask` requests; over all nodes of a realm
/// `sent = delivered + dropped + in flight` for each of the two. A drop for want of room is counted by the
/// receiver, one for want of a receiver by the sender.
#[derive(Debug)]
pub struct MemorySwarm {
    realm: MemoryRealm,
    node: Arc<Node>,
}

impl MemorySwarm {
    /// A node in a realm of its own, with the defaults: `MemorySwarm::new().realm().open()` is its peer.
    #[expect(clippy::new_without_default, reason = "opening a node is not a neutral value")]
    pub fn new() -> Self {
        MemoryRealm::default().open()
    }

    /// The realm that this node is in.
    pub fn realm(&self) -> &MemoryRealm {
        &self.realm
    }

    /// This node's address.
    pub fn local_addr(&self) -> MemoryAddr {
        self.node.addr
    }

    /// Moves the first messages of `batch` that go to the same node, at least one, to that node.
    fn hand_over<B>(&self, batch: &mut std::iter::Peekable<B>)
    where
        B: Iterator<Item = (MemoryAddr, Packet)>,
    {
        let Some(&(dst, _)) = batch.peek() else { return };
        let src = self.node.addr;
        let run = std::iter::from_fn(|| batch.next_if(|(to, _)| *to == dst)).map(|(dst, payload)| Message {
            src,
            dst,
            payload,
        });
        if let Some(peer) = self.realm.node(dst) {
            let mut count = 0;
            let put = peer.messages.extend(run.inspect(|_| count += 1));
            let refused = put.refused.len();
            self.node.counters.sent(count);
            peer.counters.received(count);
            if refused > 0 {
                peer.counters.dropped_many(put.reason, refused);
            }
        } else {
            let count = run.count();
            self.node.counters.sent(count);
            self.node.counters.dropped_many(Reason::NoPeer, count);
        }
    }
}

impl Swarm<MemoryAddr> for MemorySwarm {
    /// Moves the packet into the queue of `dst`; see [`Swarm::tell`].
    ///
    /// A message to an address that nobody has is lost: `Ok`, and counted as [`Reason::NoPeer`].
    async fn tell(&self, dst: &MemoryAddr, packet: Packet) -> Result<()> {
        // A task that only tells lets its receivers run now and then.
        consume_budget().await;
        self.node.check_open()?;
        packet.check(self.realm.config().mtu)?;
        self.node.counters.sent(1);
        let Some(peer) = self.realm.node(*dst) else {
            self.node.counters.dropped_at(Reason::NoPeer, dst);
            return Ok(());
        };
        peer.counters.received(1);
        let message = Message {
            src: self.node.addr,
            dst: *dst,
            payload: packet,
        };
        if let Err(refused) = peer.messages.push(message) {
            for message in refused.items {
                peer.counters.dropped_at(refused.reason, &message.src);
            }
        }
        Ok(())
    }

    async fn tell_batch(&self, batch: &mut Vec<(MemoryAddr, Packet)>) -> Result<(), BatchError> {
        consume_budget().await;
        let mut outcome = BatchOutcome::default();
        if let Err(closed) = self.node.check_open() {
            outcome.refused(batch.len(), closed);
            batch.clear();
            return outcome.finish();
        }
        let mtu = self.realm.config().mtu;
        batch.retain(|(_, packet)| match packet.check(mtu) {
            Ok(()) => true,
            Err(error) => {
                outcome.refused(1, error);
                false
            }
        });
        outcome.sent(batch.len());
        let mut batch = batch.drain(..).peekable();
        while batch.peek().is_some() {
            self.hand_over(&mut batch);
        }
        outcome.finish()
    }

    async fn receive(&self) -> Result<Message<MemoryAddr>> {
        let message = self.node.messages.pop().await?;
        self.node.counters.delivered(1);
        Ok(message)
    }

    async fn receive_batch(&self, out: &mut Vec<Message<MemoryAddr>>, max: usize) -> Result<usize> {
        let count = self.node.messages.pop_batch(out, max).await?;
        self.node.counters.delivered(count);
        Ok(count)
    }

    fn mtu(&self) -> usize {
        self.realm.config().mtu
    }

    fn local_addrs(&self) -> Vec<MemoryAddr> {
        vec![self.node.addr]
    }

    fn parse_addr(&self, text: &str) -> Result<MemoryAddr> {
        text.parse()
    }

    async fn close(&self) {
        self.realm.shut(&self.node);
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.node.counters);
        visit(&self.node.ask_counters);
    }
}

impl AskSwarm<MemoryAddr> for MemorySwarm {
    /// Moves the request into the queue of `dst` and waits for its outcome; see [`AskSwarm::ask`].
    ///
    /// Besides the errors stated there: [`Error::Unreachable`] if nobody has the address, and if the node
    /// is closed before it answered.
    async fn ask(&self, dst: &MemoryAddr, request: Packet) -> Result<Packet> {
        consume_budget().await;
        self.node.check_open()?;
        request.check(self.realm.config().mtu)?;
        let Some(peer) = self.realm.node(*dst) else {
            return Err(Error::unreachable(dst, "nobody in this realm has the address"));
        };
        ask::ask(&self.node, &peer, request, self.realm.config().mtu).await
    }

    async fn receive_ask(&self) -> Result<Request<MemoryAddr>> {
        let asked = self.node.asks.pop().await?;
        self.node.ask_counters.delivered(1);
        Ok(asked.request)
    }
}

impl SecureSwarm<MemoryAddr> for MemorySwarm {
    type PublicKey = MemoryKey;

    /// A key that follows from the address: no security.
    fn public_key(&self) -> MemoryKey {
        self.node.addr.key()
    }

    async fn lookup_public_key(&self, addr: &MemoryAddr) -> Result<MemoryKey> {
        self.node.check_open()?;
        match self.realm.node(*addr) {
            Some(peer) => Ok(peer.addr.key()),
            None => Err(Error::unreachable(addr, "nobody in this realm has the address")),
        }
    }
}

impl Drop for MemorySwarm {
    fn drop(&mut self) {
        self.realm.shut(&self.node);
    }
}
