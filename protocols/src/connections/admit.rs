//! Admission: limits before and after the handshake, and displacement of other connections.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::connection::{ConnId, Connection, PeerState, Pending};
use super::event::{CloseReason, Direction, Event, Refusal};
use super::manager::Connections;
use crate::overlay::Prefix;

/// The fraction (1/5) of the time for a handshake after which a pending connection may be displaced by one
/// of its own network.
const SLOW: u32 = 5;

impl<P: Clone + Ord> Connections<P> {
    /// Admits a connection that a peer opens, before its handshake. `ip` is the peer's address, if the
    /// transport has one.
    ///
    /// # Errors
    /// [`Refusal`]; the driver closes the connection.
    pub fn admit_inbound(&mut self, now: Duration, ip: Option<IpAddr>) -> Result<ConnId, Refusal> {
        let prefix = ip.map(Prefix::of_ip);
        if let Err(refusal) = self.make_room_for_pending(now, prefix) {
            self.counts.refused_pending += 1;
            return Err(refusal);
        }
        *self.pending_inbound.entry(prefix).or_default() += 1;
        Ok(self.add_pending(now, Direction::Inbound, prefix))
    }

    /// Returns whether more than half of the pending inbound connections are in use, of those in total or of
    /// those for the network of `ip`. A transport that can have an address prove itself without state, such as QUIC by
    /// its tokens, should do so then, before [`admit_inbound`](Self::admit_inbound).
    pub fn is_crowded(&self, ip: Option<IpAddr>) -> bool {
        let count: usize = self.pending_inbound.values().sum();
        let prefix = ip.map(Prefix::of_ip);
        let own = self.pending_inbound.get(&prefix).copied().unwrap_or(0);
        let limit = prefix.map_or(usize::MAX, |prefix| prefix.limit(self.config.pending_per_prefix));
        count > self.config.pending_inbound / 2 || own > limit / 2
    }

    /// Admits a connection that this node opens.
    ///
    /// # Errors
    /// [`Refusal::Pending`].
    pub fn admit_outbound(&mut self, now: Duration, ip: Option<IpAddr>) -> Result<ConnId, Refusal> {
        let inbound: usize = self.pending_inbound.values().sum();
        let limit = self.config.pending_outbound;
        if self.pending.len() - inbound >= limit {
            self.counts.refused_pending += 1;
            return Err(Refusal::Pending { limit });
        }
        Ok(self.add_pending(now, Direction::Outbound, ip.map(Prefix::of_ip)))
    }

    /// Records that the handshake of a pending connection is complete, and that it proved this peer.
    ///
    /// # Errors
    /// [`Refusal`]; the driver closes the connection, and there is no event.
    pub fn handle_established(&mut self, now: Duration, id: ConnId, peer: &P) -> Result<(), Refusal> {
        let Some(pending) = self.pending.get(&id).copied() else {
            return Err(Refusal::NotPending);
        };
        self.remove_pending(id);
        if let Err(refusal) = self.make_room(&pending, peer) {
            self.counts.refused += 1;
            return Err(refusal);
        }
        let Pending {
            direction, prefix, ..
        } = pending;
        if direction == Direction::Inbound {
            *self.inbound.entry(prefix).or_default() += 1;
        }
        let connection = Connection {
            peer: peer.clone(),
            direction,
            prefix,
            since: now,
            streams: 0,
            keep_alive: BTreeSet::new(),
            used: now,
            idle_until: None,
        };
        self.open.insert(id, connection);
        let state = self.peers.entry(peer.clone()).or_default();
        state.connections.push(id);
        let is_first = state.connections.len() == 1;
        self.counts.established += 1;
        self.events.push_back(Event::Connected {
            id,
            peer: peer.clone(),
            direction,
            is_first,
        });
        self.update(now, id);
        if self.open.len() > self.config.high_water && self.next_trim.is_none() {
            self.trim(now);
        }
        Ok(())
    }

    fn add_pending(&mut self, now: Duration, direction: Direction, prefix: Option<Prefix>) -> ConnId {
        self.last_id += 1;
        let id = ConnId(self.last_id);
        let deadline = now.saturating_add(self.config.handshake_timeout);
        let pending = Pending {
            direction,
            prefix,
            since: now,
            deadline,
        };
        self.pending.insert(id, pending);
        self.timers.insert((deadline, id));
        id
    }

