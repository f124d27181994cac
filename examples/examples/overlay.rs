//! An overlay, written once against `Swarm` and run on three media: a flood over a small world.
//!
//! `cargo run --example overlay`

use std::collections::BTreeSet;
use std::time::Duration;

use p2p::{Addr, Message, Packet, Result, Swarm};
use p2p_swarms::faulty::FaultyConfig;
use p2p_swarms::{Faults, LinkFaults, MemoryRealm, SwarmExt as _, UdpSwarm};
use p2p_swarmtest::topology::Topology;
use tokio::task::JoinSet;
use tokio::time::timeout;

const NODES: usize = 32;
/// Each node has four neighbours; one link in five is random.
const DEGREE: usize = 4;
const REWIRED: f64 = 0.2;
/// Maximum number of floods that a node remembers; further ones are not forwarded.
const REMEMBERED: usize = 1024;

/// Runs one node: floods the numbers in `own`, then forwards every flood that it has not seen, until no
/// message arrives; returns the number of floods it saw.
///
/// A flood is a number of eight bytes, followed by any data.
async fn relay<A: Addr>(swarm: impl Swarm<A>, neighbours: Vec<A>, own: Vec<u64>) -> Result<usize> {
    let mut seen = BTreeSet::new();
    for number in own {
        let mut packet = swarm.packet(&number.to_be_bytes());
        packet.push_back(b"any data");
        pass_on(&swarm, neighbours.iter(), &packet).await;
        seen.insert(number);
    }
    while let Ok(message) = timeout(Duration::from_millis(200), swarm.receive()).await {
        let Message { src, payload, .. } = message?;
        let Some(number) = payload.first_chunk().map(|number| u64::from_be_bytes(*number)) else {
            continue;
        };
        if seen.len() < REMEMBERED && seen.insert(number) {
            pass_on(&swarm, neighbours.iter().filter(|peer| **peer != src), &payload).await;
        }
    }
    Ok(seen.len())
}

/// Tells each of these peers. A failed tell is ignored, since floods have several routes.
async fn pass_on<A: Addr>(swarm: &impl Swarm<A>, peers: impl Iterator<Item = &A>, packet: &Packet) {
    let mut batch = peers.map(|peer| (peer.clone(), packet.clone())).collect();
    let _ = swarm.tell_batch(&mut batch).await;
}

/// Sends `floods` floods through an overlay of these nodes; returns the fraction of the nodes that they
/// reached.
async fn flood<A: Addr, S: Swarm<A>>(name: &str, nodes: Vec<S>, floods: u64) -> Result<f64> {
    let world = Topology::small_world(nodes.len(), DEGREE, REWIRED, 7)?;
    let addrs: Vec<A> = nodes
        .iter()
        .filter_map(|node| node.local_addrs().into_iter().next())
        .collect();
    let mut running = JoinSet::new();
    for (index, node) in nodes.into_iter().enumerate() {
        let neighbours = world.neighbours(index).map(|peer| addrs[peer].clone()).collect();
        let own = (0..floods)
            .filter(|number| number % addrs.len() as u64 == index as u64)
            .collect();
        running.spawn(relay(node, neighbours, own));
    }
    let mut reached = 0;
    while let Some(seen) = running.join_next().await {
        reached += seen.unwrap_or(Ok(0))?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
    let share = reached as f64 / (addrs.len() as f64 * floods as f64);
    println!(
        "{name:20} {floods} floods reached {:5.1} % of {} nodes",
        share * 100.0,
        addrs.len()
    );
    Ok(share)
}

#[tokio::main]
async fn main() -> Result<()> {
    let realm = MemoryRealm::default();
    let memory = (0..NODES).map(|_| realm.open()).collect();
    let udp = || UdpSwarm::bind(([127, 0, 0, 1], 0).into());
    let plain = (0..NODES).map(|_| udp()).collect::<Result<Vec<_>>>()?;
    let link = LinkFaults {
        loss: 0.2,
        ..LinkFaults::default()
    };
    let faults = Faults::new(FaultyConfig {
        seed: 7,
        link,
        ..FaultyConfig::default()
    })?;
    let lossy = (0..NODES)
        .map(|_| Ok(udp()?.faulty(faults.clone())))
        .collect::<Result<Vec<_>>>()?;
    let on_memory = flood("memory", memory, 10).await?;
    let on_udp = flood("udp", plain, 10).await?;
    // Where messages are lost, the flood takes the overlay's redundant routes.
    let on_lossy_udp = flood("udp, a fifth lost", lossy, 10).await?;
    assert!(on_memory >= 1.0 && on_udp >= 1.0, "a flood reaches all nodes");
    assert!(on_lossy_udp > 0.5, "a flood reaches most nodes");
    Ok(())
}

#[test]
fn it_runs() -> Result<()> {
    main()
}
