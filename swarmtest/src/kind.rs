//! The capabilities of a swarm as a type: tells only, asks, keys, or all.

use std::sync::Arc;

use p2p::{Addr, AskSwarm, BoxAddr, BoxAskSwarm, BoxSecureSwarm, BoxSwarm, SecureSwarm, Swarm, pass_through};

use crate::Outcome;
use crate::erased::Erased;
use crate::report::Unmet;

/// The capabilities that a law needs beyond `tell` and `receive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Needs {
    /// None.
    Swarm,
    /// [`AskSwarm`].
    Ask,
    /// [`SecureSwarm`].
    Secure,
    /// [`AskSwarm`] and [`SecureSwarm`].
    SecureAsk,
}

/// How a swarm of type `S` is checked: as [`Plain`], [`Ask`], [`Secure`] or [`SecureAsk`].
///
/// A swarm is not checked for capabilities that it lacks; the compiler names the missing layer:
/// ```compile_fail,E0277
/// use p2p_swarmtest::wire::Tap;
/// use p2p_swarmtest::{Ask, Testbed};
///
/// // A wire's tap has no asks.
/// let testbed = Testbed::over(Ask, async |taps: Vec<Tap>| Ok(taps));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{S}` cannot be checked as `{Self}`",
    label = "the swarm lacks a capability of this kind",
    note = "`Plain` is any swarm; `Ask` needs a layer that carries asks, `Secure` a layer that proves identities, `SecureAsk` both"
)]
pub trait Kind<A, S>: Copy {
    /// Returns whether laws with these needs apply.
    fn has(self, needs: Needs) -> bool;

    /// Wraps a node with the capabilities of this kind.
    fn node(self, swarm: S) -> Node<A>;
}

/// A swarm with tells.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

/// A swarm with tells and asks.
#[derive(Clone, Copy, Debug)]
pub struct Ask;

/// A swarm with tells and keys.
#[derive(Clone, Copy, Debug)]
pub struct Secure;

/// A swarm with tells, asks and keys.
#[derive(Clone, Copy, Debug)]
pub struct SecureAsk;

impl<A: Addr, S: Swarm<A>> Kind<A, S> for Plain {
    fn has(self, needs: Needs) -> bool {
        matches!(needs, Needs::Swarm)
    }
    fn node(self, swarm: S) -> Node<A> {
        Node {
            swarm: BoxSwarm::new(swarm),
            ask: None,
            secure: None,
        }
    }
}

impl<A: Addr, S: AskSwarm<A>> Kind<A, S> for Ask {
    fn has(self, needs: Needs) -> bool {
        matches!(needs, Needs::Swarm | Needs::Ask)
    }
    fn node(self, swarm: S) -> Node<A> {
        let ask = BoxAskSwarm::new(swarm);
        Node {
            swarm: ask.clone().into(),
            ask: Some(ask),
            secure: None,
        }
    }
}

impl<A: Addr, S: SecureSwarm<A>> Kind<A, S> for Secure {
    fn has(self, needs: Needs) -> bool {
        matches!(needs, Needs::Swarm | Needs::Secure)
    }
    fn node(self, swarm: S) -> Node<A> {
        let secure = BoxSecureSwarm::new(swarm);
        Node {
            swarm: secure.clone().into(),
            ask: None,
            secure: Some(secure),
        }
    }
}

impl<A: Addr, S: AskSwarm<A> + SecureSwarm<A>> Kind<A, S> for SecureAsk {
    fn has(self, _: Needs) -> bool {
        true
    }
    fn node(self, swarm: S) -> Node<A> {
        let swarm = Arc::new(swarm);
        Node {
            swarm: BoxSwarm::new(swarm.clone()),
            ask: Some(BoxAskSwarm::new(swarm.clone())),
            secure: Some(BoxSecureSwarm::new(swarm)),
        }
    }
}

/// One node of the swarm under test, type-erased. The swarm is dropped with the last clone.
#[derive(Clone, Debug)]
pub struct Node<A> {
    swarm: BoxSwarm<A>,
    ask: Option<BoxAskSwarm<A>>,
    secure: Option<BoxSecureSwarm<A>>,
}

impl<A: Addr> Node<A> {
    /// Returns the best address of this node for other nodes.
    ///
    /// # Errors
    /// Returns [`Unmet::Broken`] if it has none.
    pub fn addr(&self) -> Outcome<A> {
        let first = self.local_addrs().into_iter().next();
        first.ok_or_else(|| Unmet::Broken("local_addrs() is empty".into()))
    }

    /// Returns its asks.
    ///
    /// # Errors
    /// Returns [`Unmet::Waived`] if it has none.
    pub fn ask_side(&self) -> Outcome<&BoxAskSwarm<A>> {
        self.ask
            .as_ref()
            .ok_or_else(|| Unmet::Waived("the swarm does not support asks".into()))
    }

    /// Returns its keys.
    ///
    /// # Errors
    /// Returns [`Unmet::Waived`] if it has none.
    pub fn secure_side(&self) -> Outcome<&BoxSecureSwarm<A>> {
        self.secure
            .as_ref()
            .ok_or_else(|| Unmet::Waived("the swarm has no keys".into()))
    }

    /// Returns the same node with erased addresses.
    pub(crate) fn erase(self) -> Node<BoxAddr> {
        Node {
            swarm: BoxSwarm::new(Erased::new(self.swarm)),
            ask: self.ask.map(|ask| BoxAskSwarm::new(Erased::new(ask))),
            secure: self.secure.map(|secure| BoxSecureSwarm::new(Erased::new(secure))),
        }
    }
}

impl<A: Addr> Swarm<A> for Node<A> {
    pass_through!(swarm: tell, tell_batch, receive, receive_batch, mtu, local_addrs, parse_addr, close,
        headroom, visit_counters);
}
