//! The streams between this host and one peer.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Mutex, watch};

use crate::addr::HostAddr;
use crate::stream::Stream;

/// The number of the stream that is read once the link has ended.
const ENDED: u64 = u64::MAX;

/// The streams between this host and one node, from the first of them until the node leaves.
pub(super) struct Link {
    pub(super) peer: HostAddr,
    /// The stream to the node. A write takes it out and puts it back, so that a cancelled one leaves none.
    pub(super) outbound: Mutex<Option<Stream>>,
    /// Whether the router has the node as a peer: before that, its stream is not read.
    pub(super) joined: watch::Sender<bool>,
    /// The number of the node's stream that is read: a new stream replaces the one before.
    read: watch::Sender<u64>,
}

impl Link {
    pub(super) fn new(peer: HostAddr) -> Self {
        Self {
            peer,
            outbound: Mutex::new(None),
            joined: watch::Sender::new(false),
            read: watch::Sender::new(0),
        }
    }

    /// Ends the link: its streams end, also those that are in use.
    pub(super) fn end(&self) {
        self.read.send_replace(ENDED);
    }

    pub(super) fn is_ended(&self) -> bool {
        *self.read.borrow() == ENDED
    }

    /// Waits until the link has ended.
    pub(super) async fn ended(&self) {
        self.until(|read| read == ENDED).await;
    }

    /// Begins to read another stream, whose number it returns.
    pub(super) fn begin_reading(&self) -> u64 {
        let mut number = ENDED;
        self.read.send_modify(|read| {
            if *read != ENDED {
                *read += 1;
                number = *read;
            }
        });
        number
    }

    /// Waits until the stream with this number is no longer the one to read.
    pub(super) async fn replaced(&self, number: u64) {
        self.until(|read| read != number || read == ENDED).await;
    }

    async fn until(&self, is_there: impl Fn(u64) -> bool) {
        // Fails only without a sender, and `self` has one.
        let _ = self.read.subscribe().wait_for(|read| is_there(*read)).await;
    }

    /// Ends the stream to the peer, and waits until the peer has ended it too.
    pub(super) async fn finish(&self) {
        let Some(mut stream) = self.outbound.lock().await.take() else {
            return;
        };
        let mut rest = [0; 64];
        if stream.shutdown().await.is_ok() {
            while let Ok(1..) = stream.read(&mut rest).await {}
        }
    }
}
