//! The laws of swarms for gossip: each node has a topic of its own, to which it is told; in memory, on P2PKE
//! and on QUIC.
//!
//! The swarm below is type-erased, so that the layer is compiled once.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use p2p::{Addr, BoxAddr, BoxSwarm, Result, Swarm};
use p2p_formats::x509::{PrivateKey, Registry};
use p2p_swarms::gossipsub::{GossipConfig, Signing};
use p2p_swarms::{
    GossipAddr, GossipSwarm, KeyAddr, MemoryAddr, MemoryRealm, QuicSwarm, SwarmExt as _, UdpConfig, UdpSwarm,
};
use p2p_swarmtest::{Plain, Profile, Testbed, conformance, loopback};
use tokio::time::sleep;

/// Messages that wait for a node's reader: few, since floods are several times as long, and each message of them is signed.
const QUEUE: usize = 256;

type Inner = BoxSwarm<BoxAddr>;
type Node = GossipSwarm<BoxAddr, Inner>;

/// A node and how it was created.
#[derive(Clone)]
struct Made {
    number: u32,
    addr: BoxAddr,
    /// The nodes that were created with it.
    others: Vec<BoxAddr>,
}

type Places = Arc<Mutex<HashMap<String, Made>>>;

fn key(number: u32) -> PrivateKey {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    PrivateKey::ed25519(&bytes)
}

fn node(inner: Inner, number: u32) -> Result<Node> {
    let signer = Registry::default().signer(&key(number)).expect("a key");
    let mut config = GossipConfig::default();
    config.messages.items = QUEUE;
    let node = GossipSwarm::with_config(inner, Signing::strict(Arc::from(signer))?, config)?;
    node.subscribe(&format!("node/{number}"))?;
    Ok(node)
}

fn at(node: &Node) -> BoxAddr {
    node.inner().local_addrs().remove(0)
}

/// Waits until a node knows the subscriptions of this many others.
async fn meet(node: &Node, topics: &[String]) {
    while topics.iter().any(|topic| node.subscribers(topic).is_empty()) {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Returns nodes that know each other.
async fn connected(nodes: Vec<(u32, Node)>, places: &Places) -> Result<Vec<Node>> {
    for (place, (_, node)) in nodes.iter().enumerate() {
        for (_, other) in &nodes[place + 1..] {
            node.add_peer(&at(other))?;
        }
    }
    for (number, node) in &nodes {
        let others = nodes.iter().filter(|(other, _)| other != number);
        let topics: Vec<String> = others.clone().map(|(other, _)| format!("node/{other}")).collect();
        meet(node, &topics).await;
        let made = Made {
            number: *number,
            addr: at(node),
            others: others.map(|(_, other)| at(other)).collect(),
        };
        let topic = format!("node/{number}");
        places.lock().expect("no panic").insert(topic, made);
    }
    Ok(nodes.into_iter().map(|(_, node)| node).collect())
}

fn profile() -> Profile {
    Profile {
        holds: 4 * QUEUE,
        ..Profile::default().quick()
    }
    .waive(
        "wire::",
        "attacks on the wire are tested on the swarm below: an RPC is protected by its signatures only",
    )
}

/// The kernel drops messages when its buffers are full, without reporting it to the socket.
fn udp_profile() -> Profile {
    profile().waive(
        "counters::every_drop_is_counted",
        "the kernel drops messages when its buffer is full, without reporting it",
    )
}

/// A testbed of nodes over the swarm that `open` creates for a number, or at an address.
fn bed<F: Future<Output = Result<Inner>> + Send + 'static>(
    open: impl Fn(u32, Option<BoxAddr>) -> F + Send + Sync + 'static,
    profile: Profile,
) -> Testbed<GossipAddr<BoxAddr>> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let (open, places) = (Arc::new(open), Places::default());
    let (again, known) = (open.clone(), places.clone());
    Testbed::new(Plain, move |count| {
        let (open, places) = (open.clone(), places.clone());
        async move {
            let mut nodes = Vec::new();
            for _ in 0..count {
                let number = NUMBER.fetch_add(1, Relaxed);
                nodes.push((number, node(open(number, None).await?, number)?));
            }
            connected(nodes, &places).await
        }
    })
    .rebind(move |addr: GossipAddr<BoxAddr>| {
        let made = known.lock().expect("no panic")[&*addr.topic].clone();
        let again = again.clone();
        async move {
            let node = node(again(made.number, Some(made.addr)).await?, made.number)?;
            for other in &made.others {
                node.add_peer(other)?;
            }
            // One of the peers may have closed.
            while node.peers().iter().all(|peer| !node.is_met(peer)) {
                sleep(Duration::from_millis(1)).await;
            }
            Ok(node)
        }
    })
    .profile(profile)
}

fn below<A: Addr>(addr: Option<BoxAddr>) -> Option<A> {
    addr.map(|addr| {
        addr.downcast_ref::<A>()
            .cloned()
            .expect("an address of this kind")
    })
}

fn boxed<A: Addr>(swarm: impl Swarm<A>) -> Inner {
    BoxSwarm::new(swarm.erase())
}

fn memory() -> Testbed<GossipAddr<BoxAddr>> {
    let realm = MemoryRealm::default();
    let open = move |_, addr| {
        let swarm = match below::<MemoryAddr>(addr) {
            Some(addr) => realm.open_at(addr),
            None => Ok(realm.open()),
        };
        async move { Ok(boxed(swarm?)) }
    };
    bed(open, profile())
}

/// A small kernel buffer, so that a small flood fills it.
fn udp(addr: SocketAddr) -> Result<UdpSwarm> {
    let mut config = UdpConfig::default();
    config.receive_buffer = 256 << 10;
    UdpSwarm::with_config(addr, config)
}

fn p2pke_on_udp() -> Testbed<GossipAddr<BoxAddr>> {
    let loopback = loopback();
    let open = move |number, addr| async move {
        let addr = below::<KeyAddr<SocketAddr>>(addr).map(|addr| addr.addr);
        let addr = addr.unwrap_or(SocketAddr::new(loopback, 0));
        Ok(boxed(udp(addr)?.p2pke(&key(number))?.fragment(64 << 10)))
    };
    bed(open, udp_profile())
}

fn quic_on_memory() -> Testbed<GossipAddr<BoxAddr>> {
    let realm = MemoryRealm::default();
    let open = move |number, addr| {
        let below = match below::<KeyAddr<MemoryAddr>>(addr) {
            Some(addr) => realm.open_at(addr.addr),
            None => Ok(realm.open()),
        };
        async move { Ok(boxed(QuicSwarm::new(below?, &key(number))?)) }
    };
    bed(open, profile())
}

// What is on no socket of the system's runs in virtual time, and so at the same speed everywhere.
conformance!(#[tokio::test(start_paused = true)] mod on_memory: Plain => memory());
conformance!(#[tokio::test] mod on_p2pke_on_udp: Plain => p2pke_on_udp());
conformance!(#[tokio::test(start_paused = true)] mod on_quic_on_memory: Plain => quic_on_memory());
