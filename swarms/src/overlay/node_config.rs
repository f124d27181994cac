//! The configuration of a node whose engine stores records, and its creation.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, AskSwarm, Error, PeerId, Result, Swarm};
use p2p_protocols::overlay::{NoRecords, TOKEN_BYTES, Validator};

use super::{Identity, OverlayConfig, OverlaySwarm, Router};
use crate::env::Env;

/// An engine that stores records: [`OverlaySwarm::new`] creates its nodes.
pub trait RecordEngine<A: Addr>: Router<A> {
    /// The configuration of the engine.
    type Config: Default;

    /// The name of the protocol, for errors.
    const NAME: &'static str;
    /// Minimum length of the engine's messages, in bytes.
    const MIN_MESSAGE: usize;

    /// Limits a configuration to what the swarm below and the identity permit.
    fn restrict(config: &mut Self::Config, given: Given);

    /// Creates an engine.
    fn create(new: NewEngine<A, Self::Config>) -> Self;
}

/// Parses the text of an address; `None` for a text that is none.
pub type ParseAddr<A> = Box<dyn Fn(&str) -> Option<A> + Send + Sync>;

/// What an engine of a new node is created from.
pub struct NewEngine<A, C> {
    /// The id of the node.
    pub id: PeerId,
    /// The configuration, restricted by [`RecordEngine::restrict`].
    pub config: C,
    /// Parses addresses of peers.
    pub parse: ParseAddr<A>,
    /// Decides which records are valid.
    pub validator: Box<dyn Validator>,
    /// The current time.
    pub now: Duration,
    /// The seed of the engine's random numbers.
    pub seed: u64,
}

impl<A, C: fmt::Debug> fmt::Debug for NewEngine<A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewEngine")
            .field("id", &self.id)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What the swarm below and the identity determine of an engine's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// Whether ids are accepted that no address proves.
    pub unproven_ids: bool,
    /// Maximum length of the engine's messages, in bytes.
    pub message: usize,
}

/// Configuration of a node of an overlay that stores records, for an engine with the configuration `C`.
pub struct NodeConfig<C> {
    /// Configuration of the engine. Its `message` is reduced to the MTU of the swarm below, and unproven ids are
    /// accepted if the identity is [`Identity::Unproven`], whatever it says.
    pub engine: C,
    /// Configuration of the overlay.
    pub overlay: OverlayConfig,
    /// Decides which records are valid. Default: none is.
    pub validator: Box<dyn Validator>,
}

impl<C: Default> Default for NodeConfig<C> {
    fn default() -> Self {
        Self {
            engine: C::default(),
            overlay: OverlayConfig::default(),
            validator: Box::new(NoRecords),
        }
    }
}

impl<C> NodeConfig<C> {
    /// Sets the validator of records.
    #[must_use]
    pub fn validator(mut self, validator: impl Validator + 'static) -> Self {
        self.validator = Box::new(validator);
        self
    }
}

impl<C: fmt::Debug> fmt::Debug for NodeConfig<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeConfig")
            .field("engine", &self.engine)
            .field("overlay", &self.overlay)
            .finish_non_exhaustive()
    }
}

impl<A: Addr, S: AskSwarm<A>, R: RecordEngine<A>> OverlaySwarm<A, S, R> {
    /// Creates a node over `inner` that stores no records for other nodes, with the default limits.
    ///
    /// # Errors
    /// Returns the errors of [`with_config`](Self::with_config).
    pub fn new(inner: S, identity: Identity<'_>) -> Result<Self> {
        Self::with_config(inner, identity, NodeConfig::default())
    }

    /// Creates a node with the given configuration.
    ///
    /// # Errors
    /// Returns the errors of [`with_engine`](Self::with_engine), and [`Error::Invalid`] if the MTU below is too
    /// small.
    pub fn with_config(inner: S, identity: Identity<'_>, config: NodeConfig<R::Config>) -> Result<Self> {
        let NodeConfig {
            engine: mut config,
            overlay,
            validator,
        } = config;
        // One byte of header is before each message of the engine.
        let (mtu, least) = (inner.mtu(), R::MIN_MESSAGE + 1);
        if mtu < least {
            let name = R::NAME;
            let reason = format!("{name} needs an MTU of at least {least} bytes below, and it is {mtu}");
            return Err(Error::invalid("inner swarm", reason));
        }
        let unproven_ids = matches!(identity, Identity::Unproven(_));
        let token = if unproven_ids { TOKEN_BYTES } else { 0 };
        let message = mtu - 1 - token;
        R::restrict(
            &mut config,
            Given {
                unproven_ids,
                message,
            },
        );
        Self::with_engine(inner, identity, overlay, |inner, id, now| {
            R::create(NewEngine {
                id,
                config,
                parse: Box::new(names_of(inner)),
                validator,
                now,
                seed: Env::current().seed(),
            })
        })
    }
}

/// Returns a parser of addresses that peers send, by the swarm below.
///
/// An IPv6 zone is only meaningful on its own host, and looking one up by name is slow, so addresses with a
/// zone are refused.
fn names_of<A: Addr, S: Swarm<A>>(inner: &Arc<S>) -> impl Fn(&str) -> Option<A> + Send + Sync + use<A, S> {
    let inner = inner.clone();
    move |text| {
        if crate::udp::has_zone(text) {
            return None;
        }
        inner.parse_addr(text).ok()
    }
}
