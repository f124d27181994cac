//! Media on which the laws are checked.
#![allow(dead_code, reason = "each test has beds of its own")]

pub(crate) mod combined;
pub(crate) mod dht;
pub(crate) mod mutant;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use p2p_discovery::laws::{Member, Testbed, Timing};
use p2p_discovery::{Addrs, Cell, Secret, Tracker, TrackerConfig};
use p2p_formats::x509::PrivateKey;

/// Trackers on clones of one cell.
pub(crate) struct TrackerTestbed<C> {
    cell: C,
    nodes: AtomicU8,
    ttl: Duration,
}

pub(crate) fn key(seed: u8) -> PrivateKey {
    PrivateKey::ed25519(&[seed; 32])
}

pub(crate) fn addrs(number: u8) -> Addrs {
    Addrs::new([
        format!("127.0.0.1:{}", 4000 + u16::from(number)),
        format!("[::1]:{number}"),
    ])
    .expect("addresses")
}

impl<C: Cell + Clone> TrackerTestbed<C> {
    pub(crate) fn new(cell: C) -> Self {
        Self {
            cell,
            nodes: AtomicU8::new(0),
            ttl: Duration::from_secs(2),
        }
    }

    pub(crate) fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    pub(crate) fn tracker(&self, seed: u8) -> Tracker<C> {
        let config = TrackerConfig {
            poll: Duration::from_millis(200),
            ..TrackerConfig::default()
        };
        Tracker::new(self.cell.clone(), Secret::new([7; 32]), &key(seed), config).expect("a good key")
    }
}

#[async_trait]
impl<C: Cell + Clone> Testbed for TrackerTestbed<C> {
    async fn member(&self) -> Member {
        let seed = self.nodes.fetch_add(1, Ordering::Relaxed);
        let tracker = self.tracker(seed);
        Member {
            id: tracker.id().expect("it has a key"),
            discovery: Arc::new(tracker),
            addrs: addrs(seed),
            others: Some(addrs(seed ^ 0x80)),
        }
    }

    fn timing(&self) -> Timing {
        Timing {
            ttl: self.ttl,
            propagation: Duration::from_millis(500),
            staleness: Duration::ZERO,
        }
    }
}
