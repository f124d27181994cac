//! The receive path: receives from below, feeds the engine, and delivers the resulting events.

use std::collections::VecDeque;
use std::sync::Arc;

use p2p::{Addr, DropReason, Error, Message, Packet, Rejection, Request, Result, Swarm};
use p2p_protocols::mbapp::{Answer, AskId, Event, What};
use tokio::task::coop::consume_budget;

use super::replies::Reply;
use super::shared::{Asked, Shared, Slot, Want};
use crate::driver::{HandleBatch, Interest, Receiving, pump};

/// The results of one batch, with buffers that are reused for the next; all empty between two steps.
struct Batch<A> {
    events: Vec<Event<A>>,
    told: VecDeque<Message<A>>,
    asked: VecDeque<Asked<A>>,
}

struct Work<'a, A: Addr, S: Swarm<A>> {
    shared: &'a Arc<Shared<A, S>>,
    batch: Batch<A>,
}

impl<A: Addr, S: Swarm<A>> HandleBatch<A> for Work<'_, A, S> {
    async fn handle_batch(&mut self, pulled: &mut Vec<Message<A>>) {
        self.shared.handle_batch(pulled, &mut self.batch);
    }
}

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    /// Receives from below and handles the engine's timeouts, until the swarm below is closed.
    async fn work(self: Arc<Self>) {
        let work = Work {
            shared: &self,
            batch: Batch {
                events: Vec::new(),
                told: VecDeque::new(),
                asked: VecDeque::new(),
            },
        };
        let receiving = Receiving::new(&self.inner, &self.timer, self.config.batch, work);
        pump(&self.driver, self.datagrams.layer(), receiving).await;
        self.close();
    }

    /// Processes received datagrams and expired timers, and delivers the results. Never waits.
    fn handle_batch(self: &Arc<Self>, pulled: &mut Vec<Message<A>>, batch: &mut Batch<A>) {
        let now = self.now();
        self.datagrams.add_received(pulled.len());
        let mut state = self.state();
        for message in pulled.drain(..) {
            state.engine.handle_message(now, message);
        }
        if self.timer.is_expired(now.elapsed) {
            state.engine.handle_timeout(now);
            self.timer.set(None);
        }
        let datagrams = state.transmits();
        batch
            .events
            .extend(std::iter::from_fn(|| state.engine.poll_event()));
        self.arm(&mut state);
        drop(state);
        if !batch.events.is_empty() {
            self.deliver(batch);
        }
        self.send_in_background(datagrams);
    }

    fn deliver(self: &Arc<Self>, batch: &mut Batch<A>) {
        for event in batch.events.drain(..) {
            self.deliver_event(event, &mut batch.told, &mut batch.asked);
        }
        if !batch.told.is_empty() {
            let put = self.told.deliver(&self.driver, Want::Told, &mut batch.told);
            for message in put.refused {
                self.tells.add_dropped_from(put.reason, &message.src);
            }
        }
        if !batch.asked.is_empty() {
            let put = self.asked.deliver(&self.driver, Want::Asked, &mut batch.asked);
            for (_, request) in put.refused {
                self.asks.add_dropped_from(put.reason, &request.message.src);
                request.reject(Rejection::BUSY);
            }
        }
    }

    /// Delivers one event, or adds its message or request to those that are delivered together.
    fn deliver_event(
        self: &Arc<Self>,
        event: Event<A>,
        told: &mut VecDeque<Message<A>>,
        asked: &mut VecDeque<Asked<A>>,
    ) {
        match event {
            Event::Told(message) => {
                self.tells.add_received(1);
                told.push_back(message);
            }
            Event::Asked { id, message, until } => {
                self.asks.add_received(1);
                let request = Request::new(message, Reply::new(self, id));
                asked.push_back((until, request));
            }
            Event::Answered { id, answer } => {
                let Some(slot) = self.take_slot(id) else { return };
                let waiting = slot.fill(match answer {
                    Answer::Response(response) => Ok(response),
                    Answer::Rejected(why) => Err(Error::Rejected(why)),
                    Answer::TimedOut(limit) => Err(Error::TimedOut {
                        doing: "asking",
                        limit,
                    }),
                });
                if let Some(asker) = waiting
                    && self.driver.polled_for() != Some(Interest::Own(Want::Answer(id)))
                {
                    asker.wake();
                }
            }
            Event::Dropped { src, what, reason } => match what {
                What::Tell => {
                    self.tells.add_received(1);
                    self.tells.add_dropped_from(reason, &src);
                }
                What::Ask => {
                    self.asks.add_received(1);
                    self.asks.add_dropped_from(reason, &src);
                }
                What::Datagram => self.datagrams.add_dropped_from(reason, &src),
            },
        }
    }

    pub(super) async fn receive_ask(self: &Arc<Self>) -> Result<Request<A>> {
        self.start()?;
        loop {
            let (until, request) = self.asked.pop(&self.driver, Want::Asked).await?;
            if self.now().elapsed <= until {
                self.asks.add_delivered(1);
                return Ok(request);
            }
            // The asker has given up.
            self.asks
                .add_dropped_from(DropReason::Expired, &request.message.src);
        }
    }

    pub(super) async fn answer_to(self: &Arc<Self>, id: AskId, slot: &Slot) -> Result<Packet> {
        self.start()?;
        consume_budget().await;
        let interest = Interest::Own(Want::Answer(id));
        self.driver.wait(interest, |cx| slot.poll(cx)).await
    }

    /// Starts the work, unless it has been started.
    pub(super) fn start(self: &Arc<Self>) -> Result<()> {
        self.driver.ensure_started(|| self.clone().work())
    }
}
