//! Media with connections below a node: they decide which nodes are peers, and report them.

use std::fmt;
use std::sync::{Arc, Weak};

use p2p::{Addr, Error, Result, Swarm};
use p2p_protocols::gossipsub::wire::{PeerInfo, WireError};
use p2p_protocols::gossipsub::{Connection, Engine};

use super::event::{Departure, GossipEvent};
use super::shared::Shared;

/// What a [`GossipSwarm`](super::GossipSwarm) asks of a medium with connections
/// ([`GossipSwarm::on_links`](super::GossipSwarm::on_links)).
///
/// The swarm below carries one RPC in each message, in order and without loss, as long as a peer's stream lasts. What the medium
/// finds out it reports with [`LinkReports`]. No method may wait, or report within the call.
pub trait LinkControl<A: Addr>: Send + Sync + 'static {
    /// Begins to make a node a peer. [`LinkReports::joined`] or [`LinkReports::connect_failed`] reports the result.
    ///
    /// # Errors
    /// [`Error::Limit`] at a limit of the medium, [`Error::Invalid`] for an address that names no node.
    fn connect(&self, peer: &A) -> Result<()>;

    /// Returns whether a node is a peer of the medium, or may become one without a further call.
    fn is_connecting(&self, peer: &A) -> bool;

    /// Called when RPCs could not be sent to a peer. It gets no more until [`LinkReports::resumed`].
    fn send_failed(&self, peer: &A);

    /// Called when the router or the program removed a peer.
    fn removed(&self, peer: &A);

    /// Returns the address of a node that the peer `by` names in a peer exchange, or `None` if the information is not valid.
    fn locate(&self, by: &A, info: &PeerInfo) -> Option<A>;
}

/// Reports of a medium with connections to the node above it, as long as that exists.
pub struct LinkReports<A: Addr, S>(Weak<Shared<A, S>>);

impl<A: Addr, S: Swarm<A>> LinkReports<A, S> {
    pub(super) fn new(shared: &Arc<Shared<A, S>>) -> Self {
        Self(Arc::downgrade(shared))
    }

    /// Reports that a node is a peer from now on.
    ///
    /// # Errors
    /// Those of [`Engine::add_peer`], and [`Error::Closed`] if the node above is closed or dropped.
    pub fn joined(&self, peer: &A, connection: Connection) -> Result<()> {
        let shared = self.0.upgrade().ok_or(Error::Closed)?;
        let joined = shared.change(|engine, now, effects| {
            let outbound = connection.outbound;
            engine.add_peer(now, peer, connection)?;
            let peer = peer.clone();
            effects.events.push(GossipEvent::Joined { peer, outbound });
            Ok(())
        });
        shared.peers_changed.notify_waiters();
        joined
    }

    /// Reports that a peer is none any more.
    pub fn left(&self, peer: &A) {
        if let Some(shared) = self.0.upgrade() {
            // After `close` there are no peers.
            let _ = shared.remove(peer, Departure::Gone);
            shared.room.notify_waiters();
        }
    }

    /// Reports that a node could not be connected to.
    pub fn connect_failed(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.peers_changed.notify_waiters();
        }
    }

    /// Reports that a peer has another stream, or that RPCs may have been lost: what must not be lost is repeated.
    pub fn resumed(&self, peer: &A) {
        self.change(|engine, now| {
            engine.resume(now, peer);
        });
        if let Some(shared) = self.0.upgrade() {
            shared.room.notify_waiters();
        }
    }

    /// Reports an RPC of a peer that could not be read whole.
    pub fn unreadable(&self, peer: &A, reason: WireError) {
        self.change(|engine, now| engine.handle_unreadable(now, peer, reason));
    }

    fn change(&self, change: impl FnOnce(&mut Engine<A>, std::time::Duration)) {
        if let Some(shared) = self.0.upgrade() {
            // Fails only after `close`.
            let _ = shared.change(|engine, now, _| {
                change(engine, now);
                Ok(())
            });
        }
    }
}

impl<A: Addr, S> fmt::Debug for LinkReports<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkReports").finish_non_exhaustive()
    }
}
