//! Builds the swarm of a stack text.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;

use p2p::{Addr, BoxAddr, BoxSecureAskSwarm, BoxSecureSwarm, BoxSwarm, Error, PeerId, Result, Swarm};
use p2p_formats::x509::{Fingerprint, PrivateKey};
use p2p_protocols::mux::{self, Name, Varint};
use p2p_protocols::{chord, kademlia};

use rand::RngExt as _;

use super::below::{Abilities, Below};
use super::grammar::Placed;
use super::read::Piece;
use super::{Channel, Layer, Stack, StackError, StackNode, StackText, gossip, overlay};
use crate::allow::{AllowSwarm, Policy, Rule};
use crate::env::Env;
use crate::faulty::FaultySwarm;
use crate::fragment::{FragmentConfig, FragmentSwarm};
use crate::map::EraseSwarm;
use crate::mbapp::{MbappConfig, MbappSwarm};
use crate::memory::{MemoryAddr, MemoryRealm};
use crate::mux::{Mux, MuxConfig, MuxSwarm};
use crate::p2pke::P2pkeSwarm;
use crate::quic::{MIN_INNER_MTU, QuicConfig, QuicSwarm};
use crate::udp::{UdpConfig, UdpSwarm};
use crate::{GossipAddr, KeyAddr};

