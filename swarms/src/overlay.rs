//! Overlays over any swarm with asks: nodes are told and asked by id, independent of their addresses.
//!
//! An engine that finds nodes by id ([`Router`]) sends its requests over the swarm below. This node's own
//! messages and requests share that swarm, distinguished by one byte of header. A message to an id goes
//! directly to its known address, with one lookup and without a copy or a task switch. If no address is
//! known, the engine looks the node up and verifies that it answers. Addresses are learned from received
//! messages and from lookups. They expire, and a node that sends from a new address is known there from then
//! on.
//!
//! # Relaying
//! A node that other nodes reach, but this one does not (it is behind a NAT, or in another part of the
//! network), is told over relays: over a neighbour that knows it, and from there at each hop to a node nearer
//! to it. Each relay forwards only to a node nearer to the destination, or to the destination, so routes have
//! no loops.
//!
//! Relayed messages form a lossy datagram swarm of their own, with the usual layers on top: P2PKE encrypts
//! end to end, and mbapp adds asks and long messages. The source in a relayed message is not proven. A reply
//! goes back over the neighbour that relayed the message, which is charged for it, and does not start a
//! lookup.
//!
//! # A new overlay
//! Implement [`RequestEngine`](p2p::engine::RequestEngine) and [`Router`] for its engine, and define an alias of [`OverlaySwarm`], as [`crate::kademlia`] does.
//!
//! # Security
//! - Required of the caller: a swarm below whose addresses prove ids, and its key; or mutually trusted nodes
//!   ([`Identity::Unproven`]).
//! - Provided: a message to an id reaches that node or no node, and a message from an id was sent by it,
//!   direct or relayed. Relaying for other nodes is bounded, in total and per neighbour, and can be disabled.
//!   Relayed messages for this node are charged to the neighbour that relays them, and replies take the same
//!   route: no lookup starts for an id that has proven nothing.
//! - Not provided: delivery of relayed messages. A relay can drop them, and a node that claims to be their
//!   source can disturb its sessions, but neither can read or change them. Relays see source and destination.
//!
//! # Limits
//! All limits are in [`OverlayConfig`] and the engine's configuration. There are four [`Counters`]: messages,
//! requests, relayed messages, and requests of the engine.
//!
//! # Cancel safety
//! Cancelling a receive loses nothing. Cancelling a tell sends nothing, and a lookup in progress continues.
//! Dropping an [`Operation`] cancels it.
//!
//! Deliberately absent: NAT traversal, and acknowledged relaying: use asks for acknowledgements.

mod config;
mod core;
mod inbound;
mod node_config;
mod operation;
mod outbound;
mod relay;
mod router;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use p2p::{
    Addr, AskSwarm, BatchError, BoxAskSwarm, Counters, Error, Headroom, Message, Packet, PeerId, Request,
    Result, SecureSwarm, Swarm,
};
use p2p_protocols::overlay::wire::MAX_RELAYED;

pub use self::config::{Identity, OverlayConfig};
use self::core::Core;
pub use self::node_config::{Given, NewEngine, NodeConfig, ParseAddr, RecordEngine};
pub use self::operation::Operation;
pub(crate) use self::operation::unexpected;
use self::relay::RelaySwarm;
pub use self::router::{Located, OperationEvent, Router};
use crate::driver::finish_close;
use crate::map::BatchBuffer;
use crate::{KeyAddr, MapSwarm, MbappSwarm, P2pkeSwarm};

/// A node of an overlay with the engine `R`, over the swarm `S`; see the [module](self). Dropping it ends its
/// tasks and drops the swarm below.
pub struct OverlaySwarm<A: Addr, S: AskSwarm<A>, R: Router<A>> {
    core: Arc<Core<A, S, R>>,
    /// Relayed messages, encrypted and reassembled.
    relay: Option<BoxAskSwarm<PeerId>>,
    batch_buffer: BatchBuffer<(A, Packet)>,
}

