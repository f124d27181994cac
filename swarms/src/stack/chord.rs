//! Operations of a Chord node in a stack: lookups, records, leaving.

use std::time::Duration;

use p2p::{BoxAddr, PeerId, Result};
use p2p_protocols::chord::{Engine, Found, Progress};

use super::overlay::OverlayNode;

/// A handle on the node of a `chord` layer; see [`ChordSwarm`](crate::ChordSwarm) for its operations.
///
/// Each operation calls `watch` with its progress, and is cancelled if its future is dropped.
pub type Chord = OverlayNode<Engine<BoxAddr>>;

impl Chord {
    /// Looks up the successor of a key; see [`lookup`](crate::ChordSwarm::lookup).
    ///
    /// # Errors
    /// Returns the same errors.
    pub async fn lookup(&self, key: PeerId, watch: impl FnMut(Progress)) -> Result<Found<BoxAddr>> {
        self.swarm.lookup(key)?.watch(watch).await
    }

    /// Fetches a record; see [`get`](crate::ChordSwarm::get).
    ///
    /// # Errors
    /// Returns the same errors.
    pub async fn get(&self, key: PeerId, watch: impl FnMut(Progress)) -> Result<Option<Vec<u8>>> {
        self.swarm.get(key)?.watch(watch).await
    }

    /// Stores a record; see [`put`](crate::ChordSwarm::put).
    ///
    /// # Errors
    /// Returns the same errors.
    pub async fn put(
        &self,
        key: PeerId,
        value: &[u8],
        ttl: Duration,
        watch: impl FnMut(Progress),
    ) -> Result<()> {
        self.swarm.put(key, value, ttl)?.watch(watch).await
    }

    /// Leaves the ring, and hands the node's records over; see [`leave`](crate::ChordSwarm::leave).
    ///
    /// # Errors
    /// Returns the same errors.
    pub async fn leave(&self, watch: impl FnMut(Progress)) -> Result<()> {
        self.swarm.leave()?.watch(watch).await
    }
}
