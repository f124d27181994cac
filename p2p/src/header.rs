//! A layer that only adds and checks a header: two functions define it for tells, batches and asks.

use std::fmt::Debug;
use std::marker::PhantomData;

use crate::{
    Addr, AskSwarm, BatchError, BatchOutcome, Counters, Headroom, Message, Packet, Reason, Rejection,
    Request, Result, SecureSwarm, Swarm, pass_through,
};

/// A header that every message and every request carries. The [front page](crate#example) has an example.
pub trait Header: Debug + Send + Sync + 'static {
    /// The layer's name in counters.
    const LAYER: &'static str;

    /// Returns the maximum number of bytes that [`write`](Self::write) adds. The value never changes.
    fn len(&self) -> usize;

    /// Returns whether the header has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the header to a packet on its way down.
    fn write(&self, packet: &mut Packet);

    /// Checks and removes the header of a packet on its way up.
    ///
    /// # Errors
    /// The reason for dropping the packet, if its header is not of this layer.
    fn read(&self, packet: &mut Packet) -> Result<(), Reason>;
}

/// A layer that puts the header `H` on every message.
///
/// Responses to asks carry no header: the responder of the request routes them.
#[derive(Debug)]
pub struct HeaderSwarm<A, S, H> {
    inner: S,
    header: H,
    counters: Counters,
    addr: PhantomData<fn() -> A>,
}

impl<A, S, H: Header> HeaderSwarm<A, S, H> {
    /// Wraps `inner` and puts `header` on each message.
    pub fn new(inner: S, header: H) -> Self {
        Self {
            inner,
            header,
            counters: Counters::new(H::LAYER),
            addr: PhantomData,
        }
    }

    /// Returns the swarm below.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Removes the header and counts the packet as delivered or dropped. Returns whether it is delivered.
    fn accept(&self, payload: &mut Packet, src: &impl Addr) -> bool {
        self.counters.received(1);
        match self.header.read(payload) {
            Ok(()) => {
                self.counters.delivered(1);
                true
            }
            Err(reason) => {
                self.counters.dropped_at(reason, src);
                false
            }
        }
    }
}

impl<A: Addr, S: Swarm<A>, H: Header> Swarm<A> for HeaderSwarm<A, S, H> {
    pass_through!(inner: local_addrs, parse_addr, close);

    fn mtu(&self) -> usize {
        self.inner.mtu().saturating_sub(self.header.len())
    }

    fn headroom(&self) -> Headroom {
        Headroom::new(self.header.len(), 0).plus(self.inner.headroom())
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.counters);
        self.inner.visit_counters(visit);
    }

    async fn tell(&self, dst: &A, mut packet: Packet) -> Result<()> {
        packet.check(self.mtu())?;
        self.header.write(&mut packet);
        self.inner.tell(dst, packet).await?;
        self.counters.sent(1);
        Ok(())
    }

    async fn tell_batch(&self, batch: &mut Vec<(A, Packet)>) -> Result<(), BatchError> {
        let mtu = self.mtu();
        let mut outcome = BatchOutcome::default();
        batch.retain_mut(|(_, packet)| match packet.check(mtu) {
            Ok(()) => {
                self.header.write(packet);
                true
            }
            Err(error) => {
                outcome.refused(1, error);
                false
            }
        });
        let count = batch.len();
        let result = self.inner.tell_batch(batch).await;
        self.counters
            .sent(result.as_ref().map_or_else(|error| error.sent, |()| count));
        outcome.record_batch(count, result);
        outcome.finish()
    }

    async fn receive(&self) -> Result<Message<A>> {
        loop {
            let mut message = self.inner.receive().await?;
            if self.accept(&mut message.payload, &message.src) {
                return Ok(message);
            }
        }
    }

    async fn receive_batch(&self, out: &mut Vec<Message<A>>, max: usize) -> Result<usize> {
        let before = out.len();
        loop {
            if self.inner.receive_batch(out, max).await? == 0 {
                return Ok(0);
            }
            let mut index = 0;
            out.retain_mut(|message| {
                index += 1;
                index <= before || self.accept(&mut message.payload, &message.src)
            });
            if out.len() > before {
                return Ok(out.len() - before);
            }
        }
    }
}

impl<A: Addr, S: AskSwarm<A>, H: Header> AskSwarm<A> for HeaderSwarm<A, S, H> {
    async fn ask(&self, dst: &A, mut request: Packet) -> Result<Packet> {
        request.check(self.mtu())?;
        self.header.write(&mut request);
        self.inner.ask(dst, request).await
    }

    async fn receive_ask(&self) -> Result<Request<A>> {
        loop {
            let mut request = self.inner.receive_ask().await?;
            match self.header.read(&mut request.payload) {
                Ok(()) => return Ok(request.limit_response(self.mtu())),
                Err(reason) => {
                    self.counters.dropped_at(reason, &request.src);
                    request.reject(Rejection::NO_CHANNEL);
                }
            }
        }
    }
}

impl<A: Addr, S: SecureSwarm<A>, H: Header> SecureSwarm<A> for HeaderSwarm<A, S, H> {
    pass_through!(inner: PublicKey, public_key, lookup_public_key);
}