impl<A: Addr, S: AskSwarm<A>, R: Router<A>> OverlaySwarm<A, S, R> {
    /// Creates a node over `inner`, with the engine that `make` returns for the node's id and the current
    /// time. The engine parses addresses with the swarm that it is given.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] if the swarm below proves no id and one is needed, for a key that does not
    /// belong to that id, for an MTU below that is too small, and outside of a tokio runtime.
    pub fn with_engine(
        inner: S,
        identity: Identity<'_>,
        config: OverlayConfig,
        make: impl FnOnce(&Arc<S>, PeerId, Duration) -> R,
    ) -> Result<Self> {
        let inner = Arc::new(inner);
        let proven_id = inner.local_addrs().iter().find_map(Addr::peer_id);
        let no_id = || Error::invalid("inner swarm", "its addresses do not prove an id");
        let id = match identity {
            Identity::Unproven(id) => id,
            Identity::Key(_) | Identity::Proven => proven_id.ok_or_else(no_id)?,
        };
        let proven = !matches!(identity, Identity::Unproven(_));
        if inner.mtu() <= MAX_RELAYED {
            let reason = format!("an MTU of {} bytes leaves no room for headers", inner.mtu());
            return Err(Error::invalid("inner swarm", reason));
        }
        let engine = |now| make(&inner, id, now);
        let mut core = Core::new(inner.clone(), id, proven, config, engine);
        core.sends_relayed = !matches!(identity, Identity::Proven);
        let core = Arc::new(core);
        let relay = Self::carrier(&core, identity)?;
        core.driver.start(core.clone().work(relay.clone()))?;
        Ok(Self {
            core,
            relay,
            batch_buffer: BatchBuffer::default(),
        })
    }

    /// Creates the layers on top of the relayed datagrams.
    fn carrier(core: &Arc<Core<A, S, R>>, identity: Identity<'_>) -> Result<Option<BoxAskSwarm<PeerId>>> {
        let datagrams = RelaySwarm { core: core.clone() };
        let mut mbapp = core.config.mbapp;
        mbapp.engine.mtu = core.mtu;
        let key = match identity {
            Identity::Proven => return Ok(None),
            Identity::Unproven(_) => {
                let asks = MbappSwarm::with_config(datagrams, mbapp);
                return Ok(Some(BoxAskSwarm::new(asks)));
            }
            Identity::Key(key) => key,
        };
        let mut sealing = core.config.sealing.clone();
        sealing.fingerprint = config::fingerprint_of(key, core.id, sealing.fingerprint, &sealing.registry)?;
        let sealed = P2pkeSwarm::with_config(datagrams, key, sealing)?;
        // An id is its own address: a proven peer has that id, or the message is dropped.
        let down = |id: &PeerId| Ok(KeyAddr::new(*id, *id));
        let up = |addr: KeyAddr<PeerId>| (addr.id == addr.addr).then_some(addr.id);
        let by_id = MapSwarm::new(sealed, (down, up));
        Ok(Some(BoxAskSwarm::new(MbappSwarm::with_config(by_id, mbapp))))
    }

    /// Returns this node's id.
    pub fn id(&self) -> PeerId {
        self.core.id
    }

    /// Returns the swarm below.
    pub fn inner(&self) -> &S {
        &self.core.inner
    }

    /// Returns the number of nodes with a known address.
    pub fn known(&self) -> usize {
        self.core.book().len()
    }

    /// Starts an operation of the engine. `take` converts its outcome to the caller's result.
    ///
    /// # Errors
    /// Returns [`Error::Closed`], and the errors of the engine.
    pub fn begin<T>(
        &self,
        call: impl FnOnce(&mut R, Duration) -> Result<R::OpId>,
        take: fn(R::Outcome) -> Result<T>,
    ) -> Result<Operation<A, S, R, T>> {
        Operation::begin(&self.core, call, take)
    }

