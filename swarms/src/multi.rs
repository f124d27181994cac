//! Combines several transports into one swarm with addresses of the form `scheme://address`.
//!
//! The scheme selects the transport; the text after the first `://` is an address of that transport. Messages
//! and asks are received from all transports in turn, so that a busy transport does not starve a quiet one,
//! without an additional task or queue. The MTU is the smallest of all transports.
//!
//! A transport that closes by itself does not affect the others: from then on, telling to it fails with
//! [`Error::Unreachable`], and the whole swarm is closed when the last transport is. Other errors of a
//! transport's `receive` are returned to the caller once, and the next call starts with the next transport.
//!
//! Deliberately absent: a choice between transports. The address determines the transport.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::Poll;

use futures_util::future::join_all;
use p2p::{
    Addr, AskSwarm, BatchError, BatchOutcome, BoxAddr, Counters, Error, Headroom, Message, Packet, PeerId,
    Request, Result, SecureSwarm, Swarm,
};

use crate::map::BatchBuffer;

mod mixed;

pub use mixed::MixedSwarm;

/// The separator between scheme and address.
const SEPARATOR: &str = "://";

/// An address with the scheme of its transport.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MultiAddr {
    scheme: Arc<str>,
    addr: BoxAddr,
}

impl MultiAddr {
    /// Creates an address of the transport with the given scheme.
    pub fn new(scheme: impl Into<Arc<str>>, addr: BoxAddr) -> Self {
        Self {
            scheme: scheme.into(),
            addr,
        }
    }

    /// Returns the scheme of the transport.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Returns the address within that transport.
    pub fn addr(&self) -> &BoxAddr {
        &self.addr
    }
}

impl fmt::Display for MultiAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{SEPARATOR}{}", self.scheme, self.addr)
    }
}

impl Addr for MultiAddr {
    fn peer_id(&self) -> Option<PeerId> {
        self.addr.peer_id()
    }

    fn socket_addr(&self) -> Option<std::net::SocketAddr> {
        self.addr.socket_addr()
    }
}

#[derive(Debug)]
struct Transport<T> {
    scheme: Arc<str>,
    swarm: T,
    /// Set once the transport has closed by itself.
    gone: AtomicBool,
    batch_buffer: BatchBuffer<(BoxAddr, Packet)>,
}

impl<T> Transport<T> {
    fn addr(&self, addr: BoxAddr) -> MultiAddr {
        MultiAddr::new(self.scheme.clone(), addr)
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }
}

/// Several transports as one swarm.
///
/// It has asks if `T` has asks, and keys if `T` has keys. [`MixedSwarm`] is a `T` for transports of which
/// only some have asks.
///
/// ```
/// use p2p::{BoxSwarm, Swarm};
/// use p2p_swarms::{EraseSwarm, MemorySwarm, MultiSwarm, UdpSwarm};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// let peer = MemorySwarm::new();
/// let mem = peer.realm().open();
/// let udp = UdpSwarm::bind(([127, 0, 0, 1], 0).into())?;
/// let node = MultiSwarm::new([
///     ("mem", BoxSwarm::new(EraseSwarm::erase(mem))),
///     ("udp", BoxSwarm::new(EraseSwarm::erase(udp))),
/// ])?;
/// let to = node.parse_addr(&format!("mem://{}", peer.local_addr()))?;
/// node.tell(&to, node.packet(b"hello")).await?;
/// assert_eq!(peer.receive().await?.payload, b"hello");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MultiSwarm<T> {
    transports: Box<[Transport<T>]>,
    /// Index of the transport that the next receiving call polls first.
    turn: AtomicUsize,
    closed: AtomicBool,
    counters: Counters,
}

impl<T> MultiSwarm<T> {
    /// Combines `transports`, each under its scheme, in order of preference:
    /// [`local_addrs`](Swarm::local_addrs) keeps the order.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] without any transport, and for a scheme that is empty, contains `://`, or
    /// is used twice.
    pub fn new<N: Into<Arc<str>>>(transports: impl IntoIterator<Item = (N, T)>) -> Result<Self> {
        let mut list: Vec<Transport<T>> = Vec::new();
        for (scheme, swarm) in transports {
            let scheme = scheme.into();
            let wrong = if scheme.is_empty() {
                Some("it is empty".to_owned())
            } else if scheme.contains(SEPARATOR) {
                Some(format!("{scheme:?} contains the separator {SEPARATOR:?}"))
            } else if list.iter().any(|other| other.scheme == scheme) {
                Some(format!("two transports have the scheme {scheme:?}"))
            } else {
                None
            };
            if let Some(reason) = wrong {
                return Err(Error::invalid("scheme", reason));
            }
            list.push(Transport {
                scheme,
                swarm,
                gone: AtomicBool::new(false),
                batch_buffer: BatchBuffer::default(),
            });
        }
        if list.is_empty() {
            return Err(Error::invalid("list of transports", "it is empty"));
        }
        Ok(Self {
            transports: list.into(),
            turn: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            counters: Counters::new("multi"),
        })
    }

