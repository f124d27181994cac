//! A Chord ring as a swarm: nodes by their ids, records by their keys, over any swarm with asks.
//!
//! The engine is [`p2p_protocols::chord`]; what an overlay does with it stands at [`overlay`](crate::overlay). Made, a node
//! is a ring of its own: `join` it through the addresses below of one or more that are there. A node that goes for good
//! should `leave`, so that what it keeps is handed over at once.

use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, AskSwarm, Error, PeerId, Rejection, Result};
use p2p_protocols::chord::{
    self, Config, Contact, Engine, Found, NoRecords, OpError, OpId, Outcome, Progress, RequestId, Rules,
    Validator,
};

use p2p_protocols::overlay::TOKEN_BYTES;

use crate::overlay::{
    Event, Failure, Identity, Located, Operation, OverlayConfig, OverlaySwarm, Router, Transmit, parse_named,
};

/// A node of a Chord ring, over the swarm `S`; see the [module](self).
pub type ChordSwarm<A, S> = OverlaySwarm<A, S, Engine<A>>;

/// An operation of a [`ChordSwarm`].
pub type ChordOperation<A, S, T> = Operation<A, S, Engine<A>, T>;

/// Bounds of the MTU below: the engine's shortest message, and a byte in front.
const MIN_INNER_MTU: usize = 1025;

/// Bounds and rules of a [`ChordSwarm`].
pub struct ChordConfig {
    /// The engine's. Its [`message`](Config::message) is cut down to what the swarm below carries, and ids are believed
    /// where the identity is [`Identity::Unproven`], whatever it says.
    pub engine: Config,
    /// The overlay's.
    pub overlay: OverlayConfig,
    /// Which records are good. Default: none.
    pub validator: Box<dyn Validator>,
}

impl Default for ChordConfig {
    fn default() -> Self {
        Self {
            engine: Config::default(),
            overlay: OverlayConfig::default(),
            validator: Box::new(NoRecords),
        }
    }
}

impl ChordConfig {
    /// Keeps records that this validator takes.
    #[must_use]
    pub fn validator(mut self, validator: impl Validator + 'static) -> Self {
        self.validator = Box::new(validator);
        self
    }
}

impl std::fmt::Debug for ChordConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChordConfig")
            .field("engine", &self.engine)
            .field("overlay", &self.overlay)
            .finish_non_exhaustive()
    }
}

impl<A: Addr, S: AskSwarm<A>> ChordSwarm<A, S> {
    /// A node over `inner` that keeps no records for others, with the default limits.
    ///
    /// # Errors
    /// As [`with_config`](Self::with_config).
    pub fn new(inner: S, identity: Identity<'_>) -> Result<Self> {
        Self::with_config(inner, identity, ChordConfig::default())
    }

