//! Gossip as a swarm: what is told to a topic reaches all who subscribed to it, over neighbours.
//!
//! The router is gossipsub 1.2 or floodsub ([`p2p_protocols::gossipsub`]), with the bytes of libp2p's; one message below is
//! one RPC, with one message or with several that left together ([`Config::pack`]). Telling to `topic` publishes. A
//! message's source is `topic@peer`: its author, where messages are signed, or the neighbour that passed it on, where they
//! are not. Telling to that reaches this node alone, if it is a neighbour; other implementations pass over such messages.
//!
//! There are no connections: who was [added](GossipSwarm::add_peer) is a peer, and so is whoever speaks first, within
//! limits. Peers say hello to one another and what they want, and say so again now and then, since any of it may be lost.
//! Who says goodbye, is silent for long, or cannot be reached is none any more.
//!
//! # Security
//! - Required of the caller: a swarm below whose addresses are those of the senders. Ids that it proves make scores and
//!   neighbours certain; where it proves none, a neighbour can claim to be somebody and so get what is told to that one.
//! - Provided, with [`Signing::StrictSign`]: nobody speaks in another's name. Where nobody signs, a message could be
//!   anybody's. What each peer can make this node keep, send and compute is bounded.
//! - Not provided: secrecy of what is published. Who wants a topic is known to its neighbours.
//!
//! # Limits
//! All are in [`GossipConfig`]. Counters: `gossip` counts copies of messages. One that goes to many is `duplicated` so
//! often; one that goes to nobody, comes again, or has no room is `dropped`.

mod addr;
mod checks;
mod closing;
mod config;
mod event;
mod inbound;
mod outbound;
mod shared;

use std::fmt;
use std::sync::Arc;

use p2p::{Addr, BatchError, Counters, Error, Headroom, Message, Packet, PeerId, Result, Swarm};
use p2p_protocols::gossipsub::{Counts, Engine, Kept};

pub use self::addr::{GossipAddr, Place};
pub use self::config::{GossipConfig, NameMessage, Validator};
pub use self::event::{Departure, GossipEvent};
use self::shared::Shared;
pub use p2p_protocols::gossipsub::{
    Author, Config, MessageId, PolicyError, QueueConfig, Refused, ScoreConfig, Signing, Topic, Verdict,
    Version, wire,
};

/// A node of a gossip network; see the [module](self). Dropping it ends its tasks and frees what is below.
pub struct GossipSwarm<A: Addr, S: Swarm<A>> {
    shared: Arc<Shared<A, S>>,
}

impl<A: Addr, S: Swarm<A>> GossipSwarm<A, S> {
    /// A node without peers and topics, with the default limits.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an `inner` whose MTU leaves no room for a message, and outside of a tokio runtime.
    pub fn new(inner: S, signing: Signing) -> Result<Self> {
        Self::with_config(inner, signing, GossipConfig::default())
    }

    /// The same with other limits.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Invalid`] for limits that cannot work.
    pub fn with_config(inner: S, signing: Signing, config: GossipConfig) -> Result<Self> {
        let shared = Arc::new(Shared::new(inner, signing, config)?);
        shared.driver.start(shared.clone().work())?;
        Ok(Self { shared })
    }

    /// Who this node is, where messages are signed.
    pub fn id(&self) -> Option<PeerId> {
        self.shared.id
    }

    /// The swarm below.
    pub fn inner(&self) -> &S {
        &self.shared.inner
    }

