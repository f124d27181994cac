//! P2PKE version 1 over any swarm of datagrams: every message is sealed, and its source has proved who it is.
//!
//! A tell to `ID@inner` waits until a handshake has shown that ID is there; from then on it costs one look-up and one
//! cipher, in place. The bytes are those of go-p2p's `p2pkeswarm`. What the protocol promises, and where go-p2p is
//! otherwise, stands at the engine: [`p2p_protocols::p2pke`].
//!
//! # Security
//! - Required of the caller: an address with the right id, a key that nobody else has, and a system clock that does not
//!   go back over restarts by more than peers remember (3 minutes).
//! - Provided: a message to `ID@inner` reaches ID or nobody, whoever a message comes from proved the key of its
//!   [`PeerId`]; secrecy and integrity; forward secrecy by session; each message at most once. Packets from made-up
//!   addresses cost a bounded amount of work and memory and end no session.
//! - Not provided: hidden identities, lengths or times; the reachability of a source before a handshake's work is done
//!   for it; safety from quantum computers.
//!
//! # Limits
//! All are in [`P2pkeConfig`]. A message whose reader has no room is dropped here and counted; the sender does not wait
//! for readers. The counters `p2pke` count messages, those of `p2pke-handshake` the packets that handshakes are made of;
//! a drop of either has a reason, and an event of [`tracing`] that names the peer's address and the engine's error.
//!
//! Whoever waits, in `receive` or in a `tell` that needs a handshake, pulls from below in its own task. While nobody
//! does, a background task answers handshakes, keeps time, and puts messages that come into a bounded inbox.
//!
//! Channels that peers open are limited by peer, by network and in total, and a share is kept for what this node tells.
//!
//! # Peers that were started again
//! What is told to a peer that has lost its sessions is lost. It says so, and another session is made at once: an ask is
//! answered after its first retransmission, within a second.
//!
//! # Closing
//! `close` drops nothing that a tell returned `Ok` for: it has been given to the swarm below, whose `close` decides. A tell that
//! still waits for a handshake fails with [`Error::Closed`](p2p::Error::Closed), and its message does not leave.
//!
//! Deliberately absent: asks (put [`AskingSwarm`](crate::AskingSwarm) on top), messages longer than a datagram (put
//! [`FragmentSwarm`](crate::FragmentSwarm) on top), and keep-alive packets.

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

pub use self::config::{Allow, P2pkeConfig};
use self::shared::Shared;
use crate::KeyAddr;

/// Bytes that a datagram of the swarm below must carry at least: the longest handshake message with keys of Ed25519.
pub const MIN_INNER_MTU: usize = 166;

/// A node on P2PKE; see the [module](self). Dropping it ends its tasks and frees what is below.
pub struct P2pkeSwarm<A: Addr, S: Swarm<A>> {
    shared: Arc<Shared<A, S>>,
}

impl<A: Addr, S: Swarm<A>> P2pkeSwarm<A, S> {
    /// Runs P2PKE over `inner` with the identity of `key` and the default limits.
    ///
    /// # Errors
    /// [`Error::Invalid`](p2p::Error::Invalid) for an `inner` whose MTU is below [`MIN_INNER_MTU`], for a key that does
    /// not load, and outside of a tokio runtime.
    pub fn new(inner: S, key: &PrivateKey) -> Result<Self> {
        Self::with_config(inner, key, P2pkeConfig::default())
    }

    /// The same with other limits.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Invalid`](p2p::Error::Invalid) for limits that cannot work.
    pub fn with_config(inner: S, key: &PrivateKey, config: P2pkeConfig) -> Result<Self> {
        let shared = Arc::new(Shared::new(inner, key, config)?);
        shared.driver.start(shared.clone().work())?;
        Ok(Self { shared })
    }

    /// This node's identity.
    pub fn id(&self) -> PeerId {
        self.shared.id()
    }

    /// The swarm below.
    pub fn inner(&self) -> &S {
        &self.shared.inner
    }

    /// How many addresses there are with a session.
    pub fn sessions(&self) -> usize {
        self.shared.sessions()
    }

    /// Forgets every session with `peer`, and returns how many there were. The peer is not told; unless
    /// [`P2pkeConfig::allow`] forbids it, the next message to or from it makes a new one.
    pub fn disconnect(&self, peer: &PeerId) -> usize {
        self.shared.disconnect(|id| id == peer)
    }

    /// Forgets every session with a peer that [`P2pkeConfig::allow`] forbids by now, and returns how many there were.
    pub fn disconnect_forbidden(&self) -> usize {
        self.shared.disconnect_forbidden()
    }
}

impl<A: Addr, S: Swarm<A>> Swarm<KeyAddr<A>> for P2pkeSwarm<A, S> {
    /// See [`Swarm::tell`]. Without a session with the peer it waits for a handshake.
    ///
    /// # Errors
    /// Besides those stated there: [`TimedOut`](p2p::Error::TimedOut) if nobody answers within
    /// [`handshake_timeout`](p2p_protocols::p2pke::Config::handshake_timeout),
    /// [`Unreachable`](p2p::Error::Unreachable) at once if another identity answers, which it names, [`Denied`](p2p::Error::Denied) for a peer that
    /// is not allowed, [`Limit`](p2p::Error::Limit) if there are as many channels as there may be, and what the swarm
    /// below says of a packet that cannot leave.
    ///
    /// # Cancel safety
    /// Cancelling sends nothing. A handshake ends with its last caller, unless the peer has proven its key already: its
    /// hello is not sent again.
    async fn tell(&self, dst: &KeyAddr<A>, packet: Packet) -> Result<()> {
        self.shared.tell(dst, packet).await
    }

    async fn tell_batch(&self, batch: &mut Vec<(KeyAddr<A>, Packet)>) -> Result<(), BatchError> {
        let mut outcome = BatchOutcome::default();
        let late = self.shared.tell_ready(batch, &mut outcome).await;
        // Peers that must be waited for are waited for side by side.
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
        self.shared.receive().await
    }

    async fn receive_batch(&self, out: &mut Vec<Message<KeyAddr<A>>>, max: usize) -> Result<usize> {
        self.shared.receive_batch(out, max).await
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
