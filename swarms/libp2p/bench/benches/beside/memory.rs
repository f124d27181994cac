//! Heap memory of idle connections: both ends, and all that a host and a node keep for them.

use std::alloc::System;
use std::time::Duration;

use cap::Cap;
use futures_util::StreamExt as _;
use libp2p::swarm::SwarmEvent;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::rounds::runtime;
use crate::{Way, ours, peer};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Nodes that dial one node.
const DIALLERS: usize = 100;
/// The time after which a connection is idle: identify and the first ping have ended.
const IDLE: Duration = Duration::from_secs(3);

pub(crate) fn compare(name: &str, way: Way) {
    let (ours, peer) = (ours(way), peer(way));
    println!(
        "name={name} ours={ours:.0} peer={peer:.0} ratio={:.3} unit=bytes",
        ours / peer
    );
}

fn each(from: usize) -> f64 {
    (ALLOCATOR.allocated() - from) as f64 / DIALLERS as f64
}

fn ours(way: Way) -> f64 {
    let runtime = runtime(2);
    let bytes = runtime.block_on(async {
        let server = ours::host(way, 0).await;
        let to = server.local_addrs().remove(0);
        let mut diallers = Vec::new();
        for seed in 1..=DIALLERS {
            diallers.push(ours::host(way, u8::try_from(seed).unwrap_or_default()).await);
        }
        sleep(Duration::from_millis(100)).await;
        let from = ALLOCATOR.allocated();
        for dialler in &diallers {
            dialler.connect(&to).await.expect("a connection");
            dialler.identify(&to).await.expect("a node");
        }
        sleep(IDLE).await;
        assert_eq!(server.connections().len(), DIALLERS);
        each(from)
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    bytes
}

fn peer(way: Way) -> f64 {
    let runtime = runtime(2);
    let bytes = runtime.block_on(async {
        let mut server = peer::node(way);
        let to = peer::listening(&mut server).await;
        let (established, mut count) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                if let SwarmEvent::ConnectionEstablished { .. } = server.select_next_some().await {
                    established.send_modify(|count| *count += 1);
                }
            }
        });
        let start = watch::Sender::new(false);
        for _ in 0..DIALLERS {
            let mut node = peer::node(way);
            peer::listening(&mut node).await;
            let (to, mut start) = (to.clone(), start.subscribe());
            tokio::spawn(async move {
                start.wait_for(|start| *start).await.expect("it runs");
                node.dial(to).expect("an address");
                loop {
                    node.select_next_some().await;
                }
            });
        }
        sleep(Duration::from_millis(100)).await;
        let from = ALLOCATOR.allocated();
        start.send_replace(true);
        let all = timeout(Duration::from_mins(1), count.wait_for(|count| *count == DIALLERS));
        all.await.expect("in time").expect("it runs");
        sleep(IDLE).await;
        each(from)
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    bytes
}
