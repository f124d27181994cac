//! A host with as many connections as it permits, and floods of handshakes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use p2p_formats::x509::PrivateKey;
use p2p_libp2p::ping::Pinger;
use p2p_libp2p::{CloseReason, Host, HostConfig, HostEvent};
use p2p_swarms::MemoryRealm;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::nodes::{in_memory, until};

/// Peers, each with as many connections as one peer may have.
const PEERS: u32 = 125;
const EACH: usize = 8;

#[tokio::test(start_paused = true)]
async fn a_host_with_a_thousand_connections_serves_each_and_refuses_more() {
    let realm = MemoryRealm::default();
    let config = HostConfig {
        max_connections: 1000,
        max_inbound: 1000,
        high_water: 1000,
        max_handshakes: 1000,
        ..HostConfig::default()
    };
    let listener = in_memory(0, &realm, config).await;
    let to = listener.local_addrs().remove(0);
    let mut hosts = Vec::new();
    for seed in 1..=PEERS {
        hosts.push(in_memory(seed, &realm, HostConfig::default()).await);
    }
    let dials = hosts
        .iter()
        .map(|host| join_all((0..EACH).map(|_| host.connect_anew(&to))));
    for dialled in join_all(dials).await.into_iter().flatten() {
        dialled.expect("room");
    }
    // Callers at the same time share a dial: those that are missing follow one by one.
    let rest = hosts.iter().map(|host| {
        let to = &to;
        async move {
            while host.connections().len() < EACH {
                host.connect_anew(to).await.expect("room");
            }
            host.pinger(to).await.expect("a stream")
        }
    });
    let mut pingers = join_all(rest).await;
    assert_eq!(listener.connections().len(), 1000);
    for pinged in join_all(pingers.iter_mut().map(Pinger::ping)).await {
        pinged.expect("an answer");
    }
    let streams: usize = listener.connections().iter().map(|info| info.streams).sum();
    assert!(streams >= PEERS as usize, "{streams} streams");

    let late = in_memory(PEERS + 1, &realm, HostConfig::default()).await;
    let mut events = late.events();
    late.connect(&to).await.expect("a handshake");
    let reason = until(&mut events, |event| match event {
        HostEvent::Disconnected { reason, .. } => Some(reason),
        _ => None,
    })
    .await;
    assert_eq!(reason, CloseReason::Remote);
    assert_eq!(listener.connections().len(), 1000);

    // Seven of eight are of no use, and end.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(listener.connections().len(), PEERS as usize);
    late.connect(&to).await.expect("room");
}

/// Sockets of the flood that are open at the same time.
const AT_ONCE: usize = 300;

#[tokio::test]
async fn half_open_connections_from_one_network_keep_no_honest_peer_out_of_a_host() {
    let realm = MemoryRealm::default();
    let builder = Host::builder(&PrivateKey::ed25519(&[7; 32])).listen("/ip4/127.0.0.1/tcp/0");
    let builder = builder
        .expect("a valid place")
        .over(realm.open())
        .expect("a swarm");
    let listener = builder.start().await.expect("a free port");
    let addrs = listener.local_addrs();
    let flooded = addrs
        .iter()
        .find_map(p2p::Addr::socket_addr)
        .expect("a TCP address");
    let other = addrs.iter().find(|addr| p2p::Addr::socket_addr(*addr).is_none());
    let other = other.expect("an address in memory").clone();

    let (mut flood, places) = (JoinSet::new(), Arc::new(Semaphore::new(AT_ONCE)));
    let mut served = 0;
    for dial in 0..10_000 {
        let place = places.clone().acquire_owned();
        let Ok(place) = tokio::time::timeout(Duration::from_secs(5), place).await else {
            break;
        };
        flood.spawn(async move {
            let _place = place;
            if let Ok(mut socket) = TcpStream::connect(flooded).await {
                // Nothing is ever sent: this ends with the host's side.
                let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut [0]).await;
            }
        });
        if dial % 1000 == 500 {
            let honest = in_memory(dial, &realm, HostConfig::default()).await;
            let mut pinger = honest.pinger(&other).await.expect("the flood keeps no peer out");
            pinger.ping().await.expect("an answer");
            served += 1;
        }
    }
    assert_eq!(served, 10);
    flood.shutdown().await;
}
