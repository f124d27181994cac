//! The send path: to the engine, and from the engine to the swarm below, such that a slow peer does not delay
//! others.

use std::borrow::Borrow;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use p2p::{
    Addr, BatchError, BatchOutcome, DropReason, Error, Headroom, Message, Packet, PeerId, Result, Swarm,
};
use p2p_protocols::gossipsub::{Block, Outgoing, RpcBatch, wire};
use tokio::task::coop::{consume_budget, unconstrained};

use super::event::{Departure, GossipEvent};
use super::shared::{Effects, Kind, LAYER, Shared, State};
use super::{GossipAddr, Place};
use crate::driver::{Interest, yield_to_woken};

/// Number of messages of a batch that are passed to the engine before its output is sent: fewer than may wait
/// for a peer.
const AT_ONCE: usize = 128;

/// An outbound message.
enum Said {
    /// For all subscribers of a topic, encoded and signed.
    All(Outgoing),
    /// For one node; the signature covers its address.
    Direct(Packet),
}

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    pub(super) async fn tell(self: &Arc<Self>, dst: &GossipAddr<A>, packet: Packet) -> Result<()> {
        consume_budget().await;
        let said = self.write(&mut Block::default(), dst, packet)?;
        let mut told = Ok(());
        self.say_all([(dst, Ok(said))], |_, result| told = result);
        told?;
        self.wait_for_room(dst).await
    }

    pub(super) async fn tell_batch(
        self: &Arc<Self>,
        batch: &mut Vec<(GossipAddr<A>, Packet)>,
    ) -> Result<(), BatchError> {
        let mut outcome = BatchOutcome::default();
        let (mut rest, mut written) = (batch.drain(..), Vec::new());
        loop {
            consume_budget().await;
            let mut block = Block::default();
            written.extend(rest.by_ref().take(AT_ONCE).map(|(dst, packet)| {
                let said = self.write(&mut block, &dst, packet);
                (dst, said)
            }));
            if written.is_empty() {
                return outcome.finish();
            }
            let mut last = None;
            self.say_all(written.drain(..), |dst, told| {
                if told.is_ok() {
                    last = Some(dst);
                }
                outcome.record(told);
            });
            if let Some(last) = last {
                // If the swarm closes, what comes next fails.
                let _ = self.wait_for_room(&last).await;
            }
            yield_to_woken().await;
        }
    }

    /// Passes messages to the engine, and sends its output.
    fn say_all<D: Borrow<GossipAddr<A>>>(
        self: &Arc<Self>,
        messages: impl IntoIterator<Item = (D, Result<Said>)>,
        mut told: impl FnMut(D, Result<()>),
    ) {
        let mut effects = Effects::new(self.timer.now());
        let mut state = self.state();
        for (dst, said) in messages {
            let result = said.and_then(|said| self.say(&mut state, &effects, dst.borrow(), said));
            told(dst, result);
        }
        self.drain_engine(&mut state, &mut effects);
        drop(state);
        self.apply(effects);
    }

    /// Waits until a peer accepts more messages for this address, if the queues of all its subscribers are
    /// full.
    async fn wait_for_room(&self, dst: &GossipAddr<A>) -> Result<()> {
        loop {
            let mut room = pin!(self.room.notified());
            room.as_mut().enable();
            let congested = self.with(|engine| match &dst.at {
                None => engine.is_congested(&dst.topic),
                Some(Place::Neighbour(peer)) => engine.is_peer_congested(peer),
                // Direct messages are rare.
                Some(Place::Author(_)) => false,
            })?;
            if !congested {
                return Ok(());
            }
            let interest = Interest::Own(Kind::Message);
            self.driver
                .wait(interest, |cx| room.as_mut().poll(cx).map(Ok))
                .await?;
        }
    }

    /// Waits until a peer has sent a hello.
    pub(super) async fn until_met(&self, peer: &A) -> Result<()> {
        loop {
            let mut changed = pin!(self.peers_changed.notified());
            changed.as_mut().enable();
            let (is_peer, is_met) = self.with(|engine| (engine.is_peer(peer), engine.is_met(peer)))?;
            if is_met {
                return Ok(());
            }
            let is_connecting = || self.links.as_ref().is_some_and(|links| links.is_connecting(peer));
            if !is_peer && !is_connecting() {
                return Err(Error::unreachable(
                    peer,
                    "the node is not a neighbour of this node",
                ));
            }
            let interest = Interest::Own(Kind::Event);
            self.driver
                .wait(interest, |cx| changed.as_mut().poll(cx).map(Ok))
                .await?;
        }
    }

    /// Encodes and signs a message for all subscribers of a topic.
    fn write(&self, block: &mut Block, dst: &GossipAddr<A>, packet: Packet) -> Result<Said> {
        packet.check_mtu(self.mtu)?;
        if dst.at.is_some() {
            return Ok(Said::Direct(packet));
        }
        let written = self.codec.write_into(block, &dst.topic, &packet)?;
        Ok(Said::All(written))
    }

    /// Publishes a message, or queues it for one peer.
    fn say(&self, state: &mut State<A>, effects: &Effects<A>, dst: &GossipAddr<A>, said: Said) -> Result<()> {
        let State { engine, peers_of, .. } = state;
        let engine = engine.as_mut().ok_or(Error::Closed)?;
        match (said, &dst.at) {
            (Said::All(written), _) => {
                engine.send(effects.now, written)?;
            }
            (Said::Direct(packet), Some(place)) if self.here().as_ref() == Some(place) => {
                self.loop_back(dst, packet);
                return Ok(());
            }
            (Said::Direct(packet), Some(Place::Neighbour(addr))) => {
                engine.tell(effects.now, addr, &dst.topic, packet.into_bytes())?;
            }
            (Said::Direct(packet), Some(Place::Author(id))) => {
                let claimants = peers_of.get(id).map(Vec::as_slice).unwrap_or_default();
                let claimants = proven(claimants, id);
                if claimants.is_empty() {
                    return Err(Error::unreachable(
                        dst,
                        "the node is not a neighbour of this node",
                    ));
                }
                let data = packet.into_bytes();
                for peer in claimants {
                    engine.tell(effects.now, peer, &dst.topic, data.clone())?;
                }
                // Only the node that is named accepts it.
                self.counters.add_duplicated(claimants.len() - 1);
            }
            (Said::Direct(_), None) => {}
        }
        self.counters.add_sent(1);
        Ok(())
    }

    /// Delivers a message of this node to itself.
    fn loop_back(&self, dst: &GossipAddr<A>, payload: Packet) {
        self.counters.add_sent(1);
        self.counters.add_received(1);
        let (src, dst) = (dst.clone(), dst.clone());
        let message = Message { src, dst, payload };
        let put = self.mailbox.extend(&self.driver, Kind::Message, [message]);
        self.counters.add_dropped_many(put.reason, put.refused.len());
    }

    /// Applies the effects of engine calls. Never waits.
    pub(super) fn apply(self: &Arc<Self>, mut effects: Effects<A>) {
        self.ask_application(&mut effects);
        if effects.sooner {
            self.driver.wake();
        }
        self.deliver(std::mem::take(&mut effects.messages));
        for (peer, batch) in effects.to_send {
            if let Some(error) = self.send(peer.clone(), &batch) {
                self.unreachable(peer, &error, &mut effects.events);
            }
        }
        if !effects.events.is_empty() {
            let count = effects.events.len();
            let mut events = self.events();
            effects.events.into_iter().for_each(|event| events.push(event));
            drop(events);
            self.driver.notify(Kind::Event, count);
        }
    }

    /// Sends RPCs to a peer. If there is no room, a task of its own waits for it, and the peer gets no more
    /// until then. Returns the error if the peer cannot be reached.
    fn send(self: &Arc<Self>, peer: A, batch: &RpcBatch) -> Option<Error> {
        let count = |parts: &[Bytes]| parts.iter().filter(|part| wire::is_message(part)).count();
        let messages: Vec<usize> = batch.rpcs().map(count).collect();
        let mut packets = packets(&peer, self.inner.headroom(), batch);
        let shared = self.clone();
        let mut sending = Box::pin(async move { shared.inner.tell_batch(&mut packets).await });
        // The cooperative budget of the calling task must not force a wait.
        let mut noop = Context::from_waker(Waker::noop());
        if let Poll::Ready(sent) = pin!(unconstrained(sending.as_mut())).poll(&mut noop) {
            let is_sent = sent.is_ok();
            let lost = self.sent(&peer, &messages, sent);
            if !is_sent {
                self.hold(&peer);
            }
            return lost;
        }
        if let Some(engine) = &mut self.state().engine {
            engine.set_writable(&peer, false);
        }
        let (shared, count) = (self.clone(), messages.iter().sum());
        self.in_flight.fetch_add(count, Relaxed);
        let mut tasks = self.sending.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let sent = sending.await;
            shared.in_flight.fetch_sub(count, Relaxed);
            let mut effects = Effects::new(shared.timer.now());
            let is_sent = sent.is_ok();
            if let Some(error) = shared.sent(&peer, &messages, sent) {
                shared.unreachable(peer, &error, &mut effects.events);
            } else if is_sent || !shared.hold(&peer) {
                let mut state = shared.state();
                if let Some(engine) = &mut state.engine {
                    engine.set_writable(&peer, true);
                }
                shared.drain_engine(&mut state, &mut effects);
            }
            shared.apply(effects);
            shared.room.notify_waiters();
        });
        None
    }

    /// After a failed send on a medium with connections, the peer gets no more until the medium reports another stream. Returns
    /// whether it is such a medium.
    fn hold(&self, peer: &A) -> bool {
        let Some(links) = &self.links else { return false };
        if let Some(engine) = &mut self.state().engine {
            engine.set_writable(peer, false);
        }
        links.send_failed(peer);
        true
    }

    /// Counts messages that were not sent, given the number of messages in each RPC. Returns the error if the
    /// peer cannot be reached.
    fn sent(&self, peer: &A, messages: &[usize], sent: Result<(), BatchError>) -> Option<Error> {
        let error = sent.err()?;
        tracing::debug!(layer = LAYER, %peer, error = %error.first, "RPCs could not be sent");
        // The error does not say which RPCs were not sent; usually all after the first failed one.
        let refused = messages.iter().rev().take(error.refused);
        self.counters.add_dropped_many(DropReason::Refused, refused.sum());
        // A medium with connections reports itself which peers have left.
        let lost = self.links.is_none()
            && matches!(
                error.first,
                Error::Unreachable { .. } | Error::Denied { .. } | Error::TimedOut { .. }
            );
        lost.then_some(error.first)
    }

    /// Removes a peer that cannot be reached.
    fn unreachable(&self, peer: A, error: &Error, events: &mut Vec<GossipEvent<A>>) {
        tracing::debug!(layer = LAYER, %peer, %error, "the peer is unreachable");
        let now = self.timer.now();
        let mut state = self.state();
        state.forget(&peer);
        let removed = state
            .engine
            .as_mut()
            .is_some_and(|engine| engine.remove_peer(now, &peer));
        drop(state);
        self.peers_changed.notify_waiters();
        if removed {
            let why = Departure::Unreachable;
            events.push(GossipEvent::Left { peer, why });
        }
    }
}

/// Returns the RPCs of a batch, each in one packet.
pub(super) fn packets<A: Addr>(peer: &A, room: Headroom, batch: &RpcBatch) -> Vec<(A, Packet)> {
    let packets = batch.rpcs().map(|parts| {
        let mut packet = Packet::with_capacity(room, parts.iter().map(Bytes::len).sum());
        for part in parts {
            packet.push_back(part);
        }
        (peer.clone(), packet)
    });
    packets.collect()
}

/// Returns the peer whose address proves the id, among the peers that claim it; all of them if none proves
/// it.
fn proven<'a, A: Addr>(peers: &'a [A], id: &PeerId) -> &'a [A] {
    let proven = peers.iter().position(|peer| peer.peer_id().as_ref() == Some(id));
    proven.and_then(|at| peers.get(at..=at)).unwrap_or(peers)
}
