//! A swarm inside one process: a message moves from the sender directly into the receiver's queue.
//!
//! It serves tests, simulations, and nodes that share a process. It behaves like a datagram network that
//! drops a message only if the receiver's queue is full. A tell never waits for the reader. A tell to an
//! unused address is lost, as on UDP: it returns `Ok` and is counted as [`DropReason::NoPeer`]. An ask to an
//! unused address fails at once.
//!
//! Deliberately absent: latency, loss and reordering ([`faulty`](crate::SwarmExt::faulty) adds those to any
//! swarm), and any copy of a payload.
//!
//! # Security
//! A memory swarm implements `SecureSwarm`, so that layers that need keys can be tested on it. **It provides
//! no security**: a [`MemoryKey`] is derived from the address and proves nothing.
//!
//! # Limits
//! The queues of each node are bounded by [`MemoryConfig`]; at a bound the newest message is dropped, and the
//! newest request is rejected.

mod addr;
mod ask;
mod realm;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use p2p::{
    AskSwarm, BatchError, BatchOutcome, Counters, DropReason, Error, Message, Packet, Request, Result,
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
    /// Maximum length of a message, a request or a response in bytes. Default: 64 KiB.
    pub mtu: usize,
    /// Messages that wait for a node's reader. At the limit one of the source with the most is dropped and counted by the
    /// receiver as [`DropReason::QueueFull`]. Default: 1024 messages, 4 MiB, never copied.
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
/// Counters: `mem` counts messages and `mem-ask` requests. Over all nodes of a realm, `sent = delivered +
/// dropped + in flight` for each of the two. A drop because of a full queue is counted by the receiver, a
/// drop because of a missing receiver by the sender.
///
/// ```
/// use p2p::{Error, Swarm};
/// use p2p_swarms::MemorySwarm;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// let alice = MemorySwarm::new();
/// let bob = alice.realm().open();
/// alice.tell(&bob.local_addr(), alice.packet(b"hello")).await?;
/// let message = bob.receive().await?;
/// assert_eq!((message.src, &message.payload[..]), (alice.local_addr(), &b"hello"[..]));
///
/// bob.close().await;
/// assert!(matches!(bob.receive().await, Err(Error::Closed)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MemorySwarm {
    realm: MemoryRealm,
    node: Arc<Node>,
}

impl MemorySwarm {
    /// Creates a node in a new realm with the default bounds; `MemorySwarm::new().realm().open()` creates a
    /// peer of it.
    #[expect(clippy::new_without_default, reason = "opening a node is not a neutral value")]
    pub fn new() -> Self {
        MemoryRealm::default().open()
    }

    /// Returns the realm of this node.
    pub fn realm(&self) -> &MemoryRealm {
        &self.realm
    }

    /// Returns this node's address.
    pub fn local_addr(&self) -> MemoryAddr {
        self.node.addr
    }

    /// Moves the first messages of `batch` with the same destination, at least one, to that node.
    fn deliver<B>(&self, batch: &mut std::iter::Peekable<B>)
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
            self.node.counters.add_sent(count);
            peer.counters.add_received(count);
            if refused > 0 {
                peer.counters.add_dropped_many(put.reason, refused);
            }
        } else {
            let count = run.count();
            self.node.counters.add_sent(count);
            self.node.counters.add_dropped_many(DropReason::NoPeer, count);
        }
    }
}

impl Swarm<MemoryAddr> for MemorySwarm {
    /// Moves the packet into the queue of `dst`; see [`Swarm::tell`].
    ///
    /// A message to an unused address is lost: the call returns `Ok`, and the loss is counted as
    /// [`DropReason::NoPeer`].
    async fn tell(&self, dst: &MemoryAddr, packet: Packet) -> Result<()> {
        // A task that only tells must yield to its receivers at intervals.
        consume_budget().await;
        self.node.check_open()?;
        packet.check_mtu(self.realm.config().mtu)?;
        self.node.counters.add_sent(1);
        let Some(peer) = self.realm.node(*dst) else {
            self.node.counters.add_dropped_from(DropReason::NoPeer, dst);
            return Ok(());
        };
        peer.counters.add_received(1);
        let message = Message {
            src: self.node.addr,
            dst: *dst,
            payload: packet,
        };
        if let Err(refused) = peer.messages.push(message) {
            for message in refused.items {
                peer.counters.add_dropped_from(refused.reason, &message.src);
            }
        }
        Ok(())
    }

    async fn tell_batch(&self, batch: &mut Vec<(MemoryAddr, Packet)>) -> Result<(), BatchError> {
        consume_budget().await;
        let mut outcome = BatchOutcome::default();
        if let Err(closed) = self.node.check_open() {
            outcome.add_refused(batch.len(), closed);
            batch.clear();
            return outcome.finish();
        }
        let mtu = self.realm.config().mtu;
        batch.retain(|(_, packet)| match packet.check_mtu(mtu) {
            Ok(()) => true,
            Err(error) => {
                outcome.add_refused(1, error);
                false
            }
        });
        outcome.add_sent(batch.len());
        let mut batch = batch.drain(..).peekable();
        while batch.peek().is_some() {
            self.deliver(&mut batch);
        }
        outcome.finish()
    }

    async fn receive(&self) -> Result<Message<MemoryAddr>> {
        let message = self.node.messages.pop().await?;
        self.node.counters.add_delivered(1);
        Ok(message)
    }

    async fn receive_batch(&self, out: &mut Vec<Message<MemoryAddr>>, max: usize) -> Result<usize> {
        let count = self.node.messages.pop_batch(out, max).await?;
        self.node.counters.add_delivered(count);
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
        self.realm.close(&self.node);
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.node.counters);
        visit(&self.node.ask_counters);
    }
}

impl AskSwarm<MemoryAddr> for MemorySwarm {
    /// Moves the request into the queue of `dst` and waits for the response; see [`AskSwarm::ask`].
    ///
    /// Returns [`Error::Unreachable`] also if no node has the address, or the node is closed before it
    /// responds.
    async fn ask(&self, dst: &MemoryAddr, request: Packet) -> Result<Packet> {
        consume_budget().await;
        self.node.check_open()?;
        request.check_mtu(self.realm.config().mtu)?;
        let Some(peer) = self.realm.node(*dst) else {
            return Err(Error::unreachable(dst, "no node in this realm has the address"));
        };
        ask::ask(&self.node, &peer, request, self.realm.config().mtu).await
    }

    async fn receive_ask(&self) -> Result<Request<MemoryAddr>> {
        let (_, request) = self.node.asks.pop().await?;
        self.node.ask_counters.add_delivered(1);
        Ok(request)
    }
}

impl SecureSwarm<MemoryAddr> for MemorySwarm {
    type PublicKey = MemoryKey;

    /// Returns a key that is derived from the address: no security.
    fn public_key(&self) -> MemoryKey {
        self.node.addr.key()
    }

    async fn lookup_public_key(&self, addr: &MemoryAddr) -> Result<MemoryKey> {
        self.node.check_open()?;
        match self.realm.node(*addr) {
            Some(peer) => Ok(peer.addr.key()),
            None => Err(Error::unreachable(addr, "no node in this realm has the address")),
        }
    }
}

impl Drop for MemorySwarm {
    fn drop(&mut self) {
        self.realm.close(&self.node);
    }
}
