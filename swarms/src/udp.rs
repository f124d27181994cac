//! UDP with batching: messages sent together leave as one segmented send (GSO), and received datagrams are
//! read many at a time (GRO).
//!
//! A task that calls `receive` reads the socket, takes the messages that it wants, and leaves the rest of the
//! read to the next caller.
//!
//! Deliberately absent: a background task, retransmission, ordering, and IP fragmentation (datagrams have the
//! don't-fragment bit set).
//!
//! # Limits
//! The kernel buffers [`receive_buffer`](UdpConfig::receive_buffer) bytes for slow readers and drops what
//! exceeds it. It does not report such drops, so they are missing from the counters. Messages that were read
//! wait for the next caller in at most [`read_buffers`](UdpConfig::read_buffers) × 64 KiB.
//!
//! # Security
//! Source addresses can be forged, and payloads are neither encrypted nor authenticated: put
//! [`p2pke`](crate::SwarmExt::p2pke) or [`quic`](crate::SwarmExt::quic) above where that matters.
//!
//! # Cancel safety
//! Cancelling `receive` loses no message. A cancelled `tell` either sent its message or did not; it is never
//! sent later.

mod addr;
mod combine;
mod config;
mod gather;
mod inbound;
mod outbound;
mod socket;
mod socket_waker;

use std::future::poll_fn;
use std::io::{self, ErrorKind::WouldBlock};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use p2p::{BatchError, BatchOutcome, Counters, DropReason, Error, Message, Packet, Result, Swarm};
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::io::Interest;
use tokio::task::coop;

pub(crate) use self::addr::{Local, canonical};
pub use self::addr::{has_zone, parse as parse_addr};
use self::combine::{Combine, Standing};
pub use self::config::UdpConfig;
use self::inbound::Inbound;
use self::outbound::{Outbound, Outgoing, admit};
pub(crate) use self::socket::Reach;
use self::socket::{Socket, refusal};
use self::socket_waker::{SocketWait, SocketWaker};

/// A node on UDP; see the [module](self).
///
/// A message goes to one node: multicast, broadcast and unspecified destinations, and port 0, fail with
/// [`Error::Unreachable`], as do destinations that the network refuses. Messages longer than
/// [`mtu`](Swarm::mtu) are still received from peers with a larger MTU, up to 65,507 bytes.
///
/// ```
/// use p2p::Swarm;
/// use p2p_swarms::UdpSwarm;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// let alice = UdpSwarm::bind(([127, 0, 0, 1], 0).into())?;
/// let bob = UdpSwarm::bind(([127, 0, 0, 1], 0).into())?;
/// alice.tell(&bob.local_addrs()[0], alice.packet(b"hello")).await?;
/// assert_eq!(bob.receive().await?.payload, b"hello");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct UdpSwarm {
    /// Taken by `close`, which frees the port. Locked only for the duration of a socket call.
    socket: RwLock<Option<Socket>>,
    local: Local,
    reach: Reach,
    config: UdpConfig,
    counters: Counters,
    inbound: Mutex<Inbound>,
    readers: Arc<SocketWaker>,
    outbound: Outbound,
    combine: Combine,
    writers: Arc<SocketWaker>,
}

impl UdpSwarm {
    /// Binds `addr` with the default limits. `0.0.0.0` binds every IPv4 address of the host, `[::]` every
    /// address of both families, and port 0 a free port.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the operating system refuses, and [`Error::Invalid`] outside of a tokio
    /// runtime with I/O.
    pub fn bind(addr: SocketAddr) -> Result<Self> {
        Self::with_config(addr, UdpConfig::default())
    }

    /// Binds `addr` with the limits of `config`.
    ///
    /// # Errors
    /// Returns the errors of [`bind`](Self::bind), and [`Error::Invalid`] for a limit that is out of range.
    pub fn with_config(addr: SocketAddr, config: UdpConfig) -> Result<Self> {
        config.check()?;
        let socket = Socket::bind(addr, &config)?;
        let bound = socket
            .io
            .local_addr()
            .map_err(Error::io("reading the bound address"))?;
        Ok(Self {
            local: Local::new(bound),
            reach: Reach::of(bound),
            counters: Counters::new("udp"),
            inbound: Mutex::new(Inbound::new(config.read_buffers)),
            readers: Arc::default(),
            outbound: Outbound::new(&socket, config.segmentation),
            combine: Combine::new(),
            writers: Arc::default(),
            socket: RwLock::new(Some(socket)),
            config,
        })
    }

    /// Calls `call` with the socket, unless it is closed.
    fn with_socket<T>(&self, call: impl FnOnce(&Socket) -> T) -> Result<T> {
        let socket = self.socket.read();
        match &*socket {
            Some(socket) => Ok(call(socket)),
            None => Err(Error::Closed),
        }
    }