    /// The same with other limits and rules.
    ///
    /// # Errors
    /// As [`OverlaySwarm::with_engine`].
    pub fn with_config(inner: S, identity: Identity<'_>, config: ChordConfig) -> Result<Self> {
        let ChordConfig {
            mut engine,
            overlay,
            validator,
        } = config;
        if inner.mtu() < MIN_INNER_MTU {
            let reason = format!(
                "Chord needs an MTU of {MIN_INNER_MTU} bytes, and there are {}",
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

    /// Joins the ring of the first of these nodes that takes this one in, by their addresses below. Comes to this node's
    /// successor, as soon as that knows this node, so that others find it. It is tried
    /// [`join_tries`](Config::join_tries) times before it fails.
    ///
    /// # Errors
    /// [`Error::Invalid`] without an address, [`Error::Limit`] with too many operations, [`Error::Closed`]. The operation's:
    /// [`Error::Unreachable`] if none of them took this node in.
    pub fn join(&self, bootstraps: &[A]) -> Result<ChordOperation<A, S, Contact<A>>> {
        let take = |outcome| match ended("joining", outcome)? {
            Outcome::Joined(successor) => Ok(successor),
            other => Err(unexpected(&other)),
        };
        self.begin(|engine, now| engine.join(now, bootstraps), take)
    }

    /// Finds the node that succeeds a key, and what it took to find it.
    ///
    /// # Errors
    /// [`Error::Limit`] with too many operations, [`Error::Closed`]. The operation's: [`Error::Unreachable`] if none of those
    /// who know the way answered, or the lookup has sent as many requests as it may.
    pub fn lookup(&self, key: PeerId) -> Result<ChordOperation<A, S, Found<A>>> {
        let take = |outcome| match ended("looking a key up", outcome)? {
            Outcome::Found(found) => Ok(found),
            other => Err(unexpected(&other)),
        };
        self.begin(|engine, now| engine.lookup(now, key), take)
    }

    /// Fetches a record, if there is one.
    ///
    /// # Errors
    /// As [`lookup`](Self::lookup).
    pub fn get(&self, key: PeerId) -> Result<ChordOperation<A, S, Option<Vec<u8>>>> {
        let take = |outcome| match ended("getting a record", outcome)? {
            Outcome::Value(value) => Ok(value),
            other => Err(unexpected(&other)),
        };
        self.begin(|engine, now| engine.get(now, key), take)
    }

    /// Puts a record with its key's successor, which copies it to those after it. It is kept for `ttl`, rounded up to
    /// seconds, as far as those who keep it allow. To keep it for longer put it again.
    ///
    /// # Errors
    /// As [`lookup`](Self::lookup), [`Error::Invalid`] for a record that the validator does not take or that expires at
    /// once, [`Error::MtuExceeded`] for one that is too long. The operation's: [`Error::Invalid`] if a better record stands
    /// under the key.
    pub fn put(&self, key: PeerId, value: &[u8], ttl: Duration) -> Result<ChordOperation<A, S, ()>> {
        let take = |outcome| match ended("putting a record", outcome)? {
            Outcome::Stored => Ok(()),
            other => Err(unexpected(&other)),
        };
        self.begin(|engine, now| engine.put(now, key, value, ttl), take)
    }

    /// Hands this node's records to its successor and says goodbye to its neighbours. Close the swarm then.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is leaving already, [`Error::Closed`].
    pub fn leave(&self) -> Result<ChordOperation<A, S, ()>> {
        let take = |outcome| match ended("leaving", outcome)? {
            Outcome::Left => Ok(()),
            other => Err(unexpected(&other)),
        };
        self.begin(Engine::leave, take)
    }

    /// The nodes after this one on the ring, the next first.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn successors(&self) -> Result<Vec<Contact<A>>> {
        self.with(|engine, _| engine.successors().to_vec())
    }

    /// The node before this one on the ring, if it is known.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn predecessor(&self) -> Result<Option<Contact<A>>> {
        self.with(|engine, _| engine.predecessor().cloned())
    }
}

/// What an operation came to, or its error as a swarm's.
fn ended<A>(doing: &'static str, ended: Result<Outcome<A>, OpError>) -> Result<Outcome<A>> {
    ended.map_err(|why| match why {
        OpError::Stale => Error::invalid("record", why.to_string()),
        _ => Error::unreachable(&"the ring", format!("{doing}: {why}")),
    })
}

/// The engine ended an operation as if it were another one.
fn unexpected<A: std::fmt::Debug>(outcome: &Outcome<A>) -> Error {
    tracing::error!(
        layer = "chord",
        ?outcome,
        "an outcome of another kind of operation"
    );
    Error::invalid(
        "outcome",
        "the operation ended like one of another kind, which is a fault of this library",
    )
}

impl<A: Addr> Router<A> for Engine<A> {
    const LAYERS: [&'static str; 4] = ["chord", "chord-ask", "chord-relay", "chord-request"];

    type OpId = OpId;
    type RequestId = RequestId;
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

    fn handle_request(&mut self, now: Duration, from: &A, request: &[u8]) -> Result<Vec<u8>, Rejection> {
        let served = Engine::handle_request(self, now, from, request);
        served.map_err(chord::Refusal::rejection)
    }

    fn handle_answer(&mut self, now: Duration, id: RequestId, answer: Result<&[u8], Failure>) {
        match answer {
            Ok(answer) => Engine::handle_answer(self, now, id, answer),
            Err(Failure::Unreachable) => self.handle_failure(now, id, chord::Failure::Unreachable),
            Err(Failure::Rejected) => self.handle_failure(now, id, chord::Failure::Rejected),
        }
    }

    fn handle_timeout(&mut self, now: Duration) {
        Engine::handle_timeout(self, now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit<A, RequestId>> {
        let chord::Transmit { to, id, request } = Engine::poll_transmit(self)?;
        Some(Transmit { to, id, request })
    }

    fn poll_event(&mut self) -> Option<Event<A, Self>> {
        loop {
            return Some(match Engine::poll_event(self)? {
                chord::Event::Progress { op, progress } => Event::Progress(op, progress),
                chord::Event::Done { op, outcome } => Event::Done(op, outcome),
                chord::Event::Alone => {
                    tracing::debug!(layer = Self::LAYERS[0], "all neighbours are gone");
                    continue;
                }
            });
        }
    }

    fn poll_timeout(&self) -> Option<Duration> {
        Engine::poll_timeout(self)
    }

    fn request_timeout(&self) -> Duration {
        self.config().request_timeout
    }
}
