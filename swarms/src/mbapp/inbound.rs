//! The receive path: receives from below, feeds the engine, and delivers the resulting events.

use std::sync::Arc;
use std::task::{Context, Poll};

use p2p::{Addr, DropReason, Error, Message, Packet, Rejection, Request, Result, Swarm};
use p2p_protocols::mbapp::{Answer, AskId, Event, What};
use tokio::task::coop::consume_budget;

use super::replies::Reply;
use super::shared::{Asked, Shared, Slot, Want};
use crate::driver::{Interest, Sleeper, Step, found, pump};
use crate::inbox::{Extended, Inbox, Queued};

/// One received batch, with buffers that are reused for the next.
struct Batch<A> {
    pulled: Vec<Message<A>>,
    events: Vec<Event<A>>,
    /// What the polling caller still wants for itself: such items are not copied and wake no other caller.
    own: Option<Interest<Want>>,
    /// Number of messages for other callers.
    told: usize,
    asked: usize,
}

struct Work<'a, A: Addr, S: Swarm<A>> {
    shared: &'a Arc<Shared<A, S>>,
    batch: Batch<A>,
    sleeper: Sleeper,
}

impl<A: Addr, S: Swarm<A>> Step for Work<'_, A, S> {
    async fn step(&mut self) -> Result<()> {
        let Shared {
            inner, timer, config, ..
        } = &**self.shared;
        let receiving = timer.or_receive(inner, &mut self.batch.pulled, config.batch, &mut self.sleeper);
        receiving.await?;
        self.shared.handle_batch(&mut self.batch);
        Ok(())
    }
}

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    /// Receives from below and handles the engine's timeouts, until the swarm below is closed.
    async fn work(self: Arc<Self>) {
        let work = Work {
            shared: &self,
            batch: Batch {
                pulled: Vec::new(),
                events: Vec::new(),
                own: None,
                told: 0,
                asked: 0,
            },
            sleeper: Sleeper::default(),
        };
        pump(&self.driver, self.datagrams.layer(), work).await;
        self.close();
    }

    /// Processes received datagrams and expired timers, and delivers the results. Never waits.
    fn handle_batch(self: &Arc<Self>, batch: &mut Batch<A>) {
        let now = self.now();
        self.datagrams.add_received(batch.pulled.len());
        let mut state = self.state();
        for message in batch.pulled.drain(..) {
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
        batch.own = self.driver.polled_for();
        let mut events = std::mem::take(&mut batch.events);
        for event in events.drain(..) {
            self.deliver_event(event, batch);
        }
        batch.events = events;
        self.driver.notify(Want::Told, std::mem::take(&mut batch.told));
        self.driver.notify(Want::Asked, std::mem::take(&mut batch.asked));
    }

    /// Delivers one event.
    fn deliver_event(self: &Arc<Self>, event: Event<A>, batch: &mut Batch<A>) {
        match event {
            Event::Told(message) => {
                self.tells.add_received(1);
                let put = batch.put(Want::Told, message, &self.told);
                batch.told += put.accepted;
                for message in put.refused {
                    self.tells.add_dropped_from(put.reason, &message.src);
                }
            }
            Event::Asked { id, message, until } => {
                self.asks.add_received(1);
                let reply = Reply::new(self, id);
                let request = Request::new(message, reply);
                let asked = Asked { request, until };
                let put = batch.put(Want::Asked, asked, &self.asked);
                batch.asked += put.accepted;
                for Asked { request, .. } in put.refused {
                    self.asks.add_dropped_from(put.reason, &request.message.src);
                    request.reject(Rejection::BUSY);
                }
            }
            Event::Answered { id, answer } => {
                let Some(slot) = self.take_slot(id) else { return };
                let asker = slot.fill(match answer {
                    Answer::Response(response) => Ok(response),
                    Answer::Rejected(why) => Err(Error::Rejected(why)),
                    Answer::TimedOut(limit) => Err(Error::TimedOut {
                        doing: "asking",
                        limit,
                    }),
                });
                if let Some(asker) = asker
                    && batch.own != Some(Interest::Own(Want::Answer(id)))
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

    pub(super) async fn receive(self: &Arc<Self>) -> Result<Message<A>> {
        let take = |_: &mut Context<'_>| found(self.told.try_pop());
        let message = self.wait(Interest::Items(Want::Told, 1), take).await?;
        self.tells.add_delivered(1);
        Ok(message)
    }

    pub(super) async fn receive_batch(
        self: &Arc<Self>,
        out: &mut Vec<Message<A>>,
        max: usize,
    ) -> Result<usize> {
        let mut take = || {
            let count = self.told.try_pop_batch(out, max)?;
            Ok((count > 0).then_some(count))
        };
        let count = self
            .wait(Interest::Items(Want::Told, max), |_| found(take()))
            .await?;
        self.tells.add_delivered(count);
        Ok(count)
    }

    pub(super) async fn receive_ask(self: &Arc<Self>) -> Result<Request<A>> {
        loop {
            let take = |_: &mut Context<'_>| found(self.asked.try_pop());
            let Asked { request, until } = self.wait(Interest::Items(Want::Asked, 1), take).await?;
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
        self.wait(Interest::Own(Want::Answer(id)), |cx| slot.poll(cx))
            .await
    }

    /// Waits, and polls the work meanwhile.
    async fn wait<T>(
        self: &Arc<Self>,
        interest: Interest<Want>,
        take: impl FnMut(&mut Context<'_>) -> Poll<Result<T>>,
    ) -> Result<T> {
        self.driver.ensure_started(|| self.clone().work())?;
        consume_budget().await;
        self.driver.wait(interest, take).await
    }
}

impl<A> Batch<A> {
    /// Puts an item into its inbox; returns what finds no place. `accepted` is the number of items to notify other
    /// callers of: 0 if the caller that polls the work wants one more of this kind.
    fn put<I: Queued>(&mut self, kind: Want, item: I, inbox: &Inbox<I>) -> Extended<I> {
        let own = match &mut self.own {
            Some(Interest::Items(wanted, left @ 1..)) if *wanted == kind => {
                *left -= 1;
                1
            }
            _ => 0,
        };
        let mut put = inbox.extend_for(own, [item]);
        put.accepted = put.accepted.saturating_sub(own);
        put
    }
}
