//! Streams of peers: RPCs are read from them, one at a time, as fast as the router takes them.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use p2p::{DropReason, Message, Packet};
use p2p_protocols::gossipsub::wire::WireError;
use tokio::time::timeout;

use super::core::{Core, LAYER};
use super::link::Link;
use crate::frame::{self, Head};
use crate::stream::Stream;

/// The reason for which a stream is read no further.
enum Ending {
    /// The peer ended it, or it failed.
    Gone,
    /// The node is closed.
    Closed,
    /// An RPC could not be read.
    Unreadable(WireError, DropReason),
    /// An RPC found no room, or did not arrive in time.
    Dropped(DropReason),
}

impl Core {
    /// Reads a stream that a peer has opened, until it ends or another one takes its place. Nothing is written to it: a byte
    /// or an end would tell the peer that this node is gone.
    pub(super) async fn take_stream(self: Arc<Self>, mut stream: Stream) {
        let peer = stream.peer().clone();
        let Some((link, number)) = self.begin_reading(&peer) else {
            self.counters.add_dropped_from(DropReason::Denied, &peer);
            tracing::debug!(layer = LAYER, %peer, "a stream was refused");
            return;
        };
        let ending = tokio::select! {
            biased;
            () = link.replaced(number) => return,
            () = self.closed() => return,
            ending = self.read_all(&link, &mut stream) => ending,
        };
        // The peer learns of a fault by the reset of its stream.
        drop(stream);
        match ending {
            Ending::Gone => self.drive(|links, _| links.handle_inbound_ended(&peer)),
            Ending::Closed => {}
            Ending::Unreadable(reason, counted) => {
                self.counters.add_dropped_from(counted, &peer);
                self.unreadable(&peer, reason);
            }
            Ending::Dropped(reason) => self.counters.add_dropped_from(reason, &peer),
        }
    }

    async fn read_all(&self, link: &Link, stream: &mut Stream) -> Ending {
        // The router knows the peer before its first RPC.
        if link.joined.subscribe().wait_for(|joined| *joined).await.is_err() {
            return Ending::Closed;
        }
        loop {
            if let Err(ending) = self.read_one(stream).await {
                return ending;
            }
        }
    }

    async fn read_one(&self, stream: &mut Stream) -> Result<(), Ending> {
        let max = self.config.gossip.engine.limits.rpc;
        let length = match frame::read_head(stream, max).await {
            Ok(Head::Length(length)) => length,
            Ok(Head::End) => return Err(Ending::Gone),
            Ok(Head::Rejected(_)) => {
                return Err(Ending::Unreadable(WireError::Malformed, DropReason::Malformed));
            }
            Err(error) => return Err(broken(&error, max)),
        };
        let mut charge = self.reassembly.charging(stream.peer());
        let body = frame::read_body(stream, length, &mut charge);
        let body = match timeout(self.config.rpc_timeout, body).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return Err(broken(&error, max)),
            Err(_) => return Err(Ending::Dropped(DropReason::Expired)),
        };
        self.counters.add_received(1);
        let message = Message {
            src: stream.peer().clone(),
            dst: self.local.clone(),
            payload: Packet::from_buffer(body, 0),
        };
        // The charge is kept until the router has room for it.
        let sent = self.rpcs.send(message).await;
        drop(charge);
        sent.map_err(|_| Ending::Closed)
    }
}

/// Returns why a stream is read no further after an error.
fn broken(error: &io::Error, max: usize) -> Ending {
    match error.kind() {
        ErrorKind::FileTooLarge => {
            // The length is any number above the limit.
            let (what, len) = ("the RPC", max.saturating_add(1));
            Ending::Unreadable(WireError::Length { what, len, max }, DropReason::Oversize)
        }
        ErrorKind::InvalidData => Ending::Unreadable(WireError::Malformed, DropReason::Malformed),
        ErrorKind::OutOfMemory => Ending::Dropped(DropReason::Budget),
        _ => Ending::Gone,
    }
}