    /// Makes room for a pending inbound connection of a network.
    fn make_room_for_pending(&mut self, now: Duration, prefix: Option<Prefix>) -> Result<(), Refusal> {
        let own = self.pending_inbound.get(&prefix).copied().unwrap_or(0);
        let slow = self.config.handshake_timeout / SLOW;
        let is_slow = |pending: &Pending| now.saturating_sub(pending.since) >= slow;
        if let Some(network) = prefix {
            let limit = network.limit(self.config.pending_per_prefix);
            if own >= limit {
                return match self.oldest_pending(prefix).filter(|(_, oldest)| is_slow(oldest)) {
                    Some((id, _)) => {
                        self.displace(id);
                        Ok(())
                    }
                    None => Err(Refusal::PendingPerPrefix { limit }),
                };
            }
        }
        let limit = self.config.pending_inbound;
        let count: usize = self.pending_inbound.values().sum();
        if count < limit {
            return Ok(());
        }
        let most = self.pending_inbound.iter().max_by_key(|(_, count)| **count);
        let Some((&crowded, &most)) = most else {
            return Err(Refusal::Pending { limit });
        };
        let oldest = self.oldest_pending(crowded);
        match oldest.filter(|(_, oldest)| most > own + 1 || is_slow(oldest)) {
            Some((id, _)) => {
                self.displace(id);
                Ok(())
            }
            None => Err(Refusal::Pending { limit }),
        }
    }

    fn oldest_pending(&self, prefix: Option<Prefix>) -> Option<(ConnId, Pending)> {
        let is_of_network =
            |pending: &Pending| pending.direction == Direction::Inbound && pending.prefix == prefix;
        let mut pending = self.pending.iter();
        let found = pending.find(|(_, pending)| is_of_network(pending));
        found.map(|(id, pending)| (*id, *pending))
    }

    /// Makes room for an open connection.
    fn make_room(&mut self, pending: &Pending, peer: &P) -> Result<(), Refusal> {
        let state = self.peers.get(peer);
        let is_protected = state.is_some_and(PeerState::is_protected);
        let limit = self.config.per_peer;
        if state.is_some_and(|state| state.connections.len() >= limit) || limit == 0 {
            return Err(Refusal::PerPeer { limit });
        }
        if pending.direction == Direction::Inbound && !is_protected {
            let own = self.inbound.get(&pending.prefix).copied().unwrap_or(0);
            let per_prefix = self.config.per_prefix;
            let limit = pending.prefix.map(|prefix| prefix.limit(per_prefix));
            if let Some(limit) = limit.filter(|limit| own >= *limit) {
                return Err(Refusal::PerPrefix { limit });
            }
            let count: usize = self.inbound.values().sum();
            let limit = self.config.inbound;
            if count >= limit && !self.displace_inbound(Some(own + 1)) {
                return Err(Refusal::Inbound { limit });
            }
        }
        let limit = self.config.connections;
        if self.open.len() < limit {
            return Ok(());
        }
        let is_preferred = is_protected || pending.direction == Direction::Outbound;
        if is_preferred && self.displace_inbound(None) {
            return Ok(());
        }
        Err(Refusal::Connections { limit })
    }

    /// Closes the least useful inbound connection that nothing needs, of the network with the most, if that
    /// has more than `than`. Returns whether there was one.
    fn displace_inbound(&mut self, than: Option<usize>) -> bool {
        let of_network = |connection: &Connection<P>| self.inbound.get(&connection.prefix).copied();
        let candidates = self.open.iter().filter_map(|(id, connection)| {
            let state = self.state_of(connection)?;
            let has_work = connection.streams > 0 || !connection.keep_alive.is_empty();
            let is_needed = has_work || state.is_protected() || state.value() > 0;
            if is_needed || connection.direction == Direction::Outbound {
                return None;
            }
            let count = of_network(connection)?;
            let is_crowded = than.is_none_or(|than| count > than);
            is_crowded.then_some((Reverse(count), state.value(), connection.used, *id))
        });
        let Some((.., id)) = candidates.min() else {
            return false;
        };
        self.counts.displaced += 1;
        self.end(id, CloseReason::Displaced)
    }

    fn displace(&mut self, id: ConnId) {
        self.counts.displaced_pending += 1;
        self.end(id, CloseReason::Displaced);
    }
}
