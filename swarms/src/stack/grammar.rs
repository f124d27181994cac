//! What a stack text says: typed layers, each with its place.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use p2p::{BoxAddr, Error};

use super::StackError;
use super::overlay::Members;
use super::read::{Piece, Segment};
use crate::faulty::{Faults, FaultyConfig, LinkFaults};

/// Layers of one stack, at most.
const MOST_LAYERS: usize = 32;
/// The longest delay or jitter that a text may ask for, in milliseconds.
const LONGEST_MS: u64 = 3_600_000;

/// The largest MTU that a text may ask for.
const MOST_BYTES: usize = usize::MAX >> 1;
/// The same for QUIC, which writes the length of an ask in 32 bits.
const QUIC_MOST_BYTES: usize = u32::MAX as usize;

const BASES: &str = "mem, udp";
const CARRY_ASKS: &str =
    "mem, quic and mbapp, and on them faulty, mux, mux16, mux32, mux64, muxv, allow, kad, chord";
const LAYERS: &str =
    "faulty, frag, mux, mux16, mux32, mux64, muxv, allow, p2pke, quic, mbapp, kad, chord, gossip";

/// Addresses through which a node joins an overlay, at most.
const MOST_BOOTSTRAPS: usize = 16;

/// One layer of a stack text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Layer {
    /// A node of the memory realm of this name; without a name, of the one realm that has none.
    Mem {
        /// The name.
        realm: Option<Box<str>>,
    },
    /// UDP.
    Udp {
        /// What to bind; `127.0.0.1:0` without it.
        addr: Option<SocketAddr>,
        /// Bytes of a message at most.
        mtu: Option<usize>,
    },
    /// Faults, the same on every link.
    Faulty {
        /// What all choices follow from.
        seed: u64,
        /// What is done to messages.
        link: LinkFaults,
    },
    /// Fragments.
    Frag {
        /// Bytes of a message at most; 65536 without it.
        mtu: Option<usize>,
    },
    /// Asks over datagrams.
    Mbapp {
        /// Bytes of a message at most; 65536 without it.
        mtu: Option<usize>,
    },
    /// A secure channel over datagrams.
    P2pke,
    /// QUIC; directly on `udp` it has a UDP socket of its own.
    Quic {
        /// Bytes of a message at most; 1 MiB without it.
        mtu: Option<usize>,
    },
    /// One channel of a mux.
    Mux(Channel),
    /// An allow-list: ids or addresses joined by `;`. Addresses are read when the stack is built.
    Allow(Box<str>),
    /// A Kademlia network, joined through the nodes at these addresses below, joined by `;`: they are read when the stack
    /// is built. Without any it is joined through nodes that were built from the same text, or there is none yet.
    Kad(Box<str>),
    /// A Chord ring, joined as a Kademlia network is.
    Chord(Box<str>),
    /// One topic of a gossip network.
    Gossip {
        /// The topic.
        topic: Box<str>,
        /// Addresses below of the first peers, joined by `;`: they are read when the stack is built. Without any, the first
        /// peers are some that were built from the same text, or there are none yet.
        peers: Box<str>,
    },
}

