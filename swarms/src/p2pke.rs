//! P2PKE version 1 over any datagram swarm: every message is encrypted, and its source has proved its
//! identity.
//!
//! A tell to `ID@inner` waits until a handshake has authenticated ID. After that it costs one lookup and one
//! cipher operation, in place. The format is that of go-p2p's `p2pkeswarm`. The engine,
//! [`p2p_protocols::p2pke`], documents the protocol and where it differs from go-p2p.
//!
//! A task that waits in `receive`, or in a `tell` that needs a handshake, also receives from below. While no
//! task waits, a background task answers handshakes, handles timeouts, and puts received messages into a
//! bounded inbox.
//!
//! Deliberately absent: asks (put [`MbappSwarm`](crate::MbappSwarm) on top), messages longer than a
//! datagram (put [`FragmentSwarm`](crate::FragmentSwarm) on top), and keep-alive packets.
//!
//! # Security
//! - Required of the caller: an address with the right id, a private key that no other node has, and a system
//!   clock that does not go back over restarts by more than peers remember (3 minutes).
//! - Provided: a message to `ID@inner` reaches ID or no node; the source of a received message has proved the
//!   key of its [`PeerId`]; secrecy and integrity; forward secrecy per session; at-most-once delivery.
//!   Packets from spoofed addresses cost a bounded amount of work and memory and end no session.
//! - Not provided: hidden identities, lengths or times; a check that a source is reachable before handshake
//!   work is done for it; security against quantum computers.
//!
//! # Limits
//! All limits are in [`P2pkeConfig`]. A message that does not fit into the receiver's queue is dropped there
//! and counted; the sender does not wait for readers. Channels that peers open are limited per peer, per
//! network and in total, and a share is reserved for outbound channels.
//!
//! The counters `p2pke` count messages, and `p2pke-handshake` handshake packets. Each drop has a reason, and
//! a [`tracing`] event that names the peer's address and the engine's error.
//!
//! # Restarts
//! A message to a peer that has lost its sessions is lost. The peer reports the missing session, and a new
//! session is established at once: an ask gets its response after its first retransmission, within a second.
//!
//! # Closing
//! `close` drops no message for which a tell returned `Ok`: the swarm below has it, and its `close` decides.
//! A tell that still waits for a handshake fails with [`Error::Closed`](p2p::Error::Closed), and its message
//! is not sent.
//!
//! # Cancel safety
//! Cancelling a receive loses nothing. Cancelling a tell that waits for a handshake sends nothing; the
//! handshake ends with its last caller.

mod config;
mod inbound;
mod outbound;
mod shared;

use std::fmt;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use p2p::{
    Addr, BatchError, BatchOutcome, Counters, Headroom, Message, Packet, PeerId, Result, SecureSwarm, Swarm,
};
use p2p_formats::x509::{PrivateKey, PublicKey};
use p2p_protocols::p2pke::wire::{HEADER, TAG};

pub use self::config::P2pkeConfig;
use self::shared::Shared;
use crate::KeyAddr;
pub use crate::allowed_peers::Allow;

/// Minimum MTU of the swarm below in bytes: the longest handshake message with Ed25519 keys.
pub const MIN_INNER_MTU: usize = 166;

/// A node on P2PKE; see the [module](self). Dropping it ends its tasks and drops the swarm below.
///
/// ```
/// use p2p::{Addr, Swarm};
/// use p2p_formats::x509::PrivateKey;
/// use p2p_swarms::{MemorySwarm, P2pkeSwarm};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// let mem = MemorySwarm::new();
/// let alice = P2pkeSwarm::new(mem.realm().open(), &PrivateKey::ed25519(&[1; 32]))?;
/// let bob = P2pkeSwarm::new(mem, &PrivateKey::ed25519(&[2; 32]))?;
/// let to = bob.local_addrs()[0].clone(); // ID@address
/// let (told, message) = tokio::join!(alice.tell(&to, alice.packet(b"hello")), bob.receive());
/// told?;
/// assert_eq!(message?.src.peer_id(), Some(alice.id()));
/// # Ok(())
/// # }
/// ```
pub struct P2pkeSwarm<A: Addr, S: Swarm<A>> {
    shared: Arc<Shared<A, S>>,
}

impl<A: Addr, S: Swarm<A>> P2pkeSwarm<A, S> {
    /// Creates a node over `inner` with the identity of `key` and the default limits.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`](p2p::Error::Invalid) if the MTU of `inner` is below [`MIN_INNER_MTU`], if
    /// the key cannot be loaded, and outside of a tokio runtime.
    pub fn new(inner: S, key: &PrivateKey) -> Result<Self> {
        Self::with_config(inner, key, P2pkeConfig::default())
    }

    /// Creates a node with the given limits.
    ///
    /// # Errors
    /// Returns the errors of [`new`](Self::new), and [`Error::Invalid`](p2p::Error::Invalid) for limits that
    /// cannot work.
    pub fn with_config(inner: S, key: &PrivateKey, config: P2pkeConfig) -> Result<Self> {
        let shared = Arc::new(Shared::new(inner, key, config)?);
        shared.driver.start(shared.clone().work())?;
        Ok(Self { shared })
    }

