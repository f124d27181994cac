//! The way up: pull from below, and hand what came to the queues of its channels.

use std::future::Future;
use std::iter;
use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use p2p::{Addr, AskSwarm, Error, Message, Reason, Rejection, Request, Result, Swarm};
use p2p_protocols::mux::Channel;
use tokio::time::sleep;

use super::channel::Queues;
use super::{Channels, Shared};
use crate::driver::{PAUSE, Wants, yield_once};

impl<A: Addr, S: Swarm<A>, C: Channel> Shared<A, S, C> {
    /// Pulls messages until the swarm below is closed.
    pub(super) async fn pull_messages(self: Arc<Self>) {
        let (mut pulled, mut last) = (Vec::new(), None);
        loop {
            match self.inner.receive_batch(&mut pulled, self.config.batch).await {
                Ok(_) => {
                    self.dispatch(&mut pulled, &mut last);
                    yield_once().await;
                }
                Err(Error::Closed) => return self.messages.close(),
                Err(error) => fail(&self.failure, error).await,
            }
        }
    }

    /// Hands what was pulled to its channels. `last` is the one that the last message was for: messages of one channel
    /// follow one another.
    fn dispatch(&self, pulled: &mut Vec<Message<A>>, last: &mut Option<Arc<Queues<A, C>>>) {
        self.counters.received(pulled.len());
        let mut own = self.messages.polled_for();
        let channels = self.channels();
        let mut routed = pulled
            .drain(..)
            .filter_map(
                |mut message| match route(&channels, last.as_ref(), &message.payload) {
                    Ok((queues, header)) => {
                        message.payload.advance(header);
                        Some((queues, message))
                    }
                    Err(reason) => {
                        self.counters.dropped_at(reason, &message.src);
                        None
                    }
                },
            )
            .peekable();
        let mut found = None;
        while let Some((queues, message)) = routed.next() {
            found = Some(queues);
            // Neighbours that go to the same channel go in under one lock and with one wake-up.
            let more = iter::from_fn(|| routed.next_if(|(next, _)| Arc::ptr_eq(next, queues)));
            let mut run = iter::once(message)
                .chain(more.map(|(_, message)| message))
                .peekable();
            if let Some(Wants::Items(id, left @ 1..)) = &mut own
                && *id == queues.id()
            {
                let mut fresh = queues.fresh();
                // Who closes it looks here afterwards.
                if !queues.is_closed() {
                    let before = fresh.messages.len();
                    fresh.messages.extend(run.by_ref().take(*left));
                    *left -= fresh.messages.len() - before;
                }
            }
            if run.peek().is_some() {
                let put = queues.messages.extend(run);
                self.counters.dropped_many(put.reason, put.refused.len());
            }
        }
        drop(routed);
        let known = |queues: &&Arc<_>| last.as_ref().is_some_and(|last| Arc::ptr_eq(last, queues));
        let found = found.filter(|queues| !known(queues)).cloned();
        drop(channels);
        if found.is_some() {
            // What it replaces goes without the lock.
            *last = found;
        }
    }

    pub(super) async fn receive(self: &Arc<Self>, queues: &Queues<A, C>) -> Result<Message<A>> {
        let mut popping = pin!(queues.messages.pop());
        let take = |cx: &mut Context<'_>| match queues.fresh().messages.pop_front() {
            Some(message) => Poll::Ready(Ok(message)),
            None => popping.as_mut().poll(cx),
        };
        let message = self.wait(queues, 1, take).await?;
        self.counters.delivered(1);
        Ok(message)
    }

    pub(super) async fn receive_batch(
        self: &Arc<Self>,
        queues: &Queues<A, C>,
        out: &mut Vec<Message<A>>,
        max: usize,
    ) -> Result<usize> {
        let mut popping = pin!(queues.messages.pop());
        let take = |cx: &mut Context<'_>| {
            let mut fresh = queues.fresh();
            let count = fresh.messages.len().min(max);
            if count > 0 {
                out.extend(fresh.messages.drain(..count));
                return Poll::Ready(Ok(count));
            }
            drop(fresh);
            let popped = popping.as_mut().poll(cx);
            popped.map_ok(|message| {
                out.push(message);
                1 + queues.messages.try_pop_batch(out, max - 1).unwrap_or(0)
            })
        };
        let count = self.wait(queues, max, take).await?;
        self.counters.delivered(count);
        Ok(count)
    }

    /// Waits for messages of a channel, and polls the work meanwhile.
    async fn wait<T>(
        self: &Arc<Self>,
        queues: &Queues<A, C>,
        max: usize,
        mut take: impl FnMut(&mut Context<'_>) -> Poll<Result<T>>,
    ) -> Result<T> {
        self.messages.start_once(|| self.clone().pull_messages())?;
        let take = |cx: &mut Context<'_>| {
            queues.check_open()?;
            let taken = take(cx);
            if taken.is_pending() {
                failed(&self.failure)
            } else {
                taken
            }
        };
        self.messages.wait(Wants::Items(queues.id(), max), take).await
    }
}

