//! Asks between nodes of a realm.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use p2p::{DropReason, Error, Message, Packet, Rejection, Request, Respond, Result};
use tokio::sync::oneshot;

use super::MemoryAddr;
use super::realm::Node;

/// A request that waits for the node's reader, behind the number by which it is withdrawn.
pub(super) type Asked = (u64, Request<MemoryAddr>);

/// Sends an ask from `asker` to `peer`, and waits for the result.
pub(super) async fn ask(asker: &Node, peer: &Arc<Node>, request: Packet, mtu: usize) -> Result<Packet> {
    // Both futures are notified of a later close; an earlier close is checked below.
    let asker_closes = asker.closing.notified();
    let peer_closes = peer.closing.notified();
    asker.check_open()?;

    let (outcome, outcome_here) = oneshot::channel();
    let id = peer.next_ask.fetch_add(1, Ordering::Relaxed);
    let reply = Reply {
        outcome,
        peer: peer.clone(),
        mtu,
    };
    let message = Message {
        src: asker.addr,
        dst: peer.addr,
        payload: request,
    };
    let queued = (id, Request::new(message, reply));
    asker.ask_counters.add_sent(1);
    peer.ask_counters.add_received(1);
    if let Err(refused) = peer.asks.push(queued) {
        let mut is_refused = false;
        for (refused_id, request) in refused.items {
            peer.ask_counters
                .add_dropped_from(refused.reason, &request.message.src);
            is_refused |= refused_id == id;
            request.reject(Rejection::BUSY);
        }
        if is_refused {
            return Err(match refused.reason {
                DropReason::Closed => gone(peer),
                _ => Error::Rejected(Rejection::BUSY),
            });
        }
    }
    let mut queued = QueuedAsk {
        peer,
        id,
        left: false,
    };
    tokio::select! {
        biased;
        () = asker_closes => Err(Error::Closed),
        outcome = outcome_here => {
            queued.left = true;
            outcome.unwrap_or(Err(Error::Rejected(Rejection::DROPPED)))
        }
        () = peer_closes => {
            queued.left = true;
            Err(gone(peer))
        }
    }
}

fn gone(peer: &Node) -> Error {
    Error::unreachable(&peer.addr, "the node was closed before it responded")
}

/// The queue entry of an ask at the peer, removed when the ask is cancelled.
struct QueuedAsk<'a> {
    peer: &'a Node,
    id: u64,
    left: bool,
}

impl Drop for QueuedAsk<'_> {
    fn drop(&mut self) {
        if !self.left {
            let withdrawn = self.peer.asks.remove(|asked| asked.0 == self.id);
            self.peer
                .ask_counters
                .add_dropped_many(DropReason::Expired, withdrawn.len());
        }
    }
}

/// Returns the response to the asker.
struct Reply {
    outcome: oneshot::Sender<Result<Packet>>,
    peer: Arc<Node>,
    mtu: usize,
}

#[async_trait]
impl Respond for Reply {
    async fn respond(self: Box<Self>, response: Packet) -> Result<()> {
        self.peer.check_open()?;
        if let Err(oversize) = response.check_mtu(self.mtu) {
            self.reject(Rejection::OVERSIZE);
            return Err(oversize);
        }
        // The asker may have cancelled: as on a network, the responder is not told.
        let _ = self.outcome.send(Ok(response));
        Ok(())
    }

    fn reject(self: Box<Self>, why: Rejection) {
        let _ = self.outcome.send(Err(Error::Rejected(why)));
    }
}
