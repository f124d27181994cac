//! The operations of the application: each begins with a lookup.

use std::time::Duration;

use p2p::{Addr, Error, PeerId, Result};

use super::codec::Request;
use super::engine::{Engine, Published, Purpose};
use super::operation::{Named, Op, Task};
use crate::overlay::{Key, OpId};

impl<A: Addr> Engine<A> {
    /// Joins the network through bootstrap nodes, or through the existing contacts if `bootstraps` is empty.
    ///
    /// Asks each bootstrap address for its id and waits for all answers, looks up this node's own id, then
    /// looks up a few nodes for each bucket that is less than a quarter full. At least one bootstrap node
    /// should be honest. Ends with [`Outcome::Joined`](super::Outcome::Joined).
    ///
    /// # Errors
    /// [`Error::Limit`] with too many operations. Nothing is sent.
    pub fn join(&mut self, now: Duration, bootstraps: &[A]) -> Result<OpId> {
        let op = self.new_op()?;
        let mut asked = 0;
        for addr in bootstraps.iter().take(self.rules.config.bootstraps) {
            if addr.peer_id() != Some(self.own) {
                let purpose = Purpose::Bootstrap(op);
                self.send(now, addr.peer_id(), addr.clone(), &Request::Ping, purpose);
                asked += 1;
            }
        }
        let task = Task::Join {
            asked,
            begun: false,
            buckets: None,
        };
        self.begin(now, op, task, self.key.clone(), false);
        Ok(op)
    }

    /// Finds the nodes nearest to an id. Ends with [`Outcome::Nodes`](super::Outcome::Nodes).
    ///
    /// # Errors
    /// [`Error::Limit`] with too many operations. Nothing is sent.
    pub fn find_node(&mut self, now: Duration, target: impl Into<Key>) -> Result<OpId> {
        let op = self.new_op()?;
        self.begin(now, op, Task::FindNode, target.into(), false);
        Ok(op)
    }

    /// Finds one node and verifies that it answers. Ends with [`Outcome::Located`](super::Outcome::Located) as soon as the node
    /// answers.
    ///
    /// # Errors
    /// [`Error::Limit`] with too many operations. Nothing is sent.
    pub fn locate(&mut self, now: Duration, id: impl Into<Key>) -> Result<OpId> {
        let op = self.new_op()?;
        self.begin(now, op, Task::Locate, id.into(), false);
        Ok(op)
    }

    /// Finds a record. Ends with [`Outcome::Record`](super::Outcome::Record): the best record among the answers of a quorum of nodes.
    ///
    /// The best record is then stored on the nearest asked node that did not have it, and on those that had a
    /// worse one.
    ///
    /// # Errors
    /// [`Error::Limit`] with too many operations. Nothing is sent.
    pub fn get(&mut self, now: Duration, key: impl Into<Key>) -> Result<OpId> {
        let (op, key) = (self.new_op()?, key.into());
        let here = self.records.get(now, key.id());
        let best = here.map(|(value, ttl)| (value.to_vec(), now.saturating_add(ttl)));
        let found = usize::from(best.is_some());
        let task = Task::Get {
            best,
            found,
            holders: Vec::new(),
            worse: Vec::new(),
        };
        self.begin(now, op, task, key, false);
        Ok(op)
    }

