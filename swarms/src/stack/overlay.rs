//! Overlays in a stack: identity, bootstrap, and handles for overlay operations.
//!
//! A new overlay needs an `impl` of [`Network`] for its engine, a word in the grammar, and a variant of
//! [`Overlay`].

use std::fmt;
use std::sync::Arc;

use p2p::{Addr as _, BoxAddr, BoxAskSwarm, BoxSecureAskSwarm, Error, PeerId, Result, Swarm as _};
use p2p_formats::x509::{Fingerprint, PrivateKey, Registry, shake256};
use p2p_protocols::{chord, kademlia};
use parking_lot::{Mutex, MutexGuard};
use rand::seq::IteratorRandom as _;

use super::below::Below;
use super::build::text_error;
use super::grammar::Placed;
use super::read::Piece;
use super::{Gossip, Stack, StackError, StackText};
use crate::env::Env;
use crate::map::EraseSwarm;
use crate::overlay::{Identity, OverlaySwarm, Router};
use crate::{ChordConfig, ChordSwarm, KademliaConfig, KademliaSwarm};

/// Maximum number of nodes of the same text through which the next one joins.
const THROUGH: usize = 3;
/// Maximum number of nodes of one text that are remembered. At the bound the oldest is removed.
const REMEMBERED: usize = 4096;

/// The inner type of overlays in stacks. Code that needs an overlay over any stack should use this type,
/// which is already compiled.
type Inner = BoxSecureAskSwarm<BoxAddr>;

/// An engine whose overlay has a word in the stack grammar.
pub(super) trait Network: Router<BoxAddr> {
    /// Creates a node without contacts; if it `visits`, it serves no requests. `fingerprint` is the function of the base
    /// that derives ids from keys, if it is not one of this crate's.
    fn node(
        inner: Inner,
        identity: Identity<'_>,
        visits: bool,
        fingerprint: Option<Fingerprint>,
    ) -> Result<OverlaySwarm<BoxAddr, Inner, Self>>;

    /// Joins the network; returns the number of known nodes.
    fn join(
        node: &OverlaySwarm<BoxAddr, Inner, Self>,
        through: &[BoxAddr],
    ) -> impl Future<Output = Result<usize>> + Send;

    /// Wraps the node in its [`Overlay`] variant.
    fn handle(node: OverlayNode<Self>) -> Overlay;
}

impl Network for kademlia::Engine<BoxAddr> {
    /// Accepts every record and keeps the first one of each key: a stack text cannot specify a validator.
    fn node(
        inner: Inner,
        identity: Identity<'_>,
        visits: bool,
        fingerprint: Option<Fingerprint>,
    ) -> Result<KademliaSwarm<BoxAddr, Inner>> {
        let mut config = KademliaConfig::default().validator(|_: &PeerId, _: &[u8]| true);
        config.engine.serves = !visits;
        let sealing = &mut config.overlay.sealing;
        sealing.fingerprint = fingerprint.unwrap_or(sealing.fingerprint);
        KademliaSwarm::with_config(inner, identity, config)
    }

    async fn join(node: &KademliaSwarm<BoxAddr, Inner>, through: &[BoxAddr]) -> Result<usize> {
        KademliaSwarm::join(node, through)?.finish().await
    }

    fn handle(node: OverlayNode<Self>) -> Overlay {
        Overlay::Kademlia(node)
    }
}

impl Network for chord::Engine<BoxAddr> {
    /// Accepts records as a Kademlia node does. On a ring every node serves, visitors as well: a node between
    /// two others is on the route of both.
    fn node(
        inner: Inner,
        identity: Identity<'_>,
        _visits: bool,
        fingerprint: Option<Fingerprint>,
    ) -> Result<ChordSwarm<BoxAddr, Inner>> {
        let mut config = ChordConfig::default().validator(|_: &PeerId, _: &[u8]| true);
        let sealing = &mut config.overlay.sealing;
        sealing.fingerprint = fingerprint.unwrap_or(sealing.fingerprint);
        ChordSwarm::with_config(inner, identity, config)
    }

