//! The parsed form of a stack text: typed layers with their positions.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use p2p::{BoxAddr, Error};

use super::StackError;
use super::overlay::Members;
use super::read::{Piece, Segment};
use super::words::{CustomBase, Grammar};
use crate::faulty::{Faults, FaultyConfig, LinkFaults};

/// Maximum number of layers in one stack.
const MOST_LAYERS: usize = 32;
/// Maximum delay or jitter in a text, in milliseconds.
const LONGEST_MS: u64 = 3_600_000;

/// Maximum MTU in a text.
const MOST_BYTES: usize = usize::MAX >> 1;
/// The same for QUIC, which encodes the length of an ask in 32 bits.
const QUIC_MOST_BYTES: usize = u32::MAX as usize;

/// The words of bases.
pub(super) const BASES: &str = "mem, udp";
const CARRY_ASKS: &str =
    "mem, quic and mbapp, and on them faulty, mux, mux16, mux32, mux64, muxv, allow, kad, chord";
const LAYERS: &str =
    "faulty, frag, mux, mux16, mux32, mux64, muxv, allow, p2pke, quic, mbapp, kad, chord, gossip";

/// Maximum number of bootstrap addresses.
const MOST_BOOTSTRAPS: usize = 16;

/// One layer of a stack text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Layer {
    /// A node of the memory realm with this name; without a name, of the one unnamed realm.
    Mem {
        /// The name.
        realm: Option<Box<str>>,
    },
    /// UDP.
    Udp {
        /// Address to bind; default `127.0.0.1:0`.
        addr: Option<SocketAddr>,
        /// Maximum length of a message in bytes.
        mtu: Option<usize>,
    },
    /// A base that the program added to the [`Grammar`].
    Custom(CustomBase),
    /// Faults, the same on every link.
    Faulty {
        /// Seed of all random choices.
        seed: u64,
        /// The faults of every link.
        link: LinkFaults,
    },
    /// Fragmentation.
    Frag {
        /// Maximum length of a message in bytes; default 65536.
        mtu: Option<usize>,
    },
    /// Asks over datagrams.
    Mbapp {
        /// Maximum length of a message in bytes; default 65536.
        mtu: Option<usize>,
    },
    /// A secure channel over datagrams.
    P2pke,
    /// QUIC; directly on `udp` it uses a UDP socket of its own.
    Quic {
        /// Maximum length of a message in bytes; default 1 MiB.
        mtu: Option<usize>,
    },
    /// One channel of a mux.
    Mux(Channel),
    /// An allow-list: ids or addresses separated by `;`. Addresses are parsed when the stack is built.
    Allow(Box<str>),
    /// A Kademlia network, joined through the nodes at these addresses below, separated by `;`, which are
    /// parsed when the stack is built. Without any, it is joined through nodes that were built from the same
    /// text, or the node is the first.
    Kad(Box<str>),
    /// A Chord ring, joined like a Kademlia network.
    Chord(Box<str>),
    /// One topic of a gossip network.
    Gossip {
        /// The topic.
        topic: Box<str>,
        /// Addresses below of the first peers, separated by `;`, which are parsed when the stack is built.
        /// Without any, the first peers are some nodes that were built from the same text.
        peers: Box<str>,
    },
}

/// A channel of a mux, which determines the framing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// `mux`
    Name(Box<str>),
    /// `mux16`
    U16(u16),
    /// `mux32`
    U32(u32),
    /// `mux64`
    U64(u64),
    /// `muxv`
    Varint(u64),
}

