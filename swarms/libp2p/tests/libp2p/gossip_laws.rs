//! The laws of swarms for gossip among hosts: each node has a topic of its own, to which it is told, in virtual time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use p2p::{Result, Swarm as _};
use p2p_libp2p::{Host, HostAddr, HostConfig, HostGossip, HostGossipConfig};
use p2p_swarms::gossipsub::GossipAddr;
use p2p_swarms::{MemoryAddr, MemoryRealm};
use p2p_swarmtest::{Plain, Profile, Testbed, conformance};
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::gossip::{key, signing};

/// Messages that wait for a node's reader: few, since floods are several times as long.
const QUEUE: usize = 256;

/// A node and how it was made.
#[derive(Clone)]
struct Made {
    number: u32,
    at: MemoryAddr,
    others: Vec<HostAddr>,
}

type Places = Arc<Mutex<HashMap<String, Made>>>;

fn topic(number: u32) -> String {
    format!("node/{number}")
}

/// Makes a node, which accepts direct messages.
async fn node(realm: &MemoryRealm, number: u32, at: Option<MemoryAddr>) -> Result<(MemoryAddr, HostGossip)> {
    let below = match at {
        Some(at) => realm.open_at(at)?,
        None => realm.open(),
    };
    let at = below.local_addr();
    let config = HostConfig {
        max_handshakes_per_prefix: 256,
        ..HostConfig::default()
    };
    let host = Host::builder(&key(number))
        .config(config)
        .over(below)?
        .start()
        .await?;
    let mut config = HostGossipConfig::default();
    config.gossip.engine.direct = true;
    config.gossip.messages.items = QUEUE;
    let node = host.gossip(signing(number), config)?;
    node.subscribe(&topic(number))?;
    Ok((at, node))
}

async fn meet(node: &HostGossip, others: &[u32]) {
    while others
        .iter()
        .any(|other| node.subscribers(&topic(*other)).is_empty())
    {
        sleep(Duration::from_millis(1)).await;
    }
    while node.peers().iter().any(|peer| !node.is_met(peer)) {
        sleep(Duration::from_millis(1)).await;
    }
}

fn testbed() -> Testbed<GossipAddr<HostAddr>> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let (realm, places) = (MemoryRealm::default(), Places::default());
    let (again, known) = (realm.clone(), places.clone());
    let profile = Profile {
        settle: Duration::from_millis(100),
        patience: Duration::from_secs(20),
        holds: 4 * QUEUE,
        ..Profile::default().quick()
    }
    .waive(
        "wire::",
        "attacks on the wire are tested on the connections below: an RPC is protected by its signatures only",
    );
    Testbed::new(Plain, move |count| {
        let (realm, places) = (realm.clone(), places.clone());
        async move {
            let mut nodes = Vec::new();
            for _ in 0..count {
                let number = NUMBER.fetch_add(1, Relaxed);
                let (at, made) = node(&realm, number, None).await?;
                nodes.push((number, at, made));
            }
            for (place, (.., node)) in nodes.iter().enumerate() {
                for (.., other) in &nodes[place + 1..] {
                    node.add_peer(&other.inner().local_addr()?)?;
                }
            }
            for (number, at, node) in &nodes {
                let others = || nodes.iter().filter(|(other, ..)| other != number);
                meet(node, &others().map(|(other, ..)| *other).collect::<Vec<_>>()).await;
                let addrs = others().map(|(.., other)| other.inner().local_addr());
                let made = Made {
                    number: *number,
                    at: *at,
                    others: addrs.collect::<Result<_>>()?,
                };
                places.lock().insert(topic(*number), made);
            }
            Ok(nodes.into_iter().map(|(.., node)| node).collect())
        }
    })
    .rebind(move |addr: GossipAddr<HostAddr>| {
        let made = known.lock()[&*addr.topic].clone();
        let again = again.clone();
        async move {
            let (_, node) = node(&again, made.number, Some(made.at)).await?;
            for other in &made.others {
                node.add_peer(other)?;
            }
            // One of the peers may have closed.
            while !node.peers().iter().any(|peer| node.is_met(peer)) {
                sleep(Duration::from_millis(1)).await;
            }
            Ok(node)
        }
    })
    .profile(profile)
}

conformance!(#[tokio::test(start_paused = true)] mod in_memory: Plain => testbed());