    /// Returns 1, the successor.
    async fn join(node: &ChordSwarm<BoxAddr, Inner>, through: &[BoxAddr]) -> Result<usize> {
        ChordSwarm::join(node, through)?.finish().await?;
        Ok(1)
    }

    fn handle(node: OverlayNode<Self>) -> Overlay {
        Overlay::Chord(node)
    }
}

/// A handle on a node of an overlay in a stack, for operations other than tells and asks.
///
/// While a handle exists, the node is not dropped with its stack; closing the stack closes it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Overlay {
    /// `kad`
    Kademlia(Kademlia),
    /// `chord`
    Chord(Chord),
    /// `gossip`
    Gossip(Gossip),
}

impl Overlay {
    /// Returns the addresses below for other nodes to join through, best first: the argument of the word in
    /// their text.
    pub fn bootstraps(&self) -> Vec<BoxAddr> {
        match self {
            Overlay::Kademlia(node) => node.bootstraps(),
            Overlay::Chord(node) => node.bootstraps(),
            Overlay::Gossip(node) => node.inner().local_addrs(),
        }
    }
}

/// A handle on the node of a `kad` layer.
pub type Kademlia = OverlayNode<kademlia::Engine<BoxAddr>>;

/// A handle on the node of a `chord` layer.
pub type Chord = OverlayNode<chord::Engine<BoxAddr>>;

/// A handle on a node with the engine `R`, over any layers.
pub struct OverlayNode<R: Router<BoxAddr>> {
    swarm: Arc<OverlaySwarm<BoxAddr, Inner, R>>,
    /// Whether the layers below have keys.
    keys: bool,
}

impl<R: Router<BoxAddr>> OverlayNode<R> {
    /// Returns its id.
    pub fn id(&self) -> PeerId {
        self.swarm.id()
    }

    /// Returns the node, for the operations of its overlay: those of [`KademliaSwarm`] or [`ChordSwarm`].
    pub fn swarm(&self) -> &OverlaySwarm<BoxAddr, BoxSecureAskSwarm<BoxAddr>, R> {
        &self.swarm
    }

    /// Returns the addresses below, best first.
    pub fn bootstraps(&self) -> Vec<BoxAddr> {
        self.swarm.inner().local_addrs()
    }

    fn stack(&self) -> Stack {
        let swarm = EraseSwarm::erase(self.swarm.clone());
        if self.keys {
            Stack::SecureAsk(BoxSecureAskSwarm::new(swarm))
        } else {
            Stack::Ask(BoxAskSwarm::new(swarm))
        }
    }
}

impl<R: Router<BoxAddr>> Clone for OverlayNode<R> {
    /// Returns another handle on the same node.
    fn clone(&self) -> Self {
        let swarm = self.swarm.clone();
        Self { swarm, ..*self }
    }
}

impl<R: Router<BoxAddr>> fmt::Debug for OverlayNode<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.swarm.fmt(f)
    }
}

/// The nodes of one network that were built from one text and its clones.
#[derive(Clone, Default)]
pub(super) struct Members(Arc<Mutex<Vec<Member>>>);

pub(super) struct Member {
    pub(super) id: PeerId,
    pub(super) addr: BoxAddr,
    pub(super) is_open: Box<dyn Fn() -> bool + Send>,
}

impl Members {
    fn lock(&self) -> MutexGuard<'_, Vec<Member>> {
        self.0.lock()
    }

    /// Returns the current or last address of the node with this id.
    pub(super) fn place(&self, id: &PeerId) -> Option<BoxAddr> {
        let members = self.lock();
        let member = members.iter().find(|member| member.id == *id);
        member.map(|member| member.addr.clone())
    }

    /// Returns some open nodes.
    fn open(&self) -> Vec<BoxAddr> {
        let members = self.lock();
        let open = members.iter().filter(|member| (member.is_open)());
        open.take(THROUGH).map(|member| member.addr.clone()).collect()
    }

    /// Returns up to `most` randomly chosen open nodes.
    pub(super) fn some_open(&self, most: usize) -> Vec<BoxAddr> {
        let members = self.lock();
        let open = members.iter().filter(|member| (member.is_open)());
        open.map(|member| member.addr.clone())
            .sample(&mut Env::current().rng(), most)
    }

    pub(super) fn add(&self, member: Member) {
        let mut members = self.lock();
        members.retain(|known| known.id != member.id);
        if members.len() >= REMEMBERED {
            members.remove(0);
        }
        members.push(member);
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").finish_non_exhaustive()
    }
}