    fn is_closed(&self) -> bool {
        self.socket.read().is_none()
    }

    fn inbound(&self) -> MutexGuard<'_, Inbound> {
        self.inbound.lock()
    }

    /// Waits for messages and passes them to `take`, which must take at least one.
    fn poll_inbound<T>(
        &self,
        cx: &mut Context<'_>,
        waiter: &mut SocketWait<'_>,
        take: impl FnOnce(&mut Inbound) -> T,
    ) -> Poll<Result<T>> {
        let progress = ready!(coop::poll_proceed(cx));
        let mut inbound = self.inbound();
        let mut failures = 0;
        while inbound.waiting() == 0 {
            let read = self.with_socket(|socket| {
                let mut emptied = false;
                let read = || {
                    emptied = inbound.read(socket, &self.local, &self.counters)?;
                    // Reported to tokio as well, so that the next call need not ask the kernel again.
                    if emptied { Err(WouldBlock.into()) } else { Ok(()) }
                };
                match socket.io.try_io(Interest::READABLE, read) {
                    Err(_) if emptied => Poll::Ready(Ok(())),
                    Err(error) if error.kind() == WouldBlock => {
                        waiter.register(cx.waker());
                        let waker = Waker::from(self.readers.clone());
                        socket.io.poll_recv_ready(&mut Context::from_waker(&waker))
                    }
                    read => Poll::Ready(read),
                }
            })?;
            if let Err(error) = ready!(read) {
                // A socket error here belongs to an earlier send, or is a temporary shortage of resources.
                tracing::debug!(layer = "udp", %error, "reading failed");
                failures += 1;
                if failures == MAX_FAILURES {
                    return Poll::Ready(Err(Error::io("reading a datagram")(error)));
                }
            }
        }
        // A message received before `close` must not be returned after it.
        if self.is_closed() {
            return Poll::Ready(Err(Error::Closed));
        }
        progress.made_progress();
        let taken = take(&mut inbound);
        drop(inbound);
        // More messages may be available for other readers, here or in the socket; see `SocketWaker`.
        self.readers.wake_one();
        Poll::Ready(Ok(taken))
    }

    /// Waits until the socket is writable.
    async fn writable(&self) -> Result<()> {
        let mut waiter = SocketWait::new(&self.writers);
        poll_fn(|cx| match self.poll_writable(cx, &mut waiter) {
            Ok(ready) => ready,
            Err(error) => Poll::Ready(Err(error)),
        })
        .await
    }

    fn poll_writable(&self, cx: &Context<'_>, waiter: &mut SocketWait<'_>) -> Result<Poll<Result<()>>> {
        self.with_socket(|socket| {
            waiter.register(cx.waker());
            let waker = Waker::from(self.writers.clone());
            let ready = socket.io.poll_send_ready(&mut Context::from_waker(&waker));
            ready.map_err(Error::io("waiting to send"))
        })
    }

    /// Sends one message without combining it with others.
    async fn send_alone(&self, dst: SocketAddr, packet: Packet) -> Result<()> {
        loop {
            let sent: io::Result<()> = self.with_socket(|socket| Outbound::send_one(socket, dst, &packet))?;
            match sent {
                Ok(()) => {
                    self.counters.add_sent(1);
                    return Ok(());
                }
                Err(error) if error.kind() == WouldBlock => self.writable().await?,
                Err(error) => return Err(refusal(error, &dst, packet.len())),
            }
        }
    }

    /// Sends one message together with those that are told at the same time.
    async fn send_combined(&self, message: Outgoing) -> Result<()> {
        let mut tell = CombinedTell {
            swarm: self,
            waiter: SocketWait::new(&self.writers),
            ticket: None,
        };
        let mut message = Some(message);
        poll_fn(|cx| tell.poll(cx, &mut message)).await
    }

    /// Sends the queued messages; returns true if the socket is not writable any more.
    fn flush(&self, flush: combine::Flush) -> Result<bool> {
        let (mut at, mut failed) = (0, Vec::new());
        let sent = self.with_socket(|socket| {
            self.outbound.send(socket, &flush.batch, 0, |count, result| {
                match result {
                    Ok(()) => self.counters.add_sent(count),
                    Err(error) => failed.push((at, error)),
                }
                at += count;
            })
        });
        let (all, progress) = (flush.batch.len(), *sent.as_ref().unwrap_or(&0));
        self.combine.finish(flush, progress, failed);
        // Without progress, the socket wakes one waiter when it is writable. Waking all of them here would
        // make them try in turn and wake each other for as long as it is not.
        if progress > 0 || sent.is_err() {
            self.writers.wake_all();
        }
        sent.map(|sent| sent < all)
    }
}

