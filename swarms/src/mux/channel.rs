//! One channel of a mux.

use std::sync::Arc;

use p2p::{
    Addr, AskSwarm, BatchError, BatchOutcome, Counters, Error, Headroom, Message, Packet, Request, Result,
    SecureSwarm, Swarm,
};
use p2p_protocols::mux::{Channel, Name};
use tokio::sync::Semaphore;

use super::{MuxConfig, Shared};
use crate::inbox::Inbox;
use crate::turn::{Driving, First, Wait, first};

/// What waits for the readers of one channel.
#[derive(Debug)]
pub(super) struct Queues<A> {
    pub(super) messages: Inbox<Message<A>>,
    pub(super) asks: Inbox<Request<A>>,
    /// Bytes of the channel's own header.
    pub(super) header: usize,
    /// Without permits: whoever waits for one waits for the channel to close.
    closing: Semaphore,
}

impl<A> Queues<A> {
    pub(super) fn new(config: &MuxConfig, header: usize) -> Self {
        Self {
            messages: Inbox::new(config.messages),
            asks: Inbox::new(config.asks),
            header,
            closing: Semaphore::new(0),
        }
    }

    /// Wakes all who wait; returns how many messages and requests were dropped.
    pub(super) fn close(&self) -> (usize, usize) {
        self.closing.close();
        (self.messages.close(), self.asks.close())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closing.is_closed()
    }

    async fn closed(&self) -> Error {
        drop(self.closing.acquire().await);
        Error::Closed
    }

    fn check_open(&self) -> Result<()> {
        if self.is_closed() {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }
}

/// One channel of a [`Mux`](super::Mux): a swarm of those nodes that opened the same channel.
///
/// Its MTU is the one below less the bytes of its own header. Closing or dropping it ends this channel alone,
/// which may then be opened again; see [`Mux`](super::Mux) for when the swarm below ends. Requests carry the channel, responses need not.
#[derive(Debug)]
pub struct MuxSwarm<A, S, C: Channel = Name> {
    shared: Arc<Shared<A, S, C>>,
    channel: C,
    header: Box<[u8]>,
    queues: Arc<Queues<A>>,
}

impl<A, S, C: Channel> MuxSwarm<A, S, C> {
    pub(super) fn new(
        shared: Arc<Shared<A, S, C>>,
        channel: C,
        header: Box<[u8]>,
        queues: Arc<Queues<A>>,
    ) -> Self {
        Self {
            shared,
            channel,
            header,
            queues,
        }
    }

    /// Which channel this is.
    pub fn channel(&self) -> &C {
        &self.channel
    }

    /// The swarm below, which all channels share.
    pub fn inner(&self) -> &S {
        &self.shared.inner
    }

    fn shut(&self) {
        let mut channels = self.shared.channels();
        let key = self.channel.borrow();
        // Closed before, it may have been opened again by somebody else.
        if channels
            .open
            .get(key)
            .is_some_and(|queues| Arc::ptr_eq(queues, &self.queues))
        {
            channels.open.remove(key);
        }
        drop(channels);
        self.shared.shut(&self.queues);
    }
}

impl<A, S, C: Channel> Drop for MuxSwarm<A, S, C> {
    fn drop(&mut self) {
        self.shut();
    }
}

impl<A: Addr, S: Swarm<A>, C: Channel> MuxSwarm<A, S, C> {
    /// Checks a packet and writes the header in front of it.
    fn frame(&self, packet: &mut Packet) -> Result<()> {
        packet.check(self.mtu())?;
        packet.push_front(&self.header);
        Ok(())
    }

    /// Pulls from below until something comes for this channel; hands up to `max` messages to `out`.
    async fn pull(
        &self,
        mut driving: Driving<'_, Vec<Message<A>>>,
        max: usize,
        mut out: impl FnMut(Message<A>),
    ) -> Result<usize> {
        let batch = max.max(self.shared.config.batch);
        let own = (&self.channel, &self.queues);
        loop {
            let pulling = self.shared.inner.receive_batch(&mut driving, batch);
            // While this call drives nobody else delivers: what ends the second one is that the channel closes.
            match first(pulling, self.queues.closed()).await {
                First::Left(pulled) => pulled?,
                First::Right(closed) => return Err(closed),
            };
            let count = self.shared.dispatch(&mut driving, own, max, &mut out);
            if count > 0 {
                return Ok(count);
            }
        }
    }
}

impl<A: Addr, S: Swarm<A>, C: Channel> Swarm<A> for MuxSwarm<A, S, C> {
    fn mtu(&self) -> usize {
        self.shared.inner.mtu().saturating_sub(self.header.len())
    }

