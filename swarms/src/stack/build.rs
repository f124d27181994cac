//! Makes the swarm that a stack text says.

use std::net::{Ipv4Addr, SocketAddr};

use p2p::{
    Addr, BatchError, BoxAddr, BoxAskSwarm, BoxSecureAskSwarm, BoxSecureSwarm, BoxSwarm, Counters, Error,
    Headroom, Message, Packet, Result, Swarm,
};
use p2p_protocols::mux::{self, Name, Varint};

use super::grammar::Placed;
use super::read::Piece;
use super::{Channel, Layer, StackError, StackText};
use crate::allow::{AllowSwarm, Party, Verdict};
use crate::ask::{AskingConfig, AskingSwarm};
use crate::faulty::FaultySwarm;
use crate::fragment::{FragmentConfig, FragmentSwarm};
use crate::map::EraseSwarm;
use crate::memory::{MemoryAddr, MemoryRealm};
use crate::mux::{Mux, MuxConfig, MuxSwarm};
use crate::udp::{UdpConfig, UdpSwarm};

/// A swarm whose layers were chosen at run time, as what its layers make of it.
///
/// Every layer costs one allocation a call; a batch pays it once.
#[derive(Clone, Debug)]
pub enum Stack {
    /// It tells.
    Plain(BoxSwarm<BoxAddr>),
    /// It tells and asks.
    Ask(BoxAskSwarm<BoxAddr>),
    /// It tells and has keys.
    Secure(BoxSecureSwarm<BoxAddr>),
    /// It tells, asks and has keys.
    SecureAsk(BoxSecureAskSwarm<BoxAddr>),
}

/// Puts a layer that passes asks and keys on a stack.
macro_rules! layer {
    ($below:expr, $inner:ident => $made:expr) => {
        match $below {
            Stack::Plain($inner) => Stack::Plain(BoxSwarm::new($made)),
            Stack::Ask($inner) => Stack::Ask(BoxAskSwarm::new($made)),
            Stack::Secure($inner) => Stack::Secure(BoxSecureSwarm::new($made)),
            Stack::SecureAsk($inner) => Stack::SecureAsk(BoxSecureAskSwarm::new($made)),
        }
    };
}

/// Puts a layer that passes keys, at which asks end, on a stack.
macro_rules! layer_without_asks {
    ($below:expr, $inner:ident => $made:expr) => {
        match $below {
            Stack::Plain($inner) => Stack::Plain(BoxSwarm::new($made)),
            Stack::Ask($inner) => Stack::Plain(BoxSwarm::new($made)),
            Stack::Secure($inner) => Stack::Secure(BoxSecureSwarm::new($made)),
            Stack::SecureAsk($inner) => Stack::Secure(BoxSecureSwarm::new($made)),
        }
    };
}

/// Calls the same method of whatever swarm it is.
macro_rules! each {
    ($stack:expr, $swarm:ident => $call:expr) => {
        match $stack {
            Stack::Plain($swarm) => $call,
            Stack::Ask($swarm) => $call,
            Stack::Secure($swarm) => $call,
            Stack::SecureAsk($swarm) => $call,
        }
    };
}

impl StackText {
    /// Opens a node of this stack.
    ///
    /// # Errors
    /// Which layer could not be made, and why. What was opened by then is closed.
    pub fn build(&self) -> Result<Stack, StackError> {
        self.build_on(None)
    }

    /// Opens a node of this stack where one was that is gone, so that others reach it at the same address.
    ///
    /// # Errors
    /// As [`build`](Self::build); also if `addr` is not one of the base's.
    pub fn build_at(&self, addr: &BoxAddr) -> Result<Stack, StackError> {
        self.build_on(Some(addr))
    }

    fn build_on(&self, addr: Option<&BoxAddr>) -> Result<Stack, StackError> {
        let mut stack: Option<Stack> = None;
        for placed in &self.layers {
            let failed = |error| StackError::layer(&self.text, placed.at, placed.layer.word(), error);
            let made = match stack {
                None => base(&placed.layer, addr).map_err(failed),
                Some(below) => match &placed.layer {
                    Layer::Allow(list) => self.allow(below, list, placed.argument_at),
                    _ => put(placed, below).map_err(failed),
                },
            };
            stack = Some(made?);
        }
        stack.ok_or_else(|| Piece::new(&self.text).error("a stack has at least a base"))
    }

    fn allow(&self, below: Stack, list: &str, at: usize) -> Result<Stack, StackError> {
        let piece = Piece {
            whole: &self.text,
            at,
            text: list,
        };
        let mut parties = Vec::new();
        for rule in piece.split(';') {
            let party = Party::parse(rule.text, &below).map_err(|error| match error {
                Error::InvalidAddr { at, reason, .. } => {
                    let at = rule.at + at.min(rule.text.len());
                    StackError::new(&self.text, at, format!("not an id, and not an address: {reason}"))
                }
                other => rule.error(other.to_string()),
            });
            parties.push(party?);
        }
        Ok(layer!(below, inner => allow(inner, parties)))
    }
}

fn base(layer: &Layer, at: Option<&BoxAddr>) -> Result<Stack> {
    let foreign = |addr: &BoxAddr| Error::addr(&addr.to_string(), 0, "an address of another kind of base");
    match layer {
        Layer::Mem { realm } => {
            let realm = MemoryRealm::named(realm.as_deref().unwrap_or_default());
            let node = match at {
                None => realm.open(),
                Some(addr) => {
                    let addr: &MemoryAddr = addr.downcast_ref().ok_or_else(|| foreign(addr))?;
                    realm.open_at(*addr)?
                }
            };
            Ok(Stack::SecureAsk(BoxSecureAskSwarm::new(EraseSwarm::erase(node))))
        }
        Layer::Udp { addr, mtu } => {
            let mut config = UdpConfig::default();
            config.mtu = mtu.unwrap_or(config.mtu);
            let addr = match at {
                Some(at) => at.socket_addr().ok_or_else(|| foreign(at))?,
                None => addr.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            };
            let node = UdpSwarm::with_config(addr, config)?;
            Ok(Stack::Plain(BoxSwarm::new(EraseSwarm::erase(node))))
        }
        other => Err(Error::invalid("stack", format!("{} is not a base", other.word()))),
    }
}

