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
    Addr, AskSwarm, BatchError, BatchOutcome, Counters, Error, Message, Packet, PeerId, Reason, Rejection,
    Request, Result, SecureSwarm, Swarm, pass_through,
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

/// A layer that receives from and sends to allowed addresses only.
///
/// ```
/// use p2p::{Error, Swarm};
/// use p2p_swarms::allow::{AllowSwarm, Party, Verdict};
/// use p2p_swarms::MemorySwarm;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// let bob = MemorySwarm::new();
/// let alice = AllowSwarm::new(bob.realm().open(), Verdict::Deny);
/// let to = bob.local_addr();
/// let refused = alice.tell(&to, alice.packet(b"hello")).await;
/// assert!(matches!(refused, Err(Error::Denied { .. })));
///
/// alice.set(Party::Addr(to.clone()), Verdict::Allow);
/// alice.tell(&to, alice.packet(b"hello")).await?;
/// assert_eq!(bob.receive().await?.payload, b"hello");
/// # Ok(())
/// # }
/// ```
pub struct AllowSwarm<A, S> {
    inner: S,
    rules: RwLock<Rules<A>>,
    counters: Counters,
}

impl<A, S> AllowSwarm<A, S> {
    /// Creates a layer that applies `others` to every peer until rules are [`set`](Self::set).
    ///
    /// With [`Verdict::Deny`] the rules are an allow-list, with [`Verdict::Allow`] a deny-list.
    pub fn new(inner: S, others: Verdict) -> Self {
        Self {
            inner,
            rules: RwLock::new(Rules {
                others,
                peers: BTreeMap::new(),
                addrs: HashMap::new(),
            }),
            counters: Counters::new("allow"),
        }
    }

    /// Returns the swarm below.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl<A: Addr, S> AllowSwarm<A, S> {
    /// Sets the verdict of `party`, which applies from now on.
    pub fn set(&self, party: Party<A>, verdict: Verdict) {
        self.change(|rules| match party {
            Party::Peer(id) => rules.peers.insert(id, verdict),
            Party::Addr(addr) => rules.addrs.insert(addr, verdict),
        });
    }

    /// Removes the verdict of `party`: the default verdict applies again.
    pub fn unset(&self, party: &Party<A>) {
        self.change(|rules| match party {
            Party::Peer(id) => rules.peers.remove(id),
            Party::Addr(addr) => rules.addrs.remove(addr),
        });
    }

    /// Sets the default verdict, which applies to every peer without a rule.
    pub fn set_others(&self, verdict: Verdict) {
        self.change(|rules| rules.others = verdict);
    }

    /// Returns whether messages to and from `addr` currently pass.
    pub fn allows(&self, addr: &A) -> bool {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.allows(addr)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Rules<A>) -> R) {
        change(&mut self.rules.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn permit(&self, dst: &A) -> Result<()> {
        if self.allows(dst) {
            Ok(())
        } else {
            Err(Error::denied(dst))
        }
    }
}

impl<A: Addr, S: Swarm<A>> Swarm<A> for AllowSwarm<A, S> {
    pass_through!(inner: mtu, headroom, local_addrs, parse_addr, close);

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.counters);
        self.inner.visit_counters(visit);
    }

    async fn tell(&self, dst: &A, packet: Packet) -> Result<()> {
        self.permit(dst)?;
        self.inner.tell(dst, packet).await?;
        self.counters.sent(1);
        Ok(())
    }

    async fn tell_batch(&self, batch: &mut Vec<(A, Packet)>) -> Result<(), BatchError> {
        let mut outcome = BatchOutcome::default();
        {
            let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
            batch.retain(|(dst, _)| {
                let allowed = rules.allows(dst);
                if !allowed {
                    outcome.refused(1, Error::denied(dst));
                }
                allowed
            });
        }
        let count = batch.len();
        if count > 0 {
            let result = self.inner.tell_batch(batch).await;
            self.counters
                .sent(result.as_ref().map_or_else(|error| error.sent, |()| count));
            outcome.record_batch(count, result);
        }
        outcome.finish()
    }

    async fn receive(&self) -> Result<Message<A>> {
        loop {
            let message = self.inner.receive().await?;
            self.counters.received(1);
            if self.allows(&message.src) {
                self.counters.delivered(1);
                return Ok(message);
            }
            self.counters.dropped_at(Reason::Denied, &message.src);
        }
    }

    async fn receive_batch(&self, out: &mut Vec<Message<A>>, max: usize) -> Result<usize> {
        let before = out.len();
        loop {
            let arrived = self.inner.receive_batch(out, max).await?;
            if arrived == 0 {
                return Ok(0);
            }
            self.counters.received(arrived);
            {
                let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
                let mut index = 0;
                out.retain(|message| {
                    index += 1;
                    let keep = index <= before || rules.allows(&message.src);
                    if !keep {
                        self.counters.dropped_at(Reason::Denied, &message.src);
                    }
                    keep
                });
            }
            let kept = out.len() - before;
            self.counters.delivered(kept);
            if kept > 0 {
                return Ok(kept);
            }
        }
    }
}

impl<A: Addr, S: AskSwarm<A>> AskSwarm<A> for AllowSwarm<A, S> {
    async fn ask(&self, dst: &A, request: Packet) -> Result<Packet> {
        self.permit(dst)?;
        self.inner.ask(dst, request).await
    }

    async fn receive_ask(&self) -> Result<Request<A>> {
        loop {
            let request = self.inner.receive_ask().await?;
            if self.allows(&request.src) {
                return Ok(request);
            }
            self.counters.dropped_at(Reason::Denied, &request.src);
            request.reject(Rejection::DENIED);
        }
    }
}

impl<A: Addr, S: SecureSwarm<A>> SecureSwarm<A> for AllowSwarm<A, S> {
    pass_through!(inner: PublicKey, public_key);

    async fn lookup_public_key(&self, addr: &A) -> Result<S::PublicKey> {
        self.permit(addr)?;
        self.inner.lookup_public_key(addr).await
    }
}

impl<A, S: fmt::Debug> fmt::Debug for AllowSwarm<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("AllowSwarm");
        shown.field("inner", &self.inner).finish_non_exhaustive()
    }
}