    /// Returns this node's identity.
    pub fn id(&self) -> PeerId {
        self.shared.id()
    }

    /// Returns the swarm below.
    pub fn inner(&self) -> &S {
        &self.shared.inner
    }

    /// Returns the number of addresses with a session.
    pub fn sessions(&self) -> usize {
        self.shared.sessions()
    }

    /// Drops every session with `peer`, and returns their number. The peer is not notified; the next message
    /// to or from it establishes a new session, unless [`P2pkeConfig::allow`] forbids it.
    pub fn disconnect(&self, peer: &PeerId) -> usize {
        self.shared.disconnect(|id| id == peer)
    }

    /// Drops every session with a peer that [`P2pkeConfig::allow`] currently forbids, and returns their
    /// number.
    pub fn disconnect_forbidden(&self) -> usize {
        self.shared.disconnect_forbidden()
    }
}

impl<A: Addr, S: Swarm<A>> Swarm<KeyAddr<A>> for P2pkeSwarm<A, S> {
    /// Sends a message; see [`Swarm::tell`]. Without a session with the peer it waits for a handshake.
    ///
    /// # Errors
    /// Returns, in addition to the errors stated there:
    ///
    /// - [`TimedOut`](p2p::Error::TimedOut) if the peer does not answer within
    ///   [`handshake_timeout`](p2p_protocols::p2pke::Config::handshake_timeout),
    /// - [`Unreachable`](p2p::Error::Unreachable) at once if another identity answers, which the error names,
    /// - [`Denied`](p2p::Error::Denied) for a peer that is not allowed,
    /// - [`Limit`](p2p::Error::Limit) if the maximum number of channels exists,
    /// - the error of the swarm below if the packet cannot be sent.
    ///
    /// # Cancel safety
    /// Cancelling sends nothing. A handshake ends with its last caller, unless the peer has already proved
    /// its key: its hello is not retransmitted.
    async fn tell(&self, dst: &KeyAddr<A>, packet: Packet) -> Result<()> {
        self.shared.tell(dst, packet).await
    }

    async fn tell_batch(&self, batch: &mut Vec<(KeyAddr<A>, Packet)>) -> Result<(), BatchError> {
        let mut outcome = BatchOutcome::default();
        let late = self.shared.tell_ready(batch, &mut outcome).await;
        // Waits for several peers concurrently.
        let late = late.into_iter();
        let mut waiting: FuturesUnordered<_> = late
            .map(|(dst, packets)| self.shared.tell_late(dst, packets))
            .collect();
        while let Some((count, result)) = waiting.next().await {
            outcome.record_batch(count, result);
        }
        outcome.finish()
    }

    async fn receive(&self) -> Result<Message<KeyAddr<A>>> {
        let Shared {
            mailbox,
            driver,
            messages,
            ..
        } = &*self.shared;
        mailbox.receive(driver, (), messages).await
    }

    async fn receive_batch(&self, out: &mut Vec<Message<KeyAddr<A>>>, max: usize) -> Result<usize> {
        let Shared {
            mailbox,
            driver,
            messages,
            ..
        } = &*self.shared;
        mailbox.receive_batch(driver, (), messages, out, max).await
    }

    fn mtu(&self) -> usize {
        self.shared.mtu
    }

    fn local_addrs(&self) -> Vec<KeyAddr<A>> {
        let addrs = self.inner().local_addrs().into_iter();
        addrs.map(|addr| KeyAddr::new(self.id(), addr)).collect()
    }

    fn parse_addr(&self, text: &str) -> Result<KeyAddr<A>> {
        KeyAddr::parse(text, |inner| self.inner().parse_addr(inner))
    }

    async fn close(&self) {
        self.shared.close();
        self.inner().close().await;
    }

    fn headroom(&self) -> Headroom {
        Headroom::new(HEADER, TAG).plus(self.inner().headroom())
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.shared.messages);
        visit(&self.shared.handshakes);
        self.inner().visit_counters(visit);
    }
}

impl<A: Addr, S: Swarm<A>> SecureSwarm<KeyAddr<A>> for P2pkeSwarm<A, S> {
    type PublicKey = PublicKey;

    fn public_key(&self) -> PublicKey {
        self.shared.local().public_key().clone()
    }

    async fn lookup_public_key(&self, addr: &KeyAddr<A>) -> Result<PublicKey> {
        if addr.id == self.id() {
            self.shared.check_open()?;
            return Ok(self.public_key());
        }
        Ok(self.shared.session(addr).await?.public_key().clone())
    }
}

impl<A: Addr, S: Swarm<A>> Drop for P2pkeSwarm<A, S> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl<A: Addr, S: Swarm<A>> fmt::Debug for P2pkeSwarm<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("P2pkeSwarm")
            .field("id", &self.id())
            .field("sessions", &self.sessions())
            .finish_non_exhaustive()
    }
}