    fn local_addrs(&self) -> Vec<A> {
        self.shared.inner.local_addrs()
    }

    fn parse_addr(&self, text: &str) -> Result<A> {
        self.shared.inner.parse_addr(text)
    }

    fn headroom(&self) -> Headroom {
        Headroom::new(self.header.len(), 0).plus(self.shared.inner.headroom())
    }

    /// Shows the counters of the mux, which all channels share, then the ones below.
    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.shared.counters);
        visit(&self.shared.ask_counters);
        self.shared.inner.visit_counters(visit);
    }

    async fn tell(&self, dst: &A, mut packet: Packet) -> Result<()> {
        self.queues.check_open()?;
        self.frame(&mut packet)?;
        self.shared.inner.tell(dst, packet).await?;
        self.shared.counters.sent(1);
        Ok(())
    }

    async fn tell_batch(&self, batch: &mut Vec<(A, Packet)>) -> Result<(), BatchError> {
        let mut outcome = BatchOutcome::default();
        if let Err(closed) = self.queues.check_open() {
            outcome.refused(batch.len(), closed);
            batch.clear();
            return outcome.finish();
        }
        batch.retain_mut(|(_, packet)| match self.frame(packet) {
            Ok(()) => true,
            Err(error) => {
                outcome.refused(1, error);
                false
            }
        });
        let count = batch.len();
        let result = self.shared.inner.tell_batch(batch).await;
        let sent = result.as_ref().map_or_else(|error| error.sent, |()| count);
        self.shared.counters.sent(sent);
        outcome.record_batch(count, result);
        outcome.finish()
    }

    async fn receive(&self) -> Result<Message<A>> {
        loop {
            match self.shared.messages.drive_or_pop(&self.queues.messages).await? {
                Wait::Item(message) => {
                    self.shared.counters.delivered(1);
                    return Ok(message);
                }
                Wait::Drive(driving) => {
                    let mut own = None;
                    self.pull(driving, 1, |message| own = Some(message)).await?;
                    if let Some(message) = own {
                        return Ok(message);
                    }
                }
            }
        }
    }

    async fn receive_batch(&self, out: &mut Vec<Message<A>>, max: usize) -> Result<usize> {
        if max == 0 {
            return Ok(0);
        }
        match self.shared.messages.drive_or_pop(&self.queues.messages).await? {
            Wait::Drive(driving) => self.pull(driving, max, |message| out.push(message)).await,
            Wait::Item(message) => {
                out.push(message);
                let count = 1 + self.queues.messages.try_pop_batch(out, max - 1).unwrap_or(0);
                self.shared.counters.delivered(count);
                Ok(count)
            }
        }
    }

    /// Ends this channel, and the swarm below if it was the last and no [`Mux`](super::Mux) is left. Idempotent.
    async fn close(&self) {
        self.shut();
        if self.shared.is_over() {
            self.shared.inner.close().await;
        }
    }
}

impl<A: Addr, S: AskSwarm<A>, C: Channel> AskSwarm<A> for MuxSwarm<A, S, C> {
    async fn ask(&self, dst: &A, mut request: Packet) -> Result<Packet> {
        self.queues.check_open()?;
        self.frame(&mut request)?;
        self.shared.ask_counters.sent(1);
        match first(self.shared.inner.ask(dst, request), self.queues.closed()).await {
            First::Left(response) => response,
            First::Right(closed) => Err(closed),
        }
    }

    async fn receive_ask(&self) -> Result<Request<A>> {
        let _driving = match self.shared.asks.drive_or_pop(&self.queues.asks).await? {
            Wait::Drive(driving) => driving,
            Wait::Item(request) => {
                self.shared.ask_counters.delivered(1);
                return Ok(request);
            }
        };
        loop {
            let request = match first(self.shared.inner.receive_ask(), self.queues.closed()).await {
                First::Left(request) => request?,
                First::Right(closed) => return Err(closed),
            };
            let own = (&self.channel, &self.queues);
            if let Some(request) = self.shared.dispatch_ask(request, own) {
                return Ok(request);
            }
        }
    }
}

impl<A: Addr, S: SecureSwarm<A>, C: Channel> SecureSwarm<A> for MuxSwarm<A, S, C> {
    type PublicKey = S::PublicKey;

    fn public_key(&self) -> Self::PublicKey {
        self.shared.inner.public_key()
    }

    async fn lookup_public_key(&self, addr: &A) -> Result<Self::PublicKey> {
        self.queues.check_open()?;
        self.shared.inner.lookup_public_key(addr).await
    }
}
