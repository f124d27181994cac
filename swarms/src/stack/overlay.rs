//! Overlays in a stack: who a node is there, through whom it joins, and what it does beside being a swarm.
//!
//! A new overlay is an `impl` of [`Network`] for its engine, a word in the grammar, and a variant of [`Overlay`].

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use p2p::{Addr as _, BoxAddr, BoxAskSwarm, BoxSecureAskSwarm, Error, PeerId, Result, Swarm as _};
use p2p_formats::x509::{PrivateKey, Registry, shake256};
use p2p_protocols::{chord, kademlia};
use rand::seq::IteratorRandom as _;

use super::below::Below;
use super::build::text_error;
use super::grammar::Placed;
use super::read::Piece;
use super::{Chord, Gossip, Kademlia, Stack, StackError, StackText};
use crate::map::EraseSwarm;
use crate::overlay::{Identity, OverlaySwarm, Router};
use crate::{ChordConfig, ChordSwarm, KademliaConfig, KademliaSwarm};

/// Nodes through which the next one of the same text joins, at most.
const THROUGH: usize = 3;
/// Nodes of one text that are remembered. At the limit the one that was built first is forgotten.
const REMEMBERED: usize = 4096;

/// What overlays of stacks stand on. Whoever needs an overlay and no types of its own below takes this, too, and has it
/// compiled already.
type Inner = BoxSecureAskSwarm<BoxAddr>;

/// An engine whose overlay is a word of a stack text.
pub(super) trait Network: Router<BoxAddr> {
    /// A node that knows nobody, and if it `visits`, serves nobody.
    fn node(inner: Inner, identity: Identity<'_>, visits: bool)
    -> Result<OverlaySwarm<BoxAddr, Inner, Self>>;

    /// Gets to know the network; says how many nodes are known then.
    fn join(
        node: &OverlaySwarm<BoxAddr, Inner, Self>,
        through: &[BoxAddr],
    ) -> impl Future<Output = Result<usize>> + Send;

    /// The handle that [`Overlay`] has of it.
    fn handle(node: OverlayNode<Self>) -> Overlay;
}

impl Network for kademlia::Engine<BoxAddr> {
    /// Records are whatever they are, and the first one stays: whose a record may be, a text does not say.
    fn node(inner: Inner, identity: Identity<'_>, visits: bool) -> Result<KademliaSwarm<BoxAddr, Inner>> {
        let mut config = KademliaConfig::default().validator(|_: &PeerId, _: &[u8]| true);
        config.engine.serves = !visits;
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
    /// Records as in a Kademlia network. On a ring everybody serves, also who only visits: who is between two others is on
    /// the way of both.
    fn node(inner: Inner, identity: Identity<'_>, _visits: bool) -> Result<ChordSwarm<BoxAddr, Inner>> {
        let config = ChordConfig::default().validator(|_: &PeerId, _: &[u8]| true);
        ChordSwarm::with_config(inner, identity, config)
    }

    /// Knows a successor then.
    async fn join(node: &ChordSwarm<BoxAddr, Inner>, through: &[BoxAddr]) -> Result<usize> {
        ChordSwarm::join(node, through)?.finish().await?;
        Ok(1)
    }

    fn handle(node: OverlayNode<Self>) -> Overlay {
        Overlay::Chord(node)
    }
}

/// A node of an overlay that is a layer of a stack: for what it does beside telling and asking.
///
/// As long as there is one, the node is not dropped with its stack; closing the stack closes it.
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
    /// The addresses below through which others join, best first: what stands behind the word in their text.
    pub fn bootstraps(&self) -> Vec<BoxAddr> {
        match self {
            Overlay::Kademlia(node) => node.bootstraps(),
            Overlay::Chord(node) => node.bootstraps(),
            Overlay::Gossip(node) => node.inner().local_addrs(),
        }
    }
}

/// A node with the engine `R`, over whatever the layers below are.
pub struct OverlayNode<R: Router<BoxAddr>> {
    pub(super) swarm: Arc<OverlaySwarm<BoxAddr, Inner, R>>,
    /// Whether the layers below have keys.
    keys: bool,
}

impl<R: Router<BoxAddr>> OverlayNode<R> {
    /// Its id.
    pub fn id(&self) -> PeerId {
        self.swarm.id()
    }

    /// The addresses below, best first.
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
    /// Another handle on the same node.
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the node of this id is or was last.
    pub(super) fn place(&self, id: &PeerId) -> Option<BoxAddr> {
        let members = self.lock();
        let member = members.iter().find(|member| member.id == *id);
        member.map(|member| member.addr.clone())
    }

    /// Some that are there.
    fn open(&self) -> Vec<BoxAddr> {
        let members = self.lock();
        let open = members.iter().filter(|member| (member.is_open)());
        open.take(THROUGH).map(|member| member.addr.clone()).collect()
    }

    /// As many as `most` of those that are there, whichever.
    pub(super) fn some_open(&self, most: usize) -> Vec<BoxAddr> {
        let members = self.lock();
        let open = members.iter().filter(|member| (member.is_open)());
        open.map(|member| member.addr.clone())
            .sample(&mut rand::rng(), most)
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

/// Puts an overlay on a stack, and joins it: through the addresses of the text, or else through nodes of the same text.
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
    let node = node::<R>(below, key, text.visits).map_err(failed)?;
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
            let error = Error::unreachable(&bootstraps, "nobody answered there");
            return Err(fail(placed.argument_at, error));
        }
        found => found.map_err(failed)?,
    };
    // Nobody joins through one that serves nobody.
    if !text.visits
        && let Some(addr) = node.bootstraps().into_iter().next()
    {
        let id = node.id();
        let is_open = is_open(&node.swarm);
        members.add(Member { id, addr, is_open });
    }
    Ok((node.stack(), R::handle(node)))
}

/// Whether a node is there, as long as somebody has it.
fn is_open<R: Router<BoxAddr>>(node: &Arc<OverlaySwarm<BoxAddr, Inner, R>>) -> Box<dyn Fn() -> bool + Send> {
    let node = Arc::downgrade(node);
    Box::new(move || node.upgrade().is_some_and(|node| node.with(|_, _| ()).is_ok()))
}

/// The addresses that a text names, as the stack below reads them.
fn bootstraps_of(list: Piece<'_>, below: &Stack) -> Result<Vec<BoxAddr>, StackError> {
    if list.text.is_empty() {
        return Ok(Vec::new());
    }
    let read = |piece: Piece<'_>| {
        let addr = below.parse_addr(piece.text);
        addr.map_err(|error| text_error(piece, error, "not an address below"))
    };
    list.split(';').map(read).collect()
}

/// A node that knows nobody, as whoever the layers below prove; where they prove nothing, as whoever has the key.
fn node<R: Network>(below: Stack, key: &PrivateKey, visits: bool) -> Result<OverlayNode<R>> {
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
        // The grammar knows where asks end.
        Stack::Plain(_) | Stack::Secure(_) => {
            return Err(Error::invalid("inner swarm", "it carries no asks"));
        }
    };
    let swarm = Arc::new(R::node(inner, identity, visits)?);
    Ok(OverlayNode { swarm, keys })
}