impl Layer {
    /// Returns the layer's word in texts.
    pub fn word(&self) -> &'static str {
        match self {
            Layer::Mem { .. } => "mem",
            Layer::Udp { .. } => "udp",
            Layer::Custom(base) => base.word(),
            Layer::Faulty { .. } => "faulty",
            Layer::Frag { .. } => "frag",
            Layer::Mbapp { .. } => "mbapp",
            Layer::P2pke => "p2pke",
            Layer::Quic { .. } => "quic",
            Layer::Mux(Channel::Name(_)) => "mux",
            Layer::Mux(Channel::U16(_)) => "mux16",
            Layer::Mux(Channel::U32(_)) => "mux32",
            Layer::Mux(Channel::U64(_)) => "mux64",
            Layer::Mux(Channel::Varint(_)) => "muxv",
            Layer::Allow(_) => "allow",
            Layer::Kad(_) => "kad",
            Layer::Chord(_) => "chord",
            Layer::Gossip { .. } => "gossip",
        }
    }

    fn read(segment: &mut Segment<'_>, is_base: bool, grammar: &Grammar) -> Result<Self, StackError> {
        let word = segment.word;
        if is_base && let Some(base) = grammar.read_base(segment) {
            return base.map(Layer::Custom);
        }
        let unknown = |reason: String| {
            let fits = if is_base {
                grammar.base_words()
            } else {
                LAYERS.to_owned()
            };
            let sort = if is_base { "base" } else { "layer" };
            Err(word.error(format!("{reason}; expected a {sort}: {fits}")))
        };
        Ok(match (word.text, is_base) {
            ("mem", true) => Layer::Mem {
                realm: segment
                    .optional("the name of a realm")?
                    .map(|name| name.text.into()),
            },
            ("udp", true) => Layer::Udp {
                addr: segment
                    .optional("an IP address and a port")?
                    .map(socket_addr)
                    .transpose()?,
                mtu: segment.option("mtu", |value| integer(value, 1..=65_507))?,
            },
            ("faulty", false) => faulty(segment)?,
            ("frag", false) => Layer::Frag {
                mtu: mtu(segment, MOST_BYTES)?,
            },
            ("mbapp", false) => Layer::Mbapp {
                mtu: mtu(segment, MOST_BYTES)?,
            },
            ("p2pke", false) => Layer::P2pke,
            ("quic", false) => Layer::Quic {
                mtu: mtu(segment, QUIC_MOST_BYTES)?,
            },
            ("mux", false) => Layer::Mux(Channel::Name(
                segment.required("the name of a channel")?.text.into(),
            )),
            ("mux16", false) => Layer::Mux(Channel::U16(channel(segment, u16::MAX)?)),
            ("mux32", false) => Layer::Mux(Channel::U32(channel(segment, u32::MAX)?)),
            ("mux64", false) => Layer::Mux(Channel::U64(channel(segment, u64::MAX)?)),
            ("muxv", false) => Layer::Mux(Channel::Varint(channel(segment, u64::MAX)?)),
            ("allow", false) => {
                let list = segment.required("ids or addresses joined by ;")?;
                if let Some(empty) = list.split(';').find(|rule| rule.text.is_empty()) {
                    return Err(empty.error("expected an id or an address"));
                }
                Layer::Allow(list.text.into())
            }
            ("kad", false) => Layer::Kad(bootstraps(segment)?),
            ("chord", false) => Layer::Chord(bootstraps(segment)?),
            ("gossip", false) => Layer::Gossip {
                topic: segment.required("a topic")?.text.into(),
                peers: segment.option("peers", addresses)?.unwrap_or_default(),
            },
            ("", _) => return unknown("the name of a layer is missing".to_owned()),
            (base, false) if grammar.is_base(base) => {
                return unknown(format!("{base} is a base, which must come first"));
            }
            (layer, true) if is_layer(layer) => {
                return unknown(format!("{layer} needs a layer below"));
            }
            (other, _) => return unknown(format!("there is no layer {other:?}")),
        })
    }
}