/// A channel of a mux, and with it the framing.
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
    /// The layer's word in texts.
    pub fn word(&self) -> &'static str {
        match self {
            Layer::Mem { .. } => "mem",
            Layer::Udp { .. } => "udp",
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

    fn read(segment: &mut Segment<'_>, is_base: bool) -> Result<Self, StackError> {
        let word = segment.word;
        let unknown = |reason: String| {
            let fits = if is_base { BASES } else { LAYERS };
            let sort = if is_base { "base" } else { "layer" };
            Err(word.error(format!("{reason}; a {sort} that fits here: {fits}")))
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
                    return Err(empty.error("an id or an address was expected"));
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
            ("mem" | "udp", false) => {
                return unknown(format!("{} is a base, and stands first or not at all", word.text));
            }
            (layer, true) if LAYERS.split(", ").any(|known| known == layer) => {
                return unknown(format!("{layer} needs something beneath it"));
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

/// A stack text that was understood.
///
/// Its `Display` parses back to an equal one. Nodes that are built from one `StackText`, or its clones, share what
/// their medium has in common: each draws faults of its own from the one seed. They share overlays, too: one whose text
/// names nobody to join through joins through some that are there.
#[derive(Clone, Debug)]
pub struct StackText {
    pub(super) text: Box<str>,
    pub(super) layers: Vec<Placed>,
    /// Whether nodes serve nobody in their overlays.
    pub(super) visits: bool,
    /// What UDP sockets ask the kernel for, in bytes; the default without it.
    pub(super) receive_buffer: Option<usize>,
}

/// A layer, and where in the text it is.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) layer: Layer,
    /// Where its word is.
    pub(super) at: usize,
    /// Where its argument is, if it has one.
    pub(super) argument_at: usize,
    /// The medium that `faulty` makes, shared by all nodes.
    pub(super) faults: Option<Faults<BoxAddr>>,
    /// The nodes of the overlay that this layer makes.
    pub(super) members: Option<Members>,
}

impl StackText {
    /// The layers, base first.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = &Layer> {
        self.layers.iter().map(|placed| &placed.layer)
    }
}

impl StackText {
    /// Checks that nodes of this stack ask.
    ///
    /// # Errors
    /// Where asks end, and what would carry them.
    pub fn check_asks(&self) -> Result<(), StackError> {
        let Some(end) = end_of_asks(&self.layers) else {
            return Ok(());
        };
        let reason = format!("{} carries no asks; what does: {CARRY_ASKS}", end.layer.word());
        Err(StackError::new(&self.text, end.at, reason))
    }

    /// Checks that one of the layers is an overlay.
    ///
    /// # Errors
    /// The last layer, and what would make one.
    pub fn check_overlay(&self) -> Result<(), StackError> {
        match self.layers.last() {
            Some(last) if self.layers.iter().all(|placed| placed.members.is_none()) => {
                let reason = format!(
                    "there is no overlay up to {}; what makes one: kad, chord, gossip",
                    last.layer.word()
                );
                Err(StackError::new(&self.text, last.at, reason))
            }
            _ => Ok(()),
        }
    }

    /// The same text for nodes that use their overlays and serve nobody there: who comes to ask something and leaves again is
    /// looked for by nobody then.
    #[must_use]
    pub fn visiting(&self) -> Self {
        let mut visiting = self.clone();
        visiting.visits = true;
        visiting
    }

    /// The same text for nodes whose UDP sockets ask the kernel for a buffer of so many bytes for readers that are late; see
    /// [`UdpConfig::receive_buffer`](crate::UdpConfig::receive_buffer). A flood that fills a small one need not be large.
    #[must_use]
    pub fn with_receive_buffer(&self, bytes: usize) -> Self {
        let mut text = self.clone();
        text.receive_buffer = Some(bytes);
        text
    }

    /// The same text for nodes that shall not be members of the overlays of those that were built so far. What a medium
    /// does to messages is shared as before.
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
}

/// The layer at which asks end, if they do.
fn end_of_asks(layers: &[Placed]) -> Option<&Placed> {
    let mut end = None;
    for placed in layers {
        match placed.layer {
            Layer::Mem { .. } | Layer::Mbapp { .. } | Layer::Quic { .. } => end = None,
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
        let mut layers = Vec::new();
        for piece in Piece::new(text).split('/') {
            if layers.len() == MOST_LAYERS {
                let reason = format!("a stack has at most {MOST_LAYERS} layers");
                return Err(piece.error(reason));
            }
            let mut segment = Segment::read(piece)?;
            let argument = segment.argument.unwrap_or(segment.word);
            let layer = Layer::read(&mut segment, layers.is_empty())?;
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
                    "{word} needs asks beneath it, and {end} carries none; what does: {CARRY_ASKS}"
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
        Ok(Self {
            text: text.into(),
            layers,
            visits: false,
            receive_buffer: None,
        })
    }
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

/// Addresses joined by `;`, or nothing.
fn bootstraps(segment: &mut Segment<'_>) -> Result<Box<str>, StackError> {
    let Some(list) = segment.argument.take().filter(|list| !list.text.is_empty()) else {
        return Ok(Box::default());
    };
    addresses(list)
}

/// Some addresses, joined by `;`.
fn addresses(list: Piece<'_>) -> Result<Box<str>, StackError> {
    for (index, addr) in list.split(';').enumerate() {
        if addr.text.is_empty() {
            return Err(addr.error("an address was expected"));
        }
        if index == MOST_BOOTSTRAPS {
            return Err(addr.error(format!("at most {MOST_BOOTSTRAPS} addresses stand here")));
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
                "a probability from 0 to 1 was expected, not {:?}",
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
            "a whole number from {least} to {most} was expected, not {:?}",
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
