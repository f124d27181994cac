//! A Kademlia network as a swarm: nodes by their ids, records by their keys, over any swarm with asks.
//!
//! The engine is [`p2p_protocols::kademlia`]; what an overlay does with it stands at [`overlay`](crate::overlay). Made,
//! a node knows nobody: `join` it through the addresses below of one or more that are there.

use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, AskSwarm, Error, PeerId, Rejection, Result};
use p2p_protocols::kademlia::{self, Config, Engine, NoRecords, OpId, Outcome, RequestId, Rules};
pub use p2p_protocols::kademlia::{Contact, Progress, Record, Validator};

use p2p_protocols::overlay::TOKEN_BYTES;

use crate::overlay::{
    Event, Failure, Identity, Located, Operation, OverlayConfig, OverlaySwarm, Router, Transmit, parse_named,
};

/// A node of a Kademlia network, over the swarm `S`; see the [module](self).
pub type KademliaSwarm<A, S> = OverlaySwarm<A, S, Engine<A>>;

/// An operation of a [`KademliaSwarm`].
pub type KademliaOperation<A, S, T> = Operation<A, S, Engine<A>, T>;

/// Bounds of the MTU below: the engine's shortest message, and a byte in front.
const MIN_INNER_MTU: usize = 513;

/// Bounds and rules of a [`KademliaSwarm`].
pub struct KademliaConfig {
    /// The engine's. Its [`message`](Config::message) is cut down to what the swarm below carries, and ids are believed
    /// where the identity is [`Identity::Unproven`], whatever it says.
    pub engine: Config,
    /// The overlay's.
    pub overlay: OverlayConfig,
    /// Which records are good. Default: none.
    pub validator: Box<dyn Validator>,
}

impl Default for KademliaConfig {
    fn default() -> Self {
        Self {
            engine: Config::default(),
            overlay: OverlayConfig::default(),
            validator: Box::new(NoRecords),
        }
    }
}

impl KademliaConfig {
    /// Keeps records that this validator takes.
    #[must_use]
    pub fn validator(mut self, validator: impl Validator + 'static) -> Self {
        self.validator = Box::new(validator);
        self
    }
}

impl std::fmt::Debug for KademliaConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KademliaConfig")
            .field("engine", &self.engine)
            .field("overlay", &self.overlay)
            .finish_non_exhaustive()
    }
}

impl<A: Addr, S: AskSwarm<A>> KademliaSwarm<A, S> {
    /// A node over `inner` that keeps no records for others, with the default limits.
    ///
    /// # Errors
    /// As [`with_config`](Self::with_config).
    pub fn new(inner: S, identity: Identity<'_>) -> Result<Self> {
        Self::with_config(inner, identity, KademliaConfig::default())
    }

    /// The same with other limits and rules.
    ///
    /// # Errors
    /// As [`OverlaySwarm::with_engine`].
    pub fn with_config(inner: S, identity: Identity<'_>, config: KademliaConfig) -> Result<Self> {
        let KademliaConfig {
            mut engine,
            overlay,
            validator,
        } = config;
        if inner.mtu() < MIN_INNER_MTU {
            let reason = format!(
                "Kademlia needs an MTU of {MIN_INNER_MTU} bytes, and there are {}",
                inner.mtu()
            );
            return Err(Error::invalid("inner swarm", reason));
        }
        engine.unproven_ids = matches!(identity, Identity::Unproven(_));
        let token = if engine.unproven_ids { TOKEN_BYTES } else { 0 };
        engine.message = engine.message.min(inner.mtu() - 1 - token);
        Self::with_engine(inner, identity, overlay, |inner, id, now| {
            let inner = inner.clone();
            let parse = move |text: &str| parse_named(&*inner, text);
            let rules = Rules::new(engine, parse, validator);
            Engine::new(id, Arc::new(rules), now, rand::random())
        })
    }

    /// Gets to know the network through some of its nodes, by their addresses below; without any, through the contacts
    /// that there are. Comes to how many contacts there are then: with none, nobody answered.
    ///
    /// # Errors
    /// [`Error::Limit`] with too many operations, [`Error::Closed`].
    pub fn join(&self, bootstraps: &[A]) -> Result<KademliaOperation<A, S, usize>> {
        let take = |outcome| match outcome {
            Outcome::Joined { contacts } => Ok(contacts),
            other => Err(unexpected(&other)),
        };
        self.begin(|engine, now| engine.join(now, bootstraps), take)
    }