impl Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Writes `before` and the value, if there is one.
        fn also(f: &mut fmt::Formatter<'_>, before: &str, value: Option<&impl Display>) -> fmt::Result {
            value.map_or(Ok(()), |value| write!(f, "{before}{value}"))
        }
        f.write_str(self.word())?;
        match self {
            Layer::P2pke => Ok(()),
            Layer::Mem { realm } => also(f, "=", realm.as_ref()),
            Layer::Custom(base) => write!(f, "{}", &**base),
            Layer::Udp { addr, mtu } => {
                also(f, "=", addr.as_ref())?;
                also(f, ",mtu=", mtu.as_ref())
            }
            Layer::Faulty { seed, link } => {
                let chances = [
                    ("loss", link.loss),
                    ("dup", link.duplicate),
                    ("reorder", link.reorder),
                    ("corrupt", link.corrupt),
                ];
                for (name, chance) in chances.into_iter().filter(|(_, chance)| *chance != 0.0) {
                    write!(f, ",{name}={chance}")?;
                }
                let delay = |delay: Duration| u64::try_from(delay.as_millis()).unwrap_or(LONGEST_MS);
                let numbers = [
                    ("delay", delay(link.delay)),
                    ("jitter", delay(link.jitter)),
                    ("rate", link.rate),
                    ("seed", *seed),
                ];
                for (name, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
                    write!(f, ",{name}={number}")?;
                }
                Ok(())
            }
            Layer::Frag { mtu } | Layer::Mbapp { mtu } | Layer::Quic { mtu } => also(f, "=", mtu.as_ref()),
            Layer::Mux(Channel::Name(name)) => write!(f, "={name}"),
            Layer::Mux(Channel::U16(number)) => write!(f, "={number}"),
            Layer::Mux(Channel::U32(number)) => write!(f, "={number}"),
            Layer::Mux(Channel::U64(number) | Channel::Varint(number)) => write!(f, "={number}"),
            Layer::Kad(list) | Layer::Chord(list) if list.is_empty() => Ok(()),
            Layer::Allow(list) | Layer::Kad(list) | Layer::Chord(list) => write!(f, "={list}"),
            Layer::Gossip { topic, peers } => {
                write!(f, "={topic}")?;
                also(f, ",peers=", Some(peers).filter(|peers| !peers.is_empty()))
            }
        }
    }
}

/// A parsed stack text.
///
/// Its `Display` parses back to an equal value. Nodes that are built from one `StackText`, or its clones,
/// share the settings of their medium: each draws its own faults from the one seed. They also share overlays:
/// a node whose text contains no bootstrap node joins through existing ones.
#[derive(Clone, Debug)]
pub struct StackText {
    pub(super) text: Box<str>,
    pub(super) layers: Vec<Placed>,
    /// Whether nodes serve no requests in their overlays.
    pub(super) visits: bool,
    /// Requested receive buffer of UDP sockets in bytes; the default if absent.
    pub(super) receive_buffer: Option<usize>,
}

/// A layer with its position in the text.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) layer: Layer,
    /// Position of its word.
    pub(super) at: usize,
    /// Position of its argument, if it has one.
    pub(super) argument_at: usize,
    /// The settings of a `faulty` layer, shared by all nodes.
    pub(super) faults: Option<Faults<BoxAddr>>,
    /// The nodes of the overlay of this layer.
    pub(super) members: Option<Members>,
}

impl StackText {
    /// Returns the layers, base first.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = &Layer> {
        self.layers.iter().map(|placed| &placed.layer)
    }
}

impl StackText {
    /// Checks that nodes of this stack support asks.
    ///
    /// # Errors
    /// Returns the layer that does not pass asks on, and the layers that would.
    pub fn check_asks(&self) -> Result<(), StackError> {
        let Some(end) = end_of_asks(&self.layers) else {
            return Ok(());
        };
        let reason = format!(
            "{} does not support asks; layers that do: {CARRY_ASKS}",
            end.layer.word()
        );
        Err(StackError::new(&self.text, end.at, reason))
    }

    /// Checks that one of the layers is an overlay.
    ///
    /// # Errors
    /// Returns an error at the last layer, with the words of overlays.
    pub fn check_overlay(&self) -> Result<(), StackError> {
        match self.layers.last() {
            Some(last) if self.layers.iter().all(|placed| placed.members.is_none()) => {
                let reason = format!(
                    "there is no overlay up to {}; overlays are: kad, chord, gossip",
                    last.layer.word()
                );
                Err(StackError::new(&self.text, last.at, reason))
            }
            _ => Ok(()),
        }
    }

    /// Returns the same text for nodes that use their overlays without serving requests, so that other nodes
    /// do not depend on a client that leaves soon.
    #[must_use]
    pub fn visiting(&self) -> Self {
        let mut visiting = self.clone();
        visiting.visits = true;
        visiting
    }

