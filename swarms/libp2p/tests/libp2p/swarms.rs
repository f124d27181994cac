//! The laws of swarms for hosts, over QUIC and over TCP.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use p2p::Result;
use p2p_formats::x509::PrivateKey;
use p2p_libp2p::{Host, HostAddr, HostConfig, HostSwarm, HostSwarmConfig};
use p2p_swarmtest::{Profile, SecureAsk, Testbed, conformance};

use crate::nodes::Way;

const ID: &str = "/test/1.0.0";

fn profile() -> Profile {
    Profile {
        settle: Duration::from_millis(100),
        patience: Duration::from_secs(20),
        ask_patience: Duration::from_secs(40),
        holds: 1024 + 256,
        asks: 1024 + 256,
        ..Profile::default().quick()
    }
}

async fn node(seed: u32, way: Way, place: &str) -> Result<HostSwarm> {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_be_bytes());
    let config = HostConfig {
        max_handshakes_per_prefix: 256,
        ..HostConfig::default()
    };
    let builder = Host::builder(&PrivateKey::ed25519(&bytes)).config(config);
    let builder = builder.security(&[way.security()]).listen(place)?;
    let config = HostSwarmConfig {
        ask_timeout: Duration::from_secs(5),
        mtu: 256 << 10,
        ..HostSwarmConfig::default()
    };
    builder.start().await?.swarm(ID, config)
}

fn testbed(way: Way) -> Testbed<HostAddr> {
    let seeds = Arc::new(AtomicU32::new(0));
    let nodes = move |count| {
        let seeds = seeds.clone();
        async move {
            let mut nodes = Vec::new();
            for _ in 0..count {
                nodes.push(node(seeds.fetch_add(1, Relaxed), way, way.place()).await?);
            }
            Ok(nodes)
        }
    };
    Testbed::new(SecureAsk, nodes)
        .profile(profile())
        .forge(|id: &HostAddr, place: &HostAddr| {
            HostAddr::new(id.libp2p_id().expect("an id"), place.place().clone())
        })
}

conformance!(#[tokio::test] mod over_quic: SecureAsk => testbed(Way::Quic));
conformance!(#[tokio::test] mod over_noise: SecureAsk => testbed(Way::Noise));
