//! What a Chord node in a stack does beside telling and asking: looks keys up, gets and puts records, leaves.

use std::time::Duration;

use p2p::{BoxAddr, PeerId, Result};
use p2p_protocols::chord::{Engine, Found, Progress};

use super::overlay::OverlayNode;

/// A node that the word `chord` made; see [`ChordSwarm`](crate::ChordSwarm) for all that it does.
///
/// Each operation tells `watch` how far it is, and is given up if its future is dropped.
pub type Chord = OverlayNode<Engine<BoxAddr>>;

impl Chord {
    /// Finds the node that succeeds a key; see [`lookup`](crate::ChordSwarm::lookup).
    ///
    /// # Errors
    /// As there.
    pub async fn lookup(&self, key: PeerId, watch: impl FnMut(Progress)) -> Result<Found<BoxAddr>> {
        self.swarm.lookup(key)?.watch(watch).await
    }

    /// Fetches a record; see [`get`](crate::ChordSwarm::get).
    ///
    /// # Errors
    /// As there.
    pub async fn get(&self, key: PeerId, watch: impl FnMut(Progress)) -> Result<Option<Vec<u8>>> {
        self.swarm.get(key)?.watch(watch).await
    }

    /// Puts a record; see [`put`](crate::ChordSwarm::put).
    ///
    /// # Errors
    /// As there.
    pub async fn put(
        &self,
        key: PeerId,
        value: &[u8],
        ttl: Duration,
        watch: impl FnMut(Progress),
    ) -> Result<()> {
        self.swarm.put(key, value, ttl)?.watch(watch).await
    }

    /// Leaves the ring, and hands over what the node keeps; see [`leave`](crate::ChordSwarm::leave).
    ///
    /// # Errors
    /// As there.
    pub async fn leave(&self, watch: impl FnMut(Progress)) -> Result<()> {
        self.swarm.leave()?.watch(watch).await
    }
}
