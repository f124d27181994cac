//! Events of a host.

use std::sync::Arc;

use multiaddr::Multiaddr;
use p2p::{Error, Result};
use p2p_protocols::connections::CloseReason;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::addr::HostAddr;
use crate::connection::ConnectionInfo;
use crate::identify::Identified;

/// Events that wait for a subscriber at most; beyond them the oldest are dropped.
const QUEUE: usize = 1024;

/// An event of a host.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum HostEvent {
    /// The host listens at a place.
    Listening(Multiaddr),
    /// A connection was established.
    Connected(ConnectionInfo),
    /// A connection has ended.
    Disconnected {
        /// The connection.
        connection: ConnectionInfo,
        /// Whether no other connection with the peer is left.
        is_last: bool,
        /// The reason: the peer closed it, this host closed it, nothing needed it, there were too many, another one
        /// needed its place, or it failed.
        reason: CloseReason,
        /// What the transport says of the end, or the reason as text.
        detail: Box<str>,
    },
    /// A peer identified itself, or pushed a change.
    Identified {
        /// The peer.
        peer: HostAddr,
        /// What it said of itself.
        identified: Arc<Identified>,
    },
}

/// A subscription to the events of a host.
#[derive(Debug)]
pub struct HostEvents(broadcast::Receiver<HostEvent>);

impl HostEvents {
    /// Waits for the next event. Of a subscriber that falls behind by more than 1024 events, the oldest are
    /// dropped.
    ///
    /// # Errors
    /// [`Error::Closed`] after the host has closed.
    ///
    /// # Cancel safety
    /// Cancelling loses no event.
    pub async fn next(&mut self) -> Result<HostEvent> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Ok(event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Err(Error::Closed),
            }
        }
    }
}

/// Sends events to all subscribers. Closed with the host.
#[derive(Debug)]
pub(super) struct Events(parking_lot::Mutex<Option<broadcast::Sender<HostEvent>>>);

impl Events {
    pub(super) fn new() -> Self {
        Self(parking_lot::Mutex::new(Some(broadcast::Sender::new(QUEUE))))
    }

    pub(super) fn send(&self, event: HostEvent) {
        if let Some(sender) = &*self.0.lock() {
            // Without subscribers the event is dropped.
            let _ = sender.send(event);
        }
    }

    pub(super) fn subscribe(&self) -> HostEvents {
        let sender = self.0.lock();
        HostEvents(match &*sender {
            Some(sender) => sender.subscribe(),
            None => broadcast::Sender::new(1).subscribe(),
        })
    }

    pub(super) fn close(&self) {
        *self.0.lock() = None;
    }
}