    /// Finds the nodes nearest to an id.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn find_node(&self, id: PeerId) -> Result<KademliaOperation<A, S, Vec<Contact<A>>>> {
        let take = |outcome| match outcome {
            Outcome::Nodes(nodes) => Ok(nodes),
            other => Err(unexpected(&other)),
        };
        self.begin(|engine, now| engine.find_node(now, id), take)
    }

    /// Finds a record: the best of those that a quorum of nodes gives.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn get(&self, key: PeerId) -> Result<KademliaOperation<A, S, Option<Record>>> {
        let take = |outcome| match outcome {
            Outcome::Record(record) => Ok(record),
            other => Err(unexpected(&other)),
        };
        self.begin(|engine, now| engine.get(now, key), take)
    }

    /// Puts a record on the nodes nearest to its key, and again from time to time until
    /// [`unpublish`](Self::unpublish). Comes to how many other nodes keep it.
    ///
    /// # Errors
    /// As [`join`](Self::join), [`Error::Invalid`] for a record that the validator does not take or that lasts for less
    /// than a second, [`Error::MtuExceeded`] for one that is too long, [`Error::Limit`] with too many own records.
    pub fn put(&self, key: PeerId, value: &[u8], ttl: Duration) -> Result<KademliaOperation<A, S, usize>> {
        self.begin(|engine, now| engine.put(now, key, value, ttl), kept)
    }

    /// Publishes a record no more; says whether it was published. Copies last until they expire.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn unpublish(&self, key: &PeerId) -> Result<bool> {
        self.with(|engine, _| engine.unpublish(key))
    }

    /// Tells the nodes nearest to a key that this node provides it, and again from time to time until
    /// [`stop_providing`](Self::stop_providing). Comes to how many other nodes keep that.
    ///
    /// # Errors
    /// As [`join`](Self::join), and [`Error::Limit`] with too many keys.
    pub fn provide(&self, key: PeerId) -> Result<KademliaOperation<A, S, usize>> {
        self.begin(|engine, now| engine.provide(now, key), kept)
    }

    /// Provides a key no more; says whether it was provided. Others learn it as what they keep expires.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn stop_providing(&self, key: &PeerId) -> Result<bool> {
        self.with(|engine, _| engine.stop_providing(key))
    }

    /// Finds who provides a key, as others say. None of them was asked.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn providers(&self, key: PeerId) -> Result<KademliaOperation<A, S, Vec<Contact<A>>>> {
        let take = |outcome| match outcome {
            Outcome::Providers(nodes) => Ok(nodes),
            other => Err(unexpected(&other)),
        };
        self.begin(|engine, now| engine.providers(now, key), take)
    }

    /// How many nodes have a place in a bucket.
    ///
    /// # Errors
    /// [`Error::Closed`].
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
        other => Err(unexpected(&other)),
    }
}

/// The engine ended an operation as if it were another one.
fn unexpected<A: std::fmt::Debug>(outcome: &Outcome<A>) -> Error {
    tracing::error!(layer = "kad", ?outcome, "an outcome of another kind of operation");
    Error::invalid(
        "outcome",
        "the operation ended like one of another kind, which is a fault of this library",
    )
}

impl<A: Addr> Router<A> for Engine<A> {
    const LAYERS: [&'static str; 4] = ["kad", "kad-ask", "kad-relay", "kad-request"];

    type OpId = OpId;
    type RequestId = RequestId;
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

    fn handle_request(&mut self, now: Duration, from: &A, request: &[u8]) -> Result<Vec<u8>, Rejection> {
        let served = Engine::handle_request(self, now, from, request);
        served.map_err(kademlia::Refusal::rejection)
    }

    fn handle_answer(&mut self, now: Duration, id: RequestId, answer: Result<&[u8], Failure>) {
        match answer {
            Ok(answer) => Engine::handle_answer(self, now, id, answer),
            Err(Failure::Unreachable) => self.handle_failure(now, id, kademlia::Failure::Unreachable),
            Err(Failure::Rejected) => self.handle_failure(now, id, kademlia::Failure::Rejected),
        }
    }

    fn handle_timeout(&mut self, now: Duration) {
        Engine::handle_timeout(self, now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit<A, RequestId>> {
        let kademlia::Transmit { to, id, request } = Engine::poll_transmit(self)?;
        Some(Transmit { to, id, request })
    }

    fn poll_event(&mut self) -> Option<Event<A, Self>> {
        Some(match Engine::poll_event(self)? {
            kademlia::Event::Progress { op, progress } => Event::Progress(op, progress),
            kademlia::Event::Done { op, outcome, .. } => Event::Done(op, outcome),
        })
    }

    fn poll_timeout(&self) -> Option<Duration> {
        Some(Engine::poll_timeout(self))
    }

    fn request_timeout(&self) -> Duration {
        self.config().request_timeout
    }
}
