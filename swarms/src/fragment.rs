//! Fragments and reassembles messages longer than the MTU below.
//!
//! The format is that of go-p2p's `fragswarm`. Fragments are not retransmitted: a message arrives if all its
//! fragments do.
//!
//! # Limits
//! A message has at most 255 fragments and [`FragmentConfig::mtu`] bytes. Incomplete messages are bounded in
//! bytes, total and per source, and in time by [`Limits`]; at a bound the oldest incomplete message is
//! dropped as a whole.
//!
//! # Cancel safety
//! Cancelling a receive loses nothing.
//!
//! # Security
//! Fragments are not authenticated: a peer that forges sources can complete or spoil messages of others. Use
//! a secure layer below where that matters.

use std::fmt;
use std::sync::Arc;

use p2p::{Addr, BatchError, Counters, Headroom, Message, Packet, Result, SecureSwarm, Swarm};
use p2p_protocols::fragment::Limits;

use crate::driver::finish_close;
use crate::inbox;

mod inbound;
mod outbound;
mod shared;

use self::shared::Shared;

/// Length of the header of an unfragmented message: an id of up to five bytes, then one byte each for part
/// and total.
const HEADER: usize = 7;

/// Bounds of a [`FragmentSwarm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentConfig {
    /// Maximum length of a message in bytes; 255 fragments are the upper bound. Default: 64 KiB.
    pub mtu: usize,
    /// Bounds of incomplete messages in bytes and time. At a bound the oldest incomplete message is dropped
    /// as a whole.
    pub reassembly: Limits,
    /// Number of destinations with a message id counter. At the bound, the least recently used counters are
    /// removed, and new destinations no longer start at 0. Default: 4096.
    pub destinations: usize,
    /// Messages that wait for this node's reader. At the limit one of the source with the most is dropped and
    /// counted.
    pub messages: inbox::Limits,
    /// Maximum number of fragments that are received from below at a time. A larger number costs memory while
    /// a batch is processed, a smaller one costs more calls. Default: 64.
    pub batch: usize,
}

impl Default for FragmentConfig {
    fn default() -> Self {
        Self {
            mtu: 64 << 10,
            reassembly: Limits::default(),
            destinations: 4096,
            messages: inbox::Limits::default(),
            batch: 64,
        }
    }
}

/// A layer that carries messages longer than the MTU below, in go-p2p's `fragswarm` format.
///
/// A message that fits into one fragment keeps its buffer on both sides. A longer one is copied once into a
/// batch of fragments, and once on reassembly. Fragments are not retransmitted: a message arrives if all its
/// fragments do. This layer does not pass asks on; put `mbapp` above it for asks.
///
/// A task that waits in `receive` also receives from below; of several waiting tasks one receives for all. While
/// no caller receives, messages wait below, and incomplete ones expire on time: a background task receives then. `receive` needs a tokio runtime with time enabled; outside of one it fails with
/// [`Error::Invalid`](p2p::Error::Invalid).
///
/// Counters: `frag` counts messages; a message counts as `received` with the first of its fragments. A
/// message that the swarm below refused after some of its fragments were sent counts as sent: the receiver
/// drops the remaining fragments. `frag-piece` counts fragments: `delivered` are those that became part of a
/// complete message.
///
/// ```
/// use p2p::Swarm;
/// use p2p_swarms::{FragmentSwarm, UdpSwarm};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// let node = || -> p2p::Result<_> {
///     let udp = UdpSwarm::bind(([127, 0, 0, 1], 0).into())?;
///     Ok(FragmentSwarm::new(udp, 64 << 10))
/// };
/// let (alice, bob) = (node()?, node()?);
/// assert!(alice.inner().mtu() < 10_000);
/// alice.tell(&bob.local_addrs()[0], alice.packet(&[7; 10_000])).await?;
/// assert_eq!(bob.receive().await?.payload, &[7; 10_000]);
/// # Ok(())
/// # }
/// ```
pub struct FragmentSwarm<A: Addr, S: Swarm<A>> {
    shared: Arc<Shared<A, S>>,
}

impl<A: Addr, S: Swarm<A>> FragmentSwarm<A, S> {
    /// Carries messages of up to `mtu` bytes over `inner`, or of as many as 255 fragments hold: of none where
    /// the MTU of `inner` leaves no room beside the header of a fragment.
    pub fn new(inner: S, mtu: usize) -> Self {
        let config = FragmentConfig {
            mtu,
            ..FragmentConfig::default()
        };
        Self::with_config(inner, config)
    }

    /// Creates a layer with the given bounds.
    pub fn with_config(inner: S, config: FragmentConfig) -> Self {
        Self {
            shared: Arc::new(Shared::new(inner, config)),
        }
    }

    /// Returns the swarm below.
    pub fn inner(&self) -> &S {
        &self.shared.inner
    }

    /// Returns the number of bytes that incomplete messages hold, including bookkeeping.
    pub fn held(&self) -> usize {
        self.shared.engine().held()
    }
}

impl<A: Addr, S: Swarm<A>> fmt::Debug for FragmentSwarm<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FragmentSwarm")
            .field("mtu", &self.shared.mtu)
            .finish_non_exhaustive()
    }
}

impl<A: Addr, S: Swarm<A>> Swarm<A> for FragmentSwarm<A, S> {
    fn local_addrs(&self) -> Vec<A> {
        self.shared.inner.local_addrs()
    }

    fn parse_addr(&self, text: &str) -> Result<A> {
        self.shared.inner.parse_addr(text)
    }

    fn mtu(&self) -> usize {
        self.shared.mtu
    }

    fn headroom(&self) -> Headroom {
        Headroom::new(HEADER, 0).plus(self.shared.inner.headroom())
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.shared.counters);
        visit(&self.shared.pieces);
        self.shared.inner.visit_counters(visit);
    }

    /// Sends a message; see [`Swarm::tell`]. After an error the message is never delivered, although some of
    /// its fragments may have been sent.
    async fn tell(&self, dst: &A, packet: Packet) -> Result<()> {
        self.shared.tell(dst, packet).await
    }

    async fn tell_batch(&self, batch: &mut Vec<(A, Packet)>) -> Result<(), BatchError> {
        self.shared.tell_batch(batch).await
    }

    async fn receive(&self) -> Result<Message<A>> {
        self.shared.start()?;
        let shared = &*self.shared;
        shared.mailbox.receive(&shared.driver, (), &shared.counters).await
    }

    async fn receive_batch(&self, out: &mut Vec<Message<A>>, max: usize) -> Result<usize> {
        self.shared.start()?;
        let shared = &*self.shared;
        let receiving = shared
            .mailbox
            .receive_batch(&shared.driver, (), &shared.counters, out, max);
        receiving.await
    }

    async fn close(&self) {
        self.shared.close();
        let shared = self.shared.clone();
        finish_close(async move { shared.inner.close().await }).await;
    }
}

impl<A: Addr, S: SecureSwarm<A>> SecureSwarm<A> for FragmentSwarm<A, S> {
    type PublicKey = S::PublicKey;

    fn public_key(&self) -> S::PublicKey {
        self.shared.inner.public_key()
    }

    async fn lookup_public_key(&self, addr: &A) -> Result<S::PublicKey> {
        self.shared.inner.lookup_public_key(addr).await
    }
}

impl<A: Addr, S: Swarm<A>> Drop for FragmentSwarm<A, S> {
    fn drop(&mut self) {
        self.shared.close();
    }
}