    /// Returns the same text for nodes whose UDP sockets request a receive buffer of this many bytes; see
    /// [`UdpConfig::receive_buffer`](crate::UdpConfig::receive_buffer). A small buffer can be filled by a
    /// small flood.
    #[must_use]
    pub fn with_receive_buffer(&self, bytes: usize) -> Self {
        let mut text = self.clone();
        text.receive_buffer = Some(bytes);
        text
    }

    /// Returns the same text for nodes whose UDP sockets are bound to an IP address, unless the text names
    /// another one than 127.0.0.1. Tests that run side by side then share no address.
    #[must_use]
    pub fn with_loopback(&self, ip: IpAddr) -> Self {
        let mut text = self.clone();
        for placed in &mut text.layers {
            if let Layer::Udp { addr, .. } = &mut placed.layer
                && addr.is_none_or(|addr| addr.ip() == Ipv4Addr::LOCALHOST)
            {
                *addr = Some(SocketAddr::new(ip, addr.map_or(0, |addr| addr.port())));
            }
        }
        text
    }

    /// Returns the same text for nodes in new overlays, separate from those of nodes built so far. The
    /// settings of the medium remain shared.
    #[must_use]
    pub fn apart(&self) -> Self {
        let mut apart = self.clone();
        for members in apart
            .layers
            .iter_mut()
            .filter_map(|placed| placed.members.as_mut())
        {
            *members = Members::default();
        }
        apart
    }

    /// The same text for nodes on a medium that no other nodes load: what a medium holds has one bound for all of its nodes.
    pub(super) fn on_a_medium_of_its_own(mut self) -> Self {
        for placed in &mut self.layers {
            let config = placed.faults.as_ref().map(|faults| *faults.config());
            if let Some(Ok(faults)) = config.map(Faults::new) {
                placed.faults = Some(faults);
            }
        }
        self
    }
}

/// Returns the layer that does not pass asks on, if there is one.
fn end_of_asks(layers: &[Placed]) -> Option<&Placed> {
    let mut end = None;
    for placed in layers {
        match placed.layer {
            Layer::Mem { .. } | Layer::Mbapp { .. } | Layer::Quic { .. } => end = None,
            Layer::Custom(ref base) => end = (!base.properties().asks).then_some(placed),
            Layer::Udp { .. } | Layer::Frag { .. } | Layer::P2pke | Layer::Gossip { .. } => {
                end = Some(placed);
            }
            Layer::Faulty { .. } | Layer::Mux(_) | Layer::Allow(_) | Layer::Kad(_) | Layer::Chord(_) => {}
        }
    }
    end
}

impl PartialEq for StackText {
    fn eq(&self, other: &Self) -> bool {
        self.layers().eq(other.layers())
    }
}

impl FromStr for StackText {
    type Err = StackError;

    fn from_str(text: &str) -> Result<Self, StackError> {
        Grammar::default().parse(text)
    }
}

/// Parses the layers of a text.
pub(super) fn parse<'a>(
    text: &'a str,
    pieces: impl Iterator<Item = Piece<'a>>,
    grammar: &Grammar,
) -> Result<StackText, StackError> {
    let mut layers = Vec::new();
    for piece in pieces {
        if layers.len() == MOST_LAYERS {
            let reason = format!("a stack has at most {MOST_LAYERS} layers");
            return Err(piece.error(reason));
        }
        let mut segment = Segment::read(piece)?;
        let argument = segment.argument.unwrap_or(segment.word);
        let layer = Layer::read(&mut segment, layers.is_empty(), grammar)?;
        segment.finish()?;
        let faults = match &layer {
            Layer::Faulty { seed, link } => Some(medium(*seed, *link, piece)?),
            _ => None,
        };
        let needs_asks = matches!(layer, Layer::Kad(_) | Layer::Chord(_));
        let is_overlay = needs_asks || matches!(layer, Layer::Gossip { .. });
        if let (true, Some(end)) = (needs_asks, end_of_asks(&layers)) {
            let (word, end) = (layer.word(), end.layer.word());
            return Err(piece.error(format!(
                "{word} needs asks below, and {end} does not support them; layers that do: {CARRY_ASKS}"
            )));
        }
        layers.push(Placed {
            layer,
            at: piece.at,
            argument_at: argument.at,
            faults,
            members: is_overlay.then(Members::default),
        });
    }
    Ok(StackText {
        text: text.into(),
        layers,
        visits: false,
        receive_buffer: None,
    })
}