impl<A: Addr, S: AskSwarm<A>, C: Channel> Shared<A, S, C> {
    /// Pulls requests until the swarm below is closed.
    async fn pull_asks(self: Arc<Self>) {
        loop {
            match self.inner.receive_ask().await {
                Ok(request) => {
                    self.dispatch_ask(request);
                    yield_once().await;
                }
                Err(Error::Closed) => return self.asks.close(),
                Err(error) => fail(&self.ask_failure, error).await,
            }
        }
    }

    /// Hands a request to its channel.
    fn dispatch_ask(&self, mut request: Request<A>) {
        self.ask_counters.received(1);
        let refused = {
            let channels = self.channels();
            match route(&channels, None, &request.payload) {
                Ok((queues, header)) => {
                    request.payload.advance(header);
                    // An overlong header of the peer's does not count: channels have one MTU.
                    let mtu = self.inner.mtu().saturating_sub(queues.header.len());
                    let request = request.limit_response(mtu);
                    if self.asks.polled_for() == Some(Wants::Items(queues.id(), 1)) {
                        let mut fresh = queues.fresh();
                        // Who closes it looks here afterwards.
                        if !queues.is_closed() {
                            fresh.asks.push_back(request);
                            return;
                        }
                    }
                    let put = queues.asks.push(request);
                    put.map_err(|refused| (refused.item, refused.reason, Rejection::BUSY))
                }
                Err(reason) => Err((request, reason, Rejection::NO_CHANNEL)),
            }
        };
        if let Err((request, reason, rejection)) = refused {
            self.ask_counters.dropped_at(reason, &request.src);
            request.reject(rejection);
        }
    }

    pub(super) async fn receive_ask(self: &Arc<Self>, queues: &Queues<A, C>) -> Result<Request<A>> {
        self.asks.start_once(|| self.clone().pull_asks())?;
        let mut popping = pin!(queues.asks.pop());
        let take = |cx: &mut Context<'_>| {
            queues.check_open()?;
            if let Some(request) = queues.fresh().asks.pop_front() {
                return Poll::Ready(Ok(request));
            }
            let popped = popping.as_mut().poll(cx);
            if popped.is_pending() {
                failed(&self.ask_failure)
            } else {
                popped
            }
        };
        let request = self.asks.wait(Wants::Items(queues.id(), 1), take).await?;
        self.ask_counters.delivered(1);
        Ok(request)
    }
}

/// Leaves an error for the next reader, and waits until it is worth while to try again.
async fn fail(failure: &Mutex<Option<Error>>, error: Error) {
    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    // Whoever is woken to poll this then finds it.
    sleep(PAUSE).await;
}

fn failed<T>(failure: &Mutex<Option<Error>>) -> Poll<Result<T>> {
    let failure = mem::take(&mut *failure.lock().unwrap_or_else(PoisonError::into_inner));
    failure.map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
}

/// Where a message goes, and the length of its header.
type Route<'a, A, C> = (&'a Arc<Queues<A, C>>, usize);

/// The channel that `frame` is for, and the length of its header. `last` is the one that it mostly is for.
fn route<'a, A: Addr, C: Channel>(
    channels: &'a Channels<A, C>,
    last: Option<&'a Arc<Queues<A, C>>>,
    frame: &[u8],
) -> Result<Route<'a, A, C>, Reason> {
    let (key, header) = C::read(frame).map_err(|_| Reason::Malformed)?;
    if let Some(last) = last
        && *key == *last.channel.borrow()
        && !last.is_closed()
    {
        return Ok((last, header));
    }
    let queues = channels.open.get(&*key).ok_or(Reason::NoChannel)?;
    Ok((queues, header))
}
