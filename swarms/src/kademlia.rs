//! A Kademlia network as a swarm: nodes by id and records by key, over any swarm with asks.
//!
//! The engine is [`p2p_protocols::kademlia`]; [`overlay`](crate::overlay) describes how messages are sent to
//! ids. A new node has no contacts: `join` it through the addresses, in the swarm below, of one or more
//! existing nodes.
//!
//! # Limits
//! See [`KademliaConfig`]: [`Config`] bounds the engine, [`OverlayConfig`](crate::OverlayConfig) relaying and queues.
//!
//! # Security
//! See [`overlay`](crate::overlay#security). A record is accepted only if the [`Validator`] accepts it; the
//! default validator accepts none.
//!
//! # Cancel safety
//! Dropping a [`KademliaOperation`] cancels it.

use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, AskSwarm, PeerId, Result};
use p2p_protocols::kademlia::{Config, Engine, Event, OpId, Outcome, Rules};
pub use p2p_protocols::kademlia::{Contact, Progress, Record, Validator};

use crate::overlay::{
    Given, Located, NewEngine, NodeConfig, Operation, OperationEvent, OverlaySwarm, RecordEngine, Router,
    unexpected,
};

/// A node of a Kademlia network, over the swarm `S`; see the [module](self).
///
/// ```
/// use p2p::{PeerId, Swarm};
/// use p2p_swarms::{Identity, KademliaSwarm, MemorySwarm};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// let mem = MemorySwarm::new();
/// let bootstrap = mem.local_addr();
/// let alice = KademliaSwarm::new(mem.realm().open(), Identity::Unproven(PeerId::from([1; 32])))?;
/// let bob = KademliaSwarm::new(mem, Identity::Unproven(PeerId::from([2; 32])))?;
///
/// alice.join(&[bootstrap])?.finish().await?;
/// alice.tell(&bob.local_addrs()[0], alice.packet(b"hello")).await?;
/// assert_eq!(bob.receive().await?.src, PeerId::from([1; 32]));
/// # Ok(())
/// # }
/// ```
pub type KademliaSwarm<A, S> = OverlaySwarm<A, S, Engine<A>>;

/// A running operation of a [`KademliaSwarm`].
pub type KademliaOperation<A, S, T> = Operation<A, S, Engine<A>, T>;

/// Configuration of a [`KademliaSwarm`].
pub type KademliaConfig = NodeConfig<Config>;

impl<A: Addr, S: AskSwarm<A>> KademliaSwarm<A, S> {
    /// Joins the network through some of its nodes, by their addresses below; without any, through the
    /// existing contacts.
    ///
    /// Resolves to the number of known contacts; zero means that no bootstrap node answered.
    ///
    /// # Errors
    /// Returns [`Error::Limit`](p2p::Error::Limit) if too many operations run, and [`Error::Closed`](p2p::Error::Closed).
    pub fn join(&self, bootstraps: &[A]) -> Result<KademliaOperation<A, S, usize>> {
        let take = |outcome| match outcome {
            Outcome::Joined { contacts } => Ok(contacts),
            other => Err(unexpected("kad", &other)),
        };
        self.begin(|engine, now| engine.join(now, bootstraps), take)
    }

    /// Looks up the nodes nearest to an id.
    ///
    /// # Errors
    /// Returns the errors of [`join`](Self::join).
    pub fn find_node(&self, id: PeerId) -> Result<KademliaOperation<A, S, Vec<Contact<A>>>> {
        let take = |outcome| match outcome {
            Outcome::Nodes(nodes) => Ok(nodes),
            other => Err(unexpected("kad", &other)),
        };
        self.begin(|engine, now| engine.find_node(now, id), take)
    }

    /// Looks up a record: the best of those that a quorum of nodes returns.
    ///
    /// # Errors
    /// Returns the errors of [`join`](Self::join).
    pub fn get(&self, key: PeerId) -> Result<KademliaOperation<A, S, Option<Record>>> {
        let take = |outcome| match outcome {
            Outcome::Record(record) => Ok(record),
            other => Err(unexpected("kad", &other)),
        };
        self.begin(|engine, now| engine.get(now, key), take)
    }

    /// Stores a record at the nodes nearest to its key, and republishes it until
    /// [`unpublish`](Self::unpublish).
    ///
    /// Resolves to the number of other nodes that store it.
    ///
    /// # Errors
    /// Returns the errors of [`join`](Self::join), [`Error::Invalid`](p2p::Error::Invalid) for a record that the
    /// validator rejects or whose lifetime is less than a second, [`Error::MtuExceeded`](p2p::Error::MtuExceeded) for
    /// one that is too long, and [`Error::Limit`](p2p::Error::Limit) if this node has too many records of its own.
    pub fn put(&self, key: PeerId, value: &[u8], ttl: Duration) -> Result<KademliaOperation<A, S, usize>> {
        self.begin(|engine, now| engine.put(now, key, value, ttl), kept)
    }

