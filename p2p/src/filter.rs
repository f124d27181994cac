//! A layer that checks messages or adds a header: an implementation states two functions, and [`FilterSwarm`] makes tells,
//! batches, asks, keys and counters of them.

use std::fmt;
use std::marker::PhantomData;

use crate::{
    Addr, AskSwarm, BatchError, BatchOutcome, Counters, DropReason, Headroom, Message, Packet, Rejection,
    Request, Result, SecureSwarm, Swarm, pass_through,
};

/// Changes or refuses the messages and requests of a [`FilterSwarm`], one at a time and without waiting.
///
/// ```
/// use p2p::{Addr, Filter, Headroom, Packet, DropReason, Result};
///
/// /// Lets only messages that carry this network's tag through.
/// struct Tag([u8; 4]);
///
/// impl<A: Addr> Filter<A> for Tag {
///     const LAYER: &'static str = "tag";
///
///     fn overhead(&self) -> Headroom {
///         Headroom::new(4, 0)
///     }
///
///     fn outgoing(&self, _to: &A, packet: &mut Packet) -> Result<()> {
///         packet.push_front(&self.0);
///         Ok(())
///     }
///
///     fn incoming(&self, _from: &A, packet: &mut Packet) -> Result<(), DropReason> {
///         if packet.pop_front() == Some(self.0) { Ok(()) } else { Err(DropReason::Malformed) }
///     }
/// }
/// ```
pub trait Filter<A: Addr>: Send + Sync + 'static {
    /// The name of the layer in counters.
    const LAYER: &'static str;

    /// Returns the bytes that [`outgoing`](Self::outgoing) adds at most, in front and behind. Never changes.
    fn overhead(&self) -> Headroom {
        Headroom::default()
    }

    /// Processes a message or a request on its way down. Its payload is at most [`FilterSwarm::mtu`](Swarm::mtu) bytes long.
    ///
    /// # Errors
    /// Any error refuses the message: it does not leave, and the caller gets the error.
    fn outgoing(&self, to: &A, packet: &mut Packet) -> Result<()>;

    /// Processes a message or a request on its way up.
    ///
    /// # Errors
    /// The reason for which the message is dropped and counted. A request is rejected with
    /// [`rejection`](Self::rejection).
    fn incoming(&self, from: &A, packet: &mut Packet) -> Result<(), DropReason>;

    /// Returns what the asker is told about a request that [`incoming`](Self::incoming) dropped for `reason`.
    fn rejection(&self, reason: DropReason) -> Rejection {
        match reason {
            DropReason::Denied => Rejection::DENIED,
            _ => Rejection::NO_CHANNEL,
        }
    }

    /// Checks whether the public key of `addr` may be looked up.
    ///
    /// # Errors
    /// Any error refuses the lookup.
    fn lookup(&self, addr: &A) -> Result<()> {
        let _ = addr;
        Ok(())
    }
}

/// A swarm whose every message and request passes the filter `F`, in both directions.
///
/// The MTU is the one below less [`Filter::overhead`]. Responses to asks pass unfiltered: the request's way back states
/// where they belong. Has asks and keys where the swarm below has them.
///
/// ```
/// # use p2p::{Addr, Filter, FilterSwarm, Packet, DropReason, Result, Swarm};
/// # struct Even;
/// # impl<A: Addr> Filter<A> for Even {
/// #     const LAYER: &'static str = "even";
/// #     fn outgoing(&self, _: &A, _: &mut Packet) -> Result<()> { Ok(()) }
/// #     fn incoming(&self, _: &A, packet: &mut Packet) -> Result<(), DropReason> {
/// #         if packet.len() % 2 == 0 { Ok(()) } else { Err(DropReason::Malformed) }
/// #     }
/// # }
/// # async fn example<A: Addr>(inner: impl Swarm<A>) -> Result<()> {
/// let swarm = FilterSwarm::new(inner, Even);
/// let message = swarm.receive().await?; // of an even length
/// # Ok(()) }
/// ```
pub struct FilterSwarm<A, S, F> {
    inner: S,
    filter: F,
    counters: Counters,
    addr: PhantomData<fn() -> A>,
}

impl<A: Addr, S, F: Filter<A>> FilterSwarm<A, S, F> {
    /// Makes every message and request of `inner` pass `filter`.
    pub fn new(inner: S, filter: F) -> Self {
        Self {
            inner,
            filter,
            counters: Counters::new(F::LAYER),
            addr: PhantomData,
        }
    }

