//! Presents a swarm under other addresses.
//!
//! A translation works in both directions: down for destinations, where it may fail with a typed error, and
//! up for the addresses of received messages, where a message without a translation is counted and dropped.
//! Payloads, asks and keys pass unchanged, and batches stay batches. [`Erase`] is the translation to
//! [`BoxAddr`], which lets swarms of different kinds be used together.
//!
//! Deliberately absent: a table. A translation that must remember addresses keeps its own table, with its own
//! bound.

use std::fmt;
use std::marker::PhantomData;

use p2p::{
    Addr, AskSwarm, BatchError, BatchOutcome, BoxAddr, Counters, DropReason, Error, Message, Packet,
    Rejection, Request, Result, SecureSwarm, Swarm, pass_through,
};
use parking_lot::Mutex;

/// Translates between the addresses `A` that a [`MapSwarm`] presents and the addresses `B` of the swarm
/// below.
///
/// A pair of functions `(down, up)` is a translation. Both directions must agree: `up(down(a))` is `a`.
pub trait Translate<A, B>: Send + Sync + 'static {
    /// Whether [`up`](Self::up) translates every address. A layer that cannot drop anything shows no
    /// counters.
    const TOTAL: bool = false;

    /// Returns the address of the swarm below that `addr` stands for.
    ///
    /// # Errors
    /// Returns the error that the caller of `tell` or `ask` receives if there is no such address; nothing was
    /// sent.
    fn down(&self, addr: &A) -> Result<B>;

    /// Returns the address that stands for `addr`; with `None`, the message that carries it is dropped.
    fn up(&self, addr: B) -> Option<A>;

    /// Parses an address from `text`; `below` parses addresses of the swarm below.
    ///
    /// The default implementation accepts the texts of the swarm below, which is correct only if both address
    /// types have the same `Display`.
    ///
    /// # Errors
    /// Returns [`Error::InvalidAddr`] with the byte position of the first invalid part of `text`.
    fn parse(&self, text: &str, below: impl Fn(&str) -> Result<B>) -> Result<A> {
        self.up(below(text)?)
            .ok_or_else(|| Error::addr(text, 0, "this address has no translation"))
    }
}

impl<A, B, D, U> Translate<A, B> for (D, U)
where
    D: Fn(&A) -> Result<B> + Send + Sync + 'static,
    U: Fn(B) -> Option<A> + Send + Sync + 'static,
{
    fn down(&self, addr: &A) -> Result<B> {
        (self.0)(addr)
    }

    fn up(&self, addr: B) -> Option<A> {
        (self.1)(addr)
    }
}

/// A translation that hides the type of every address.
#[derive(Clone, Copy, Debug, Default)]
pub struct Erase;

impl<A: Addr> Translate<BoxAddr, A> for Erase {
    const TOTAL: bool = true;

    fn down(&self, addr: &BoxAddr) -> Result<A> {
        addr.downcast_ref().cloned().ok_or_else(|| {
            Error::addr(
                &addr.to_string(),
                0,
                "the address belongs to another kind of swarm: parse its text with this swarm",
            )
        })
    }

    fn up(&self, addr: A) -> Option<BoxAddr> {
        Some(BoxAddr::new(addr))
    }
}

/// A swarm whose address type is erased to [`BoxAddr`].
///
/// ```
/// use p2p::{BoxAddr, Swarm};
/// use p2p_swarms::{EraseSwarm, MemorySwarm};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// let alice = MemorySwarm::new();
/// let bob = EraseSwarm::erase(alice.realm().open());
/// let to: BoxAddr = bob.parse_addr(&alice.local_addr().to_string())?;
/// bob.tell(&to, bob.packet(b"hello")).await?;
/// assert_eq!(alice.receive().await?.payload, b"hello");
/// # Ok(())
/// # }
/// ```
pub type EraseSwarm<A, S> = MapSwarm<BoxAddr, A, S, Erase>;

