//! A Chord ring as a swarm: nodes by id and records by key, over any swarm with asks.
//!
//! The engine is [`p2p_protocols::chord`]; [`overlay`](crate::overlay) describes how messages are sent to
//! ids. A new node is a ring of its own: `join` it through the addresses, in the swarm below, of one or more
//! existing nodes. A node that shuts down permanently should `leave` first, which hands its records over.
//!
//! # Limits
//! See [`ChordConfig`]: [`Config`] bounds the engine, [`OverlayConfig`](crate::OverlayConfig) relaying and queues.
//!
//! # Security
//! See [`overlay`](crate::overlay#security). A record is accepted only if the
//! [`Validator`](p2p_protocols::overlay::Validator) accepts it; the default validator accepts none.
//!
//! # Cancel safety
//! Dropping a [`ChordOperation`] cancels it.

use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, AskSwarm, Error, PeerId, Result};
use p2p_protocols::chord::{Config, Contact, Engine, Event, Found, OpError, OpId, Outcome, Progress, Rules};

use crate::overlay::{
    Given, Located, NewEngine, NodeConfig, Operation, OperationEvent, OverlaySwarm, RecordEngine, Router,
    unexpected,
};

/// A node of a Chord ring, over the swarm `S`; see the [module](self).
///
/// ```
/// use p2p::{PeerId, Swarm};
/// use p2p_swarms::{ChordSwarm, Identity, MemorySwarm};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// let mem = MemorySwarm::new();
/// let bootstrap = mem.local_addr();
/// let alice = ChordSwarm::new(mem.realm().open(), Identity::Unproven(PeerId::from([1; 32])))?;
/// let bob = ChordSwarm::new(mem, Identity::Unproven(PeerId::from([2; 32])))?;
///
/// alice.join(&[bootstrap])?.finish().await?;
/// alice.tell(&bob.local_addrs()[0], alice.packet(b"hello")).await?;
/// assert_eq!(bob.receive().await?.src, PeerId::from([1; 32]));
/// # Ok(())
/// # }
/// ```
pub type ChordSwarm<A, S> = OverlaySwarm<A, S, Engine<A>>;

/// A running operation of a [`ChordSwarm`].
pub type ChordOperation<A, S, T> = Operation<A, S, Engine<A>, T>;

/// Configuration of a [`ChordSwarm`].
pub type ChordConfig = NodeConfig<Config>;

impl<A: Addr, S: AskSwarm<A>> ChordSwarm<A, S> {
    /// Joins the ring of the first of these nodes (by their addresses below) that accepts this node.
    ///
    /// Resolves to this node's successor, once the successor knows this node, so that other nodes find it.
    /// The join is tried [`join_tries`](Config::join_tries) times before it fails.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] without an address, [`Error::Limit`] if too many operations run, and
    /// [`Error::Closed`]. The operation returns [`Error::Unreachable`] if none of the nodes accepted this
    /// node.
    pub fn join(&self, bootstraps: &[A]) -> Result<ChordOperation<A, S, Contact<A>>> {
        let take = |outcome| match ended("joining", outcome)? {
            Outcome::Joined(successor) => Ok(successor),
            other => Err(unexpected("chord", &other)),
        };
        self.begin(|engine, now| engine.join(now, bootstraps), take)
    }

    /// Looks up the successor of a key, with the cost of the lookup.
    ///
    /// # Errors
    /// Returns [`Error::Limit`] if too many operations run, and [`Error::Closed`]. The operation returns
    /// [`Error::Unreachable`] if no node on the route answered, or the lookup has sent the maximum number of
    /// requests.
    pub fn lookup(&self, key: PeerId) -> Result<ChordOperation<A, S, Found<A>>> {
        let take = |outcome| match ended("looking a key up", outcome)? {
            Outcome::Found(found) => Ok(found),
            other => Err(unexpected("chord", &other)),
        };
        self.begin(|engine, now| engine.lookup(now, key), take)
    }

    /// Fetches a record, if there is one.
    ///
    /// # Errors
    /// Returns the errors of [`lookup`](Self::lookup).
    pub fn get(&self, key: PeerId) -> Result<ChordOperation<A, S, Option<Vec<u8>>>> {
        let take = |outcome| match ended("getting a record", outcome)? {
            Outcome::Value(value) => Ok(value),
            other => Err(unexpected("chord", &other)),
        };
        self.begin(|engine, now| engine.get(now, key), take)
    }

