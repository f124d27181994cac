//! The inner type of every layer in a stack: one type for all capabilities, so that each layer is compiled
//! once and not for every set of capabilities.
//!
//! A layer has the capabilities of its inner swarm that it passes on. Over an inner swarm that claims all
//! capabilities it has all of them; the stack exposes those that really exist.

use p2p::{
    AskSwarm, BoxAddr, BoxAskSwarm, BoxSecureAskSwarm, BoxSecureSwarm, BoxSwarm, Error, Packet, Request,
    Result, SecureSwarm, Swarm, pass_through,
};

use super::Stack;

/// A stack as the inner swarm of the next layer. Missing asks and keys fail when they are used.
pub(super) struct Below {
    stack: Stack,
}

impl Below {
    pub(super) fn new(stack: Stack) -> Self {
        Self { stack }
    }
}

type A = BoxAddr;

impl Swarm<A> for Below {
    pass_through!(stack: tell, tell_batch, receive, receive_batch, mtu, local_addrs, parse_addr, close, headroom,
        visit_counters);
}

impl AskSwarm<A> for Below {
    async fn ask(&self, dst: &A, request: Packet) -> Result<Packet> {
        match &self.stack {
            Stack::Plain(_) | Stack::Secure(_) => Err(no_asks()),
            Stack::Ask(swarm) => swarm.ask(dst, request).await,
            Stack::SecureAsk(swarm) => swarm.ask(dst, request).await,
        }
    }

    async fn receive_ask(&self) -> Result<Request<A>> {
        match &self.stack {
            Stack::Plain(_) | Stack::Secure(_) => Err(no_asks()),
            Stack::Ask(swarm) => swarm.receive_ask().await,
            Stack::SecureAsk(swarm) => swarm.receive_ask().await,
        }
    }
}

impl SecureSwarm<A> for Below {
    /// The key bytes; empty if there are no keys.
    type PublicKey = Vec<u8>;

    fn public_key(&self) -> Vec<u8> {
        match &self.stack {
            Stack::Plain(_) | Stack::Ask(_) => Vec::new(),
            Stack::Secure(swarm) => swarm.public_key().as_ref().to_vec(),
            Stack::SecureAsk(swarm) => swarm.public_key().as_ref().to_vec(),
        }
    }

    async fn lookup_public_key(&self, addr: &A) -> Result<Vec<u8>> {
        let key = match &self.stack {
            Stack::Plain(_) | Stack::Ask(_) => Err(Error::invalid("inner swarm", "it has no keys")),
            Stack::Secure(swarm) => swarm.lookup_public_key(addr).await,
            Stack::SecureAsk(swarm) => swarm.lookup_public_key(addr).await,
        };
        Ok(key?.as_ref().to_vec())
    }
}

fn no_asks() -> Error {
    Error::invalid("inner swarm", "it does not support asks")
}

/// Capabilities of a stack in addition to tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abilities {
    pub(super) asks: bool,
    pub(super) keys: bool,
}

impl Abilities {
    pub(super) fn of(stack: &Stack) -> Self {
        Self {
            asks: matches!(stack, Stack::Ask(_) | Stack::SecureAsk(_)),
            keys: matches!(stack, Stack::Secure(_) | Stack::SecureAsk(_)),
        }
    }

    /// Creates the stack of a layer that passes asks and keys on.
    pub(super) fn show<L: AskSwarm<A> + SecureSwarm<A>>(self, layer: L) -> Stack {
        match self {
            Self { asks: false, keys } => Self::show_keys(keys, layer),
            Self { keys: false, .. } => Stack::Ask(BoxAskSwarm::new(layer)),
            Self { keys: true, .. } => Stack::SecureAsk(BoxSecureAskSwarm::new(layer)),
        }
    }

    /// Creates the stack of a layer that passes keys but no asks on.
    pub(super) fn show_keys<L: SecureSwarm<A>>(keys: bool, layer: L) -> Stack {
        if keys {
            Stack::Secure(BoxSecureSwarm::new(layer))
        } else {
            Stack::Plain(BoxSwarm::new(layer))
        }
    }
}