    /// Makes a node a peer, and says hello. Adding one again does nothing.
    ///
    /// # Errors
    /// [`Error::Limit`] with as many peers as there may be; [`Error::Invalid`] for this node's own address;
    /// [`Error::Closed`] after `close`.
    pub fn add_peer(&self, addr: &A) -> Result<()> {
        if self.inner().local_addrs().contains(addr) {
            return Err(Error::invalid("peer", "it is this node itself"));
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

    /// Makes a peer none any more. Whether it was one. It becomes one again if it speaks, unless
    /// [`accept_peers`](GossipConfig::accept_peers) says otherwise.
    ///
    /// # Errors
    /// [`Error::Closed`] after `close`.
    pub fn remove_peer(&self, addr: &A) -> Result<bool> {
        self.shared.state().forget(addr);
        let removed = self.shared.change(|engine, now, effects| {
            let removed = engine.remove_peer(now, addr);
            if removed {
                let (peer, why) = (addr.clone(), Departure::Removed);
                effects.events.push(GossipEvent::Left { peer, why });
            }
            Ok(removed)
        });
        self.shared.peers_changed.notify_waiters();
        removed
    }

    /// The peers.
    pub fn peers(&self) -> Vec<A> {
        let peers = self.shared.with(|engine| engine.peers().cloned().collect());
        peers.unwrap_or_default()
    }

    /// Whether a peer has answered, or spoke first: it knows of this node.
    pub fn is_met(&self, peer: &A) -> bool {
        self.shared.with(|engine| engine.is_met(peer)).unwrap_or(false)
    }

    /// Waits until a peer has said hello: from then on it knows of this node, and can be told something for itself.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if it is no peer, or stops being one; [`Error::Closed`] after `close`.
    ///
    /// # Cancel safety
    /// Cancelling changes nothing.
    pub async fn until_met(&self, peer: &A) -> Result<()> {
        self.shared.until_met(peer).await
    }

    /// Subscribes to a topic. Whether it was not subscribed to.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the topic is empty or too long; [`Error::Closed`] after `close`.
    pub fn subscribe(&self, topic: &str) -> Result<bool> {
        self.shared.change(|engine, now, _| engine.subscribe(now, topic))
    }

    /// Leaves a topic. Whether it was subscribed to.
    ///
    /// # Errors
    /// [`Error::Closed`] after `close`.
    pub fn unsubscribe(&self, topic: &str) -> Result<bool> {
        self.shared
            .change(|engine, now, _| Ok(engine.unsubscribe(now, topic)))
    }

    /// The topics that this node subscribed to.
    pub fn topics(&self) -> Vec<Topic> {
        let topics = self
            .shared
            .with(|engine| engine.subscriptions().cloned().collect());
        topics.unwrap_or_default()
    }

    /// The peers that want a topic.
    pub fn subscribers(&self, topic: &str) -> Vec<A> {
        let peers = self
            .shared
            .with(|engine| engine.subscribers(topic).cloned().collect());
        peers.unwrap_or_default()
    }

    /// The mesh of a topic: neighbours who pass its messages on as they come.
    pub fn mesh(&self, topic: &str) -> Vec<A> {
        let peers = self.shared.with(|engine| engine.mesh(topic).cloned().collect());
        peers.unwrap_or_default()
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// [`Error::Closed`] after `close`.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing.
    pub async fn event(&self) -> Result<GossipEvent<A>> {
        self.shared.event().await
    }

    /// Events that were dropped because nobody read them.
    pub fn events_dropped(&self) -> u64 {
        self.shared.events().dropped()
    }

    /// A peer's score; 0 for who is no peer.
    pub fn score(&self, peer: &A) -> f64 {
        let now = self.shared.alarm.now();
        let score = self.shared.with(|engine| engine.score(now, peer));
        score.unwrap_or(0.0)
    }

    /// What the router has done and refused so far; nothing after `close`.
    pub fn counts(&self) -> Counts {
        self.shared.with(Engine::counts).unwrap_or_default()
    }

    /// How much the router keeps.
    ///
    /// # Errors
    /// [`Error::Closed`] after `close`.
    pub fn kept(&self) -> Result<Kept> {
        self.shared.with(Engine::kept)
    }
}

impl<A: Addr, S: Swarm<A>> Swarm<GossipAddr<A>> for GossipSwarm<A, S> {
    /// Publishes to a topic, or tells one node; see [`Swarm::tell`].
    ///
    /// # Errors
    /// Besides those stated there: [`Error::Unreachable`] for a node that is no neighbour or takes no direct messages,
    /// and [`Error::Invalid`] for a topic that is too long, and for what was published already where messages are named
    /// by what they say.
    async fn tell(&self, dst: &GossipAddr<A>, packet: Packet) -> Result<()> {
        self.shared.tell(dst, packet).await
    }

    async fn tell_batch(&self, batch: &mut Vec<(GossipAddr<A>, Packet)>) -> Result<(), BatchError> {
        self.shared.tell_batch(batch).await
    }

    async fn receive(&self) -> Result<Message<GossipAddr<A>>> {
        self.shared.receive().await
    }

    async fn receive_batch(&self, out: &mut Vec<Message<GossipAddr<A>>>, max: usize) -> Result<usize> {
        self.shared.receive_batch(out, max).await
    }

    /// Bytes that a message carries, however long its topic is.
    fn mtu(&self) -> usize {
        self.shared.mtu
    }

    /// The topics that this node subscribed to; and itself in each of them, and in those that it lately spoke of.
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

    /// Sends what waits for peers, says goodbye to them, and closes the swarm below.
    ///
    /// From the first poll on this swarm takes and delivers nothing. What was told before, with `Ok`, leaves first: to
    /// each peer at the same time, for [`GossipConfig::linger`] at most; what has not left by then is dropped and counted.
    /// Then the swarm below is closed, and its address is free. Callers that close at the same time wait for the same.
    ///
    /// # Cancel safety
    /// The swarm is closed all the same, and what waits leaves in the background, unless the swarm is dropped.
    async fn close(&self) {
        self.shared.begin_close();
        self.shared.flushed().await;
        self.inner().close().await;
    }

    fn headroom(&self) -> Headroom {
        // Each message is encoded into a buffer of its own, which all its copies are made of.
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