/// Adds an overlay to a stack, and joins it: through the addresses of the text, or else through nodes of the
/// same text.
pub(super) async fn put<R: Network>(
    text: &StackText,
    placed: &Placed,
    bootstraps: &str,
    below: Stack,
    key: &PrivateKey,
) -> Result<(Stack, Overlay), StackError> {
    let list = Piece {
        whole: &text.text,
        at: placed.argument_at,
        text: bootstraps,
    };
    let named = bootstraps_of(list, &below)?;
    let fail = |at, error| StackError::layer(&text.text, at, placed.layer.word(), error);
    let failed = |error| fail(placed.at, error);
    let node = node::<R>(text, below, key).map_err(failed)?;
    let members = placed.members.clone().unwrap_or_default();
    let through = if named.is_empty() {
        members.open()
    } else {
        named.clone()
    };
    let found = if through.is_empty() {
        Ok(0)
    } else {
        R::join(&node.swarm, &through).await
    };
    match found {
        Ok(0) if !named.is_empty() => {
            let error = Error::unreachable(&bootstraps, "no node answered at these addresses");
            return Err(fail(placed.argument_at, error));
        }
        found => found.map_err(failed)?,
    };
    // A visiting node serves no requests, so no node joins through it.
    if !text.visits
        && let Some(addr) = node.bootstraps().into_iter().next()
    {
        let id = node.id();
        let is_open = is_open(&node.swarm);
        members.add(Member { id, addr, is_open });
    }
    Ok((node.stack(), R::handle(node)))
}

/// Returns a function that reports whether a node is open, without keeping it alive.
fn is_open<R: Router<BoxAddr>>(node: &Arc<OverlaySwarm<BoxAddr, Inner, R>>) -> Box<dyn Fn() -> bool + Send> {
    let node = Arc::downgrade(node);
    Box::new(move || node.upgrade().is_some_and(|node| node.with(|_, _| ()).is_ok()))
}

/// Parses the bootstrap addresses of a text with the stack below.
fn bootstraps_of(list: Piece<'_>, below: &Stack) -> Result<Vec<BoxAddr>, StackError> {
    if list.text.is_empty() {
        return Ok(Vec::new());
    }
    let read = |piece: Piece<'_>| {
        let addr = below.parse_addr(piece.text);
        addr.map_err(|error| text_error(piece, error, "not an address of the layer below"))
    };
    list.split(';').map(read).collect()
}

/// Creates a node without contacts, with the identity that the layers below prove, or else that of the key.
fn node<R: Network>(text: &StackText, below: Stack, key: &PrivateKey) -> Result<OverlayNode<R>> {
    let proven = below.local_addrs().iter().any(|addr| addr.peer_id().is_some());
    let identity = if proven {
        Identity::Key(key)
    } else {
        let signer = Registry::default().signer(key);
        let signer = signer.map_err(|error| Error::invalid("private key", error.to_string()))?;
        Identity::Unproven(shake256(signer.public_key()))
    };
    let (inner, keys) = match below {
        Stack::SecureAsk(inner) => (inner, true),
        Stack::Ask(_) => (Inner::new(Below::new(below)), false),
        // The grammar checks where asks are available.
        Stack::Plain(_) | Stack::Secure(_) => {
            return Err(Error::invalid("inner swarm", "it does not support asks"));
        }
    };
    let swarm = Arc::new(R::node(inner, identity, text.visits, text.fingerprint())?);
    Ok(OverlayNode { swarm, keys })
}
