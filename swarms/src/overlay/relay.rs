//! Relayed messages: this node's own, outbound and inbound, and those that it forwards.

use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, AskSwarm, DropReason, Error, Headroom, Message, Packet, PeerId, Result, Swarm};
use p2p_protocols::overlay::wire::{Header, MAX_RELAYED};
use p2p_protocols::overlay::{Prefix, Route};
use rand::RngExt as _;

use super::core::Core;
use super::router::Router;

/// Relayed datagrams as a swarm: neither reassembled, nor encrypted, nor reliable.
pub(super) struct RelaySwarm<A: Addr, S, R: Router<A>> {
    pub(super) core: Arc<Core<A, S, R>>,
}

impl<A: Addr, S: AskSwarm<A>, R: Router<A>> Swarm<PeerId> for RelaySwarm<A, S, R> {
    /// Sends directly to the destination if it is reachable, and otherwise to a neighbour that knows it.
    async fn tell(&self, dst: &PeerId, mut packet: Packet) -> Result<()> {
        packet.check_mtu(self.mtu())?;
        let core = &self.core;
        // No lookup starts here: the route of this node's own messages is known by then, and an id that has
        // proven nothing, in whose name any node could have sent a message, must not cause a lookup.
        let unknown = || Error::unreachable(dst, "no neighbour that reaches it is known");
        let route = core.relay_route(dst).ok_or_else(unknown)?;
        let to = match route {
            Route::Direct(addr) => addr,
            // A random one, so that a neighbour that drops everything does not block the route for ever.
            Route::Relayed(addrs) => {
                let at = core.env.rng().random_range(0..addrs.len().max(1));
                addrs.into_iter().nth(at).ok_or_else(unknown)?
            }
        };
        let header = Header::Relayed {
            hops: core.config.hops,
            src: core.id,
            dst: *dst,
        };
        header.push(&mut packet);
        core.inner.tell(&to, packet).await?;
        core.relays.add_sent(1);
        Ok(())
    }

    async fn receive(&self) -> Result<Message<PeerId>> {
        let message = self.core.relayed.pop().await?;
        self.core.relays.add_delivered(1);
        Ok(message)
    }

    async fn receive_batch(&self, out: &mut Vec<Message<PeerId>>, max: usize) -> Result<usize> {
        let count = self.core.relayed.pop_batch(out, max).await?;
        self.core.relays.add_delivered(count);
        Ok(count)
    }

    fn mtu(&self) -> usize {
        self.core.inner.mtu().saturating_sub(MAX_RELAYED)
    }

    fn local_addrs(&self) -> Vec<PeerId> {
        vec![self.core.id]
    }

    fn parse_addr(&self, text: &str) -> Result<PeerId> {
        text.parse()
    }

    /// The overlay closes it.
    async fn close(&self) {}

    fn headroom(&self) -> Headroom {
        Headroom::new(MAX_RELAYED, 0).plus(self.core.inner.headroom())
    }
}

/// A relayed message from a neighbour, to deliver or forward.
pub(super) struct RelayedMessage<A> {
    pub(super) from: A,
    pub(super) hops: u8,
    pub(super) src: PeerId,
    pub(super) dst: PeerId,
    pub(super) payload: Packet,
}

impl<A: Addr, S: AskSwarm<A>, R: Router<A>> Core<A, S, R> {
    /// Delivers a relayed message to this node, or forwards it.
    pub(super) fn handle_relayed(self: &Arc<Self>, now: Duration, relayed: RelayedMessage<A>) {
        self.relays.add_received(1);
        let src = relayed.src;
        if let Err(reason) = self.try_relay(now, relayed) {
            self.relays.add_dropped_from(reason, &src);
        }
    }

    fn try_relay(self: &Arc<Self>, now: Duration, relayed: RelayedMessage<A>) -> Result<(), DropReason> {
        let RelayedMessage {
            from,
            hops,
            src,
            dst,
            mut payload,
        } = relayed;
        if dst == self.id {
            if !self.sends_relayed {
                return Err(DropReason::Denied);
            }
            if !self.admit(now, src, &from, payload.len()) {
                return Err(DropReason::Budget);
            }
            let message = Message { src, dst, payload };
            return self.relayed.push(message).map_err(|refused| {
                // The caller counts one.
                let others = refused.items.len().saturating_sub(1);
                self.relays.add_dropped_many(refused.reason, others);
                refused.reason
            });
        }
        if !self.config.relay {
            return Err(DropReason::Denied);
        }
        let hops = hops.checked_sub(1).ok_or(DropReason::Expired)?;
        let (next, affordable) = {
            let mut state = self.state();
            let engine = state.engine.as_ref().ok_or(DropReason::Closed)?;
            let next = engine.next_hop(&dst);
            (
                next,
                state
                    .budget
                    .spend_in(now, &from, Prefix::of(&from), payload.len()),
            )
        };
        if !affordable {
            return Err(DropReason::Budget);
        }
        let known = || match self.book().route(now, &dst)? {
            Route::Direct(addr) => Some(addr),
            Route::Relayed(_) => None,
        };
        let next = match next {
            Some((id, addr)) if id == dst => Some(addr),
            Some((_, addr)) => known().or(Some(addr)),
            None => known(),
        };
        let next = next.filter(|next| *next != from).ok_or(DropReason::NoPeer)?;
        Header::Relayed { hops, src, dst }.push(&mut payload);
        let core = self.clone();
        self.relays.add_sent(1);
        // A failed send is a loss, as on the medium: the layers above retransmit.
        self.background_sends.send(async move {
            if core.inner.tell(&next, payload).await.is_err() {
                core.relays.add_dropped_many(DropReason::Refused, 1);
            }
        })
    }
}
