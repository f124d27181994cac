//! The connections of a host, and the addresses of peers.

use std::collections::HashMap;
use std::sync::Arc;

use multiaddr::Multiaddr;
use p2p::{Addr as _, PeerId};
use p2p_protocols::overlay::Prefix;

use crate::config::HostConfig;
use crate::connection::{Connection, ConnectionInfo};

/// Addresses that are remembered of one peer.
const ADDRS: usize = 16;

/// The connections of a host, by peer, and the addresses at which peers were reached or say that they listen.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// In the order in which they were established.
    connections: HashMap<PeerId, Vec<Arc<Connection>>>,
    inbound: usize,
    outbound: usize,
    inbound_by_prefix: HashMap<Prefix, usize>,
    known: HashMap<PeerId, Known>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Known {
    /// The best first.
    addrs: Vec<Multiaddr>,
    seen: u64,
}

/// The limit that a connection exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) what: &'static str,
    pub(super) limit: usize,
}

impl Table {
    /// Adds a connection, unless it exceeds a limit.
    pub(super) fn insert(&mut self, connection: &Arc<Connection>, config: &HostConfig) -> Result<(), Full> {
        let full = |what, limit| Err(Full { what, limit });
        let prefix = connection.prefix();
        let id = id(connection);
        if self
            .connections
            .get(&id)
            .is_some_and(|with| with.len() >= config.max_per_peer)
        {
            return full("connections with one peer", config.max_per_peer);
        }
        if connection.info.is_dialled {
            if self.outbound >= config.max_outbound {
                return full("outbound connections", config.max_outbound);
            }
            self.outbound += 1;
        } else {
            if self.inbound >= config.max_inbound {
                return full("inbound connections", config.max_inbound);
            }
            if let Some(prefix) = prefix {
                let limit = prefix.limit(config.max_per_prefix);
                let count = self.inbound_by_prefix.entry(prefix).or_default();
                if *count >= limit {
                    return full("inbound connections of one network", limit);
                }
                *count += 1;
            }
            self.inbound += 1;
        }
        self.connections.entry(id).or_default().push(connection.clone());
        Ok(())
    }

    /// Removes a connection, if it is present. Returns whether it was the last one with its peer.
    pub(super) fn remove(&mut self, connection: &Arc<Connection>) -> bool {
        let id = id(connection);
        let Some(with) = self.connections.get_mut(&id) else {
            return false;
        };
        let before = with.len();
        with.retain(|other| !Arc::ptr_eq(other, connection));
        if with.len() == before {
            return false;
        }
        let is_last = with.is_empty();
        if is_last {
            self.connections.remove(&id);
        }
        if connection.info.is_dialled {
            self.outbound = self.outbound.saturating_sub(1);
        } else {
            self.inbound = self.inbound.saturating_sub(1);
            if let Some(prefix) = connection.prefix()
                && let Some(count) = self.inbound_by_prefix.get_mut(&prefix)
            {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.inbound_by_prefix.remove(&prefix);
                }
            }
        }
        is_last
    }

    /// Returns the oldest connection with a peer: both ends of simultaneous dials prefer it.
    pub(super) fn find(&self, peer: &PeerId) -> Option<Arc<Connection>> {
        self.connections.get(peer)?.first().cloned()
    }

    /// Returns all connections.
    pub(super) fn all(&self) -> Vec<Arc<Connection>> {
        self.connections.values().flatten().cloned().collect()
    }

    /// Returns what is known of all connections.
    pub(super) fn infos(&self) -> Vec<ConnectionInfo> {
        let all = self.connections.values().flatten();
        let mut infos: Vec<_> = all.map(|connection| connection.info.clone()).collect();
        infos.sort_by_key(|info| info.id);
        infos
    }

    /// Remembers addresses of a peer before those that are known, up to 16. Of more than `max` peers the one that
    /// was seen least recently and has no connection is forgotten.
    pub(super) fn learn(&mut self, peer: PeerId, addrs: impl IntoIterator<Item = Multiaddr>, max: usize) {
        self.clock += 1;
        let known = self.known.entry(peer).or_default();
        known.seen = self.clock;
        let mut merged: Vec<Multiaddr> = Vec::new();
        for addr in addrs.into_iter().chain(std::mem::take(&mut known.addrs)) {
            if merged.len() < ADDRS && !addr.is_empty() && !merged.contains(&addr) {
                merged.push(addr);
            }
        }
        known.addrs = merged;
        while self.known.len() > max.max(1) {
            let unconnected = self
                .known
                .iter()
                .filter(|(id, _)| !self.connections.contains_key(id));
            let Some(oldest) = unconnected.min_by_key(|(_, known)| known.seen).map(|(id, _)| *id) else {
                return;
            };
            self.known.remove(&oldest);
        }
    }

    /// Returns the known addresses of a peer, the best first.
    pub(super) fn addrs(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.known
            .get(peer)
            .map(|known| known.addrs.clone())
            .unwrap_or_default()
    }
}

fn id(connection: &Connection) -> PeerId {
    connection.info.peer.peer_id().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(port: usize) -> Multiaddr {
        format!("/ip4/192.0.2.1/tcp/{port}").parse().expect("a multiaddr")
    }

    #[test]
    fn known_peers_are_bounded_and_the_latest_are_kept() {
        let mut table = Table::default();
        for index in 0..100 {
            table.learn(PeerId::new([index; 32]), [place(1)], 10);
            // The first one is seen again and again.
            table.learn(PeerId::new([0; 32]), [place(2)], 10);
        }
        assert_eq!(table.known.len(), 10);
        assert_eq!(table.addrs(&PeerId::new([0; 32])), [place(2), place(1)]);
        assert_eq!(table.addrs(&PeerId::new([99; 32])), [place(1)]);
        assert!(table.addrs(&PeerId::new([50; 32])).is_empty());
    }

    #[test]
    fn addresses_of_a_peer_are_bounded_and_the_latest_are_first() {
        let (mut table, peer) = (Table::default(), PeerId::new([1; 32]));
        table.learn(peer, (0..50).map(place), 10);
        assert_eq!(table.addrs(&peer).len(), ADDRS);
        table.learn(peer, [place(60), Multiaddr::empty(), place(60)], 10);
        let addrs = table.addrs(&peer);
        assert_eq!((addrs.len(), &addrs[..2]), (ADDRS, &[place(60), place(0)][..]));
    }
}