/// Consecutive read errors of the socket before `receive` returns an error.
const MAX_FAILURES: usize = 16;

/// A tell that is combined with others. Dropping it withdraws the message, if it was not sent yet.
struct CombinedTell<'a> {
    swarm: &'a UdpSwarm,
    waiter: SocketWait<'a>,
    ticket: Option<u64>,
}

impl CombinedTell<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, message: &mut Option<Outgoing>) -> Poll<Result<()>> {
        loop {
            if self.swarm.is_closed() {
                return Poll::Ready(Err(Error::Closed));
            }
            let mut queue = self.swarm.combine.lock();
            let standing = self.ticket.map(|ticket| queue.standing(ticket));
            let flush = match standing {
                Some(Standing::Done(result)) => {
                    self.ticket = None;
                    return Poll::Ready(result);
                }
                None if queue.len() < self.swarm.config.combine => {
                    self.ticket = message.take().map(|message| queue.join(message));
                    // Other tasks join meanwhile.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Standing::Sending) => None,
                Some(Standing::Waiting) | None => queue.flush(),
            };
            let Some(flush) = flush else {
                // Another thread is sending, and wakes all waiters when it is done.
                self.waiter.register(cx.waker());
                return Poll::Pending;
            };
            drop(queue);
            if self.swarm.flush(flush)? {
                let ready = self.swarm.poll_writable(cx, &mut self.waiter)?;
                ready!(ready)?;
            }
        }
    }
}

impl Drop for CombinedTell<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.swarm.combine.lock().forget(ticket);
        }
    }
}

impl Swarm<SocketAddr> for UdpSwarm {
    async fn tell(&self, dst: &SocketAddr, packet: Packet) -> Result<()> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        packet.check_mtu(self.config.mtu)?;
        let to = self.reach.check(dst)?;
        coop::consume_budget().await;
        if self.combine.goes_alone() {
            self.send_alone(to, packet).await
        } else {
            self.send_combined((to, packet)).await
        }
    }

    async fn tell_batch(&self, batch: &mut Vec<Outgoing>) -> Result<(), BatchError> {
        // Taken out, so that a cancelled call does not leave messages behind that were sent already.
        let mut taken = std::mem::take(batch);
        let mut outcome = BatchOutcome::default();
        if self.is_closed() {
            outcome.add_refused(taken.len(), Error::Closed);
        } else {
            admit(&mut taken, self.reach, self.config.mtu, &mut outcome);
            coop::consume_budget().await;
            let mut from = 0;
            while from < taken.len() {
                let next = self.with_socket(|socket| {
                    self.outbound
                        .send(socket, &taken, from, |count, result| match result {
                            Ok(()) => {
                                self.counters.add_sent(count);
                                outcome.add_sent(count);
                            }
                            Err(error) => outcome.add_refused(count, error),
                        })
                });
                let waited = match next {
                    Ok(next) if next == taken.len() => break,
                    Ok(next) => {
                        from = next;
                        self.writable().await
                    }
                    Err(error) => Err(error),
                };
                if let Err(error) = waited {
                    outcome.add_refused(taken.len() - from, error);
                    break;
                }
            }
        }
        taken.clear();
        *batch = taken;
        outcome.finish()
    }

    async fn receive(&self) -> Result<Message<SocketAddr>> {
        let mut waiter = SocketWait::new(&self.readers);
        loop {
            let next = poll_fn(|cx| self.poll_inbound(cx, &mut waiter, Inbound::next)).await?;
            if let Some(message) = next {
                self.counters.add_delivered(1);
                return Ok(message);
            }
        }
    }

    async fn receive_batch(&self, out: &mut Vec<Message<SocketAddr>>, max: usize) -> Result<usize> {
        if max == 0 {
            return Ok(0);
        }
        let mut waiter = SocketWait::new(&self.readers);
        let take =
            |cx: &mut Context<'_>| self.poll_inbound(cx, &mut waiter, |inbound| inbound.take(out, max));
        let count = poll_fn(take).await?;
        self.counters.add_delivered(count);
        Ok(count)
    }

    fn mtu(&self) -> usize {
        self.config.mtu
    }

    fn local_addrs(&self) -> Vec<SocketAddr> {
        self.local.addrs()
    }

    fn parse_addr(&self, text: &str) -> Result<SocketAddr> {
        parse_addr(text)
    }

    async fn close(&self) {
        let socket = self.socket.write().take();
        drop(socket);
        let dropped = self.inbound().clear();
        self.counters.add_dropped_many(DropReason::Closed, dropped);
        self.readers.wake_all();
        self.writers.wake_all();
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.counters);
    }
}
