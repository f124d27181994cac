//! Bulk data: messages of 1 MiB of which eight are being sent, beside one stream of quinn that nothing limits: its
//! chunks are written and read without a copy, its windows are large, and its sockets have the buffers of ours.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use p2p::{Addr, Swarm};
use p2p_swarms::{MemoryRealm, QuicSwarm};

use crate::plain::Datagrams;
use crate::rounds::{all, rate};
use crate::{key, on_udp, plain};

/// Length of a message in bytes.
const MESSAGE: usize = 1 << 20;
/// Messages that are being sent at the same time.
const IN_FLIGHT: usize = 8;
/// Chunks that the peer reads at once.
const CHUNKS: usize = 64;

pub(crate) fn on_sockets(workers: usize) -> f64 {
    rate(workers, |count| async {
        messages(on_udp(1), on_udp(2), count).await;
    })
}

/// Needs a medium without faults whose queues hold all data in flight.
pub(crate) fn on_memory(workers: usize) -> f64 {
    rate(workers, |count| async {
        let realm = MemoryRealm::default();
        let node = |seed| QuicSwarm::new(realm.open(), &key(seed)).expect("a good key");
        messages(node(1), node(2), count).await;
    })
}

/// Counts the bytes of messages that arrive.
async fn messages<A: Addr, S: Swarm<A>>(a: S, b: S, count: Arc<AtomicU64>) {
    let (a, to) = (Arc::new(a), b.local_addrs().remove(0));
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

pub(crate) fn peer(workers: usize) -> f64 {
    stream(workers, Datagrams::Default)
}

pub(crate) fn peer_with_long_datagrams(workers: usize) -> f64 {
    stream(workers, Datagrams::Long)
}

/// Counts the bytes of one stream that arrive.
fn stream(workers: usize, datagrams: Datagrams) -> f64 {
    rate(workers, |count| async move {
        let (a, b) = plain::connected_for_bulk(datagrams).await;
        tokio::spawn(async move {
            let chunk = Bytes::from(vec![7; MESSAGE]);
            let mut send = a.open_uni().await.expect("room for a stream");
            // The receiver exists until the round ends.
            while send.write_chunk(chunk.clone()).await.is_ok() {}
        });
        let mut recv = b.accept_uni().await.expect("a stream");
        let mut chunks = vec![Bytes::new(); CHUNKS];
        while let Ok(Some(read)) = recv.read_chunks(&mut chunks).await {
            let bytes = chunks[..read].iter().map(Bytes::len).sum::<usize>();
            count.fetch_add(bytes as u64, Relaxed);
        }
    })
}