    /// Returns the transport of this scheme, if there is one.
    pub fn transport(&self, scheme: &str) -> Option<&T> {
        let transport = self
            .transports
            .iter()
            .find(|transport| &*transport.scheme == scheme);
        transport.map(|transport| &transport.swarm)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Relaxed) || self.transports.iter().all(Transport::is_gone)
    }

    /// Returns the index of the transport for `addr`.
    fn route(&self, addr: &MultiAddr) -> Result<usize> {
        let by_scheme = |transport: &Transport<T>| transport.scheme == addr.scheme;
        match self.transports.iter().position(by_scheme) {
            _ if self.is_closed() => Err(Error::Closed),
            None => Err(Error::unreachable(addr, self.expected_scheme(&addr.scheme))),
            Some(index) if self.transports[index].is_gone() => Err(gone(addr)),
            Some(index) => Ok(index),
        }
    }

    fn expected_scheme(&self, found: &str) -> String {
        let mut known = self.transports.iter().map(|transport| &*transport.scheme);
        let first = known.next().unwrap_or_default().to_owned();
        let known = known.fold(first, |list, scheme| list + ", " + scheme);
        format!("no transport has the scheme {found:?}; known schemes: {known}")
    }

    /// Translates the error of one transport for the whole swarm.
    fn translate(&self, index: usize, dst: &MultiAddr, error: Error) -> Error {
        if !matches!(error, Error::Closed) {
            return error;
        }
        self.transports[index].gone.store(true, Relaxed);
        if self.is_closed() {
            Error::Closed
        } else {
            gone(dst)
        }
    }

    /// Makes the same call to each transport in turn. The first that is ready wins, and the others are
    /// cancelled, which loses nothing.
    async fn first<'a, R, F>(&'a self, call: impl Fn(&'a Transport<T>) -> F) -> Result<(&'a Transport<T>, R)>
    where
        F: Future<Output = Result<R>>,
    {
        let count = self.transports.len();
        let turn = self.turn.load(Relaxed);
        // Calls are created lazily: if the first is ready, no other call is made.
        let mut ahead = (turn..turn + count)
            .map(|index| index % count)
            .filter(|index| !self.transports[*index].is_gone());
        let mut waiting: Vec<(usize, Pin<Box<F>>)> = Vec::new();
        poll_fn(|cx| {
            let mut at = 0;
            loop {
                if at == waiting.len() {
                    let Some(index) = ahead.next() else { break };
                    waiting.push((index, Box::pin(call(&self.transports[index]))));
                }
                let (index, future) = &mut waiting[at];
                let index = *index;
                match future.as_mut().poll(cx) {
                    Poll::Pending => at += 1,
                    Poll::Ready(Err(Error::Closed)) => {
                        self.transports[index].gone.store(true, Relaxed);
                        drop(waiting.swap_remove(at));
                    }
                    Poll::Ready(result) => {
                        self.turn.store((index + 1) % count, Relaxed);
                        return Poll::Ready(result.map(|found| (&self.transports[index], found)));
                    }
                }
            }
            if waiting.is_empty() {
                Poll::Ready(Err(Error::Closed))
            } else {
                Poll::Pending
            }
        })
        .await
    }
}

fn gone(addr: &MultiAddr) -> Error {
    Error::unreachable(addr, "the transport of this scheme is closed")
}

impl<T: Swarm<BoxAddr>> Swarm<MultiAddr> for MultiSwarm<T> {
    fn mtu(&self) -> usize {
        let all = self.transports.iter().map(|transport| transport.swarm.mtu());
        all.min().unwrap_or(0)
    }

    fn headroom(&self) -> Headroom {
        let all = self.transports.iter().map(|transport| transport.swarm.headroom());
        all.fold(Headroom::default(), |most, room| {
            Headroom::new(most.front.max(room.front), most.back.max(room.back))
        })
    }

