//! Hosts of this project.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use p2p::{AskSwarm as _, Swarm as _};
use p2p_libp2p::{Host, HostAddr, HostEvent, HostSwarm, HostSwarmConfig, Security, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::rounds::all;
use crate::{ASK, CHUNK, Way, key};

const BULK: &str = "/bulk/1.0.0";
const ECHO: &str = "/echo/1.0.0";
const SWARM: &str = "/swarm/1.0.0";
/// Length of a message in bytes.
const MESSAGE: usize = 1 << 20;
/// Messages that are being sent at the same time.
const IN_FLIGHT: usize = 8;
/// Hosts that dial at the same time.
const DIALLERS: u8 = 4;

pub(crate) async fn host(way: Way, seed: u8) -> Host {
    let builder = Host::builder(&key(seed)).security(&[Security::Noise]);
    let host = builder.listen(way.place()).expect("a place").start().await;
    host.expect("a free port")
}

/// The bytes of one stream, written as slices.
pub(crate) async fn bulk(way: Way, count: Arc<AtomicU64>) {
    let (mut stream, _hosts) = open(way, count).await;
    let chunk = vec![7; CHUNK];
    // The receiver exists until the round ends.
    while stream.write_all(&chunk).await.is_ok() {}
}

/// The same over QUIC, written as chunks without a copy.
pub(crate) async fn bulk_of_chunks(count: Arc<AtomicU64>) {
    let (mut stream, _hosts) = open(Way::Quic, count).await;
    let chunk = Bytes::from(vec![7; MESSAGE]);
    while stream.write_bytes(chunk.clone()).await.is_ok() {}
}

/// Opens a stream whose bytes are read and counted at the other end.
async fn open(way: Way, count: Arc<AtomicU64>) -> (Stream, [Host; 2]) {
    let (a, b) = (host(way, 1).await, host(way, 2).await);
    let handled = b.handle(BULK, move |mut stream: Stream| {
        let count = count.clone();
        async move {
            let mut chunk = vec![0; CHUNK];
            while let Ok(read @ 1..) = stream.read(&mut chunk).await {
                count.fetch_add(read as u64, Relaxed);
            }
        }
    });
    handled.expect("a protocol");
    let stream = a.open(&b.local_addrs()[0], &[BULK]).await.expect("a stream");
    (stream, [a, b])
}

fn swarm(host: &Host) -> Arc<HostSwarm> {
    let swarm = host.swarm(SWARM, HostSwarmConfig::default());
    Arc::new(swarm.expect("limits that work"))
}

/// The bytes of messages of a swarm, over QUIC.
pub(crate) async fn messages(count: Arc<AtomicU64>) {
    let (a, b) = (host(Way::Quic, 1).await, host(Way::Quic, 2).await);
    let (a, b) = (swarm(&a), swarm(&b));
    let to = b.local_addrs().remove(0);
    let tells = (0..IN_FLIGHT).map(move |_| {
        let (a, to) = (a.clone(), to.clone());
        async move {
            let payload = vec![7; MESSAGE];
            while a.tell(&to, a.packet(&payload)).await.is_ok() {}
        }
    });
    tokio::spawn(all(tells));
    while let Ok(message) = b.receive().await {
        assert_eq!(message.payload.len(), MESSAGE);
        count.fetch_add(MESSAGE as u64, Relaxed);
    }
}

/// Asks of a swarm: a stream for each.
pub(crate) async fn asks(way: Way, in_flight: usize, count: Arc<AtomicU64>) {
    let (a, b) = (host(way, 1).await, host(way, 2).await);
    let (a, b) = (swarm(&a), swarm(&b));
    let to = b.local_addrs().remove(0);
    tokio::spawn(async move {
        while let Ok(request) = b.receive_ask().await {
            // The asker exists until the round ends.
            let _ = request.responder.respond(request.message.payload).await;
        }
    });
    all((0..in_flight).map(|_| {
        let (a, to, count) = (a.clone(), to.clone(), count.clone());
        async move {
            while let Ok(response) = a.ask(&to, a.packet(&[7; ASK])).await {
                assert_eq!(response.len(), ASK);
                count.fetch_add(1, Relaxed);
            }
        }
    }))
    .await;
}

/// Requests by streams, one at a time.
pub(crate) async fn stream_asks(way: Way, count: Arc<AtomicU64>) {
    let (a, b) = (host(way, 1).await, host(way, 2).await);
    let handled = b.handle(ECHO, async |mut stream: Stream| {
        let mut request = Vec::with_capacity(ASK);
        if stream.read_to_end(&mut request).await.is_ok() {
            // The asker exists until the round ends.
            let _ = stream.write_all(&request).await;
            let _ = stream.shutdown().await;
        }
    });
    handled.expect("a protocol");
    let to = b.local_addrs().remove(0);
    while let Some(response) = stream_ask(&a, &to).await {
        // A connection that ends with the round is the end of a stream over yamux.
        if response.len() == ASK {
            count.fetch_add(1, Relaxed);
        }
    }
}

async fn stream_ask(host: &Host, to: &HostAddr) -> Option<Vec<u8>> {
    let mut stream = host.open_lazily(to, ECHO).await.ok()?;
    stream.write_all(&[7; ASK]).await.ok()?;
    stream.shutdown().await.ok()?;
    let mut response = Vec::with_capacity(ASK);
    stream.read_to_end(&mut response).await.ok()?;
    Some(response)
}

/// Connections that are established, and closed by the dialler at once.
pub(crate) async fn handshakes(way: Way, count: Arc<AtomicU64>) {
    let server = host(way, 1).await;
    let to = server.local_addrs().remove(0);
    let mut diallers = Vec::new();
    for seed in 0..DIALLERS {
        diallers.push(host(way, 2 + seed).await);
    }
    all(diallers.into_iter().map(|dialler| {
        let (to, count) = (to.clone(), count.clone());
        async move {
            let mut events = dialler.events();
            while let Ok(peer) = dialler.connect(&to).await {
                count.fetch_add(1, Relaxed);
                dialler.disconnect(&peer);
                while !matches!(events.next().await, Ok(HostEvent::Disconnected { .. }) | Err(_)) {}
            }
        }
    }))
    .await;
    drop(server);
}
