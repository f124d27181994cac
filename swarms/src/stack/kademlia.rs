//! What a Kademlia node in a stack does beside telling and asking: finds nodes, gets and puts records.

use std::time::Duration;

use p2p::{BoxAddr, PeerId, Result};
use p2p_protocols::kademlia::{Contact, Engine, Progress, Record};

use super::overlay::OverlayNode;

/// A node that the word `kad` made; see [`KademliaSwarm`](crate::KademliaSwarm) for all that it does.
///
/// Each operation tells `watch` how far it is, and is given up if its future is dropped.
pub type Kademlia = OverlayNode<Engine<BoxAddr>>;

impl Kademlia {
    /// Finds the nodes nearest to an id; see [`find_node`](crate::KademliaSwarm::find_node).
    ///
    /// # Errors
    /// As there.
    pub async fn find_node(&self, id: PeerId, watch: impl FnMut(Progress)) -> Result<Vec<Contact<BoxAddr>>> {
        self.swarm.find_node(id)?.watch(watch).await
    }

    /// Finds a record; see [`get`](crate::KademliaSwarm::get).
    ///
    /// # Errors
    /// As there.
    pub async fn get(&self, key: PeerId, watch: impl FnMut(Progress)) -> Result<Option<Record>> {
        self.swarm.get(key)?.watch(watch).await
    }

    /// Puts a record, and comes to how many other nodes keep it; see [`put`](crate::KademliaSwarm::put).
    ///
    /// # Errors
    /// As there.
    pub async fn put(
        &self,
        key: PeerId,
        value: &[u8],
        ttl: Duration,
        watch: impl FnMut(Progress),
    ) -> Result<usize> {
        self.swarm.put(key, value, ttl)?.watch(watch).await
    }

    /// How many nodes have a place in a bucket.
    ///
    /// # Errors
    /// As [`contacts`](crate::KademliaSwarm::contacts).
    pub fn contacts(&self) -> Result<usize> {
        self.swarm.contacts()
    }
}