    fn local_addrs(&self) -> Vec<MultiAddr> {
        let addrs = |transport: &'_ Transport<T>| {
            let addrs = transport.swarm.local_addrs().into_iter();
            addrs.map(|addr| transport.addr(addr)).collect::<Vec<_>>()
        };
        self.transports.iter().flat_map(addrs).collect()
    }

    fn parse_addr(&self, text: &str) -> Result<MultiAddr> {
        let Some((scheme, rest)) = text.split_once(SEPARATOR) else {
            return Err(Error::addr(
                text,
                text.len(),
                format!("expected a scheme and {SEPARATOR:?} first"),
            ));
        };
        let by_scheme = |transport: &&Transport<T>| &*transport.scheme == scheme;
        let Some(transport) = self.transports.iter().find(by_scheme) else {
            return Err(Error::addr(text, 0, self.expected_scheme(scheme)));
        };
        match transport.swarm.parse_addr(rest) {
            Ok(addr) => Ok(transport.addr(addr)),
            Err(Error::InvalidAddr { at, reason, .. }) => {
                Err(Error::addr(text, scheme.len() + SEPARATOR.len() + at, reason))
            }
            Err(error) => Err(error),
        }
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.counters);
        for transport in &self.transports {
            transport.swarm.visit_counters(visit);
        }
    }

    async fn close(&self) {
        self.closed.store(true, Relaxed);
        join_all(self.transports.iter().map(|transport| transport.swarm.close())).await;
    }

    async fn tell(&self, dst: &MultiAddr, packet: Packet) -> Result<()> {
        let index = self.route(dst)?;
        packet.check_mtu(self.mtu())?;
        let result = self.transports[index].swarm.tell(&dst.addr, packet).await;
        result.map_err(|error| self.translate(index, dst, error))?;
        self.counters.add_sent(1);
        Ok(())
    }

    async fn tell_batch(&self, batch: &mut Vec<(MultiAddr, Packet)>) -> Result<(), BatchError> {
        let mtu = self.mtu();
        let mut outcome = BatchOutcome::default();
        let take = |transport: &Transport<T>| transport.batch_buffer.take();
        let mut batches: Vec<_> = self.transports.iter().map(take).collect();
        for (dst, packet) in batch.drain(..) {
            match packet.check_mtu(mtu).and_then(|()| self.route(&dst)) {
                Ok(index) => batches[index].push((dst.addr, packet)),
                Err(error) => outcome.add_refused(1, error),
            }
        }
        for (index, mut part) in batches.into_iter().enumerate() {
            let transport = &self.transports[index];
            let count = part.len();
            if let Some(dst) = part.first().map(|(dst, _)| dst.clone()) {
                let mut result = transport.swarm.tell_batch(&mut part).await;
                if let Err(error) = &mut result {
                    let first = std::mem::replace(&mut error.first, Error::Closed);
                    error.first = self.translate(index, &transport.addr(dst), first);
                }
                self.counters
                    .add_sent(result.as_ref().map_or_else(|error| error.sent, |()| count));
                outcome.record_batch(count, result);
            }
            transport.batch_buffer.give(part);
        }
        outcome.finish()
    }

    async fn receive(&self) -> Result<Message<MultiAddr>> {
        let (from, message) = self.first(|transport| transport.swarm.receive()).await?;
        self.counters.add_received(1);
        self.counters.add_delivered(1);
        Ok(message.map_addrs(|addr| from.addr(addr)))
    }

    async fn receive_batch(&self, out: &mut Vec<Message<MultiAddr>>, max: usize) -> Result<usize> {
        let call = async |transport: &Transport<T>| {
            let mut messages = Vec::new();
            transport.swarm.receive_batch(&mut messages, max).await?;
            Ok(messages)
        };
        if max == 0 {
            return Ok(0);
        }
        let (from, messages) = self.first(call).await?;
        let count = messages.len();
        self.counters.add_received(count);
        self.counters.add_delivered(count);
        out.extend(
            messages
                .into_iter()
                .map(|message| message.map_addrs(|addr| from.addr(addr))),
        );
        Ok(count)
    }
}

impl<T: AskSwarm<BoxAddr>> AskSwarm<MultiAddr> for MultiSwarm<T> {
    async fn ask(&self, dst: &MultiAddr, request: Packet) -> Result<Packet> {
        let index = self.route(dst)?;
        request.check_mtu(self.mtu())?;
        let result = self.transports[index].swarm.ask(&dst.addr, request).await;
        result.map_err(|error| self.translate(index, dst, error))
    }

    async fn receive_ask(&self) -> Result<Request<MultiAddr>> {
        let (from, request) = self.first(|transport| transport.swarm.receive_ask()).await?;
        // A transport with a larger MTU would accept a longer response than the others.
        Ok(request
            .map_addrs(|addr| from.addr(addr))
            .limit_response(self.mtu()))
    }
}

/// Required of the caller: all transports use the same key. [`public_key`](SecureSwarm::public_key) returns
/// that of the first transport.
impl<T: SecureSwarm<BoxAddr>> SecureSwarm<MultiAddr> for MultiSwarm<T> {
    type PublicKey = T::PublicKey;

    fn public_key(&self) -> T::PublicKey {
        self.transports[0].swarm.public_key()
    }

    async fn lookup_public_key(&self, addr: &MultiAddr) -> Result<T::PublicKey> {
        let index = self.route(addr)?;
        let result = self.transports[index].swarm.lookup_public_key(&addr.addr).await;
        result.map_err(|error| self.translate(index, addr, error))
    }
}
