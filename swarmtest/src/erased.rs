//! A node with type-erased addresses: every law is compiled once, and not for each type of address.
//!
//! The translation hides no fault. A batch that was left non-empty stays non-empty, the node sees the earlier
//! contents of a buffer, and the contents of a buffer at cancellation are returned.

use std::marker::PhantomData;

use p2p::{
    Addr, AskSwarm, BatchError, BoxAddr, Error, Message, Packet, Request, Result, SecureSwarm, Swarm,
    pass_through,
};

/// Returns the typed address within a boxed one.
pub(crate) fn typed<A: Addr>(addr: &BoxAddr) -> Result<A> {
    addr.downcast_ref()
        .cloned()
        .ok_or_else(|| Error::invalid("address", "the address belongs to another kind of swarm"))
}

/// The node `inner` with erased addresses.
pub(crate) struct Erased<A, S> {
    inner: S,
    addr: PhantomData<fn() -> A>,
}

impl<A, S> Erased<A, S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            addr: PhantomData,
        }
    }
}

/// A buffer of the caller, converted to the addresses of the node below. Dropping this converts it back.
struct Lent<'a, T, U> {
    lender: &'a mut Vec<T>,
    buffer: Vec<U>,
    back: fn(U) -> T,
}

impl<'a, T, U> Lent<'a, T, U> {
    fn new(lender: &'a mut Vec<T>, forth: fn(T) -> Result<U>, back: fn(U) -> T) -> Result<Self> {
        let buffer = lender.drain(..).map(forth).collect::<Result<_>>()?;
        Ok(Self { lender, buffer, back })
    }
}

impl<T, U> Drop for Lent<'_, T, U> {
    fn drop(&mut self) {
        self.lender.extend(self.buffer.drain(..).map(self.back));
    }
}

fn erased_message<A: Addr>(message: Message<A>) -> Message<BoxAddr> {
    Message {
        src: BoxAddr::new(message.src),
        dst: BoxAddr::new(message.dst),
        payload: message.payload,
    }
}

fn typed_message<A: Addr>(message: Message<BoxAddr>) -> Result<Message<A>> {
    Ok(Message {
        src: typed(&message.src)?,
        dst: typed(&message.dst)?,
        payload: message.payload,
    })
}

impl<A: Addr, S: Swarm<A>> Swarm<BoxAddr> for Erased<A, S> {
    pass_through!(inner: mtu, close, headroom, visit_counters);

    async fn tell(&self, dst: &BoxAddr, packet: Packet) -> Result<()> {
        self.inner.tell(&typed(dst)?, packet).await
    }

    async fn tell_batch(&self, batch: &mut Vec<(BoxAddr, Packet)>) -> Result<(), BatchError> {
        let count = batch.len();
        let lent = Lent::new(
            batch,
            |(dst, packet)| Ok((typed::<A>(&dst)?, packet)),
            |(dst, packet)| (BoxAddr::new(dst), packet),
        );
        match lent {
            Ok(mut lent) => self.inner.tell_batch(&mut lent.buffer).await,
            Err(first) => Err(BatchError {
                sent: 0,
                refused: count,
                first,
            }),
        }
    }

    async fn receive(&self) -> Result<Message<BoxAddr>> {
        self.inner.receive().await.map(erased_message)
    }

    async fn receive_batch(&self, out: &mut Vec<Message<BoxAddr>>, max: usize) -> Result<usize> {
        let mut lent = Lent::new(out, typed_message::<A>, erased_message)?;
        self.inner.receive_batch(&mut lent.buffer, max).await
    }

    fn local_addrs(&self) -> Vec<BoxAddr> {
        self.inner.local_addrs().into_iter().map(BoxAddr::new).collect()
    }

    fn parse_addr(&self, text: &str) -> Result<BoxAddr> {
        self.inner.parse_addr(text).map(BoxAddr::new)
    }
}

impl<A: Addr, S: AskSwarm<A>> AskSwarm<BoxAddr> for Erased<A, S> {
    async fn ask(&self, dst: &BoxAddr, request: Packet) -> Result<Packet> {
        self.inner.ask(&typed(dst)?, request).await
    }

    async fn receive_ask(&self) -> Result<Request<BoxAddr>> {
        let request = self.inner.receive_ask().await?;
        Ok(request.map_addrs(BoxAddr::new))
    }
}

impl<A: Addr, S: SecureSwarm<A>> SecureSwarm<BoxAddr> for Erased<A, S> {
    pass_through!(inner: PublicKey, public_key);

    async fn lookup_public_key(&self, addr: &BoxAddr) -> Result<S::PublicKey> {
        self.inner.lookup_public_key(&typed(addr)?).await
    }
}