    /// Processes a message on its way up and counts the outcome.
    fn accept(&self, message: &mut Message<A>) -> bool {
        match self.filter.incoming(&message.src, &mut message.payload) {
            Ok(()) => true,
            Err(reason) => {
                self.counters.add_dropped_from(reason, &message.src);
                false
            }
        }
    }
}

impl<A, S, F> FilterSwarm<A, S, F> {
    /// Returns the swarm below.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Returns the filter.
    pub fn filter(&self) -> &F {
        &self.filter
    }
}

impl<A: Addr, S: Swarm<A>, F: Filter<A>> FilterSwarm<A, S, F> {
    /// Processes a packet on its way down.
    fn pass(&self, mtu: usize, to: &A, packet: &mut Packet) -> Result<()> {
        packet.check_mtu(mtu)?;
        self.filter.outgoing(to, packet)
    }
}

impl<A: Addr, S: Swarm<A>, F: Filter<A>> Swarm<A> for FilterSwarm<A, S, F> {
    pass_through!(inner: local_addrs, parse_addr, close);

    fn mtu(&self) -> usize {
        let overhead = self.filter.overhead();
        self.inner.mtu().saturating_sub(overhead.front + overhead.back)
    }

    fn headroom(&self) -> Headroom {
        self.filter.overhead().plus(self.inner.headroom())
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.counters);
        self.inner.visit_counters(visit);
    }

    async fn tell(&self, dst: &A, mut packet: Packet) -> Result<()> {
        self.pass(self.mtu(), dst, &mut packet)?;
        self.inner.tell(dst, packet).await?;
        self.counters.add_sent(1);
        Ok(())
    }

    async fn tell_batch(&self, batch: &mut Vec<(A, Packet)>) -> Result<(), BatchError> {
        let mtu = self.mtu();
        let mut outcome = BatchOutcome::default();
        batch.retain_mut(|(dst, packet)| outcome.keep(self.pass(mtu, dst, packet)));
        let sent = outcome.tell(&self.inner, batch).await;
        self.counters.add_sent(sent);
        outcome.finish()
    }

    async fn receive(&self) -> Result<Message<A>> {
        loop {
            let mut message = self.inner.receive().await?;
            self.counters.add_received(1);
            if self.accept(&mut message) {
                self.counters.add_delivered(1);
                return Ok(message);
            }
        }
    }

    async fn receive_batch(&self, out: &mut Vec<Message<A>>, max: usize) -> Result<usize> {
        let before = out.len();
        loop {
            let arrived = self.inner.receive_batch(out, max).await?;
            if arrived == 0 {
                return Ok(0);
            }
            self.counters.add_received(arrived);
            let mut index = 0;
            out.retain_mut(|message| {
                index += 1;
                index <= before || self.accept(message)
            });
            let kept = out.len() - before;
            self.counters.add_delivered(kept);
            if kept > 0 {
                return Ok(kept);
            }
        }
    }
}

impl<A: Addr, S: AskSwarm<A>, F: Filter<A>> AskSwarm<A> for FilterSwarm<A, S, F> {
    async fn ask(&self, dst: &A, mut request: Packet) -> Result<Packet> {
        self.pass(self.mtu(), dst, &mut request)?;
        self.inner.ask(dst, request).await
    }

    async fn receive_ask(&self) -> Result<Request<A>> {
        loop {
            let mut request = self.inner.receive_ask().await?;
            match self
                .filter
                .incoming(&request.message.src, &mut request.message.payload)
            {
                Ok(()) => return Ok(request.limit_response(self.mtu())),
                Err(reason) => {
                    self.counters.add_dropped_from(reason, &request.message.src);
                    request.reject(self.filter.rejection(reason));
                }
            }
        }
    }
}

impl<A: Addr, S: SecureSwarm<A>, F: Filter<A>> SecureSwarm<A> for FilterSwarm<A, S, F> {
    pass_through!(inner: PublicKey, public_key);

    async fn lookup_public_key(&self, addr: &A) -> Result<S::PublicKey> {
        self.filter.lookup(addr)?;
        self.inner.lookup_public_key(addr).await
    }
}

impl<A, S: fmt::Debug, F> fmt::Debug for FilterSwarm<A, S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilterSwarm")
            .field("layer", &self.counters.layer())
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
