//! Closing a node: queued messages are sent, then goodbyes, within a time limit.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use p2p::{Addr, DropReason, Packet, Swarm};
use p2p_protocols::gossipsub::{RpcBatch, wire};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::outbound::packets;
use super::shared::Shared;

/// The state of closing.
#[derive(Debug, Default)]
pub(super) struct Closing {
    stage: Mutex<Stage>,
    done: Notify,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Open,
    /// A task sends the queued messages.
    Flushing(AbortHandle),
    /// Closing is complete.
    Done,
}

/// The remaining messages for one peer, with the goodbye last.
struct Rest<A> {
    packets: Vec<(A, Packet)>,
    messages: usize,
}

impl Closing {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock()
    }

    fn finish(&self) {
        *self.stage() = Stage::Done;
        self.done.notify_waiters();
    }
}

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    /// Closes at once, and starts to send queued messages. Idempotent.
    pub(super) fn begin_close(self: &Arc<Self>) {
        let mut stage = self.closing.stage();
        if !matches!(*stage, Stage::Open) {
            return;
        }
        let rest = self.close();
        let mut sending = mem::take(&mut *self.sending.lock());
        while sending.try_join_next().is_some() {}
        if rest.is_empty() && sending.is_empty() {
            drop(stage);
            return self.closing.finish();
        }
        let shared = self.clone();
        let flush = tokio::spawn(async move {
            shared.flush(rest, sending).await;
            // Here, since the caller of `close` may be cancelled.
            shared.inner.close().await;
            shared.closing.finish();
        });
        *stage = Stage::Flushing(flush.abort_handle());
    }

    /// Waits until the queued messages were sent, or their time limit has passed.
    pub(super) async fn flushed(&self) {
        loop {
            let mut done = std::pin::pin!(self.closing.done.notified());
            done.as_mut().enable();
            if matches!(*self.closing.stage(), Stage::Done) {
                return;
            }
            done.await;
        }
    }

    /// Ends at once: queued messages are dropped.
    pub(super) fn abandon(&self) {
        let rest = self.close();
        let messages = rest.iter().map(|rest| rest.messages).sum();
        self.counters.add_dropped_many(DropReason::Closed, messages);
        let mut sending = self.sending.lock();
        sending.abort_all();
        drop(sending);
        if let Stage::Flushing(flush) = mem::replace(&mut *self.closing.stage(), Stage::Done) {
            flush.abort();
        }
        self.closing.done.notify_waiters();
    }

    /// Fails all current and later calls; returns the messages that are left to send.
    fn close(&self) -> Vec<Rest<A>> {
        let mut state = self.state();
        let mut left: Vec<Rest<A>> = Vec::new();
        if let Some(mut engine) = state.engine.take() {
            let (now, room) = (self.timer.now(), self.inner.headroom());
            let count = |batch: &RpcBatch| {
                let parts = batch.rpcs().flatten();
                parts.filter(|part| wire::is_message(part)).count()
            };
            let peers: Vec<A> = engine.peers().cloned().collect();
            let (mut batch, mut ready) = (RpcBatch::default(), Vec::new());
            // Messages first, then goodbyes.
            for is_goodbye in [false, true] {
                if is_goodbye {
                    engine.leave(now);
                } else {
                    while let Some(peer) = engine.poll_transmits(now, usize::MAX, &mut batch) {
                        ready.push((peer, mem::take(&mut batch)));
                    }
                    // The messages that remain are for peers with a send in progress.
                    for peer in &peers {
                        engine.set_writable(peer, true);
                    }
                }
                while let Some(peer) = engine.poll_transmits(now, usize::MAX, &mut batch) {
                    ready.push((peer, mem::take(&mut batch)));
                }
            }
            for (peer, batch) in ready {
                let (messages, packets) = (count(&batch), packets(&peer, room, &batch));
                match left
                    .iter_mut()
                    .find(|rest| rest.packets.first().is_some_and(|(to, _)| *to == peer))
                {
                    Some(rest) => {
                        rest.packets.extend(packets);
                        rest.messages += messages;
                    }
                    None => left.push(Rest { packets, messages }),
                }
            }
        }
        state.peers_of.clear();
        drop(state);
        self.counters
            .add_dropped_many(DropReason::Closed, self.mailbox.close());
        self.events().close();
        self.room.notify_waiters();
        self.peers_changed.notify_waiters();
        self.driver.close();
        left
    }

    /// Sends the remaining messages to all peers concurrently, so that a blocked peer does not delay others.
    async fn flush(self: &Arc<Self>, rest: Vec<Rest<A>>, mut in_flight: JoinSet<()>) {
        let mut messages: usize = rest.iter().map(|rest| rest.messages).sum();
        let has_messages = messages > 0 || self.in_flight.load(Relaxed) > 0;
        let limit: Duration = if has_messages {
            self.config.linger.max(self.config.goodbye_timeout)
        } else {
            self.config.goodbye_timeout
        };
        let mut sending = JoinSet::new();
        for rest in rest {
            self.send_rest(&mut sending, rest);
        }
        let all = async {
            while let Some(sent) = sending.join_next().await {
                messages -= sent.unwrap_or(0).min(messages);
            }
            while in_flight.join_next().await.is_some() {}
        };
        // Peers that receive no goodbye notice the silence.
        drop(timeout(limit, all).await);
        self.counters.add_dropped_many(DropReason::Closed, messages);
    }

    /// Sends the remaining messages of one peer in a task, which resolves to their number.
    fn send_rest(self: &Arc<Self>, sending: &mut JoinSet<usize>, mut rest: Rest<A>) {
        let shared = self.clone();
        sending.spawn(async move {
            if let Err(error) = shared.inner.tell_batch(&mut rest.packets).await {
                // The error does not say which RPCs were not sent.
                let refused = error.refused.min(rest.messages);
                shared.counters.add_dropped_many(DropReason::Refused, refused);
            }
            rest.messages
        });
    }
}
