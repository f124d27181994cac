//! The receive path: receives from below and delivers to the queues of the channels.

use std::iter;
use std::sync::Arc;

use p2p::{Addr, AskSwarm, DropReason, Message, Rejection, Request, Result, Swarm};
use p2p_protocols::mux::Channel;

use super::channel::Queues;
use super::{Channels, Shared};
use crate::driver::{Step, pump};

/// The work for messages.
struct Messages<'a, A: Addr, S, C: Channel> {
    shared: &'a Shared<A, S, C>,
    /// Empty between two steps.
    pulled: Vec<Message<A>>,
    /// The channel of the previous message, since messages of one channel usually follow one another.
    last: Option<Arc<Queues<A, C>>>,
}

impl<A: Addr, S: Swarm<A>, C: Channel> Step for Messages<'_, A, S, C> {
    async fn step(&mut self) -> Result<()> {
        let Shared { inner, config, .. } = self.shared;
        inner.receive_batch(&mut self.pulled, config.batch).await?;
        self.shared.dispatch(&mut self.pulled, &mut self.last);
        Ok(())
    }
}

/// The work for requests.
struct Requests<'a, A: Addr, S, C: Channel>(&'a Shared<A, S, C>);

impl<A: Addr, S: AskSwarm<A>, C: Channel> Step for Requests<'_, A, S, C> {
    async fn step(&mut self) -> Result<()> {
        let request = self.0.inner.receive_ask().await?;
        self.0.dispatch_ask(request);
        Ok(())
    }
}

impl<A: Addr, S: Swarm<A>, C: Channel> Shared<A, S, C> {
    /// Receives messages until the swarm below is closed.
    pub(super) async fn pull_messages(self: Arc<Self>) {
        let work = Messages {
            shared: &*self,
            pulled: Vec::new(),
            last: None,
        };
        pump(&self.messages, self.counters.layer(), work).await;
        self.messages.close();
    }

    /// Delivers received messages to their channels.
    fn dispatch(&self, pulled: &mut Vec<Message<A>>, last: &mut Option<Arc<Queues<A, C>>>) {
        self.counters.add_received(pulled.len());
        let mut polled_for = self.messages.polled_for();
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
                        self.counters.add_dropped_from(reason, &message.src);
                        None
                    }
                },
            )
            .peekable();
        let mut found = None;
        while let Some((queues, message)) = routed.next() {
            found = Some(queues);
            // Consecutive messages of one channel are delivered under one lock and with one wake-up.
            let more = iter::from_fn(|| routed.next_if(|(next, _)| Arc::ptr_eq(next, queues)));
            let run = iter::once(message).chain(more.map(|(_, message)| message));
            let put = queues
                .messages
                .deliver_part(&self.messages, queues.id(), &mut polled_for, run);
            self.counters.add_dropped_many(put.reason, put.refused.len());
        }
        drop(routed);
        let known = |queues: &&Arc<_>| last.as_ref().is_some_and(|last| Arc::ptr_eq(last, queues));
        let found = found.filter(|queues| !known(queues)).cloned();
        drop(channels);
        if found.is_some() {
            // The replaced value is dropped without the lock.
            *last = found;
        }
    }

    pub(super) async fn receive(self: &Arc<Self>, queues: &Queues<A, C>) -> Result<Message<A>> {
        self.ensure_pulled()?;
        queues
            .messages
            .receive(&self.messages, queues.id(), &self.counters)
            .await
    }

    pub(super) async fn receive_batch(
        self: &Arc<Self>,
        queues: &Queues<A, C>,
        out: &mut Vec<Message<A>>,
        max: usize,
    ) -> Result<usize> {
        self.ensure_pulled()?;
        queues
            .messages
            .receive_batch(&self.messages, queues.id(), &self.counters, out, max)
            .await
    }

    /// Starts to receive messages, if that has not been done.
    fn ensure_pulled(self: &Arc<Self>) -> Result<()> {
        self.messages.ensure_started(|| self.clone().pull_messages())
    }
}

impl<A: Addr, S: AskSwarm<A>, C: Channel> Shared<A, S, C> {
    /// Receives requests until the swarm below is closed.
    async fn pull_asks(self: Arc<Self>) {
        pump(&self.asks, self.ask_counters.layer(), Requests(&*self)).await;
        self.asks.close();
    }

    /// Delivers a request to its channel.
    fn dispatch_ask(&self, mut request: Request<A>) {
        self.ask_counters.add_received(1);
        let (refused, reason, rejection) = {
            let channels = self.channels();
            match route(&channels, None, &request.message.payload) {
                Ok((queues, header)) => {
                    request.message.payload.advance(header);
                    // A longer than necessary header from the peer does not count: all channels use one MTU.
                    let mtu = self.inner.mtu().saturating_sub(queues.header.len());
                    let request = request.limit_response(mtu);
                    let mut polled_for = self.asks.polled_for();
                    let put = queues
                        .asks
                        .deliver_part(&self.asks, queues.id(), &mut polled_for, [request]);
                    (put.refused, put.reason, Rejection::BUSY)
                }
                Err(reason) => (vec![request], reason, Rejection::NO_CHANNEL),
            }
        };
        for request in refused {
            self.ask_counters.add_dropped_from(reason, &request.message.src);
            request.reject(rejection);
        }
    }

    pub(super) async fn receive_ask(self: &Arc<Self>, queues: &Queues<A, C>) -> Result<Request<A>> {
        self.asks.ensure_started(|| self.clone().pull_asks())?;
        queues
            .asks
            .receive(&self.asks, queues.id(), &self.ask_counters)
            .await
    }
}

/// The channel of a message, and the length of its header.
type Route<'a, A, C> = (&'a Arc<Queues<A, C>>, usize);

/// Finds the channel of `frame` and the length of its header. `last` is the most likely channel.
fn route<'a, A: Addr, C: Channel>(
    channels: &'a Channels<A, C>,
    last: Option<&'a Arc<Queues<A, C>>>,
    frame: &[u8],
) -> Result<Route<'a, A, C>, DropReason> {
    let (key, header) = C::read(frame).map_err(|_| DropReason::Malformed)?;
    if let Some(last) = last
        && *key == *last.channel.borrow()
        && !last.is_closed()
    {
        return Ok((last, header));
    }
    let queues = channels.open.get(&*key).ok_or(DropReason::NoChannel)?;
    Ok((queues, header))
}
