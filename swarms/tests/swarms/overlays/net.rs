//! Nodes of one network on a medium in memory, and what tests look at.

use std::time::Duration;

use p2p::{CounterSnapshot, Counters, Packet, PeerId, Swarm as _};
use p2p_formats::x509::PrivateKey;
use p2p_protocols::overlay::wire::Header;
use p2p_swarms::overlay::{Identity, OverlayConfig};
use p2p_swarms::{Faults, KeyAddr, MemoryAddr, MemoryRealm, SwarmExt as _};
use tokio::time::timeout;

use crate::overlays::node::{Inner, Node, boxed};

/// Returns the address of a node in memory, below all layers.
pub(crate) fn place<N: Node>(node: &N) -> MemoryAddr {
    let addr = node.place();
    let sealed = addr
        .downcast_ref()
        .map(|sealed: &KeyAddr<MemoryAddr>| sealed.addr);
    sealed
        .or_else(|| addr.downcast_ref().copied())
        .expect("an address in memory")
}

pub(crate) fn key(seed: u8) -> PrivateKey {
    PrivateKey::ed25519(&[seed; 32])
}

/// A medium, and the nodes of one network on it.
pub(crate) struct Net<N> {
    pub(crate) realm: MemoryRealm,
    pub(crate) faults: Faults<MemoryAddr>,
    pub(crate) nodes: Vec<N>,
}

impl<N: Node> Net<N> {
    pub(crate) async fn joined(count: u8) -> Self {
        Self::joined_as(count, |_| ()).await
    }

    pub(crate) async fn joined_as(count: u8, change: impl Fn(&mut OverlayConfig)) -> Self {
        let mut overlay = OverlayConfig::default();
        change(&mut overlay);
        Self::joined_by(count, |inner, identity| {
            N::with_overlay(inner, identity, overlay.clone())
        })
        .await
    }

    /// Creates a network of nodes that `make` makes.
    pub(crate) async fn joined_by(count: u8, make: impl Fn(Inner, Identity<'_>) -> p2p::Result<N>) -> Self {
        let mut net = Self {
            realm: MemoryRealm::default(),
            faults: Faults::seeded(1),
            nodes: Vec::new(),
        };
        for seed in 0..count {
            let node = make(net.sealed(seed), Identity::Key(&key(seed))).expect("a node");
            net.join(&node).await;
            net.nodes.push(node);
        }
        net
    }

    /// A node that is not a member of the network, but exchanges messages with its members.
    pub(crate) fn sealed(&self, seed: u8) -> Inner {
        let base = self.realm.open().faulty(self.faults.clone());
        boxed(base.p2pke(&key(seed)).expect("a node").mbapp(64 << 10))
    }

    pub(crate) fn node(&self, seed: u8) -> N {
        N::new(self.sealed(seed), Identity::Key(&key(seed))).expect("a node")
    }

    pub(crate) async fn join(&self, node: &N) {
        if let Some(first) = self.nodes.first() {
            node.join(&[first.place()]).await.expect("a member answers");
        }
    }

    /// Cuts the links between two nodes.
    pub(crate) fn cut(&self, a: &N, b: &N) {
        self.faults.partition(&[place(a)], &[place(b)]);
    }
}

pub(crate) fn counts<N: Node>(node: &N, layer: &str) -> CounterSnapshot {
    let mut found = None;
    node.visit_counters(&mut |counters: &Counters| {
        if counters.layer() == layer {
            found.get_or_insert(counters.snapshot());
        }
    });
    found.expect("a layer of this name")
}

/// Returns the number of messages that nodes relayed for others.
pub(crate) fn relayed<N: Node>(nodes: &[&N]) -> u64 {
    let [_, _, layer, _] = N::LAYERS;
    let relays = nodes.iter().map(|node| counts(*node, layer));
    relays.map(|relays| relays.sent).sum()
}

pub(crate) async fn received<N: Node>(node: &N) -> (PeerId, Vec<u8>) {
    let message = timeout(Duration::from_mins(1), node.receive()).await;
    let message = message.expect("a message in time").expect("open");
    (message.src, message.payload.to_vec())
}

pub(crate) async fn receives_nothing<N: Node>(node: &N) {
    let received = timeout(Duration::from_secs(5), node.receive()).await;
    assert!(received.is_err(), "{received:?}");
}

/// Tells a node raw bytes with this header.
pub(crate) async fn tell_raw<N: Node>(from: &Inner, to: &N, header: Header, payload: &[u8]) {
    let mut packet = Packet::from(payload);
    header.push(&mut packet);
    from.tell(&to.place(), packet).await.expect("it is reachable");
}
