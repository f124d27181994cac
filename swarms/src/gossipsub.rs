//! Publish and subscribe as a swarm: a message told to a topic reaches all subscribers, forwarded by
//! neighbours.
//!
//! The router is gossipsub 1.2 or floodsub ([`p2p_protocols::gossipsub`]) with libp2p's wire format. Telling
//! to `topic` publishes. The source of a message is `topic@peer`: its author where messages are signed, or
//! the neighbour that forwarded it where they are not. Telling to that address reaches this node only, if it
//! is a neighbour. It travels in a field of the RPC that other implementations ignore
//! ([`p2p_protocols::gossipsub`], `direct`).
//!
//! # Peers
//! A medium with connections reports its peers ([`GossipSwarm::on_links`]). On all others a node becomes a peer
//! when it is [added](GossipSwarm::add_peer), or when it sends first, within limits. Peers exchange hellos and their subscriptions, and repeat them at intervals,
//! since each may be lost. A peer is removed when it sends a goodbye, is silent for long, or cannot be
//! reached.
//!
//! # RPCs
//! One message of the swarm below is one RPC. Messages that wait for a peer at the same time leave as one RPC
//! ([`Config::pack`], about a datagram; more is for media without loss): their frames are concatenated, which
//! protobuf parses as one RPC. The receiver copies each message out of the packet once, and its payload and
//! its entry in the message cache share that copy. The RPCs of each peer leave as one batch. If a batch
//! cannot be sent at once, a task of its own waits, and that peer gets no further RPCs until then, so a slow
//! neighbour delays no other. A tell waits only if none of the peers that subscribe to the topic accepts
//! more.
//!
//! Signatures are verified on all threads of the runtime, once per message, and in the order of arrival. A
//! task that publishes a batch yields to the tasks that it woke.
//!
//! # Security
//! - Required of the caller: a swarm below whose source addresses are correct. If the swarm below proves ids,
//!   scores and neighbours are reliable; if not, a neighbour can claim another node's identity and so receive
//!   direct messages for it.
//! - Provided, with [`Signing::StrictSign`]: no node can publish in the name of another. Without signatures
//!   any node may be the author of a message. The memory, traffic and computation that each peer can cause
//!   are bounded.
//! - Not provided: confidentiality of published messages and of subscriptions towards neighbours.
//!
//! # Limits
//! All limits are in [`GossipConfig`]. The counters `gossip` count copies of messages: each further copy
//! counts as `duplicated`, and a message without subscribers, a repeated message, or one without room counts
//! as `dropped`.
//!
//! # Closing
//! `close` takes the engine away at once, and sends queued messages, followed by goodbyes, to all peers
//! concurrently and within a time limit.
//!
//! # Cancel safety
//! Cancelling a receive or an event loses nothing. A cancelled tell has published its message or not; `close`
//! continues in the background.

mod addr;
mod checks;
mod closing;
mod config;
mod event;
mod inbound;
mod links;
mod outbound;
mod shared;

use std::fmt;
use std::sync::Arc;

use p2p::{Addr, BatchError, Counters, Error, Headroom, Message, Packet, PeerId, Result, Swarm};
use p2p_protocols::gossipsub::{Counts, Engine, Kept};

pub use self::addr::{GossipAddr, Place};
pub use self::config::{GossipConfig, NameMessage, Validator};
pub use self::event::{Departure, GossipEvent};
pub use self::links::{LinkControl, LinkReports};
use self::shared::{Kind, Shared};
pub use p2p_protocols::gossipsub::{
    Author, Config, Connection, MessageAcceptance, MessageId, PolicyError, QueueConfig, Refused, ScoreConfig,
    SendLimits, Signing, Topic, Version, wire,
};

