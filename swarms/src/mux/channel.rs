//! One channel of a mux.

use std::ptr;
use std::sync::Arc;

use p2p::{
    Addr, AskSwarm, BatchError, BatchOutcome, Counters, Error, Headroom, Message, Packet, Request, Result,
    SecureSwarm, Swarm,
};
use p2p_protocols::mux::{Channel, Name};
use tokio::sync::Semaphore;

use super::{MuxConfig, Shared};
use crate::driver::Mailbox;

/// One channel, and the queues of its readers.
#[derive(Debug)]
pub(super) struct Queues<A, C> {
    pub(super) channel: C,
    /// The header of its messages.
    pub(super) header: Box<[u8]>,
    pub(super) messages: Mailbox<Message<A>>,
    pub(super) asks: Mailbox<Request<A>>,
    /// Has no permits: acquiring one waits until the channel closes.
    closing: Semaphore,
}

impl<A, C> Queues<A, C> {
    pub(super) fn new(config: &MuxConfig, channel: C, header: Box<[u8]>) -> Self {
        Self {
            channel,
            header,
            messages: Mailbox::new(config.messages),
            asks: Mailbox::new(config.asks),
            closing: Semaphore::new(0),
        }
    }

    /// Returns a value that distinguishes this channel from all others that exist at the same time.
    pub(super) fn id(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    /// Wakes the calls that wait for the channel to close; returns the numbers of messages and requests that
    /// were dropped.
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

    pub(super) fn check_open(&self) -> Result<()> {
        if self.is_closed() {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }
}

/// One channel of a [`Mux`](super::Mux): a swarm of the nodes that opened the same channel.
///
/// Its MTU is that of the swarm below minus the length of its header. Closing or dropping it ends this
/// channel only, which may then be opened again; [`Mux`](super::Mux) says when the swarm below is closed.
/// Requests carry the header, responses do not.
///
/// ```
/// use p2p::Swarm;
/// use p2p_swarms::{MemorySwarm, Mux, MuxConfig};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// let mux = Mux::<_, _, u16>::with_config(MemorySwarm::new(), MuxConfig::default());
/// let channel = mux.open(7_u16)?;
/// assert_eq!(*channel.channel(), 7);
/// assert!(channel.mtu() < channel.inner().mtu());
///
/// channel.close().await; // frees the channel, which may be opened again
/// let _again = mux.open(7_u16)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MuxSwarm<A, S, C: Channel = Name> {
    shared: Arc<Shared<A, S, C>>,
    queues: Arc<Queues<A, C>>,
}

impl<A, S, C: Channel> MuxSwarm<A, S, C> {
    pub(super) fn new(shared: Arc<Shared<A, S, C>>, queues: Arc<Queues<A, C>>) -> Self {
        Self { shared, queues }
    }

    /// Returns the channel.
    pub fn channel(&self) -> &C {
        &self.queues.channel
    }

    /// Returns the swarm below, which all channels share.
    pub fn inner(&self) -> &S {
        &self.shared.inner
    }

    fn close_now(&self) {
        let mut channels = self.shared.channels();
        let key = self.queues.channel.borrow();
        // A channel that was closed earlier may have been opened again under the same name.
        if channels
            .open
            .get(key)
            .is_some_and(|queues| Arc::ptr_eq(queues, &self.queues))
        {
            channels.open.remove(key);
        }
        drop(channels);
        self.shared.close_queues(&self.queues);
        if self.shared.is_over() {
            self.shared.end();
        }
    }
}

impl<A, S, C: Channel> Drop for MuxSwarm<A, S, C> {
    fn drop(&mut self) {
        self.close_now();
    }
}

impl<A: Addr, S: Swarm<A>, C: Channel> MuxSwarm<A, S, C> {
    /// Checks the length of a packet and prepends the header.
    fn frame(&self, packet: &mut Packet) -> Result<()> {
        packet.check_mtu(self.mtu())?;
        packet.push_front(&self.queues.header);
        Ok(())
    }
}

impl<A: Addr, S: Swarm<A>, C: Channel> Swarm<A> for MuxSwarm<A, S, C> {
    fn mtu(&self) -> usize {
        self.shared.inner.mtu().saturating_sub(self.queues.header.len())
    }

    fn local_addrs(&self) -> Vec<A> {
        self.shared.inner.local_addrs()
    }

    fn parse_addr(&self, text: &str) -> Result<A> {
        self.shared.inner.parse_addr(text)
    }

    fn headroom(&self) -> Headroom {
        Headroom::new(self.queues.header.len(), 0).plus(self.shared.inner.headroom())
    }

    /// Visits the counters of the mux, which all channels share, then those of the swarm below.
    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.shared.counters);
        visit(&self.shared.ask_counters);
        self.shared.inner.visit_counters(visit);
    }

    async fn tell(&self, dst: &A, mut packet: Packet) -> Result<()> {
        self.queues.check_open()?;
        self.frame(&mut packet)?;
        self.shared.inner.tell(dst, packet).await?;
        self.shared.counters.add_sent(1);
        Ok(())
    }

    async fn tell_batch(&self, batch: &mut Vec<(A, Packet)>) -> Result<(), BatchError> {
        let mut outcome = BatchOutcome::default();
        if let Err(closed) = self.queues.check_open() {
            outcome.add_refused(batch.len(), closed);
            batch.clear();
            return outcome.finish();
        }
        batch.retain_mut(|(_, packet)| outcome.keep(self.frame(packet)));
        let sent = outcome.tell(&self.shared.inner, batch).await;
        self.shared.counters.add_sent(sent);
        outcome.finish()
    }

    async fn receive(&self) -> Result<Message<A>> {
        self.shared.receive(&self.queues).await
    }

    async fn receive_batch(&self, out: &mut Vec<Message<A>>, max: usize) -> Result<usize> {
        if max == 0 {
            return Ok(0);
        }
        self.shared.receive_batch(&self.queues, out, max).await
    }

    /// Closes this channel, and the swarm below if this was the last channel and no [`Mux`](super::Mux) is
    /// left. Idempotent.
    async fn close(&self) {
        self.close_now();
        if self.shared.is_over() {
            self.shared.inner.close().await;
        }
    }
}

impl<A: Addr, S: AskSwarm<A>, C: Channel> AskSwarm<A> for MuxSwarm<A, S, C> {
    async fn ask(&self, dst: &A, mut request: Packet) -> Result<Packet> {
        self.queues.check_open()?;
        self.frame(&mut request)?;
        self.shared.ask_counters.add_sent(1);
        tokio::select! {
            biased;
            response = self.shared.inner.ask(dst, request) => response,
            closed = self.queues.closed() => Err(closed),
        }
    }

    async fn receive_ask(&self) -> Result<Request<A>> {
        self.shared.receive_ask(&self.queues).await
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
