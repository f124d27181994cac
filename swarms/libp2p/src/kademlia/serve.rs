//! Streams that peers open for requests: one or several requests each, which are answered in order.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Weak};

use multiaddr::PeerId;
use p2p::{DropReason, Packet, Result};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::node::Node;
use crate::frame::{self, Head};
use crate::stream::Stream;
use crate::swarm::frame;

/// Registers the handler of the protocol.
pub(super) fn register(node: &Arc<Node>) -> Result<()> {
    let weak = Arc::downgrade(node);
    node.host
        .add_handler(&node.protocol, move |stream| serve(weak.clone(), stream))
}

async fn serve(node: Weak<Node>, mut stream: Stream) {
    let Some(node) = node.upgrade() else { return };
    let Some(peer) = stream.peer().libp2p_id() else {
        return;
    };
    let from = stream.peer().clone();
    let Some(_place) = Place::take(&node, peer) else {
        node.drop_request(DropReason::Budget, &from);
        return;
    };
    tokio::select! {
        () = node.closed() => {}
        served = node.serve_stream(&mut stream, &peer) => {
            if let Err(reason) = served {
                // The stream is reset.
                node.drop_request(reason, &from);
            }
        }
    }
}

impl Node {
    async fn serve_stream(self: &Arc<Self>, stream: &mut Stream, peer: &PeerId) -> Result<(), DropReason> {
        loop {
            let head = timeout(self.idle_timeout, frame::read_head(stream, self.longest));
            let head = match head.await {
                Ok(head) => head.map_err(|error| reason(&error))?,
                // An idle stream is no fault.
                Err(_) => Head::End,
            };
            let length = match head {
                Head::Length(length) => length,
                Head::Rejected(_) => return Err(DropReason::Malformed),
                Head::End => {
                    // Fails where the peer has reset the stream.
                    let _ = timeout(self.message_timeout, stream.shutdown()).await;
                    return Ok(());
                }
            };
            self.requests.add_received(1);
            let mut charge = self.reassembly.charging(stream.peer());
            let body = frame::read_body(stream, length, &mut charge);
            let request = match timeout(self.message_timeout, body).await {
                Ok(request) => request.map_err(|error| reason(&error))?,
                Err(_) => return Err(DropReason::Expired),
            };
            // By now the peer may have said where it listens.
            let from = &self.host.addr_of(peer).unwrap_or_else(|| stream.peer().clone());
            let answer = self.drive(|engine, now| engine.handle_request(now, from, &request));
            drop((request, charge));
            let answer = match answer {
                Ok(Ok(answer)) => answer,
                Ok(Err(refusal)) => {
                    tracing::debug!(layer = "kad", peer = %from, %refusal, "a request is refused");
                    return Err(DropReason::Refused);
                }
                Err(_) => return Err(DropReason::Closed),
            };
            self.requests.add_delivered(1);
            if answer.is_empty() {
                continue;
            }
            let mut packet = Packet::new(p2p::Headroom::new(p2p_formats::varint::MAX_LEN, 0), &answer);
            frame(&mut packet);
            let written = async {
                stream.write_bytes(packet.into_bytes()).await?;
                stream.flush().await
            };
            match timeout(self.message_timeout, written).await {
                Ok(written) => written.map_err(|error| reason(&error))?,
                Err(_) => return Err(DropReason::Expired),
            }
        }
    }
}

fn reason(error: &io::Error) -> DropReason {
    match error.kind() {
        ErrorKind::InvalidData => DropReason::Malformed,
        ErrorKind::OutOfMemory => DropReason::Budget,
        ErrorKind::FileTooLarge => DropReason::Oversize,
        _ => DropReason::Lost,
    }
}

/// A place among the streams of a peer that are served.
struct Place<'a> {
    node: &'a Node,
    peer: PeerId,
}

impl<'a> Place<'a> {
    fn take(node: &'a Node, peer: PeerId) -> Option<Self> {
        let mut serving = node.serving.lock();
        let count = serving.entry(peer).or_default();
        if *count >= node.peer_streams {
            if *count == 0 {
                serving.remove(&peer);
            }
            return None;
        }
        *count += 1;
        Some(Self { node, peer })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut serving = self.node.serving.lock();
        if let Some(count) = serving.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                serving.remove(&self.peer);
            }
        }
    }
}