/// A node of a gossip network; see the [module](self). Dropping it ends its tasks and drops the swarm below.
///
/// ```
/// use p2p::Swarm;
/// use p2p_swarms::gossipsub::{GossipAddr, GossipSwarm, Signing};
/// use p2p_swarms::MemorySwarm;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// let mem = MemorySwarm::new();
/// let alice = GossipSwarm::new(mem.realm().open(), Signing::StrictNoSign)?;
/// let bob = GossipSwarm::new(mem, Signing::StrictNoSign)?;
/// bob.subscribe("weather")?;
/// alice.add_peer(&bob.inner().local_addr())?;
/// alice.until_met(&bob.inner().local_addr()).await?;
///
/// alice.tell(&GossipAddr::topic("weather"), alice.packet(b"rain")).await?;
/// assert_eq!(bob.receive().await?.payload, b"rain");
/// # Ok(())
/// # }
/// ```
pub struct GossipSwarm<A: Addr, S: Swarm<A>> {
    shared: Arc<Shared<A, S>>,
}

impl<A: Addr, S: Swarm<A>> GossipSwarm<A, S> {
    /// Creates a node without peers and topics, with the default limits.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] if the MTU of `inner` leaves no room for a message, and outside of a tokio
    /// runtime.
    pub fn new(inner: S, signing: Signing) -> Result<Self> {
        Self::with_config(inner, signing, GossipConfig::default())
    }

    /// Creates a node with the given limits.
    ///
    /// # Errors
    /// Returns the errors of [`new`](Self::new), and [`Error::Invalid`] for limits that cannot work.
    pub fn with_config(inner: S, signing: Signing, config: GossipConfig) -> Result<Self> {
        Self::start(Shared::new(inner, signing, config, None)?)
    }

    /// Creates a node on a medium with connections, which decides which nodes are peers: `inner` carries RPCs to and from
    /// those that it [reports](Self::reports), and [`add_peer`](Self::add_peer) begins to connect.
    ///
    /// Of the configuration, `accept_peers`, `version` and `peer_idle` do not apply. Peers accept direct messages only if
    /// [`Config::direct`] is set.
    ///
    /// # Errors
    /// Returns the errors of [`with_config`](Self::with_config).
    pub fn on_links(
        inner: S,
        signing: Signing,
        config: GossipConfig,
        links: Arc<dyn LinkControl<A>>,
    ) -> Result<Self> {
        Self::start(Shared::new(inner, signing, config, Some(links))?)
    }

    fn start(shared: Shared<A, S>) -> Result<Self> {
        let shared = Arc::new(shared);
        shared.driver.start(shared.clone().work())?;
        Ok(Self { shared })
    }

    /// Returns a handle by which a medium with connections reports peers; see [`on_links`](Self::on_links).
    pub fn reports(&self) -> LinkReports<A, S> {
        LinkReports::new(&self.shared)
    }

    /// Returns this node's identity, where messages are signed.
    pub fn id(&self) -> Option<PeerId> {
        self.shared.id
    }

    /// Returns the swarm below.
    pub fn inner(&self) -> &S {
        &self.shared.inner
    }

    /// Adds a node as a peer, and sends a hello. Does nothing if it is a peer. On a medium with connections it begins to
    /// connect to the node, which is a peer once it is connected.
    ///
    /// # Errors
    /// Returns [`Error::Limit`] if the maximum number of peers is reached, [`Error::Invalid`] for this node's
    /// own address, and [`Error::Closed`] after `close`.
    pub fn add_peer(&self, addr: &A) -> Result<()> {
        if self.inner().local_addrs().contains(addr) {
            return Err(Error::invalid("peer", "the address is that of this node"));
        }
        if let Some(links) = &self.shared.links {
            if self.shared.with(|engine| engine.is_peer(addr))? {
                return Ok(());
            }
            return links.connect(addr);
        }
        self.shared.change(|engine, now, effects| {
            if !engine.is_peer(addr) {
                engine.add_peer(now, addr, self.shared.connection(addr, true))?;
                let (peer, outbound) = (addr.clone(), true);
                effects.events.push(GossipEvent::Joined { peer, outbound });
            }
            Ok(())
        })
    }