    /// Stops republishing a record. Returns whether it was published. Existing copies last until they expire.
    ///
    /// # Errors
    /// Returns [`Error::Closed`](p2p::Error::Closed) if the swarm is closed.
    pub fn unpublish(&self, key: &PeerId) -> Result<bool> {
        self.with(|engine, _| engine.unpublish(key))
    }

    /// Announces to the nodes nearest to a key that this node provides it, and repeats it until
    /// [`stop_providing`](Self::stop_providing).
    ///
    /// Resolves to the number of other nodes that store the announcement.
    ///
    /// # Errors
    /// Returns the errors of [`join`](Self::join), and [`Error::Limit`](p2p::Error::Limit) if this node provides too
    /// many keys.
    pub fn provide(&self, key: PeerId) -> Result<KademliaOperation<A, S, usize>> {
        self.begin(|engine, now| engine.provide(now, key), kept)
    }

    /// Stops providing a key. Returns whether it was provided. Existing announcements last until they expire.
    ///
    /// # Errors
    /// Returns [`Error::Closed`](p2p::Error::Closed) if the swarm is closed.
    pub fn stop_providing(&self, key: &PeerId) -> Result<bool> {
        self.with(|engine, _| engine.stop_providing(key))
    }

    /// Looks up the providers of a key as other nodes report them. The providers themselves are not
    /// contacted.
    ///
    /// # Errors
    /// Returns the errors of [`join`](Self::join).
    pub fn providers(&self, key: PeerId) -> Result<KademliaOperation<A, S, Vec<Contact<A>>>> {
        let take = |outcome| match outcome {
            Outcome::Providers(nodes) => Ok(nodes),
            other => Err(unexpected("kad", &other)),
        };
        self.begin(|engine, now| engine.providers(now, key), take)
    }

    /// Returns the number of nodes in the buckets.
    ///
    /// # Errors
    /// Returns [`Error::Closed`](p2p::Error::Closed) if the swarm is closed.
    pub fn contacts(&self) -> Result<usize> {
        self.with(|engine, _| engine.contacts().count())
    }
}

fn kept<A>(outcome: Outcome<A>) -> Result<usize>
where
    A: std::fmt::Debug,
{
    match outcome {
        Outcome::Kept { copies } => Ok(copies),
        other => Err(unexpected("kad", &other)),
    }
}

impl<A: Addr> RecordEngine<A> for Engine<A> {
    type Config = Config;

    const NAME: &'static str = "Kademlia";
    const MIN_MESSAGE: usize = 512;

    fn restrict(config: &mut Config, given: Given) {
        config.unproven_ids = given.unproven_ids;
        config.message = config.message.min(given.message);
    }

    fn create(new: NewEngine<A, Config>) -> Self {
        let rules = Rules::new(new.config, new.parse, new.validator);
        Engine::new(new.id, Arc::new(rules), new.now, new.seed)
    }
}

impl<A: Addr> Router<A> for Engine<A> {
    const LAYERS: [&'static str; 4] = ["kad", "kad-ask", "kad-relay", "kad-request"];

    type OpId = OpId;
    type Outcome = Outcome<A>;
    type Progress = Progress;

    fn locate(&mut self, now: Duration, id: PeerId) -> Result<OpId> {
        Engine::locate(self, now, id)
    }

    fn located(outcome: Outcome<A>) -> Located<A> {
        let (contact, named_by) = match outcome {
            Outcome::Located { contact, named_by } => (contact, named_by),
            _ => (None, Vec::new()),
        };
        Located {
            addr: contact.map(|contact| contact.addr),
            named_by: named_by.into_iter().map(|contact| contact.addr).collect(),
        }
    }

    fn next_hop(&self, id: &PeerId) -> Option<(PeerId, A)> {
        let next = Engine::next_hop(self, id)?;
        Some((next.id, next.addr.clone()))
    }

    fn cancel(&mut self, op: OpId) {
        Engine::cancel(self, op);
    }

    fn operation_event(event: Event<A>) -> Option<OperationEvent<OpId, Progress, Outcome<A>>> {
        Some(match event {
            Event::Progress { op, progress } => OperationEvent::Progress(op, progress),
            Event::Done { op, outcome, .. } => OperationEvent::Done(op, outcome),
        })
    }

    fn request_timeout(&self) -> Duration {
        self.config().request_timeout
    }
}