    /// Stores a record at the successor of its key, which replicates it to the nodes after it.
    ///
    /// The record is kept for `ttl`, rounded up to seconds, as far as the limits of the storing nodes permit.
    /// Put it again to extend that.
    ///
    /// # Errors
    /// Returns the errors of [`lookup`](Self::lookup), [`Error::Invalid`] for a record that the validator
    /// rejects or that expires immediately, and [`Error::MtuExceeded`] for one that is too long. The
    /// operation returns [`Error::Invalid`] if a better record exists under the key.
    pub fn put(&self, key: PeerId, value: &[u8], ttl: Duration) -> Result<ChordOperation<A, S, ()>> {
        let take = |outcome| match ended("putting a record", outcome)? {
            Outcome::Stored => Ok(()),
            other => Err(unexpected("chord", &other)),
        };
        self.begin(|engine, now| engine.put(now, key, value, ttl), take)
    }

    /// Hands this node's records to its successor and announces the departure to its neighbours. Close the
    /// swarm afterwards.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] if the node is already leaving, and [`Error::Closed`].
    pub fn leave(&self) -> Result<ChordOperation<A, S, ()>> {
        let take = |outcome| match ended("leaving", outcome)? {
            Outcome::Left => Ok(()),
            other => Err(unexpected("chord", &other)),
        };
        self.begin(Engine::leave, take)
    }

    /// Returns the nodes after this one on the ring, the nearest first.
    ///
    /// # Errors
    /// Returns [`Error::Closed`] if the swarm is closed.
    pub fn successors(&self) -> Result<Vec<Contact<A>>> {
        self.with(|engine, _| engine.successors().to_vec())
    }

    /// Returns the node before this one on the ring, if it is known.
    ///
    /// # Errors
    /// Returns [`Error::Closed`] if the swarm is closed.
    pub fn predecessor(&self) -> Result<Option<Contact<A>>> {
        self.with(|engine, _| engine.predecessor().cloned())
    }
}

/// Converts the result of an operation to the error type of swarms.
fn ended<A>(doing: &'static str, ended: Result<Outcome<A>, OpError>) -> Result<Outcome<A>> {
    ended.map_err(|why| match why {
        OpError::Stale => Error::invalid("record", why.to_string()),
        _ => Error::unreachable(&"the ring", format!("{doing}: {why}")),
    })
}

impl<A: Addr> RecordEngine<A> for Engine<A> {
    type Config = Config;

    const NAME: &'static str = "Chord";
    const MIN_MESSAGE: usize = 1024;

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
    const LAYERS: [&'static str; 4] = ["chord", "chord-ask", "chord-relay", "chord-request"];

    type OpId = OpId;
    type Outcome = Result<Outcome<A>, OpError>;
    type Progress = Progress;

    fn locate(&mut self, now: Duration, id: PeerId) -> Result<OpId> {
        Engine::locate(self, now, id)
    }

    fn located(outcome: Self::Outcome) -> Located<A> {
        let (node, named_by) = match outcome {
            Ok(Outcome::Located { node, named_by }) => (node, named_by),
            _ => (None, Vec::new()),
        };
        Located {
            addr: node.map(|node| node.addr),
            named_by: named_by.into_iter().map(|node| node.addr).collect(),
        }
    }

    fn next_hop(&self, id: &PeerId) -> Option<(PeerId, A)> {
        let next = Engine::next_hop(self, id)?;
        Some((next.id, next.addr.clone()))
    }

    fn cancel(&mut self, op: OpId) {
        Engine::cancel(self, op);
    }

    fn operation_event(event: Event<A>) -> Option<OperationEvent<OpId, Progress, Self::Outcome>> {
        match event {
            Event::Progress { op, progress } => Some(OperationEvent::Progress(op, progress)),
            Event::Done { op, outcome } => Some(OperationEvent::Done(op, outcome)),
            Event::Alone => {
                tracing::debug!(layer = Self::LAYERS[0], "all neighbours are gone");
                None
            }
        }
    }

    fn request_timeout(&self) -> Duration {
        self.config().request_timeout
    }
}