    /// Removes a peer. Returns whether it was present. It becomes a peer again if it sends, unless
    /// [`accept_peers`](GossipConfig::accept_peers) is disabled; on a medium with connections, if it connects anew.
    ///
    /// # Errors
    /// Returns [`Error::Closed`] after `close`.
    pub fn remove_peer(&self, addr: &A) -> Result<bool> {
        let removed = self.shared.remove(addr, Departure::Removed);
        if let Some(links) = &self.shared.links {
            links.removed(addr);
        }
        removed
    }

    /// Returns the peers.
    pub fn peers(&self) -> Vec<A> {
        let peers = self.shared.with(|engine| engine.peers().cloned().collect());
        peers.unwrap_or_default()
    }

    /// Returns whether a peer has answered, or sent first: it knows this node.
    pub fn is_met(&self, peer: &A) -> bool {
        self.shared.with(|engine| engine.is_met(peer)).unwrap_or(false)
    }

    /// Waits until a peer has sent a hello: from then on it knows this node, and accepts direct messages. On a medium with
    /// connections it waits until the node is a peer, unless [`Config::direct`] is set.
    ///
    /// # Errors
    /// Returns [`Error::Unreachable`] if the node is neither a peer nor being connected to, or is removed meanwhile, and
    /// [`Error::Closed`] after `close`.
    ///
    /// # Cancel safety
    /// Cancelling changes nothing.
    pub async fn until_met(&self, peer: &A) -> Result<()> {
        self.shared.until_met(peer).await
    }

    /// Subscribes to a topic. Returns whether the subscription is new.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] if the topic is empty or too long, and [`Error::Closed`] after `close`.
    pub fn subscribe(&self, topic: &str) -> Result<bool> {
        self.shared.change(|engine, now, _| engine.subscribe(now, topic))
    }

    /// Unsubscribes from a topic. Returns whether it was subscribed to.
    ///
    /// # Errors
    /// Returns [`Error::Closed`] after `close`.
    pub fn unsubscribe(&self, topic: &str) -> Result<bool> {
        self.shared
            .change(|engine, now, _| Ok(engine.unsubscribe(now, topic)))
    }

    /// Returns the topics that this node is subscribed to.
    pub fn topics(&self) -> Vec<Topic> {
        let topics = self
            .shared
            .with(|engine| engine.subscriptions().cloned().collect());
        topics.unwrap_or_default()
    }

    /// Returns the peers that are subscribed to a topic.
    pub fn subscribers(&self, topic: &str) -> Vec<A> {
        let peers = self
            .shared
            .with(|engine| engine.subscribers(topic).cloned().collect());
        peers.unwrap_or_default()
    }

    /// Returns the mesh of a topic: the neighbours that forward its messages immediately.
    pub fn mesh(&self, topic: &str) -> Vec<A> {
        let peers = self.shared.with(|engine| engine.mesh(topic).cloned().collect());
        peers.unwrap_or_default()
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// Returns [`Error::Closed`] after `close`.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing.
    pub async fn event(&self) -> Result<GossipEvent<A>> {
        self.shared.event().await
    }

    /// Returns the number of events that were dropped because the queue was full.
    pub fn events_dropped(&self) -> u64 {
        self.shared.events().dropped()
    }

    /// Returns a peer's score; 0 for a node that is not a peer.
    pub fn score(&self, peer: &A) -> f64 {
        let now = self.shared.timer.now();
        let score = self.shared.with(|engine| engine.score(now, peer));
        score.unwrap_or(0.0)
    }

    /// Returns the counters of the router; all zero after `close`.
    pub fn counts(&self) -> Counts {
        self.shared.with(Engine::counts).unwrap_or_default()
    }

    /// Returns how much the router holds.
    ///
    /// # Errors
    /// Returns [`Error::Closed`] after `close`.
    pub fn kept(&self) -> Result<Kept> {
        self.shared.with(Engine::kept)
    }
}

impl<A: Addr, S: Swarm<A>> Swarm<GossipAddr<A>> for GossipSwarm<A, S> {
    /// Publishes to a topic, or tells one node; see [`Swarm::tell`].
    ///
    /// # Errors
    /// Returns, in addition to the errors stated there, [`Error::Unreachable`] for a node that is not a
    /// neighbour or accepts no direct messages, and [`Error::Invalid`] for a topic that is too long, and for
    /// data that was published before where message ids are derived from the data.
    async fn tell(&self, dst: &GossipAddr<A>, packet: Packet) -> Result<()> {
        self.shared.tell(dst, packet).await
    }

