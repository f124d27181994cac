//! Overlays over any swarm with asks: a node is told and asked by its id, wherever it is.
//!
//! An engine that finds nodes by id ([`Router`]) asks over the swarm below; beside that this node's own messages and
//! requests go there, with one byte in front that says so. A message to an id goes straight to the address that is known
//! for it: one look-up, no copy, no task between. Where none is known, the engine looks for the node and makes sure that
//! it answers. Addresses are learnt from what nodes send and from what the engine finds; they age, and a node that comes
//! from elsewhere is known there from then on.
//!
//! A node that others know, but that does not answer this one (it is behind a translator of addresses, or in another
//! part of the network), is told over others: over one that knows it, and from there each time to a node nearer to it. What
//! goes this way is a lossy swarm of datagrams of its own, and on it stand the layers that stand on others: P2PKE seals it
//! from end to end, asks make it whole.
//!
//! # Security
//! - Required of the caller: a swarm below whose addresses prove ids, and its key; or friends ([`Identity::Unproven`]).
//! - Provided: what an id is told reaches that node or nobody, and what comes from an id was said by it, straight or over
//!   others. What is passed on for others is bounded, in total and for each neighbour, and can be switched off. What comes over
//!   others for this node is charged to the neighbour that brings it, and answered the same way: no search begins for an id
//!   that has proven nothing.
//! - Not provided: that what goes over others arrives. Who is on the way can drop it, and who claims to be its source can
//!   disturb its sessions, but neither read nor change it. Who talks with whom is seen by those on the way.
//!
//! # Limits
//! All are in [`OverlayConfig`] and the engine's configuration. There are four [`Counters`]: messages, requests, what is
//! passed on for others, and requests of the engine.
//!
//! Deliberately absent: holes through translators of addresses, and acknowledged relays: who wants to know asks.

mod config;
mod core;
mod inbound;
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
pub use self::operation::Operation;
use self::relay::Over;
pub use self::router::{Event, Failure, Located, Router, Transmit};
use crate::map::Spare;
use crate::{AskingSwarm, KeyAddr, MapSwarm, P2pkeSwarm};

/// Reads an address that a peer named.
///
/// A zone means something on its own host alone, and to look one up by name takes the system far longer than all the rest.
pub(crate) fn parse_named<A: Addr, S: Swarm<A>>(inner: &S, text: &str) -> Option<A> {
    if crate::udp::has_zone(text) {
        return None;
    }
    inner.parse_addr(text).ok()
}

/// A node of an overlay with the engine `R`, over the swarm `S`; see the [module](self). Dropping it ends its tasks and
/// frees what is below.
pub struct OverlaySwarm<A: Addr, S: AskSwarm<A>, R: Router<A>> {
    core: Arc<Core<A, S, R>>,
    /// What goes over others, sealed and made whole.
    over: Option<BoxAskSwarm<PeerId>>,
    spare: Spare<(A, Packet)>,
}

impl<A: Addr, S: AskSwarm<A>, R: Router<A>> OverlaySwarm<A, S, R> {
    /// A node over `inner`, with the engine that `make` makes for an id at a time. Engines find addresses' meaning in the
    /// swarm that they are given.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the swarm below proves no id and one is needed, for a key that is not that id's, for an MTU
    /// below that is too small, and outside of a tokio runtime.
    pub fn with_engine(
        inner: S,
        identity: Identity<'_>,
        config: OverlayConfig,
        make: impl FnOnce(&Arc<S>, PeerId, Duration) -> R,
    ) -> Result<Self> {
        let inner = Arc::new(inner);
        let proven_id = inner.local_addrs().iter().find_map(Addr::peer_id);
        let no_id = || Error::invalid("inner swarm", "its addresses prove no id");
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
        core.sends_over = !matches!(identity, Identity::Proven);
        let core = Arc::new(core);
        let over = Self::carrier(&core, identity)?;
        core.driver.start(core.clone().work(over.clone()))?;
        Ok(Self {
            core,
            over,
            spare: Spare::default(),
        })
    }

    /// The layers on what goes over others.
    fn carrier(core: &Arc<Core<A, S, R>>, identity: Identity<'_>) -> Result<Option<BoxAskSwarm<PeerId>>> {
        let datagrams = Over { core: core.clone() };
        let mut asking = core.config.asking;
        asking.engine.mtu = core.mtu;
        let key = match identity {
            Identity::Proven => return Ok(None),
            Identity::Unproven(_) => {
                let asks = AskingSwarm::with_config(datagrams, asking);
                return Ok(Some(BoxAskSwarm::new(asks)));
            }
            Identity::Key(key) => key,
        };
        let mut sealing = core.config.sealing.clone();
        sealing.fingerprint = config::fingerprint_of(key, core.id, &sealing.registry)?;
        let sealed = P2pkeSwarm::with_config(datagrams, key, sealing)?;
        // Whoever is proven to be at an id's place is that id, or nobody.
        let down = |id: &PeerId| Ok(KeyAddr::new(*id, *id));
        let up = |addr: KeyAddr<PeerId>| (addr.id == addr.addr).then_some(addr.id);
        let by_id = MapSwarm::new(sealed, (down, up));
        Ok(Some(BoxAskSwarm::new(AskingSwarm::with_config(by_id, asking))))
    }

    /// This node's id.
    pub fn id(&self) -> PeerId {
        self.core.id
    }

    /// The swarm below.
    pub fn inner(&self) -> &S {
        &self.core.inner
    }

    /// How many nodes' addresses are known.
    pub fn known(&self) -> usize {
        self.core.book().len()
    }

    /// Begins an operation of the engine. `take` makes of its outcome what the caller wants.
    ///
    /// # Errors
    /// [`Error::Closed`], and what the engine says.
    pub fn begin<T>(
        &self,
        call: impl FnOnce(&mut R, Duration) -> Result<R::OpId>,
        take: fn(R::Outcome) -> Result<T>,
    ) -> Result<Operation<A, S, R, T>> {
        Operation::begin(&self.core, call, take)
    }

    /// Does something with the engine at once.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn with<T>(&self, call: impl FnOnce(&mut R, Duration) -> T) -> Result<T> {
        self.core.with_engine(call)
    }
}

impl<A: Addr, S: AskSwarm<A>, R: Router<A>> Swarm<PeerId> for OverlaySwarm<A, S, R> {
    /// See [`Swarm::tell`]. Waits for a search if it is not known how the node is reached.
    ///
    /// # Errors
    /// Besides those stated there: [`Unreachable`](Error::Unreachable) if nobody knows a node of this id, or it does not
    /// answer and nothing may go over others; what the swarm below says of a message that cannot leave.
    ///
    /// # Cancel safety
    /// A search under way goes on.
    async fn tell(&self, dst: &PeerId, packet: Packet) -> Result<()> {
        self.tell_one(dst, packet).await
    }

    async fn tell_batch(&self, batch: &mut Vec<(PeerId, Packet)>) -> Result<(), BatchError> {
        self.tell_many(batch).await
    }

    async fn receive(&self) -> Result<Message<PeerId>> {
        self.core.receive().await
    }

    async fn receive_batch(&self, out: &mut Vec<Message<PeerId>>, max: usize) -> Result<usize> {
        self.core.receive_batch(out, max).await
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
        if let Some(over) = &self.over {
            over.close().await;
        }
        self.core.closed();
        self.core.inner.close().await;
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
        if let Some(over) = &self.over {
            over.visit_counters(visit);
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

    /// See [`SecureSwarm::lookup_public_key`]. A node that is reached over others alone gives no key.
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