/// Returns whether a word of this crate is that of a layer or of a base.
pub(super) fn is_word(word: &str) -> bool {
    is_layer(word) || BASES.split(", ").any(|known| known == word)
}

fn is_layer(word: &str) -> bool {
    LAYERS.split(", ").any(|known| known == word)
}

impl Display for StackText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, layer) in self.layers().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            layer.fmt(f)?;
        }
        Ok(())
    }
}

fn medium(seed: u64, link: LinkFaults, layer: Piece<'_>) -> Result<Faults<BoxAddr>, StackError> {
    let config = FaultyConfig {
        seed,
        link,
        ..FaultyConfig::default()
    };
    Faults::new(config).map_err(|error| layer.error(error.to_string()))
}

fn faulty(segment: &mut Segment<'_>) -> Result<Layer, StackError> {
    let mut link = LinkFaults {
        loss: segment.option("loss", chance)?.unwrap_or_default(),
        duplicate: segment.option("dup", chance)?.unwrap_or_default(),
        reorder: segment.option("reorder", chance)?.unwrap_or_default(),
        corrupt: segment.option("corrupt", chance)?.unwrap_or_default(),
        ..LinkFaults::default()
    };
    let millis = |value| integer(value, 0..=LONGEST_MS).map(Duration::from_millis);
    link.delay = segment.option("delay", millis)?.unwrap_or_default();
    link.jitter = segment.option("jitter", millis)?.unwrap_or_default();
    let any = |value| integer(value, 0..=u64::MAX);
    link.rate = segment.option("rate", any)?.unwrap_or_default();
    let seed = segment.option("seed", any)?.unwrap_or_default();
    Ok(Layer::Faulty { seed, link })
}

/// Parses addresses separated by `;`, or nothing.
fn bootstraps(segment: &mut Segment<'_>) -> Result<Box<str>, StackError> {
    let Some(list) = segment.argument.take().filter(|list| !list.text.is_empty()) else {
        return Ok(Box::default());
    };
    addresses(list)
}

/// Parses at least one address, separated by `;`.
fn addresses(list: Piece<'_>) -> Result<Box<str>, StackError> {
    for (index, addr) in list.split(';').enumerate() {
        if addr.text.is_empty() {
            return Err(addr.error("expected an address"));
        }
        if index == MOST_BOOTSTRAPS {
            return Err(addr.error(format!("at most {MOST_BOOTSTRAPS} addresses are allowed")));
        }
    }
    Ok(list.text.into())
}

fn chance(value: Piece<'_>) -> Result<f64, StackError> {
    let chance = value.text.parse().ok();
    chance
        .filter(|chance| (0.0..=1.0).contains(chance))
        .ok_or_else(|| {
            value.error(format!(
                "expected a probability from 0 to 1, not {:?}",
                value.text
            ))
        })
}

fn integer<N>(value: Piece<'_>, range: RangeInclusive<N>) -> Result<N, StackError>
where
    N: FromStr + PartialOrd + Display,
{
    let number = value.text.parse().ok();
    number.filter(|number| range.contains(number)).ok_or_else(|| {
        let (least, most) = (range.start(), range.end());
        value.error(format!(
            "expected a whole number from {least} to {most}, not {:?}",
            value.text
        ))
    })
}

fn mtu(segment: &mut Segment<'_>, most: usize) -> Result<Option<usize>, StackError> {
    let argument = segment.optional("an MTU in bytes")?;
    argument.map(|mtu| integer(mtu, 1..=most)).transpose()
}

fn channel<N>(segment: &mut Segment<'_>, most: N) -> Result<N, StackError>
where
    N: FromStr + PartialOrd + Display + Default,
{
    let argument = segment.required(&format!("a channel from 0 to {most}"))?;
    integer(argument, N::default()..=most)
}

fn socket_addr(value: Piece<'_>) -> Result<SocketAddr, StackError> {
    crate::udp::parse_addr(value.text).map_err(|error| match error {
        Error::InvalidAddr { at, reason, .. } => {
            StackError::new(value.whole, value.at + at.min(value.text.len()), reason)
        }
        other => value.error(other.to_string()),
    })
}