/// A layer that presents the swarm `S`, with addresses `B`, under the addresses `A`.
///
/// ```
/// use std::net::SocketAddr;
///
/// use p2p::{Error, Result, Swarm};
/// use p2p_swarms::{MapSwarm, MemoryAddr, UdpSwarm};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// // Addresses are numbers, which stand for ports of the loopback address.
/// let down = |addr: &MemoryAddr| -> Result<SocketAddr> {
///     let port = u16::try_from(addr.number());
///     let port = port.map_err(|_| Error::unreachable(addr, "ports have 16 bits"))?;
///     Ok(([127, 0, 0, 1], port).into())
/// };
/// let up = |addr: SocketAddr| -> Option<MemoryAddr> { Some(MemoryAddr::new(addr.port().into())) };
/// let node = || -> Result<_> {
///     let udp = UdpSwarm::bind(([127, 0, 0, 1], 0).into())?;
///     Ok(MapSwarm::<MemoryAddr, SocketAddr, _, _>::new(udp, (down, up)))
/// };
/// let (alice, bob) = (node()?, node()?);
/// let to: MemoryAddr = bob.local_addrs()[0];
/// alice.tell(&to, alice.packet(b"hello")).await?;
/// assert_eq!(bob.receive().await?.src, alice.local_addrs()[0]);
/// # Ok(())
/// # }
/// ```
pub struct MapSwarm<A, B, S, T> {
    inner: S,
    translate: T,
    counters: Counters,
    batch_buffer: BatchBuffer<(B, Packet)>,
    receive_buffer: BatchBuffer<Message<B>>,
    addrs: PhantomData<fn() -> A>,
}

impl<A, B, S, T> MapSwarm<A, B, S, T> {
    /// Creates a layer that presents `inner` under the addresses of `translate`.
    pub fn new(inner: S, translate: T) -> Self {
        Self {
            inner,
            translate,
            counters: Counters::new("map"),
            batch_buffer: BatchBuffer::default(),
            receive_buffer: BatchBuffer::default(),
            addrs: PhantomData,
        }
    }

    /// Returns the swarm below.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl<A: Addr, S: Swarm<A>> EraseSwarm<A, S> {
    /// Hides the address type of `inner`.
    pub fn erase(inner: S) -> Self {
        Self::new(inner, Erase)
    }
}

impl<A: Addr, B: Addr, S, T: Translate<A, B>> MapSwarm<A, B, S, T> {
    /// Translates source and destination of a received message; counts addresses without a translation.
    fn up(&self, src: B, dst: B) -> Option<(A, A)> {
        let up = |addr: B| {
            // Only a translation that can fail needs a copy for the trace event.
            let shown = (!T::TOTAL).then(|| addr.clone());
            let translated = self.translate.up(addr);
            if let (None, Some(addr)) = (&translated, &shown) {
                self.counters.add_dropped_from(DropReason::NoAddr, addr);
            }
            translated
        };
        Some((up(src)?, up(dst)?))
    }

    fn message(&self, message: Message<B>) -> Option<Message<A>> {
        self.counters.add_received(1);
        let (src, dst) = self.up(message.src, message.dst)?;
        self.counters.add_delivered(1);
        Some(Message {
            src,
            dst,
            payload: message.payload,
        })
    }
}

impl<A: Addr, B: Addr, S: Swarm<B>, T: Translate<A, B>> Swarm<A> for MapSwarm<A, B, S, T> {
    pass_through!(inner: mtu, headroom, close);

    fn local_addrs(&self) -> Vec<A> {
        let below = self.inner.local_addrs().into_iter();
        below.filter_map(|addr| self.translate.up(addr)).collect()
    }

    fn parse_addr(&self, text: &str) -> Result<A> {
        self.translate.parse(text, |text| self.inner.parse_addr(text))
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        if !T::TOTAL {
            visit(&self.counters);
        }
        self.inner.visit_counters(visit);
    }