    /// Calls the engine synchronously.
    ///
    /// # Errors
    /// Returns [`Error::Closed`] if the swarm is closed.
    pub fn with<T>(&self, call: impl FnOnce(&mut R, Duration) -> T) -> Result<T> {
        self.core.with_engine(call)
    }
}

impl<A: Addr, S: AskSwarm<A>, R: Router<A>> Swarm<PeerId> for OverlaySwarm<A, S, R> {
    /// Sends a message; see [`Swarm::tell`]. Waits for a lookup if the route to the node is not known.
    ///
    /// # Errors
    /// Returns, in addition to the errors stated there, [`Unreachable`](Error::Unreachable) if no node knows
    /// the id, or the node does not answer and relaying is not possible, and the error of the swarm below if
    /// the message cannot be sent.
    ///
    /// # Cancel safety
    /// A lookup in progress continues.
    async fn tell(&self, dst: &PeerId, packet: Packet) -> Result<()> {
        self.tell_one(dst, packet).await
    }

    async fn tell_batch(&self, batch: &mut Vec<(PeerId, Packet)>) -> Result<(), BatchError> {
        self.tell_many(batch).await
    }

    async fn receive(&self) -> Result<Message<PeerId>> {
        let Core {
            told, driver, tells, ..
        } = &*self.core;
        told.receive(driver, (), tells).await
    }

    async fn receive_batch(&self, out: &mut Vec<Message<PeerId>>, max: usize) -> Result<usize> {
        let Core {
            told, driver, tells, ..
        } = &*self.core;
        told.receive_batch(driver, (), tells, out, max).await
    }

    fn mtu(&self) -> usize {
        self.core.mtu
    }

    fn local_addrs(&self) -> Vec<PeerId> {
        vec![self.core.id]
    }

    fn parse_addr(&self, text: &str) -> Result<PeerId> {
        text.parse()
    }

    async fn close(&self) {
        self.core.close();
        let (core, relay) = (self.core.clone(), self.relay.clone());
        finish_close(async move {
            if let Some(relay) = relay {
                relay.close().await;
            }
            core.closed();
            core.inner.close().await;
        })
        .await;
    }

    fn headroom(&self) -> Headroom {
        let own = self.core.header(&self.core.id).len();
        Headroom::new(own, 0).plus(self.core.inner.headroom())
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        let core = &self.core;
        for counters in [&core.tells, &core.asks, &core.relays, &core.requests] {
            visit(counters);
        }
        if let Some(relay) = &self.relay {
            relay.visit_counters(visit);
        }
        core.inner.visit_counters(visit);
    }
}

impl<A: Addr, S: AskSwarm<A>, R: Router<A>> AskSwarm<PeerId> for OverlaySwarm<A, S, R> {
    async fn ask(&self, dst: &PeerId, request: Packet) -> Result<Packet> {
        self.ask_one(dst, request).await
    }

    async fn receive_ask(&self) -> Result<Request<PeerId>> {
        self.core.receive_ask().await
    }
}

impl<A: Addr, S: AskSwarm<A> + SecureSwarm<A>, R: Router<A>> SecureSwarm<PeerId> for OverlaySwarm<A, S, R> {
    type PublicKey = S::PublicKey;

    fn public_key(&self) -> S::PublicKey {
        self.core.inner.public_key()
    }

    /// Looks up the key of a node; see [`SecureSwarm::lookup_public_key`]. Fails for a node that is reached
    /// over relays only.
    async fn lookup_public_key(&self, addr: &PeerId) -> Result<S::PublicKey> {
        self.look_up_key(addr).await
    }
}

impl<A: Addr, S: AskSwarm<A>, R: Router<A>> Drop for OverlaySwarm<A, S, R> {
    fn drop(&mut self) {
        self.core.close();
    }
}

impl<A: Addr, S: AskSwarm<A>, R: Router<A>> fmt::Debug for OverlaySwarm<A, S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OverlaySwarm")
            .field("id", &self.id())
            .field("known", &self.known())
            .finish_non_exhaustive()
    }
}