    /// Stores a record on the nodes nearest to its key, and repeats this periodically until
    /// [`unpublish`](Self::unpublish). Ends with [`Outcome::Kept`](super::Outcome::Kept).
    ///
    /// # Errors
    /// [`Error::Invalid`] if the validator rejects the record or `ttl` is below one second,
    /// [`Error::MtuExceeded`] for a value that is too long, [`Error::Limit`] with too many operations or own
    /// records. Nothing is sent.
    pub fn put(&mut self, now: Duration, key: impl Into<Key>, value: &[u8], ttl: Duration) -> Result<OpId> {
        let (config, key) = (self.rules.config, key.into());
        if value.len() > config.value {
            return Err(Error::MtuExceeded {
                size: value.len(),
                mtu: config.value,
            });
        }
        if !self.rules.validator.is_valid(&key, value) {
            return Err(Error::invalid("record", "the validator rejects it"));
        }
        if ttl < Duration::from_secs(1) {
            return Err(Error::invalid("record", "its time to live is below one second"));
        }
        if !self.published.contains_key(key.id()) {
            limit("published records", self.published.len(), config.published)?;
        }
        let op = self.new_op()?;
        let ttl = ttl.min(config.record_ttl);
        let value = value.to_vec();
        let published = Published {
            key: key.clone(),
            value: value.clone(),
            ttl,
            next: now.saturating_add(config.republish_every.min(ttl / 2)),
        };
        self.published.insert(*key.id(), published);
        let until = now.saturating_add(ttl);
        self.begin(now, op, Task::Put { value, until }, key, false);
        Ok(op)
    }

    /// Stops republishing a record. Copies of it remain until they expire. Returns whether it was being
    /// published.
    pub fn unpublish(&mut self, key: &PeerId) -> bool {
        self.published.remove(key).is_some()
    }

    /// Announces this node as a provider to the nodes nearest to a key, and repeats this periodically until
    /// [`stop_providing`](Self::stop_providing). Ends with [`Outcome::Kept`](super::Outcome::Kept).
    ///
    /// # Errors
    /// [`Error::Limit`] with too many operations or keys. Nothing is sent.
    pub fn provide(&mut self, now: Duration, key: impl Into<Key>) -> Result<OpId> {
        let (config, key) = (self.rules.config, key.into());
        if !self.provided.contains_key(key.id()) {
            limit("provided keys", self.provided.len(), config.published)?;
        }
        let op = self.new_op()?;
        let next = now.saturating_add(config.republish_every.min(config.provider_ttl / 2));
        self.provided.insert(*key.id(), (key.clone(), next));
        self.begin(now, op, Task::Provide, key, false);
        Ok(op)
    }

    /// Stops announcing this node as a provider of a key. Announcements remain until they expire. Returns
    /// whether the key was being provided.
    pub fn stop_providing(&mut self, key: &PeerId) -> bool {
        self.provided.remove(key).is_some()
    }

    /// Finds the providers of a key. Ends with [`Outcome::Providers`](super::Outcome::Providers).
    ///
    /// # Errors
    /// [`Error::Limit`] with too many operations. Nothing is sent.
    pub fn providers(&mut self, now: Duration, key: impl Into<Key>) -> Result<OpId> {
        let (op, key) = (self.new_op()?, key.into());
        let own = self.providers.get(now, key.id()).cloned();
        let found = own.map(|contact| Named { contact, votes: 1 }).collect();
        self.begin(now, op, Task::Providers { found }, key, false);
        Ok(op)
    }

    /// Cancels an operation. It produces no further events. Returns whether it was running.
    pub fn cancel(&mut self, op: OpId) -> bool {
        self.ops.remove(&op).is_some()
    }

    fn new_op(&mut self) -> Result<OpId> {
        let running = self.ops.values().filter(|op| !op.upkeep).count();
        limit("operations", running, self.rules.config.operations)?;
        Ok(OpId(self.requests.new_id()))
    }

    /// Starts an operation with a lookup of its key.
    pub(super) fn begin(&mut self, now: Duration, id: OpId, task: Task<A>, key: Key, upkeep: bool) {
        let lookup = self.look_up(now, *key.id(), self.rules.config.k);
        let op = Op {
            key,
            lookup,
            task,
            upkeep,
            storing: None,
            copies: 0,
        };
        self.advance(now, id, Box::new(op));
    }
}

fn limit(what: &'static str, held: usize, limit: usize) -> Result<()> {
    if held < limit {
        Ok(())
    } else {
        Err(Error::Limit { what, limit })
    }
}
