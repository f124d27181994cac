//! Streams that this host has ended: they must not be dropped before the peer has read everything, since that refuses the
//! peer's answer to the negotiation; and a host that closes waits until the peer has what was sent on them.
//!
//! One task for each swarm awaits them all, so that a message costs no task.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::send::Sending;
use crate::host::Shared;
use crate::stream::Stream;

/// Maximum number of streams whose end is awaited. A peer permits some hundred streams, so as many peers as do not answer have
/// to be told of. Beyond, streams are dropped at once, and the message may be lost.
const MAX_AWAITED: usize = 16_384;
/// Streams that wait for the task; included in the bound.
const QUEUE: usize = 1024;

/// Awaits the ends of streams.
pub(super) struct Ends(mpsc::Sender<(Sending, Stream)>);

impl Ends {
    /// Awaits ends in a task of the host, each for up to `limit`.
    pub(super) fn new(host: &Arc<Shared>, limit: Duration) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE);
        host.spawn(await_all(queue, limit));
        Self(sender)
    }

    /// Keeps a stream that this host has ended, until its peer has ended it as well and has acknowledged what was sent.
    pub(super) fn await_end(&self, sending: Sending, stream: Stream) {
        // Without room, or after the host has closed, the stream is dropped.
        let _ = self.0.try_send((sending, stream));
    }
}

async fn await_all(mut queue: mpsc::Receiver<(Sending, Stream)>, limit: Duration) {
    let mut ends = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = ends.next() => {}
            stream = queue.recv(), if ends.len() < MAX_AWAITED - QUEUE => match stream {
                Some((sending, stream)) => ends.push(await_one(sending, stream, limit)),
                None => break,
            },
        }
    }
    while ends.next().await.is_some() {}
}

async fn await_one(sending: Sending, mut stream: Stream, limit: Duration) {
    let mut rest = [0; 64];
    let end = async {
        loop {
            match stream.read(&mut rest).await {
                // What a peer answers to a tell is of no use.
                Ok(1..) => {}
                Ok(0) => break Ok(()),
                Err(error) => break Err(error.kind()),
            }
        }
    };
    let until = Instant::now() + limit;
    match timeout_at(until, end).await {
        Ok(Ok(())) => {
            // An asker ends its direction before it has the response.
            let _ = timeout_at(until, stream.acknowledged()).await;
            sending.taken();
        }
        Ok(Err(ErrorKind::Unsupported)) => sending.refused(stream.peer()),
        Ok(Err(_)) | Err(_) => drop(sending),
    }
}
