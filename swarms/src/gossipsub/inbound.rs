//! The receive path and the driver's loop: receives from below, feeds RPCs to the engine, and handles its
//! timeouts.

use std::sync::Arc;

use bytes::Bytes;
use p2p::{Addr, DropReason, Headroom, Message, Packet, Result, Swarm};
use p2p_protocols::gossipsub::{Codec, Engine, Incoming, MessageAcceptance};
use p2p_protocols::hash::HashSet;
use tokio::task::coop::consume_budget;

use super::checks::verify_all;
use super::event::GossipEvent;
use super::shared::{Arrived, Effects, Kind, LAYER, Shared};
use super::{GossipAddr, Place};
use crate::driver::{HandleBatch, Interest, Receiving, found, pump};

/// RPCs up to this length are copied before they are parsed, longer ones are not.
const DATAGRAM: usize = 2048;

/// Maximum number of bytes that parsed RPCs hold together before they are passed to the engine; a single RPC
/// may hold more, up to what [`Limits`](p2p_protocols::gossipsub::wire::Limits) allow.
const READ: usize = 1 << 20;

struct Work<'a, A: Addr, S>(&'a Arc<Shared<A, S>>);

impl<A: Addr, S: Swarm<A>> HandleBatch<A> for Work<'_, A, S> {
    async fn handle_batch(&mut self, pulled: &mut Vec<Message<A>>) {
        self.0.handle_batch(pulled).await;
    }
}

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    /// Receives from below and handles the engine's timeouts, until the swarm below is closed.
    pub(super) async fn work(self: Arc<Self>) {
        let receiving = Receiving::new(&self.inner, &self.timer, self.config.batch, Work(&self));
        pump(&self.driver, LAYER, receiving).await;
        self.abandon();
    }

    /// Passes received messages to the engine, and handles expired timers. Parsed RPCs that were not passed
    /// on yet are bounded, since short messages hold many times their encoded length: see [`READ`].
    async fn handle_batch(self: &Arc<Self>, pulled: &mut Vec<Message<A>>) {
        let (mut rpcs, mut held) = (Vec::new(), 0_usize);
        for Message { src, payload, .. } in pulled.drain(..) {
            let charge = Codec::held(&payload);
            if held > 0 && held.saturating_add(charge) > READ {
                held = 0;
                self.handle(std::mem::take(&mut rpcs)).await;
            }
            held = held.saturating_add(charge);
            rpcs.push((src, self.read(payload)));
        }
        self.handle(rpcs).await;
    }

    /// Passes RPCs to the engine. Its lock is not held while signatures are verified.
    async fn handle(self: &Arc<Self>, mut rpcs: Vec<(A, Incoming)>) {
        let mut effects = Effects::new(self.timer.now());
        let now = effects.now;
        if self.select(&mut rpcs, &mut effects) {
            self.verify(&mut rpcs).await;
        }
        let mut state = self.state();
        let Some(engine) = &mut state.engine else { return };
        for (src, rpc) in rpcs {
            // An unordered medium may deliver a goodbye before messages that were sent before it, in one
            // batch.
            if !engine.is_peer(&src) && !self.meet(engine, &src, &rpc, &mut effects) {
                continue;
            }
            engine.handle_incoming(now, &src, rpc);
        }
        if self.timer.is_expired(now) {
            engine.handle_timeout(now);
        }
        self.drain_engine(&mut state, &mut effects);
        drop(state);
        self.apply(effects);
    }

    /// The engine keeps messages for some time, and must not keep the rest of a buffer alive.
    fn read(&self, rpc: Packet) -> Incoming {
        if rpc.len() > DATAGRAM {
            return self.codec.read_borrowed(&rpc.into_bytes());
        }
        // The packet's buffer is reused for the next packet.
        self.codec.read(&Bytes::copy_from_slice(&rpc))
    }

    /// Adds unknown sources as peers, and drops the RPCs of sources that cannot become peers. Returns whether
    /// any signature is to be verified.
    fn select(&self, rpcs: &mut Vec<(A, Incoming)>, effects: &mut Effects<A>) -> bool {
        let (mut state, mut any) = (self.state(), false);
        let Some(engine) = &mut state.engine else {
            return false;
        };
        rpcs.retain_mut(|(src, rpc)| {
            let is_peer = engine.is_peer(src) || self.meet(engine, src, rpc, effects);
            any |= is_peer && engine.select(effects.now, src, rpc);
            is_peer
        });
        any
    }

    /// Verifies the selected signatures, of one copy of each message: if that signature is invalid, the
    /// engine verifies the next copy.
    async fn verify(&self, rpcs: &mut [(A, Incoming)]) {
        let (mut places, mut checks) = (Vec::new(), Vec::new());
        let mut ids = HashSet::default();
        for (of, (_, rpc)) in rpcs.iter().enumerate() {
            for (at, check) in rpc.to_check() {
                if ids.insert(check.id().clone()) {
                    places.push((of, at));
                    checks.push(check);
                }
            }
        }
        for (number, outcome) in verify_all(checks, self.threads.as_ref()).await {
            if let Some((of, at)) = places.get(number)
                && let Some((_, rpc)) = rpcs.get_mut(*of)
            {
                rpc.checked([(*at, outcome)]);
            }
        }
    }

    /// Adds a source that contacts this node as a peer. Returns whether it was added; if not, the drop is
    /// counted.
    fn meet(&self, engine: &mut Engine<A>, src: &A, rpc: &Incoming, effects: &mut Effects<A>) -> bool {
        if !self.config.accept_peers {
            self.counters.add_dropped_from(DropReason::Denied, src);
            return false;
        }
        if rpc.error().is_some() {
            self.counters.add_dropped_from(DropReason::Malformed, src);
            return false;
        }
        let connection = self.connection(src, false);
        match engine.add_peer(effects.now, src, connection) {
            Ok(()) => {
                tracing::debug!(layer = LAYER, peer = %src, "a peer was added");
                let (peer, outbound) = (src.clone(), false);
                effects.events.push(GossipEvent::Joined { peer, outbound });
                true
            }
            Err(error) => {
                tracing::trace!(layer = LAYER, peer = %src, %error, "the peer was not added");
                self.counters.add_dropped_from(DropReason::Budget, src);
                false
            }
        }
    }

    /// Passes messages to the application's validator, and delivers those that it accepts.
    pub(super) fn ask_application(self: &Arc<Self>, effects: &mut Effects<A>) {
        let to_validate = std::mem::take(&mut effects.to_validate);
        let Some(validator) = self.config.validator.as_ref().filter(|_| !to_validate.is_empty()) else {
            return;
        };
        let acceptances: Vec<_> = to_validate
            .into_iter()
            .map(|arrived| {
                let received = &arrived.received;
                let acceptance = validator(&received.topic, received.author.as_ref(), &received.data);
                (arrived, acceptance)
            })
            .collect();
        let mut state = self.state();
        for (arrived, acceptance) in acceptances {
            let known = state.validate(effects.now, &arrived.received.id, acceptance);
            if known && acceptance == MessageAcceptance::Accept {
                effects.messages.push(arrived);
            }
        }
        self.drain_engine(&mut state, effects);
    }

    /// Delivers messages. Callers that publish or validate deliver as well as the work.
    pub(super) fn deliver(&self, messages: Vec<Arrived<A>>) {
        if messages.is_empty() {
            return;
        }
        let messages = messages.into_iter().filter_map(|arrived| self.message(arrived));
        let put = self.mailbox.extend(&self.driver, Kind::Message, messages);
        self.counters.add_dropped_many(put.reason, put.refused.len());
    }

    fn message(&self, arrived: Arrived<A>) -> Option<Message<GossipAddr<A>>> {
        let Arrived {
            received,
            author,
            is_direct,
        } = arrived;
        let place = match author {
            Some(author) => Place::Author(author),
            None => Place::Neighbour(received.via),
        };
        let at = if is_direct { Some(self.here()?) } else { None };
        let (topic, dst) = (received.topic.clone(), received.topic);
        Some(Message {
            src: GossipAddr::at(topic, place),
            dst: GossipAddr { topic: dst, at },
            payload: Packet::new(Headroom::default(), &received.data),
        })
    }

    pub(super) async fn event(&self) -> Result<GossipEvent<A>> {
        consume_budget().await;
        let interest = Interest::Items(Kind::Event, 1);
        let take = || Ok(self.events().pop());
        self.driver.wait(interest, |_| found(take())).await
    }
}
