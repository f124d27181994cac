//! Messages of a batch whose peer must be dialled first: they are queued, so that the batch does not wait for
//! the dial.

use std::collections::VecDeque;
use std::sync::Arc;

use p2p::{Addr, DropReason, Packet};
use tokio::sync::watch;

use super::QuicConfig;
use super::node::Node;
use super::send::Tell;
use super::session::Session;
use super::sessions::Dialled;
use crate::KeyAddr;

/// Messages that wait for the dial to one peer: at most [`QuicConfig::max_streams`] messages and
/// [`QuicConfig::send_window`] bytes, but always one message.
#[derive(Default)]
pub(super) struct Waiting {
    packets: VecDeque<Packet>,
    bytes: usize,
}

impl Waiting {
    /// Queues the packet, or returns it if there is no room.
    fn push(&mut self, packet: Packet, config: &QuicConfig) -> Result<(), Packet> {
        let (messages, bytes) = (config.max_streams as usize, config.send_window as usize);
        let after = self.bytes.saturating_add(packet.len());
        if !self.packets.is_empty() && (self.packets.len() >= messages || after > bytes) {
            return Err(packet);
        }
        self.bytes = after;
        self.packets.push_back(packet);
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Option<Packet> {
        let packet = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
    }
}

/// Counts a task that sends queued messages, until it is dropped.
struct Sending(Arc<watch::Sender<usize>>);

impl Sending {
    fn begin(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl<A: Addr> Node<A> {
    /// Queues a message until its peer is dialled. Returns the message if there is no room, or if there is a
    /// session by now.
    pub(super) fn tell_later(self: &Arc<Self>, peer: &KeyAddr<A>, packet: Packet) -> Tell<A> {
        let mut sessions = self.sessions();
        if let Err(error) = self.check_open() {
            return Tell::Done(Err(error));
        }
        if sessions.find(peer).is_some() {
            return Tell::Unsent(packet);
        }
        if let Some(waiting) = sessions.waiting(peer) {
            let pushed = waiting.push(packet, &self.config);
            drop(sessions);
            return match pushed {
                Ok(()) => {
                    self.tells.add_sent(1);
                    Tell::Done(Ok(()))
                }
                Err(packet) => Tell::Unsent(packet),
            };
        }
        let dial = match sessions.dial(peer) {
            Some(dial) => dial,
            None => match self.begin_dial(&mut sessions, peer) {
                Ok(dial) => dial,
                Err(error) => return Tell::Done(Err(error)),
            },
        };
        let mut waiting = Waiting::default();
        if let Err(packet) = waiting.push(packet, &self.config) {
            return Tell::Unsent(packet);
        }
        sessions.wait(peer, waiting);
        drop(sessions);
        self.tells.add_sent(1);
        let sending = Sending::begin(&self.sending);
        let (node, peer) = (self.clone(), peer.clone());
        self.runtime.spawn(async move {
            node.send_waiting(&peer, dial).await;
            drop(sending);
        });
        Tell::Done(Ok(()))
    }

    /// Sends the messages that wait for the dial to `peer` once it ends, or counts them as dropped.
    async fn send_waiting(&self, peer: &KeyAddr<A>, mut dial: watch::Receiver<Dialled<A>>) {
        let session = match dial.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(session))) => Ok(session.clone()),
            Ok(Some(Err(error))) => {
                tracing::debug!(layer = "quic", %peer, %error, "messages that waited for the dial are dropped");
                Err(DropReason::NoPeer)
            }
            Ok(None) | Err(_) => Err(DropReason::Closed),
        };
        loop {
            let Some(packet) = self.sessions().next_waiting(peer) else {
                break;
            };
            let sent = match &session {
                Ok(session) => self.send_in(session, packet).await,
                Err(reason) => Err(*reason),
            };
            if let Err(reason) = sent {
                self.tells.add_dropped_from(reason, peer);
            }
        }
    }

    /// Sends a message that was already counted as sent.
    async fn send_in(&self, session: &Arc<Session<A>>, packet: Packet) -> Result<(), DropReason> {
        match self.send_whole(session, packet).await {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(DropReason::Lost),
            None => Err(DropReason::Expired),
        }
    }
}
