#![expect(clippy::cast_precision_loss, reason = "figures are shown rounded")]
//! The cost of 10,000 established idle peers for a P2PKE node: memory per peer, as the allocator counts it,
//! and the processor time of the process.
//!
//! `cargo bench -p p2p-swarms --bench p2pke_idle`. `peer` is the intended maximum: 4 KiB, and a hundredth of
//! a core. The peers are engines that are dropped after the handshake, so the remaining cost is the node's.

use std::alloc::System;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use cap::Cap;
use p2p::Swarm;
use p2p_formats::x509::PrivateKey;
use p2p_protocols::p2pke::{Config, Endpoint, Local};
use p2p_swarms::{MemoryAddr, MemoryRealm, MemorySwarm, P2pkeConfig, P2pkeSwarm};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const PEERS: usize = 10_000;
const MEMORY: usize = 4096;
const PERCENT: f64 = 1.0;
const IDLE: Duration = Duration::from_secs(10);

fn now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970")
}

/// Performs a handshake with the hub under a key of its own, and ends.
async fn shake_hands(medium: &MemorySwarm, hub: MemoryAddr, seed: usize) {
    let mut bytes = [3; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let local = Local::new(&PrivateKey::ed25519(&bytes), Config::default()).expect("a good key");
    let mut peer = Endpoint::new(Arc::new(local), &mut rand::rng());
    let begun = peer.connect(now(), &hub, None, &mut rand::rng());
    assert!(begun.is_ok_and(|path| path.is_none()));
    while peer.path(&hub).is_none() {
        while let Some((to, packet)) = peer.poll_transmit() {
            medium.tell(&to, packet).await.expect("room");
        }
        let answer = medium.receive().await.expect("open");
        peer.handle(now(), &hub, answer.payload, &mut rand::rng())
            .expect("a good packet");
    }
}

/// Returns the processor time of this process.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    // It counts one thread, and this process has no other.
    Duration::from_nanos(nanos.expect("Linux"))
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let realm = MemoryRealm::default();
        let mut config = P2pkeConfig::default();
        config.engine.hello_rate = u32::MAX;
        config.engine.hello_rate_per_source = u32::MAX;
        let before_any = ALLOCATOR.allocated();
        let hub =
            P2pkeSwarm::with_config(realm.open(), &PrivateKey::ed25519(&[1; 32]), config).expect("a node");
        let to = hub.inner().local_addr();
        let alone = ALLOCATOR.allocated() - before_any;
        let begun = Instant::now();
        let before = ALLOCATOR.allocated();
        for seed in 0..PEERS {
            shake_hands(&realm.open(), to, seed).await;
        }
        let (held, took) = (ALLOCATOR.allocated() - before, begun.elapsed());
        assert_eq!(hub.sessions(), PEERS);
        let each = held as f64 / PEERS as f64;
        println!(
            "name=p2pke_memory_per_idle_peer ours={each:.0} peer={MEMORY} ratio={:.3}",
            each / MEMORY as f64
        );
        println!("name=p2pke_memory_of_a_node_without_peers value={alone} unit=bytes");
        println!(
            "name=p2pke_handshakes value={:.0} unit=handshakes/s, both ends",
            PEERS as f64 / took.as_secs_f64()
        );
        let (before, begun) = (processor_time(), Instant::now());
        tokio::time::sleep(IDLE).await;
        let spent = processor_time().saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64();
        println!(
            "name=p2pke_idle_percent_of_a_core ours={:.4} peer={PERCENT} ratio={:.4}",
            spent * 100.0,
            spent * 100.0 / PERCENT
        );
        assert_eq!(hub.sessions(), PEERS);
    });
}