    async fn tell_batch(&self, batch: &mut Vec<(GossipAddr<A>, Packet)>) -> Result<(), BatchError> {
        self.shared.tell_batch(batch).await
    }

    async fn receive(&self) -> Result<Message<GossipAddr<A>>> {
        let Shared {
            mailbox,
            driver,
            counters,
            ..
        } = &*self.shared;
        mailbox.receive(driver, Kind::Message, counters).await
    }

    async fn receive_batch(&self, out: &mut Vec<Message<GossipAddr<A>>>, max: usize) -> Result<usize> {
        let Shared {
            mailbox,
            driver,
            counters,
            ..
        } = &*self.shared;
        mailbox
            .receive_batch(driver, Kind::Message, counters, out, max)
            .await
    }

    /// Returns the maximum length of a message in bytes, which holds for topics of any length.
    fn mtu(&self) -> usize {
        self.shared.mtu
    }

    /// Returns the topics that this node is subscribed to, and its own address in each of them and in those
    /// that it recently published to.
    fn local_addrs(&self) -> Vec<GossipAddr<A>> {
        let shared = &self.shared;
        let local = shared.with(|engine| engine.local_topics().cloned().collect::<Vec<_>>());
        let (local, here) = (local.unwrap_or_default(), shared.here());
        let joined = self.topics().into_iter();
        let joined = joined.map(|topic| GossipAddr { topic, at: None });
        let here = here.iter().flat_map(|here| {
            let topics = local.iter().cloned();
            topics.map(|topic| GossipAddr::at(topic, here.clone()))
        });
        joined.chain(here).collect()
    }

    fn parse_addr(&self, text: &str) -> Result<GossipAddr<A>> {
        let max = self.shared.config.engine.limits.topic;
        GossipAddr::parse(text, max, |place| match self.id() {
            Some(_) => place.parse().map(Place::Author),
            None => self.inner().parse_addr(place).map(Place::Neighbour),
        })
    }

    /// Sends queued messages, then goodbyes, and closes the swarm below.
    ///
    /// From the first poll on, this swarm accepts and delivers nothing. Messages for which a tell returned
    /// `Ok` are sent first, to all peers concurrently, for at most [`GossipConfig::linger`]; the remaining
    /// ones are dropped and counted. Then the swarm below is closed, and its address is free. Concurrent
    /// callers wait for the same end.
    ///
    /// # Cancel safety
    /// The swarm is closed in any case, and queued messages are sent in the background, unless the swarm is
    /// dropped.
    async fn close(&self) {
        self.shared.begin_close();
        self.shared.flushed().await;
        self.inner().close().await;
    }

    fn headroom(&self) -> Headroom {
        // Each message is encoded into a buffer of its own, which all of its copies share.
        Headroom::default()
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.shared.counters);
        self.inner().visit_counters(visit);
    }
}

impl<A: Addr, S: Swarm<A>> Drop for GossipSwarm<A, S> {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

impl<A: Addr, S: Swarm<A>> fmt::Debug for GossipSwarm<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GossipSwarm")
            .field("id", &self.id())
            .field("peers", &self.peers().len())
            .field("topics", &self.topics())
            .finish_non_exhaustive()
    }
}