/// A type-erased future. A future that is awaited by its own type is compiled where it is awaited: with all
/// layers, in each program and test that builds a stack.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl StackText {
    /// Returns whether a layer of this stack has a private key, as given to [`build_with`](Self::build_with).
    pub fn takes_key(&self) -> bool {
        self.layers().any(|layer| {
            matches!(
                layer,
                Layer::P2pke | Layer::Quic { .. } | Layer::Kad(_) | Layer::Chord(_) | Layer::Gossip { .. }
            ) || matches!(layer, Layer::Custom(base) if base.properties().fingerprint.is_some())
        })
    }

    /// Opens a node of this stack, with a random private key if its layers need one, and waits until it has
    /// joined its overlays.
    ///
    /// # Errors
    /// Returns which layer could not be created, and why. Layers that were already open are closed.
    ///
    /// # Cancel safety
    /// Cancelling closes the layers that were already open.
    pub async fn build(&self) -> Result<Stack, StackError> {
        self.build_with(&random_key()).await
    }

    /// Opens a node of this stack with the private key `key` for the layers that need one.
    ///
    /// # Errors
    /// Returns the errors of [`build`](Self::build); a key that is not Ed25519 is an error of the layer that
    /// needs it.
    pub async fn build_with(&self, key: &PrivateKey) -> Result<Stack, StackError> {
        Ok(self.build_node(key).await?.stack)
    }

    /// Opens a node, with handles on its overlays.
    ///
    /// # Errors
    /// Returns the errors of [`build_with`](Self::build_with).
    pub async fn build_node(&self, key: &PrivateKey) -> Result<StackNode, StackError> {
        self.build_on(None, key).await
    }

    /// Opens a node of this stack at the address of a closed one. If the address contains an identity, `key`
    /// must be that node's key; otherwise it is ignored.
    ///
    /// # Errors
    /// Returns the errors of [`build_with`](Self::build_with), and an error if `addr` does not belong to the
    /// base, or `key` to another node. The location of an overlay node is known only for nodes that were
    /// built from this text or a clone of it.
    pub async fn build_at(&self, addr: &BoxAddr, key: &PrivateKey) -> Result<Stack, StackError> {
        let stack = self.build_on(Some(self.place(addr)), key).await?.stack;
        let local = stack.local_addrs().into_iter().next();
        let id = local.and_then(|local| local.peer_id());
        if id != addr.peer_id() {
            let reason =
                format!("{addr} needs the key of its former node, and the key of another node was given");
            return Err(Piece::new(&self.text).error(reason));
        }
        Ok(stack)
    }

    /// Waits until no `faulty` layer delays a message, at any node that was built from this text or a clone
    /// of it.
    ///
    /// # Cancel safety
    /// Cancelling changes nothing.
    pub async fn settled(&self) {
        // A message that one layer releases may be delayed by a layer below it.
        for faults in self
            .layers
            .iter()
            .rev()
            .filter_map(|placed| placed.faults.as_ref())
        {
            faults.settled().await;
        }
    }

    fn build_on<'a>(
        &'a self,
        addr: Option<BoxAddr>,
        key: &'a PrivateKey,
    ) -> Boxed<'a, Result<StackNode, StackError>> {
        Box::pin(async move {
            let mut mtus = Vec::new();
            self.put_layers(addr, key, &mut mtus).await
        })
    }

    /// Builds a node, and records the MTU of each of its layers.
    pub(super) fn build_recorded<'a>(
        &'a self,
        key: &'a PrivateKey,
        mtus: &'a mut Vec<usize>,
    ) -> Boxed<'a, Result<StackNode, StackError>> {
        Box::pin(self.put_layers(None, key, mtus))
    }

    async fn put_layers(
        &self,
        addr: Option<BoxAddr>,
        key: &PrivateKey,
        mtus: &mut Vec<usize>,
    ) -> Result<StackNode, StackError> {
        let (mut stack, layers) = self.base(addr.as_ref(), key).await?;
        let mut overlays = Vec::new();
        // A base of two layers reports one MTU.
        mtus.resize(self.layers.len() - layers.len(), stack.mtu());
        for placed in layers {
            stack = match &placed.layer {
                Layer::Allow(list) => self.allow(stack, list, placed.argument_at)?,
                Layer::Kad(bootstraps) => {
                    let made = overlay::put::<kademlia::Engine<BoxAddr>>;
                    let (stack, node) = made(self, placed, bootstraps, stack, key).await?;
                    overlays.push(node);
                    stack
                }
                Layer::Chord(bootstraps) => {
                    let made = overlay::put::<chord::Engine<BoxAddr>>;
                    let (stack, node) = made(self, placed, bootstraps, stack, key).await?;
                    overlays.push(node);
                    stack
                }
                Layer::Gossip { topic, peers } => {
                    let (stack, node) = gossip::put(self, placed, (topic, peers), &stack, key).await?;
                    overlays.push(node);
                    stack
                }
                _ => put(placed, stack, key).map_err(|error| self.failed(placed, error))?,
            };
            mtus.push(stack.mtu());
        }
        Ok(StackNode { stack, overlays })
    }

    /// Returns the address of a node below all of its overlays, as far as it is known.
    fn place(&self, addr: &BoxAddr) -> BoxAddr {
        let mut place = addr.clone();
        for members in self
            .layers
            .iter()
            .rev()
            .filter_map(|placed| placed.members.as_ref())
        {
            let id = match below_keys(&place).downcast_ref::<GossipAddr<BoxAddr>>() {
                Some(addr) => addr.peer_id(),
                None => below_keys(&place).downcast_ref().copied(),
            };
            if let Some(below) = id.and_then(|id: PeerId| members.place(&id)) {
                place = below;
            }
        }
        place
    }

    /// Returns the function that derives the ids of nodes from keys, if the base is a program's that proves ids.
    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        self.layers().find_map(|layer| match layer {
            Layer::Custom(base) => base.properties().fingerprint,
            _ => None,
        })
    }

    /// Opens the base; returns it with the layers that are still to be added.
    async fn base(&self, at: Option<&BoxAddr>, key: &PrivateKey) -> Result<(Stack, &[Placed]), StackError> {
        if let [udp, quic, layers @ ..] = &*self.layers
            && let (Layer::Udp { addr, mtu: udp_mtu }, Layer::Quic { mtu }) = (&udp.layer, &quic.layer)
        {
            let node = udp_place(*addr, at).and_then(|addr| quic_on_udp(addr, *udp_mtu, key, *mtu));
            let node = node.map_err(|error| match error {
                Error::Io { .. } | Error::InvalidAddr { .. } => self.failed(udp, error),
                error => self.failed(quic, error),
            })?;
            return Ok((quic_stack(node), layers));
        }
        let Some((first, layers)) = self.layers.split_first() else {
            return Err(Piece::new(&self.text).error("a stack needs at least a base"));
        };
        let stack = match &first.layer {
            Layer::Custom(base) => base.open(at.map(below_keys), key).await,
            layer => base(layer, at, self.receive_buffer),
        };
        Ok((stack.map_err(|error| self.failed(first, error))?, layers))
    }

    fn failed(&self, placed: &Placed, error: Error) -> StackError {
        StackError::layer(&self.text, placed.at, placed.layer.word(), error)
    }

    fn allow(&self, below: Stack, list: &str, at: usize) -> Result<Stack, StackError> {
        let piece = Piece {
            whole: &self.text,
            at,
            text: list,
        };
        let mut rules = Vec::new();
        for entry in piece.split(';') {
            let rule = Rule::parse(entry.text, &below);
            rules.push(rule.map_err(|error| text_error(entry, error, "neither an id nor an address"))?);
        }
        let can = Abilities::of(&below);
        Ok(can.show(allow(Below::new(below), rules)))
    }
}

/// Converts an address error to one at its position in the text.
pub(super) fn text_error(piece: Piece<'_>, error: Error, what: &str) -> StackError {
    match error {
        Error::InvalidAddr { at, reason, .. } => {
            let at = piece.at + at.min(piece.text.len());
            StackError::new(piece.whole, at, format!("{what}: {reason}"))
        }
        other => piece.error(other.to_string()),
    }
}

/// Returns a new key, for a node without one.
pub(super) fn random_key() -> PrivateKey {
    PrivateKey::ed25519(&Env::current().rng().random())
}

fn base(layer: &Layer, at: Option<&BoxAddr>, receive_buffer: Option<usize>) -> Result<Stack> {
    match layer {
        Layer::Mem { realm } => {
            let realm = MemoryRealm::named(realm.as_deref().unwrap_or_default());
            let node = match at {
                None => realm.open(),
                Some(addr) => realm.open_at(memory_place(addr)?)?,
            };
            Ok(Stack::SecureAsk(BoxSecureAskSwarm::new(EraseSwarm::erase(node))))
        }
        Layer::Udp { addr, mtu } => {
            let mut config = UdpConfig::default();
            config.mtu = mtu.unwrap_or(config.mtu);
            config.receive_buffer = receive_buffer.unwrap_or(config.receive_buffer);
            let node = UdpSwarm::with_config(udp_place(*addr, at)?, config)?;
            Ok(Stack::Plain(BoxSwarm::new(EraseSwarm::erase(node))))
        }
        other => Err(Error::invalid("stack", format!("{} is not a base", other.word()))),
    }
}