    async fn tell(&self, dst: &A, packet: Packet) -> Result<()> {
        let dst = self.translate.down(dst)?;
        self.inner.tell(&dst, packet).await?;
        self.counters.add_sent(1);
        Ok(())
    }

    async fn tell_batch(&self, batch: &mut Vec<(A, Packet)>) -> Result<(), BatchError> {
        let mut outcome = BatchOutcome::default();
        let mut below = self.batch_buffer.take();
        for (dst, packet) in batch.drain(..) {
            match self.translate.down(&dst) {
                Ok(dst) => below.push((dst, packet)),
                Err(error) => outcome.add_refused(1, error),
            }
        }
        self.counters
            .add_sent(outcome.tell(&self.inner, &mut below).await);
        self.batch_buffer.give(below);
        outcome.finish()
    }

    async fn receive(&self) -> Result<Message<A>> {
        loop {
            let message = self.inner.receive().await?;
            if let Some(message) = self.message(message) {
                return Ok(message);
            }
        }
    }

    async fn receive_batch(&self, out: &mut Vec<Message<A>>, max: usize) -> Result<usize> {
        let before = out.len();
        let mut below = self.receive_buffer.take();
        let result = loop {
            match self.inner.receive_batch(&mut below, max).await {
                Ok(0) => break Ok(0),
                Ok(_) => out.extend(below.drain(..).filter_map(|message| self.message(message))),
                Err(error) => break Err(error),
            }
            if out.len() > before {
                break Ok(out.len() - before);
            }
        };
        self.receive_buffer.give(below);
        result
    }
}

impl<A: Addr, B: Addr, S: AskSwarm<B>, T: Translate<A, B>> AskSwarm<A> for MapSwarm<A, B, S, T> {
    async fn ask(&self, dst: &A, request: Packet) -> Result<Packet> {
        let dst = self.translate.down(dst)?;
        self.inner.ask(&dst, request).await
    }

    async fn receive_ask(&self) -> Result<Request<A>> {
        loop {
            let Request { message, responder } = self.inner.receive_ask().await?;
            let Message { src, dst, payload } = message;
            let Some((src, dst)) = self.up(src, dst) else {
                responder.reject(Rejection::DROPPED);
                continue;
            };
            let message = Message { src, dst, payload };
            return Ok(Request { message, responder });
        }
    }
}

impl<A: Addr, B: Addr, S: SecureSwarm<B>, T: Translate<A, B>> SecureSwarm<A> for MapSwarm<A, B, S, T> {
    pass_through!(inner: PublicKey, public_key);

    async fn lookup_public_key(&self, addr: &A) -> Result<S::PublicKey> {
        let addr = self.translate.down(addr)?;
        self.inner.lookup_public_key(&addr).await
    }
}

impl<A, B, S: fmt::Debug, T> fmt::Debug for MapSwarm<A, B, S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("MapSwarm");
        shown.field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// A buffer that is kept between batches, so that a batch in steady state does not allocate.
///
/// One buffer of at most [`KEPT`](Self::KEPT) items is kept; concurrent calls allocate their own.
#[derive(Debug)]
pub(crate) struct BatchBuffer<X>(Mutex<Vec<X>>);

impl<X> Default for BatchBuffer<X> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<X> BatchBuffer<X> {
    /// Maximum capacity of the kept buffer, in items.
    const KEPT: usize = 1024;

    /// Takes the kept buffer, or creates an empty one.
    pub(crate) fn take(&self) -> Vec<X> {
        match self.0.try_lock() {
            Some(mut batch_buffer) => std::mem::take(&mut batch_buffer),
            None => Vec::new(),
        }
    }

    /// Returns a buffer; its contents are dropped.
    pub(crate) fn give(&self, mut buffer: Vec<X>) {
        buffer.clear();
        if buffer.capacity() <= Self::KEPT {
            *self.0.lock() = buffer;
        }
    }
}
