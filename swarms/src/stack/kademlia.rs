//! Operations of a Kademlia node in a stack: node lookups and records.

use std::time::Duration;

use p2p::{BoxAddr, PeerId, Result};
use p2p_protocols::kademlia::{Contact, Engine, Progress, Record};

use super::overlay::OverlayNode;

/// A handle on the node of a `kad` layer; see [`KademliaSwarm`](crate::KademliaSwarm) for its operations.
///
/// Each operation calls `watch` with its progress, and is cancelled if its future is dropped.
pub type Kademlia = OverlayNode<Engine<BoxAddr>>;

impl Kademlia {
    /// Looks up the nodes nearest to an id; see [`find_node`](crate::KademliaSwarm::find_node).
    ///
    /// # Errors
    /// Returns the same errors.
    pub async fn find_node(&self, id: PeerId, watch: impl FnMut(Progress)) -> Result<Vec<Contact<BoxAddr>>> {
        self.swarm.find_node(id)?.watch(watch).await
    }

    /// Looks up a record; see [`get`](crate::KademliaSwarm::get).
    ///
    /// # Errors
    /// Returns the same errors.
    pub async fn get(&self, key: PeerId, watch: impl FnMut(Progress)) -> Result<Option<Record>> {
        self.swarm.get(key)?.watch(watch).await
    }

    /// Stores a record, and resolves to the number of other nodes that store it; see
    /// [`put`](crate::KademliaSwarm::put).
    ///
    /// # Errors
    /// Returns the same errors.
    pub async fn put(
        &self,
        key: PeerId,
        value: &[u8],
        ttl: Duration,
        watch: impl FnMut(Progress),
    ) -> Result<usize> {
        self.swarm.put(key, value, ttl)?.watch(watch).await
    }

    /// Returns the number of nodes in the buckets.
    ///
    /// # Errors
    /// Returns the errors of [`contacts`](crate::KademliaSwarm::contacts).
    pub fn contacts(&self) -> Result<usize> {
        self.swarm.contacts()
    }
}