fn put(placed: &Placed, below: Stack) -> Result<Stack> {
    Ok(match &placed.layer {
        Layer::Faulty { .. } => {
            let faults = placed.faults.clone();
            let faults = faults.ok_or_else(|| Error::invalid("stack", "it has no medium"))?;
            layer!(below, inner => FaultySwarm::new(inner, faults))
        }
        Layer::Frag { mtu } => {
            let mtu = mtu.unwrap_or(FragmentConfig::default().mtu);
            layer_without_asks!(below, inner => FragmentSwarm::new(inner, mtu))
        }
        Layer::Mbapp { mtu } => {
            let mtu = mtu.unwrap_or(AskingConfig::default().engine.mtu);
            match below {
                Stack::Plain(inner) => Stack::Ask(BoxAskSwarm::new(AskingSwarm::new(inner, mtu))),
                Stack::Ask(inner) => Stack::Ask(BoxAskSwarm::new(AskingSwarm::new(inner, mtu))),
                Stack::Secure(inner) => {
                    Stack::SecureAsk(BoxSecureAskSwarm::new(AskingSwarm::new(inner, mtu)))
                }
                Stack::SecureAsk(inner) => {
                    Stack::SecureAsk(BoxSecureAskSwarm::new(AskingSwarm::new(inner, mtu)))
                }
            }
        }
        Layer::Mux(channel) => match channel {
            Channel::Name(name) => layer!(below, inner => open::<_, Name>(inner, name.as_bytes())?),
            Channel::U16(number) => layer!(below, inner => open::<_, u16>(inner, *number)?),
            Channel::U32(number) => layer!(below, inner => open::<_, u32>(inner, *number)?),
            Channel::U64(number) => layer!(below, inner => open::<_, u64>(inner, *number)?),
            Channel::Varint(number) => layer!(below, inner => open::<_, Varint>(inner, *number)?),
        },
        other => {
            return Err(Error::invalid(
                "stack",
                format!("{} is not a layer", other.word()),
            ));
        }
    })
}

fn open<S: Swarm<BoxAddr>, C: mux::Channel>(
    inner: S,
    channel: impl Into<C>,
) -> Result<MuxSwarm<BoxAddr, S, C>> {
    Mux::<_, _, C>::with_config(inner, MuxConfig::default()).open(channel)
}

fn allow<S>(inner: S, parties: Vec<Party<BoxAddr>>) -> AllowSwarm<BoxAddr, S> {
    let list = AllowSwarm::new(inner, Verdict::Deny);
    for party in parties {
        list.set(party, Verdict::Allow);
    }
    list
}

impl Stack {
    /// The swarm without its asks and keys.
    pub fn swarm(&self) -> BoxSwarm<BoxAddr> {
        match self.clone() {
            Stack::Plain(swarm) => swarm,
            Stack::Ask(swarm) => swarm.into(),
            Stack::Secure(swarm) => swarm.into(),
            Stack::SecureAsk(swarm) => swarm.into(),
        }
    }

    /// Its asks, if its layers have them.
    pub fn asks(&self) -> Option<BoxAskSwarm<BoxAddr>> {
        match self.clone() {
            Stack::Plain(_) | Stack::Secure(_) => None,
            Stack::Ask(swarm) => Some(swarm),
            Stack::SecureAsk(swarm) => Some(BoxAskSwarm::new(swarm)),
        }
    }

    /// Its keys, if its layers have them.
    pub fn keys(&self) -> Option<BoxSecureSwarm<BoxAddr>> {
        match self.clone() {
            Stack::Plain(_) | Stack::Ask(_) => None,
            Stack::Secure(swarm) => Some(swarm),
            Stack::SecureAsk(swarm) => Some(BoxSecureSwarm::new(swarm)),
        }
    }
}

impl Swarm<BoxAddr> for Stack {
    async fn tell(&self, dst: &BoxAddr, packet: Packet) -> Result<()> {
        each!(self, swarm => swarm.tell(dst, packet).await)
    }

    async fn tell_batch(&self, batch: &mut Vec<(BoxAddr, Packet)>) -> Result<(), BatchError> {
        each!(self, swarm => swarm.tell_batch(batch).await)
    }

    async fn receive(&self) -> Result<Message<BoxAddr>> {
        each!(self, swarm => swarm.receive().await)
    }

    async fn receive_batch(&self, out: &mut Vec<Message<BoxAddr>>, max: usize) -> Result<usize> {
        each!(self, swarm => swarm.receive_batch(out, max).await)
    }

    fn mtu(&self) -> usize {
        each!(self, swarm => swarm.mtu())
    }

    fn local_addrs(&self) -> Vec<BoxAddr> {
        each!(self, swarm => swarm.local_addrs())
    }

    fn parse_addr(&self, text: &str) -> Result<BoxAddr> {
        each!(self, swarm => swarm.parse_addr(text))
    }

    async fn close(&self) {
        each!(self, swarm => swarm.close().await);
    }

    fn headroom(&self) -> Headroom {
        each!(self, swarm => swarm.headroom())
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        each!(self, swarm => swarm.visit_counters(visit));
    }
}
