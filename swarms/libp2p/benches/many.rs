#![expect(clippy::cast_precision_loss, reason = "figures are shown rounded")]
//! A host with 1,000 connections, each with a peer of its own in another process: how long connecting takes at the
//! beginning and at the end, what a connection holds in memory, and round trips of pings while each peer sends one a second.
//!
//! `cargo bench -p p2p-libp2p --bench many`. `peer` is the intended maximum of the 99th percentile: 50 ms.

use std::alloc::System;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cap::Cap;
use futures_util::stream::{self, StreamExt as _};
use p2p_formats::x509::PrivateKey;
use p2p_libp2p::ping::Pinger;
use p2p_libp2p::{Host, HostAddr, HostConfig, HostEvent};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const PEERS: usize = 1000;
/// Peers that connect at the same time.
const AT_ONCE: usize = 8;
const PERIOD: Duration = Duration::from_secs(1);
const PINGS: u32 = 10;
const LIMIT: f64 = 50.0;

/// The environment variable that makes a process the peers of the host at this address.
const PEERS_OF: &str = "P2P_LIBP2P_BENCH_PEERS_OF";

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Returns the time below which this share of the times is.
fn percentile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    #[expect(clippy::cast_sign_loss, reason = "a share of a length")]
    let at = (times.len() as f64 * share) as usize;
    times
        .get(at.min(times.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

async fn host(seed: usize, place: Option<&str>) -> Host {
    let mut bytes = [3; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let config = HostConfig {
        max_connections: 2 * PEERS,
        max_inbound: 2 * PEERS,
        max_per_prefix: PEERS,
        high_water: 2 * PEERS,
        unused_timeout: Duration::MAX,
        ..HostConfig::default()
    };
    let mut builder = Host::builder(&PrivateKey::ed25519(&bytes)).config(config);
    if let Some(place) = place {
        builder = builder.listen(place).expect("a valid place");
    }
    builder.start().await.expect("a host")
}

/// Connects, and returns the host, its stream for pings, and the time that this took.
async fn connect(seed: usize, to: &HostAddr) -> (Host, Pinger, Duration) {
    let host = host(seed, None).await;
    let begun = Instant::now();
    let pinger = host.pinger(to).await.expect("a connection");
    (host, pinger, begun.elapsed())
}

/// The process of the peers.
async fn peers(way: &str, to: HostAddr) {
    let mut connected: Vec<_> = stream::iter(1..=PEERS)
        .map(|seed| connect(seed, &to))
        .buffered(AT_ONCE)
        .collect()
        .await;
    for (name, part) in [("first", &connected[..100]), ("last", &connected[PEERS - 100..])] {
        let mut times: Vec<_> = part.iter().map(|(.., took)| *took).collect();
        let median = millis(percentile(&mut times, 0.5));
        println!("name={way}_connecting_the_{name}_100 value={median:.2} unit=ms, {AT_ONCE} at once");
    }
    let pings = connected
        .iter_mut()
        .enumerate()
        .map(|(index, (_, pinger, _))| async move {
            let mut times = Vec::new();
            tokio::time::sleep(PERIOD.mul_f64(index as f64 / PEERS as f64)).await;
            for _ in 0..PINGS {
                let begun = tokio::time::Instant::now();
                times.push(pinger.ping().await.expect("an answer"));
                tokio::time::sleep_until(begun + PERIOD).await;
            }
            times
        });
    let times = futures_util::future::join_all(pings).await;
    let mut times: Vec<_> = times.into_iter().flatten().collect();
    let median = millis(percentile(&mut times, 0.5));
    let last = millis(percentile(&mut times, 0.99));
    println!("name={way}_ping_of_{PEERS}_p50 value={median:.2} unit=ms");
    println!(
        "name={way}_ping_of_{PEERS}_p99 ours={last:.2} peer={LIMIT} ratio={:.3}",
        last / LIMIT
    );
}

/// The process of the host.
async fn serve(way: &str, place: &str) {
    let before = ALLOCATOR.allocated();
    let host = host(0, Some(place)).await;
    let mut events = host.events();
    let alone = ALLOCATOR.allocated() - before;
    println!("name={way}_memory_of_a_host_without_peers value={alone} unit=bytes");
    let program = std::env::current_exe().expect("this program");
    let mut child = tokio::process::Command::new(program)
        .env(PEERS_OF, format!("{way} {}", host.local_addrs()[0]))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("another process");
    let (mut held, mut count) = (Vec::new(), 0);
    while count < PEERS {
        let event = tokio::select! {
            event = events.next() => event.expect("an open host"),
            _ = child.wait() => panic!("the peers have ended"),
        };
        count += usize::from(matches!(event, HostEvent::Connected(_)));
        if count == PEERS {
            // Until identify has ended.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        if [PEERS / 2, PEERS].contains(&count) && held.len() < 1 + count / PEERS {
            held.push((ALLOCATOR.allocated() - before - alone) as f64 / count as f64);
        }
    }
    assert_eq!(host.connections().len(), PEERS);
    println!(
        "name={way}_memory_of_a_connection value={:.0} unit=bytes, of the first {} {:.0}",
        held[1],
        PEERS / 2,
        held[0]
    );
    assert!(child.wait().await.expect("a child").success());
    host.close().await;
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        if let Ok(of) = std::env::var(PEERS_OF) {
            let (way, to) = of.split_once(' ').expect("a transport and an address");
            peers(way, to.parse().expect("an address")).await;
            return;
        }
        for (way, place) in [
            ("quic", "/ip4/127.0.0.1/udp/0/quic-v1"),
            ("tcp", "/ip4/127.0.0.1/tcp/0"),
        ] {
            serve(way, place).await;
        }
    });
}
