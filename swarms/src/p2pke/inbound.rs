//! The receive path: opens packets with the data path of their source, without the engine's lock, and passes
//! the others to the engine.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, Counters, Error, Message, Packet, Result, Swarm};
use p2p_formats::x509::PublicKey;
use p2p_protocols::p2pke::{self, DataPath, wire};
use tokio::task::coop::consume_budget;
use tokio::time::sleep;

use super::shared::{Effects, LAYER, Shared};
use crate::KeyAddr;
use crate::driver::{Interest, PAUSE, Sleeper, found};

/// State while one batch is received.
struct Batch<A> {
    now: Duration,
    /// The data path of the previous message: messages of one peer usually follow one another.
    last: Option<(A, Arc<DataPath>)>,
    effects: Effects<A>,
    data: usize,
    handshakes: usize,
}

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    /// Receives from below, opens packets, and handles the engine's timeouts, until the swarm below is
    /// closed.
    pub(super) async fn work(self: Arc<Self>) {
        let (mut pulled, mut opened, mut sleeper) = (Vec::new(), VecDeque::new(), Sleeper::default());
        loop {
            let pulling = self
                .timer
                .or_receive(&self.inner, &mut pulled, self.config.batch, &mut sleeper);
            match pulling.await {
                Ok(()) => {
                    self.handle_batch(&mut pulled, &mut opened);
                    self.driver.yield_to_leader().await;
                }
                Err(Error::Closed) => return self.close(),
                Err(error) => {
                    tracing::debug!(layer = LAYER, %error, "receiving failed");
                    self.driver.fail(error);
                    sleep(PAUSE).await;
                }
            }
        }
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
            self.deliver(opened);
        }
        if self.timer.is_expired(batch.now) {
            let mut state = self.state();
            if let Some(endpoint) = &mut state.endpoint {
                endpoint.handle_timeout(batch.now, &mut rand::rng());
            }
            self.drain_engine(&mut state, &mut batch.effects);
        }
        self.apply(batch.effects);
    }

    /// Passes messages to the reader that polls the work, or into the inbox.
    fn deliver(&self, opened: &mut VecDeque<Message<KeyAddr<A>>>) {
        if let Some(Interest::Items((), wanted @ 1..)) = self.driver.polled_for() {
            let mut fresh = self.fresh();
            if fresh.is_empty() {
                let others = opened.len().saturating_sub(wanted);
                mem::swap(&mut *fresh, opened);
                drop(fresh);
                return self.driver.notify((), others);
            }
        }
        let put = self.inbox.extend(opened.drain(..));
        for message in put.refused {
            self.messages.add_dropped_from(put.reason, &message.src);
        }
        self.driver.notify((), put.accepted);
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
            let handled = endpoint.handle(batch.now, src, packet, &mut rand::rng());
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
        peer.is_none_or(|peer| self.config.allows(&peer))
    }

    pub(super) async fn receive(&self) -> Result<Message<KeyAddr<A>>> {
        consume_budget().await;
        let take = || match self.inbox.try_pop()? {
            Some(message) => Ok(Some(message)),
            None => Ok(self.fresh().pop_front()),
        };
        let message = self
            .driver
            .wait(Interest::Items((), 1), |_| found(take()))
            .await?;
        self.messages.add_delivered(1);
        Ok(message)
    }

    pub(super) async fn receive_batch(
        &self,
        out: &mut Vec<Message<KeyAddr<A>>>,
        max: usize,
    ) -> Result<usize> {
        if max == 0 {
            return Ok(0);
        }
        consume_budget().await;
        let mut take = || match self.inbox.try_pop_batch(out, max)? {
            0 => {
                let mut fresh = self.fresh();
                let count = fresh.len().min(max);
                out.extend(fresh.drain(..count));
                Ok((count > 0).then_some(count))
            }
            count => Ok(Some(count)),
        };
        let count = self
            .driver
            .wait(Interest::Items((), max), |_| found(take()))
            .await?;
        self.messages.add_delivered(count);
        Ok(count)
    }
}

/// Counts and traces a packet that the engine dropped.
fn dropped(counters: &Counters, src: &impl Addr, error: &p2pke::Error) {
    let reason = error.reason();
    counters.add_dropped_many(reason, 1);
    tracing::trace!(layer = counters.layer(), reason = reason.as_str(), peer = %src, %error, "dropped");
}
