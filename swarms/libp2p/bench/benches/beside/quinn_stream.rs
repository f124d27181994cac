//! One stream of quinn, used directly: chunks are written and read without a copy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

use crate::plain::{self, Datagrams};

/// Length of a written chunk in bytes.
const WRITTEN: usize = 1 << 20;
/// Chunks that are read at once.
const CHUNKS: usize = 64;

/// Counts the bytes that arrive.
pub(crate) async fn bulk(datagrams: Datagrams, count: Arc<AtomicU64>) {
    let (a, b) = plain::connected_for_bulk(datagrams).await;
    tokio::spawn(async move {
        let chunk = Bytes::from(vec![7; WRITTEN]);
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
}
