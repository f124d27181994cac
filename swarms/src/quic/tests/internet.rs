//! Nodes in public networks, over memory, and the first packets of dials as an attacker would send them.

use std::net::{Ipv4Addr, SocketAddr};

use p2p::{Error, Packet, PeerId, Swarm as _};

use super::crowds::nth_key;
use super::key;
use crate::memory::{MemoryAddr, MemoryConfig};
use crate::quic::{QuicConfig, QuicSwarm};
use crate::{KeyAddr, MemoryRealm, MemorySwarm, SwarmExt as _};

/// A realm whose nodes have addresses of public networks, 256 in each.
pub(super) struct Internet(pub(super) MemoryRealm);

impl Internet {
    pub(super) fn new() -> Self {
        let messages = crate::inbox::Limits {
            items: 8 << 10,
            bytes: 64 << 20,
            copy_below: 0,
        };
        Self(MemoryRealm::new(MemoryConfig {
            messages,
            ..MemoryConfig::default()
        }))
    }

    /// Returns the bare medium of a host: an attacker that sends packets in the name of this address.
    pub(super) fn host(&self, network: u8, host: u8) -> MemorySwarm {
        let number = i64::from(u32::from(Ipv4Addr::new(8, 8, network, host)));
        self.0.open_at(MemoryAddr::new(number)).expect("free")
    }

    pub(super) fn node(&self, network: u8, host: u8, key: u32, config: QuicConfig) -> QuicSwarm<SocketAddr> {
        let memory = self.host(network, host);
        let down = |at: &SocketAddr| memory_addr(at).ok_or_else(not_here);
        let up = |at: MemoryAddr| {
            let ip = u32::try_from(at.number()).ok()?;
            Some(SocketAddr::from((Ipv4Addr::from(ip), 443)))
        };
        QuicSwarm::with_config(memory.map((down, up)), &nth_key(key), config).expect("a node")
    }

    /// Returns the first packet of each of this many dials. None of them reached a node.
    pub(super) async fn first_packets(&self, dials: usize) -> Vec<Packet> {
        let mut first = Vec::new();
        for _ in 0..dials {
            let tap = self.0.open();
            let absent = KeyAddr::new(PeerId::ZERO, tap.local_addr());
            let client = QuicSwarm::new(self.0.open(), &key(3)).expect("a node");
            let dial = client.tell(&absent, Packet::from(b"x"));
            tokio::select! {
                message = tap.receive() => first.push(message.expect("open").payload),
                _ = dial => unreachable!("no node answers"),
            }
        }
        first
    }
}

/// Returns the address in memory of a host.
pub(super) fn memory_addr(at: &SocketAddr) -> Option<MemoryAddr> {
    match at {
        SocketAddr::V4(at) => Some(MemoryAddr::new(i64::from(u32::from(*at.ip())))),
        SocketAddr::V6(_) => None,
    }
}

fn not_here() -> Error {
    Error::invalid("address", "the address is not in this network")
}
