//! Restricts which peers a node receives from and sends to.
//!
//! Each rule gives one address, or one identity at any address, a [`Verdict`]; all other peers get the
//! default verdict. A denial takes precedence over a permission. Sends to a denied address fail with
//! [`Error::Denied`], messages from a denied address are dropped and counted, and its asks are rejected at
//! once.
//!
//! # Security
//! - Required of the caller: a secure layer below, on a medium where sources can be forged. Rules by identity
//!   match nothing on a swarm whose addresses contain no identity.
//! - Provided: the verdict at the time of the call; a change applies to every later message.
//! - Not provided: wildcards, and closing of connections. Layers below still exchange packets with a denied
//!   node.
//!
//! # Limits
//! The number of rules is not bounded: the caller sets each of them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{PoisonError, RwLock};

use p2p::{
    Addr, AskSwarm, DropReason, Error, Filter, FilterSwarm, Packet, PeerId, Result, SecureSwarm, Swarm,
    pass_through,
};

/// Whether messages pass, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Messages pass.
    Allow,
    /// Messages are refused.
    Deny,
}

/// The subject of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Party<A> {
    /// An identity, at any address.
    Peer(PeerId),
    /// An address, with any identity.
    Addr(A),
}

impl<A: fmt::Display> fmt::Display for Party<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Party::Peer(id) => id.fmt(f),
            Party::Addr(addr) => addr.fmt(f),
        }
    }
}

impl<A: Addr> Party<A> {
    /// Parses a [`PeerId`], or else an address of `swarm`.
    ///
    /// # Errors
    /// Returns [`Error::InvalidAddr`] if `text` is neither.
    pub fn parse(text: &str, swarm: &impl Swarm<A>) -> Result<Self> {
        match text.parse() {
            Ok(id) => Ok(Party::Peer(id)),
            Err(_) => swarm.parse_addr(text).map(Party::Addr),
        }
    }
}

/// The rules, in any number that the caller sets.
#[derive(Debug)]
struct Rules<A> {
    others: Verdict,
    peers: BTreeMap<PeerId, Verdict>,
    addrs: HashMap<A, Verdict>,
}

impl<A: Addr> Rules<A> {
    fn allows(&self, addr: &A) -> bool {
        let by_addr = self.addrs.get(addr).copied();
        let by_peer = || self.peers.get(&addr.peer_id()?).copied();
        match by_addr {
            Some(Verdict::Deny) => false,
            Some(Verdict::Allow) => self.peers.is_empty() || by_peer() != Some(Verdict::Deny),
            None if self.peers.is_empty() => self.others == Verdict::Allow,
            None => by_peer().unwrap_or(self.others) == Verdict::Allow,
        }
    }
}

/// Lets messages to and from allowed addresses pass.
struct AllowFilter<A>(RwLock<Rules<A>>);

impl<A: Addr> AllowFilter<A> {
    fn allows(&self, addr: &A) -> bool {
        let rules = self.0.read().unwrap_or_else(PoisonError::into_inner);
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
    /// Treats every node in `inner` as `others` says until rules are [`set`](Self::set).
    ///
    /// With [`Verdict::Deny`] the rules are an allow-list, with [`Verdict::Allow`] a deny-list.
    pub fn new(inner: S, others: Verdict) -> Self {
        let rules = Rules {
            others,
            peers: BTreeMap::new(),
            addrs: HashMap::new(),
        };
        Self(FilterSwarm::new(inner, AllowFilter(RwLock::new(rules))))
    }

    /// Sets the verdict of `party`, for every later message.
    pub fn set(&self, party: Party<A>, verdict: Verdict) {
        self.change(|rules| match party {
            Party::Peer(id) => rules.peers.insert(id, verdict),
            Party::Addr(addr) => rules.addrs.insert(addr, verdict),
        });
    }

    /// Removes the verdict of `party`: the one for others applies again.
    pub fn unset(&self, party: &Party<A>) {
        self.change(|rules| match party {
            Party::Peer(id) => rules.peers.remove(id),
            Party::Addr(addr) => rules.addrs.remove(addr),
        });
    }

    /// Changes the verdict of every node without a rule.
    pub fn set_others(&self, verdict: Verdict) {
        self.change(|rules| rules.others = verdict);
    }

    /// Returns whether messages to and from `addr` pass now.
    pub fn allows(&self, addr: &A) -> bool {
        self.0.filter().allows(addr)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Rules<A>) -> R) {
        let AllowFilter(rules) = self.0.filter();
        change(&mut rules.write().unwrap_or_else(PoisonError::into_inner));
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
