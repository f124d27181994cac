//! The attachment of a swarm to its host: it ends with the host, and keeps the messages that wait for a reader.

use std::sync::Arc;

use p2p::{Counters, DropReason, Error, Message, Packet, Result};
use p2p_swarms::inbox::{Inbox, Limits};
use tokio::sync::watch;

use crate::addr::HostAddr;
use crate::host::{Host, Shared};
use crate::key::PublicKey;

/// What each swarm of a host has.
pub(crate) struct Attachment {
    pub(crate) host: Arc<Shared>,
    /// The destination of every message that arrives.
    pub(crate) local: HostAddr,
    /// Counts messages.
    pub(crate) counters: Counters,
    messages: Inbox<Message<HostAddr>>,
    closing: watch::Sender<bool>,
}

impl Attachment {
    /// `layer` is the name of the counters. At `limits` messages are dropped and counted.
    pub(crate) fn new(host: &Host, layer: &'static str, limits: Limits) -> Self {
        Self {
            host: host.core().clone(),
            local: HostAddr::of_peer(host.peer_id()),
            counters: Counters::new(layer),
            messages: Inbox::new(limits),
            closing: watch::Sender::new(false),
        }
    }

    /// Fails if the swarm or its host is closed.
    pub(crate) fn check_open(&self) -> Result<()> {
        if *self.closing.borrow() {
            return Err(Error::Closed);
        }
        self.host.check_open()
    }

    /// Returns the result of `call`, unless the swarm or its host is closed meanwhile.
    pub(crate) async fn unless_closed<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let mut closing = self.closing();
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => Err(Error::Closed),
            result = self.host.unless_closed(call) => result,
        }
    }

    /// Returns a receiver that learns when the swarm is closed.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Ends calls and receives, and drops the messages that wait. Returns whether the swarm was open.
    pub(crate) fn close(&self) -> bool {
        if self.closing.send_replace(true) {
            return false;
        }
        let dropped = self.messages.close();
        self.counters.add_dropped_many(DropReason::Closed, dropped);
        true
    }

    /// Queues a message for a reader, and counts what is dropped for lack of room.
    pub(crate) fn deliver(&self, src: HostAddr, payload: Packet) {
        let message = Message {
            src,
            dst: self.local.clone(),
            payload,
        };
        if let Err(refused) = self.messages.push(message) {
            for message in refused.items {
                self.counters.add_dropped_from(refused.reason, &message.src);
            }
        }
    }

    pub(crate) async fn receive(&self) -> Result<Message<HostAddr>> {
        let message = self.messages.pop().await?;
        self.counters.add_delivered(1);
        Ok(message)
    }

    pub(crate) async fn receive_batch(&self, out: &mut Vec<Message<HostAddr>>, max: usize) -> Result<usize> {
        let count = self.messages.pop_batch(out, max).await?;
        self.counters.add_delivered(count);
        Ok(count)
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.host.upgrader.keypair.public().clone()
    }

    /// Returns the key of the peer at `addr`; connects to it if there is no connection.
    pub(crate) async fn lookup_public_key(&self, addr: &HostAddr) -> Result<PublicKey> {
        self.check_open()?;
        self.unless_closed(self.host.key_of(addr)).await
    }
}
