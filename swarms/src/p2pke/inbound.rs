//! The receive path: opens packets with the data path of their source, without the engine's lock, and passes
//! the others to the engine.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, Counters, Message, Packet, Swarm};
use p2p_formats::x509::PublicKey;
use p2p_protocols::p2pke::{self, DataPath, wire};

use super::shared::{Effects, LAYER, Shared};
use crate::KeyAddr;
use crate::allowed_peers::Permits as _;
use crate::driver::{HandleBatch, Receiving, pump};

/// State while one batch is received.
struct Batch<A> {
    now: Duration,
    /// The data path of the previous message: messages of one peer usually follow one another.
    last: Option<(A, Arc<DataPath>)>,
    effects: Effects<A>,
    data: usize,
    handshakes: usize,
}

struct Work<'a, A: Addr, S> {
    shared: &'a Arc<Shared<A, S>>,
    /// Empty between two steps.
    opened: VecDeque<Message<KeyAddr<A>>>,
}

impl<A: Addr, S: Swarm<A>> HandleBatch<A> for Work<'_, A, S> {
    async fn handle_batch(&mut self, pulled: &mut Vec<Message<A>>) {
        self.shared.handle_batch(pulled, &mut self.opened);
    }
}

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    /// Receives from below, opens packets, and handles the engine's timeouts, until the swarm below is
    /// closed.
    pub(super) async fn work(self: Arc<Self>) {
        let work = Work {
            shared: &self,
            opened: VecDeque::new(),
        };
        let receiving = Receiving::new(&self.inner, &self.timer, self.config.batch, work);
        pump(&self.driver, LAYER, receiving).await;
        self.close();
    }

    /// Opens received packets and handles expired timers. Never waits.
    fn handle_batch(
        self: &Arc<Self>,
        pulled: &mut Vec<Message<A>>,
        opened: &mut VecDeque<Message<KeyAddr<A>>>,
    ) {
        let mut batch = Batch {
            now: self.timer.now(),
            last: None,
            effects: Effects::default(),
            data: 0,
            handshakes: 0,
        };
        let messages = pulled.drain(..);
        opened.extend(messages.filter_map(|message| self.open(&mut batch, message)));
        self.messages.add_received(batch.data);
        self.handshakes.add_received(batch.handshakes);
        if !opened.is_empty() {
            let put = self.mailbox.deliver(&self.driver, (), opened);
            for message in put.refused {
                self.messages.add_dropped_from(put.reason, &message.src);
            }
        }
        if self.timer.is_expired(batch.now) {
            let mut state = self.state();
            if let Some(endpoint) = &mut state.endpoint {
                endpoint.handle_timeout(batch.now, &mut self.env.rng());
            }
            self.drain_engine(&mut state, &mut batch.effects);
        }
        self.apply(batch.effects);
    }

    /// Opens a message with the data path of its source, or passes it to the engine.
    fn open(&self, batch: &mut Batch<A>, message: Message<A>) -> Option<Message<KeyAddr<A>>> {
        let Message {
            src,
            dst,
            mut payload,
        } = message;
        if batch.last.as_ref().is_none_or(|(addr, _)| *addr != src) {
            batch.last = self.path(&src).map(|path| (src.clone(), path));
        }
        let opened = match &batch.last {
            Some((_, path)) => path.open(batch.now, &mut payload).map(|()| path.peer()),
            None => Err(p2pke::Error::Unexpected),
        };
        let peer = match opened {
            Err(p2pke::Error::Unexpected) => {
                let handled = self.handle(batch, &src, payload)?;
                payload = handled.1;
                handled.0
            }
            Ok(peer) => {
                batch.data += 1;
                peer
            }
            Err(error) => {
                batch.data += 1;
                dropped(&self.messages, &src, &error);
                return None;
            }
        };
        Some(Message {
            src: KeyAddr::new(peer, src),
            dst: KeyAddr::new(self.id(), dst),
            payload,
        })
    }

    /// Passes packets without a matching data path to the engine: handshake messages, and data without a
    /// session.
    fn handle(&self, batch: &mut Batch<A>, src: &A, packet: Packet) -> Option<(p2p::PeerId, Packet)> {
        let (count, counters) = if wire::is_handshake(&packet) {
            (&mut batch.handshakes, &self.handshakes)
        } else {
            (&mut batch.data, &self.messages)
        };
        *count += 1;
        if !self.is_allowed(src, &packet) {
            dropped(counters, src, &p2pke::Error::Denied);
            return None;
        }
        let handled = {
            let mut state = self.state();
            let endpoint = state.endpoint.as_mut()?;
            let handled = endpoint.handle(batch.now, src, packet, &mut self.env.rng());
            self.drain_engine(&mut state, &mut batch.effects);
            handled
        };
        // The data path may have been replaced.
        batch.last = None;
        match handled {
            Ok(None) => counters.add_delivered(1),
            Ok(data) => return data,
            Err(error) => dropped(counters, src, &error),
        }
        None
    }

    /// Returns whether the peer that starts a handshake may have a session. Called outside of the engine's
    /// lock.
    fn is_allowed(&self, src: &A, packet: &Packet) -> bool {
        if self.config.allow.is_none() {
            return true;
        }
        let peer = if wire::parse_no_session(packet).is_some() {
            self.with_path(src, |path| path.peer())
        } else {
            // The engine reports what is wrong with a hello.
            let hello = wire::InitHello::parse(packet).ok();
            let key = hello.and_then(|hello| PublicKey::from_der(hello.key).ok());
            key.map(|key| (self.config.fingerprint)(&key))
        };
        peer.is_none_or(|peer| self.config.allow.permits(&peer))
    }
}

/// Counts and traces a packet that the engine dropped.
fn dropped(counters: &Counters, src: &impl Addr, error: &p2pke::Error) {
    let reason = error.reason();
    counters.add_dropped_many(reason, 1);
    tracing::trace!(layer = counters.layer(), reason = reason.as_str(), peer = %src, %error, "dropped");
}
