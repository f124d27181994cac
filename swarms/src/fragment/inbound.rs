//! The receive path: receives from below and reassembles messages.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, Message, Result, Swarm};
use p2p_protocols::fragment::{Handled, Reassembler};

use super::shared::Shared;
use crate::driver::{HandleBatch, Receiving, pump};

struct Work<'a, A: Addr, S> {
    shared: &'a Shared<A, S>,
    /// Empty between two steps.
    whole: VecDeque<Message<A>>,
}

impl<A: Addr, S: Swarm<A>> HandleBatch<A> for Work<'_, A, S> {
    async fn handle_batch(&mut self, pulled: &mut Vec<Message<A>>) {
        self.shared.handle_batch(pulled, &mut self.whole);
    }
}

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    /// Receives from below and expires incomplete messages, until the swarm below is closed.
    async fn work(self: Arc<Self>) {
        let work = Work {
            shared: &*self,
            whole: VecDeque::new(),
        };
        let receiving = Receiving::new(&self.inner, &self.timer, self.config.batch, work);
        pump(&self.driver, self.counters.layer(), receiving).await;
        self.close();
    }

    /// Processes received fragments and expired messages, and delivers complete messages. Never waits.
    fn handle_batch(&self, pulled: &mut Vec<Message<A>>, whole: &mut VecDeque<Message<A>>) {
        let now = self.timer.now();
        self.pieces.add_received(pulled.len());
        let mut engine = self.engine();
        engine.handle_timeout(now);
        let fragments = pulled.drain(..);
        whole.extend(fragments.filter_map(|fragment| self.accept(&mut engine, now, fragment)));
        self.count_given_up(&mut engine);
        let timeout = engine.poll_timeout();
        drop(engine);
        self.set_timeout(timeout);
        if !whole.is_empty() {
            let put = self.mailbox.deliver(&self.driver, (), whole);
            for message in put.refused {
                self.counters.add_dropped_from(put.reason, &message.src);
            }
        }
    }

    /// Incomplete messages expire while no caller receives. Without any, what arrives may stay below until a call.
    fn set_timeout(&self, timeout: Option<Duration>) {
        if self.timer.is_set() != timeout.is_some() {
            self.driver.set_needs_background(timeout.is_some());
        }
        self.timer.set(timeout);
    }

    /// Passes a fragment to the engine; returns the message that it completes.
    fn accept(
        &self,
        engine: &mut Reassembler<A>,
        now: Duration,
        mut message: Message<A>,
    ) -> Option<Message<A>> {
        match engine.handle(now, &message.src, std::mem::take(&mut message.payload)) {
            Handled::Whole {
                message: payload,
                parts,
            } => {
                if parts == 1 {
                    self.counters.add_received(1);
                }
                self.pieces.add_delivered(parts);
                message.payload = payload;
                return Some(message);
            }
            Handled::Kept { first: true } => self.counters.add_received(1),
            Handled::Kept { first: false } => {}
            Handled::Dropped(reason) => self.pieces.add_dropped_from(reason, &message.src),
        }
        None
    }

    /// Starts the work, unless it has been started.
    pub(super) fn start(self: &Arc<Self>) -> Result<()> {
        self.driver.ensure_started(|| self.clone().work())
    }
}
