//! The operations of the application.

use std::time::Duration;

use p2p::{Addr, Error, PeerId, Result};

use super::engine::Engine;
use super::operation::Goal;
use crate::overlay::OpId;

impl<A: Addr> Engine<A> {
    /// Joins the ring of the first bootstrap node that answers: finds this node's successor, notifies it, and
    /// requests the records of this node's range from it. Ends with
    /// [`Outcome::Joined`](super::Outcome::Joined); from then on lookups find this node. The whole ring knows
    /// it after some rounds of stabilization. Until the join ends, the node accepts no other node.
    ///
    /// If the join fails, it is tried again, [`Config::join_tries`](super::Config::join_tries) times in total.
    ///
    /// # Errors
    /// [`Error::Invalid`] without an address, and [`Error::Limit`] with too many operations. Nothing is sent.
    pub fn join(&mut self, now: Duration, bootstraps: &[A]) -> Result<OpId> {
        if bootstraps.is_empty() {
            return Err(Error::invalid(
                "bootstrap",
                "a join needs at least one bootstrap address",
            ));
        }
        let (own, limit) = (self.table.own, self.rules.config.bootstraps);
        let bootstraps: Vec<A> = bootstraps.iter().take(limit).cloned().collect();
        self.upkeep.bootstraps.clone_from(&bootstraps);
        self.start(now, Goal::Join, own, bootstraps)
    }

    /// Finds the node that succeeds a key by asking one node after another (iterative lookup). Ends with
    /// [`Outcome::Found`](super::Outcome::Found).
    ///
    /// # Errors
    /// [`Error::Limit`] with too many operations. Nothing is sent.
    pub fn lookup(&mut self, now: Duration, key: PeerId) -> Result<OpId> {
        self.start(now, Goal::Find, key, Vec::new())
    }

    /// Finds one node and verifies that it answers. Ends with [`Outcome::Located`](super::Outcome::Located).
    ///
    /// # Errors
    /// [`Error::Limit`] with too many operations. Nothing is sent.
    pub fn locate(&mut self, now: Duration, id: PeerId) -> Result<OpId> {
        self.start(now, Goal::Locate, id, Vec::new())
    }

    /// Gets the record with a key, from its owner or a node with a copy. Ends with
    /// [`Outcome::Value`](super::Outcome::Value).
    ///
    /// # Errors
    /// [`Error::Limit`] with too many operations. Nothing is sent.
    pub fn get(&mut self, now: Duration, key: PeerId) -> Result<OpId> {
        self.start(now, Goal::Get { missing: 0 }, key, Vec::new())
    }

    /// Stores a record at its key's successor, which copies it to the nodes after it. Ends with
    /// [`Outcome::Stored`](super::Outcome::Stored).
    ///
    /// The record lives for `ttl`, rounded up to seconds and limited by the nodes that keep it. To keep it
    /// longer, put it again.
    ///
    /// # Errors
    /// [`Error::MtuExceeded`] for a value that is too long, [`Error::Invalid`] if the validator rejects the
    /// record or `ttl` is zero, [`Error::Limit`] with too many operations. Nothing is sent.
    pub fn put(&mut self, now: Duration, key: PeerId, value: &[u8], ttl: Duration) -> Result<OpId> {
        let mtu = self.rules.config.value;
        if value.len() > mtu {
            let size = value.len();
            return Err(Error::MtuExceeded { size, mtu });
        }
        if !self.rules.validator.is_valid(&key.into(), value) {
            return Err(Error::invalid("record", "the validator rejects it"));
        }
        if ttl.is_zero() {
            return Err(Error::invalid("record", "its time to live is zero"));
        }
        let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        let ttl = u32::try_from(seconds).unwrap_or(u32::MAX);
        let value = value.to_vec();
        self.start(now, Goal::Put { ttl, value }, key, Vec::new())
    }

    /// Cancels an operation. It produces no further events. Returns whether it was running.
    pub fn cancel(&mut self, op: OpId) -> bool {
        self.ops.remove(&op).is_some() || self.upkeep.joined.take_if(|joined| joined.op == op).is_some()
    }

    fn start(&mut self, now: Duration, goal: Goal, key: PeerId, bootstraps: Vec<A>) -> Result<OpId> {
        let limit = self.rules.config.operations;
        if self.ops.values().filter(|op| !op.upkeep).count() >= limit {
            let what = "operations";
            return Err(Error::Limit { what, limit });
        }
        Ok(self.begin(now, goal, key, bootstraps, false))
    }
}
