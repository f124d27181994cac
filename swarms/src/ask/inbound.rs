//! The way up: pull from below, hand what came to the engine, and what comes of it to whom it belongs.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use p2p::{Addr, Error, Message, Packet, Reason, Rejection, Request, Result, Swarm};
use p2p_protocols::ask::{Answer, AskId, Event, What};
use tokio::task::coop::consume_budget;
use tokio::time::sleep;

use super::replies::Reply;
use super::shared::{Asked, Fresh, Shared, Slot, Want};
use crate::driver::{PAUSE, Sleeper, Wants, yield_once};
use crate::inbox::{Inbox, Queued};

/// One batch on its way up, and the room for the next.
struct Landing<A> {
    pulled: Vec<Message<A>>,
    events: Vec<Event<A>>,
    /// What the one who drives wants itself: that needs no detour through an inbox, and wakes nobody.
    own: Option<Wants<Want>>,
    fresh: Fresh<A>,
    told: usize,
    asked: usize,
}

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    /// Pulls from below and keeps the engine's time, until the swarm below is closed.
    async fn work(self: Arc<Self>) {
        let mut sleeper = Sleeper::default();
        let mut landing = Landing {
            pulled: Vec::new(),
            events: Vec::new(),
            own: None,
            fresh: Fresh::default(),
            told: 0,
            asked: 0,
        };
        loop {
            match self.pull(&mut landing.pulled, &mut sleeper).await {
                Ok(()) => {
                    self.land(&mut landing);
                    yield_once().await;
                }
                Err(Error::Closed) => return self.close(),
                Err(error) => {
                    tracing::debug!(layer = self.datagrams.layer(), %error, "nothing can be received");
                    self.fresh().failure = Some(error);
                    // One of either kind looks, and the first of them finds it.
                    self.driver.put(Want::Told, 1);
                    self.driver.put(Want::Asked, 1);
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Waits for datagrams or for the engine's time.
    async fn pull(&self, pulled: &mut Vec<Message<A>>, sleeper: &mut Sleeper) -> Result<()> {
        let mut receiving = pin!(self.inner.receive_batch(pulled, self.config.batch));
        poll_fn(|cx| {
            if let Poll::Ready(received) = receiving.as_mut().poll(cx) {
                return Poll::Ready(received.map(drop));
            }
            self.alarm.poll(cx, sleeper).map(Ok)
        })
        .await
    }

    /// Looks at what was pulled and at the alarm, and hands everything to whom it belongs. Never waits.
    fn land(self: &Arc<Self>, landing: &mut Landing<A>) {
        let now = self.now();
        self.datagrams.received(landing.pulled.len());
        let mut state = self.state();
        for message in landing.pulled.drain(..) {
            state.engine.handle_message(now, message);
        }
        if self.alarm.rings(now.elapsed) {
            state.engine.handle_timeout(now);
            self.alarm.set(None);
        }
        let datagrams = state.transmits();
        landing
            .events
            .extend(std::iter::from_fn(|| state.engine.poll_event()));
        self.arm(&mut state);
        drop(state);
        if !landing.events.is_empty() {
            self.hand_over(landing);
        }
        self.send_detached(datagrams);
    }

    fn hand_over(self: &Arc<Self>, landing: &mut Landing<A>) {
        landing.own = self.driver.polled_for();
        let mut events = std::mem::take(&mut landing.events);
        for event in events.drain(..) {
            self.deliver(event, landing);
        }
        landing.events = events;
        let Landing {
            fresh, told, asked, ..
        } = landing;
        if !(fresh.told.is_empty() && fresh.asked.is_empty()) {
            self.keep(fresh);
        }
        self.driver.put(Want::Told, std::mem::take(told));
        self.driver.put(Want::Asked, std::mem::take(asked));
    }

    /// Keeps items for the one who drives.
    fn keep(&self, new: &mut Fresh<A>) {
        let mut fresh = self.fresh();
        if fresh.closed {
            drop(fresh);
            self.tells
                .dropped_many(Reason::Closed, new.told.drain(..).count());
            self.asks
                .dropped_many(Reason::Closed, new.asked.drain(..).count());
            return;
        }
        fresh.told.append(&mut new.told);
        fresh.asked.append(&mut new.asked);
    }

    /// Hands over what came of an event.
    fn deliver(self: &Arc<Self>, event: Event<A>, landing: &mut Landing<A>) {
        match event {
            Event::Told(message) => {
                self.tells.received(1);
                let refused = landing.keep_or_push(Want::Told, message, &self.told, |fresh| &mut fresh.told);
                match refused {
                    None => landing.told += 1,
                    Some((message, reason)) => self.tells.dropped_at(reason, &message.src),
                }
            }
            Event::Asked { id, message, until } => {
                self.asks.received(1);
                let reply = Reply::new(self, id);
                let request = Request::new(message.src, message.dst, message.payload, reply);
                let asked = Asked { request, until };
                match landing.keep_or_push(Want::Asked, asked, &self.asked, |fresh| &mut fresh.asked) {
                    None => landing.asked += 1,
                    Some((Asked { request, .. }, reason)) => {
                        self.asks.dropped_at(reason, &request.src);
                        request.reject(Rejection::BUSY);
                    }
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
                    && landing.own != Some(Wants::Own(Want::Answer(id)))
                {
                    asker.wake();
                }
            }
            Event::Dropped { src, what, reason } => match what {
                What::Tell => {
                    self.tells.received(1);
                    self.tells.dropped_at(reason, &src);
                }
                What::Ask => {
                    self.asks.received(1);
                    self.asks.dropped_at(reason, &src);
                }
                What::Datagram => self.datagrams.dropped_at(reason, &src),
            },
        }
    }

    pub(super) async fn receive(self: &Arc<Self>) -> Result<Message<A>> {
        let take = |_: &mut Context<'_>| poll(self.take(&self.told, |fresh| fresh.told.pop_front()));
        let message = self.wait(Wants::Items(Want::Told, 1), take).await?;
        self.tells.delivered(1);
        Ok(message)
    }

    pub(super) async fn receive_batch(
        self: &Arc<Self>,
        out: &mut Vec<Message<A>>,
        max: usize,
    ) -> Result<usize> {
        let mut take = || {
            let mut fresh = self.fresh();
            let count = fresh.told.len().min(max);
            out.extend(fresh.told.drain(..count));
            match (count, self.told.try_pop_batch(out, max - count)) {
                (0, Ok(0)) => fresh.failure.take().map_or(Ok(None), Err),
                (0, more) => more.map(Some),
                (_, more) => Ok(Some(count + more.unwrap_or(0))),
            }
        };
        let count = self.wait(Wants::Items(Want::Told, max), |_| poll(take())).await?;
        self.tells.delivered(count);
        Ok(count)
    }

    pub(super) async fn receive_ask(self: &Arc<Self>) -> Result<Request<A>> {
        loop {
            let take = |_: &mut Context<'_>| poll(self.take(&self.asked, |fresh| fresh.asked.pop_front()));
            let Asked { request, until } = self.wait(Wants::Items(Want::Asked, 1), take).await?;
            if self.now().elapsed <= until {
                self.asks.delivered(1);
                return Ok(request);
            }
            // Its asker has given up.
            self.asks.dropped_at(Reason::Expired, &request.src);
        }
    }

    pub(super) async fn answer_to(self: &Arc<Self>, id: AskId, slot: &Slot) -> Result<Packet> {
        self.wait(Wants::Own(Want::Answer(id)), |cx| slot.poll(cx)).await
    }

    /// Waits, and polls the work meanwhile.
    async fn wait<T>(
        self: &Arc<Self>,
        wants: Wants<Want>,
        take: impl FnMut(&mut Context<'_>) -> Poll<Result<T>>,
    ) -> Result<T> {
        self.driver.start_once(|| self.clone().work())?;
        consume_budget().await;
        self.driver.wait(wants, take).await
    }

    fn take<I: Queued>(
        &self,
        inbox: &Inbox<I>,
        fresh: impl FnOnce(&mut Fresh<A>) -> Option<I>,
    ) -> Result<Option<I>> {
        // What was pulled with it and waits in the inbox came later.
        let mut shared = self.fresh();
        if let Some(item) = fresh(&mut shared) {
            return Ok(Some(item));
        }
        match inbox.try_pop()? {
            None => shared.failure.take().map_or(Ok(None), Err),
            item => Ok(item),
        }
    }
}

impl<A> Landing<A> {
    /// Keeps an item for the one who drives, if it wants one more of this kind, or puts it into the inbox; gives back
    /// what does not fit.
    fn keep_or_push<I: Queued>(
        &mut self,
        kind: Want,
        item: I,
        inbox: &Inbox<I>,
        own: impl FnOnce(&mut Fresh<A>) -> &mut VecDeque<I>,
    ) -> Option<(I, Reason)> {
        if let Some(Wants::Items(wanted, left @ 1..)) = &mut self.own
            && *wanted == kind
        {
            *left -= 1;
            own(&mut self.fresh).push_back(item);
            return None;
        }
        let refused = inbox.push(item).err()?;
        Some((refused.item, refused.reason))
    }
}

fn poll<T>(taken: Result<Option<T>>) -> Poll<Result<T>> {
    taken.transpose().map_or(Poll::Pending, Poll::Ready)
}
