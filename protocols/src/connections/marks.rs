//! Tags, protections, and protocols that keep a connection open.

use std::time::Duration;

use super::connection::{ConnId, PeerState};
use super::event::Full;
use super::manager::Connections;

impl<P: Clone + Ord> Connections<P> {
    /// Gives a peer a tag with a value, or changes the value. Connections of peers with a positive sum stay
    /// open; those with a lower sum are trimmed first. A tag stays when the peer disconnects.
    ///
    /// # Errors
    /// [`Full`].
    pub fn tag(&mut self, now: Duration, peer: &P, name: &str, value: i64) -> Result<(), Full> {
        let is_known = |state: &PeerState| state.tags.contains_key(name);
        self.check_marks(peer, is_known)?;
        self.mark(now, peer, |state| {
            state.tags.insert(name.to_owned(), value);
        });
        Ok(())
    }

    /// Removes a tag of a peer. Returns whether the peer had it.
    pub fn untag(&mut self, now: Duration, peer: &P, name: &str) -> bool {
        let mut is_removed = false;
        self.mark(now, peer, |state| is_removed = state.tags.remove(name).is_some());
        is_removed
    }

    /// Protects a peer, under a name: its connections are neither trimmed, nor displaced, nor closed because
    /// they are idle. A peer may have several protections.
    ///
    /// # Errors
    /// [`Full`].
    pub fn protect(&mut self, now: Duration, peer: &P, name: &str) -> Result<(), Full> {
        let is_known = |state: &PeerState| state.protections.contains(name);
        self.check_marks(peer, is_known)?;
        self.mark(now, peer, |state| {
            state.protections.insert(name.to_owned());
        });
        Ok(())
    }

    /// Removes a protection of a peer. Returns whether the peer is still protected.
    pub fn unprotect(&mut self, now: Duration, peer: &P, name: &str) -> bool {
        let mut is_protected = false;
        self.mark(now, peer, |state| {
            state.protections.remove(name);
            is_protected = state.is_protected();
        });
        is_protected
    }

    /// Returns whether a peer is protected.
    pub fn is_protected(&self, peer: &P) -> bool {
        self.peers.get(peer).is_some_and(PeerState::is_protected)
    }

    /// Returns the sum of a peer's tags.
    pub fn value(&self, peer: &P) -> i64 {
        self.peers.get(peer).map_or(0, PeerState::value)
    }

    /// Keeps a connection open for a protocol, until [`release`](Self::release) or its end. Does nothing if
    /// it is not open.
    ///
    /// # Errors
    /// [`Full`].
    pub fn keep_alive(&mut self, now: Duration, id: ConnId, protocol: &str) -> Result<(), Full> {
        let Some(connection) = self.open.get_mut(&id) else {
            return Ok(());
        };
        let (what, limit) = ("protocols that keep a connection open", self.config.marks);
        if connection.keep_alive.len() >= limit && !connection.keep_alive.contains(protocol) {
            return Err(Full { what, limit });
        }
        connection.keep_alive.insert(protocol.to_owned());
        self.update(now, id);
        Ok(())
    }

    /// Ends [`keep_alive`](Self::keep_alive) for a protocol.
    pub fn release(&mut self, now: Duration, id: ConnId, protocol: &str) {
        if let Some(connection) = self.open.get_mut(&id) {
            connection.keep_alive.remove(protocol);
            self.update(now, id);
        }
    }

    /// Checks the limits of a new mark.
    fn check_marks(&self, peer: &P, is_known: impl FnOnce(&PeerState) -> bool) -> Result<(), Full> {
        let state = self.peers.get(peer);
        if state.is_some_and(is_known) {
            return Ok(());
        }
        let (what, limit) = ("tags and protections of one peer", self.config.marks);
        let count = state.map_or(0, |state| state.tags.len() + state.protections.len());
        if count >= limit {
            return Err(Full { what, limit });
        }
        let (what, limit) = ("peers with tags or protections", self.config.marked_peers);
        if count == 0 && self.marked >= limit {
            return Err(Full { what, limit });
        }
        Ok(())
    }

    /// Changes the marks of a peer, and updates its connections.
    fn mark(&mut self, now: Duration, peer: &P, change: impl FnOnce(&mut PeerState)) {
        let state = self.peers.entry(peer.clone()).or_default();
        let (was_marked, was_protected) = (state.is_marked(), state.is_protected());
        change(state);
        let (is_marked, is_protected) = (state.is_marked(), state.is_protected());
        let connections = state.connections.clone();
        if connections.is_empty() && !is_marked {
            self.peers.remove(peer);
        }
        self.marked = self.marked + usize::from(is_marked) - usize::from(was_marked);
        for id in connections {
            self.update(now, id);
        }
        // A connection that may be trimmed now is one that trimming waits for.
        if was_protected && !is_protected && self.open.len() > self.config.high_water {
            self.trim(now);
        }
    }
}
