//! The swarm of a stack text, with the capabilities of its layers.

use std::net::SocketAddr;

use p2p::{
    Addr, BatchError, BoxAddr, BoxAskSwarm, BoxSecureAskSwarm, BoxSecureSwarm, BoxSwarm, Counters, Headroom,
    Message, Packet, PeerId, Result, Swarm,
};

use super::Overlay;
use crate::KeyAddr;

/// A swarm whose layers were chosen at run time.
///
/// Every layer costs one allocation per call; a batch is one call.
#[derive(Clone, Debug)]
pub enum Stack {
    /// A swarm with tells only.
    Plain(BoxSwarm<BoxAddr>),
    /// A swarm with asks.
    Ask(BoxAskSwarm<BoxAddr>),
    /// A swarm with keys.
    Secure(BoxSecureSwarm<BoxAddr>),
    /// A swarm with asks and keys.
    SecureAsk(BoxSecureAskSwarm<BoxAddr>),
}

/// A node of a stack, with handles on its overlays.
#[derive(Clone, Debug)]
pub struct StackNode {
    /// The swarm.
    pub stack: Stack,
    /// The overlays, the lowest first.
    pub overlays: Vec<Overlay>,
}

/// Calls the same method on any variant.
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

/// Returns `addr` with the identity `id` in place of its own, as an impostor would write it. Returns `None`
/// if the address contains no identity of a stack layer.
pub fn forged(addr: &BoxAddr, id: PeerId) -> Option<BoxAddr> {
    fn put<A: Addr>(addr: &BoxAddr, id: PeerId) -> Option<BoxAddr> {
        let keyed: &KeyAddr<A> = addr.downcast_ref()?;
        Some(BoxAddr::new(KeyAddr::new(id, keyed.addr.clone())))
    }
    put::<BoxAddr>(addr, id).or_else(|| put::<SocketAddr>(addr, id))
}

impl Stack {
    /// Returns the swarm without its asks and keys.
    pub fn swarm(&self) -> BoxSwarm<BoxAddr> {
        match self.clone() {
            Stack::Plain(swarm) => swarm,
            Stack::Ask(swarm) => swarm.into(),
            Stack::Secure(swarm) => swarm.into(),
            Stack::SecureAsk(swarm) => swarm.into(),
        }
    }

    /// Returns its asks, if its layers support them.
    pub fn asks(&self) -> Option<BoxAskSwarm<BoxAddr>> {
        match self.clone() {
            Stack::Plain(_) | Stack::Secure(_) => None,
            Stack::Ask(swarm) => Some(swarm),
            Stack::SecureAsk(swarm) => Some(BoxAskSwarm::new(swarm)),
        }
    }

    /// Returns its keys, if its layers have them.
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
