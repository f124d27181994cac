//! Restricts which peers a node receives from and sends to.
//!
//! Each [`Rule`] matches one address, or one identity at any address, and has a [`Policy`]; all other peers
//! have the default policy. A denial takes precedence over a permission. Sends to a denied address fail with
//! [`Error::Denied`], messages from a denied address are dropped and counted, and its asks are rejected at
//! once.
//!
//! # Security
//! - Required of the caller: a secure layer below, on a medium where sources can be forged. Rules by identity
//!   match nothing on a swarm whose addresses contain no identity.
//! - Provided: the policy at the time of the call; a change applies to every later message.
//! - Not provided: wildcards, and closing of connections. Layers below still exchange packets with a denied
//!   node.
//!
//! # Limits
//! The number of rules is not bounded: the caller sets each of them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use p2p::{
    Addr, AskSwarm, DropReason, Error, Filter, FilterSwarm, Packet, PeerId, Result, SecureSwarm, Swarm,
    pass_through,
};
use parking_lot::RwLock;

/// Whether messages pass, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Messages pass.
    Allow,
    /// Messages are refused.
    Deny,
}

/// The peers that a [`Policy`] is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Rule<A> {
    /// An identity, at any address.
    Peer(PeerId),
    /// An address, with any identity.
    Addr(A),
}

impl<A: fmt::Display> fmt::Display for Rule<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Peer(id) => id.fmt(f),
            Rule::Addr(addr) => addr.fmt(f),
        }
    }
}

impl<A: Addr> Rule<A> {
    /// Parses a [`PeerId`], or else an address of `swarm`.
    ///
    /// # Errors
    /// Returns [`Error::InvalidAddr`] if `text` is neither.
    pub fn parse(text: &str, swarm: &impl Swarm<A>) -> Result<Self> {
        match text.parse() {
            Ok(id) => Ok(Rule::Peer(id)),
            Err(_) => swarm.parse_addr(text).map(Rule::Addr),
        }
    }
}

/// The rules, in any number that the caller sets.
#[derive(Debug)]
struct Rules<A> {
    others: Policy,
    peers: BTreeMap<PeerId, Policy>,
    addrs: HashMap<A, Policy>,
}

impl<A: Addr> Rules<A> {
    fn allows(&self, addr: &A) -> bool {
        let by_addr = self.addrs.get(addr).copied();
        let by_peer = || self.peers.get(&addr.peer_id()?).copied();
        match by_addr {
            Some(Policy::Deny) => false,
            Some(Policy::Allow) => self.peers.is_empty() || by_peer() != Some(Policy::Deny),
            None if self.peers.is_empty() => self.others == Policy::Allow,
            None => by_peer().unwrap_or(self.others) == Policy::Allow,
        }
    }
}

/// Lets messages to and from allowed addresses pass.
struct AllowFilter<A>(RwLock<Rules<A>>);

impl<A: Addr> AllowFilter<A> {
    fn allows(&self, addr: &A) -> bool {
        let rules = self.0.read();
        rules.allows(addr)
    }
}

impl<A: Addr> Filter<A> for AllowFilter<A> {
    const LAYER: &'static str = "allow";

    fn outgoing(&self, to: &A, _: &mut Packet) -> Result<()> {
        self.lookup(to)
    }

    fn incoming(&self, from: &A, _: &mut Packet) -> Result<(), DropReason> {
        self.allows(from).then_some(()).ok_or(DropReason::Denied)
    }

    fn lookup(&self, addr: &A) -> Result<()> {
        self.allows(addr).then_some(()).ok_or_else(|| Error::denied(addr))
    }
}

/// A swarm in which only allowed addresses are heard and spoken to.
pub struct AllowSwarm<A, S>(FilterSwarm<A, S, AllowFilter<A>>);

impl<A: Addr, S> AllowSwarm<A, S> {
    /// Applies `others` to every peer for which no rule is [`set`](Self::set).
    ///
    /// With [`Policy::Deny`] the rules are an allow-list, with [`Policy::Allow`] a deny-list.
    pub fn new(inner: S, others: Policy) -> Self {
        let rules = Rules {
            others,
            peers: BTreeMap::new(),
            addrs: HashMap::new(),
        };
        Self(FilterSwarm::new(inner, AllowFilter(RwLock::new(rules))))
    }

    /// Sets the policy of `rule`, for every later message.
    pub fn set(&self, rule: Rule<A>, policy: Policy) {
        self.change(|rules| match rule {
            Rule::Peer(id) => rules.peers.insert(id, policy),
            Rule::Addr(addr) => rules.addrs.insert(addr, policy),
        });
    }

    /// Removes `rule`: the policy for other peers applies again.
    pub fn unset(&self, rule: &Rule<A>) {
        self.change(|rules| match rule {
            Rule::Peer(id) => rules.peers.remove(id),
            Rule::Addr(addr) => rules.addrs.remove(addr),
        });
    }

    /// Sets the policy for peers that no rule matches.
    pub fn set_others(&self, policy: Policy) {
        self.change(|rules| rules.others = policy);
    }

    /// Returns whether messages to and from `addr` pass now.
    pub fn allows(&self, addr: &A) -> bool {
        self.0.filter().allows(addr)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Rules<A>) -> R) {
        let AllowFilter(rules) = self.0.filter();
        change(&mut rules.write());
    }
}

impl<A, S> AllowSwarm<A, S> {
    /// Returns the swarm below.
    pub fn inner(&self) -> &S {
        self.0.inner()
    }
}

impl<A: Addr, S: Swarm<A>> Swarm<A> for AllowSwarm<A, S> {
    pass_through!(0: tell, tell_batch, receive, receive_batch, mtu, headroom, local_addrs, parse_addr, close,
        visit_counters);
}

impl<A: Addr, S: AskSwarm<A>> AskSwarm<A> for AllowSwarm<A, S> {
    pass_through!(0: ask, receive_ask);
}

impl<A: Addr, S: SecureSwarm<A>> SecureSwarm<A> for AllowSwarm<A, S> {
    pass_through!(0: PublicKey, public_key, lookup_public_key);
}

impl<A, S: fmt::Debug> fmt::Debug for AllowSwarm<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("AllowSwarm");
        shown.field("inner", self.inner()).finish_non_exhaustive()
    }
}
