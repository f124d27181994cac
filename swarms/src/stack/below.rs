//! What a layer of a stack stands on: one type, whatever the layers below can do, so that each layer is compiled once
//! and not for every set of capabilities.
//!
//! A layer has the capabilities that it passes on of what it stands on. Over one that says that it has them all, it has
//! them all, too; a stack shows those that are really there.

use p2p::{
    AskSwarm, BoxAddr, BoxAskSwarm, BoxSecureAskSwarm, BoxSecureSwarm, BoxSwarm, Error, Packet, Request,
    Result, SecureSwarm, Swarm, pass_through,
};

use super::Stack;

/// A stack as what the next layer stands on. Where it carries no asks or has no keys, those fail.
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
    /// Its bytes; none where there are no keys.
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
    Error::invalid("inner swarm", "it carries no asks")
}

/// What a stack can do beside telling.
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

    /// A layer that has asks and keys as far as there are some below.
    pub(super) fn show<L: AskSwarm<A> + SecureSwarm<A>>(self, layer: L) -> Stack {
        match self {
            Self { asks: false, keys } => Self::show_keys(keys, layer),
            Self { keys: false, .. } => Stack::Ask(BoxAskSwarm::new(layer)),
            Self { keys: true, .. } => Stack::SecureAsk(BoxSecureAskSwarm::new(layer)),
        }
    }

    /// A layer at which asks end.
    pub(super) fn show_keys<L: SecureSwarm<A>>(keys: bool, layer: L) -> Stack {
        if keys {
            Stack::Secure(BoxSecureSwarm::new(layer))
        } else {
            Stack::Plain(BoxSwarm::new(layer))
        }
    }
}