fn foreign(addr: &BoxAddr) -> Error {
    Error::addr(
        &addr.to_string(),
        0,
        "the address belongs to another kind of base",
    )
}

/// Returns the address without the identities that layers prepend.
fn below_keys(addr: &BoxAddr) -> &BoxAddr {
    let mut place = addr;
    while let Some(keyed) = place.downcast_ref::<KeyAddr<BoxAddr>>() {
        place = &keyed.addr;
    }
    place
}

fn memory_place(addr: &BoxAddr) -> Result<MemoryAddr> {
    let place = below_keys(addr).downcast_ref().copied();
    place.ok_or_else(|| foreign(addr))
}

fn udp_place(addr: Option<SocketAddr>, at: Option<&BoxAddr>) -> Result<SocketAddr> {
    match at {
        Some(at) => at.socket_addr().ok_or_else(|| foreign(at)),
        None => Ok(addr.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))),
    }
}

fn quic_on_udp(
    addr: SocketAddr,
    udp_mtu: Option<usize>,
    key: &PrivateKey,
    mtu: Option<usize>,
) -> Result<QuicSwarm<SocketAddr>> {
    if let Some(udp_mtu) = udp_mtu.filter(|mtu| *mtu < MIN_INNER_MTU) {
        let reason =
            format!("QUIC needs an MTU of at least {MIN_INNER_MTU} bytes below, and it is {udp_mtu}");
        return Err(Error::invalid("inner swarm", reason));
    }
    QuicSwarm::bind_udp_with(addr, key, quic_config(mtu))
}

fn quic_config(mtu: Option<usize>) -> QuicConfig {
    let mut config = QuicConfig::default();
    let Some(mtu) = mtu else { return config };
    // Every queue has room for a message of the MTU, even in a buffer that doubled while it grew.
    let room = mtu.saturating_mul(2);
    config.mtu = mtu;
    config.session_reassembly = config.session_reassembly.max(room);
    config.reassembly = config.reassembly.max(config.session_reassembly);
    config.messages.bytes = config.messages.bytes.max(room);
    config.asks.bytes = config.asks.bytes.max(room);
    config
}

fn quic_stack<A: Addr>(node: QuicSwarm<A>) -> Stack {
    Stack::SecureAsk(BoxSecureAskSwarm::new(EraseSwarm::erase(node)))
}

fn put(placed: &Placed, below: Stack, key: &PrivateKey) -> Result<Stack> {
    let can = Abilities::of(&below);
    Ok(match &placed.layer {
        Layer::Faulty { .. } => {
            let faults = placed.faults.clone();
            let faults = faults.ok_or_else(|| Error::invalid("stack", "the faulty layer has no settings"))?;
            can.show(FaultySwarm::new(Below::new(below), faults))
        }
        Layer::Frag { mtu } => {
            let mtu = mtu.unwrap_or(FragmentConfig::default().mtu);
            Abilities::show_keys(can.keys, FragmentSwarm::new(Below::new(below), mtu))
        }
        Layer::Mbapp { mtu } => {
            let mtu = mtu.unwrap_or(MbappConfig::default().engine.mtu);
            let asks = Abilities { asks: true, ..can };
            asks.show(MbappSwarm::new(Below::new(below), mtu))
        }
        Layer::P2pke => {
            let node = P2pkeSwarm::new(below, key)?;
            Stack::Secure(BoxSecureSwarm::new(EraseSwarm::erase(node)))
        }
        Layer::Quic { mtu } => quic_stack(QuicSwarm::with_config(below, key, quic_config(*mtu))?),
        Layer::Mux(channel) => match channel {
            Channel::Name(name) => can.show(open::<Name>(below, name.as_bytes())?),
            Channel::U16(number) => can.show(open::<u16>(below, *number)?),
            Channel::U32(number) => can.show(open::<u32>(below, *number)?),
            Channel::U64(number) => can.show(open::<u64>(below, *number)?),
            Channel::Varint(number) => can.show(open::<Varint>(below, *number)?),
        },
        other => {
            return Err(Error::invalid(
                "stack",
                format!("{} is not a layer", other.word()),
            ));
        }
    })
}

fn open<C: mux::Channel>(below: Stack, channel: impl Into<C>) -> Result<MuxSwarm<BoxAddr, Below, C>> {
    Mux::<_, _, C>::with_config(Below::new(below), MuxConfig::default()).open(channel)
}

fn allow<S>(inner: S, rules: Vec<Rule<BoxAddr>>) -> AllowSwarm<BoxAddr, S> {
    let list = AllowSwarm::new(inner, Policy::Deny);
    for rule in rules {
        list.set(rule, Policy::Allow);
    }
    list
}
