//! Any swarm as the socket of a QUIC endpoint.
//!
//! Datagrams of the endpoint are passed to [`tell_batch`](Swarm::tell_batch) at once, in the sending task. If
//! the swarm below makes it wait, a task of its own finishes the batch, and the endpoint waits meanwhile.
//! Datagrams are received in the endpoint's own task.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use p2p::{Addr, Counters, DropReason, Error, Message, Packet, Result, Swarm};
use parking_lot::{Mutex, MutexGuard};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::runtime::Handle;

use super::addr_mapping::AddrMapping;
use super::datagram;
use super::mapped_addrs::{MappedAddrs, PORT};

/// Maximum number of messages that are received at once.
const PULL: usize = 64;
/// Maximum number of datagrams in one send; quinn produces at most ten.
const SEGMENTS: usize = 16;
/// Consecutive receive errors after which the swarm below counts as closed.
const MAX_FAILURES: usize = 16;

pub(super) struct SwarmSocket<A, S> {
    inner: Arc<S>,
    runtime: Handle,
    mapped_addrs: Mutex<MappedAddrs<A>>,
    inbound: Mutex<Inbound<A>>,
    outbound: Arc<Outbound>,
    counters: Arc<Counters>,
}

type Pull<A> = Pin<Box<dyn Future<Output = (Vec<Message<A>>, Result<usize>)> + Send>>;

struct Inbound<A> {
    pull: Option<Pull<A>>,
    waiting: VecDeque<Message<A>>,
    /// The allocation of the last receive, reused for the next one.
    batch_buffer: Vec<Message<A>>,
    failures: usize,
}

#[derive(Default)]
struct Outbound(Mutex<Blocked>);

#[derive(Default)]
struct Blocked {
    /// Number of batches that wait in the swarm below: several, if connections send at the same moment.
    batches: usize,
    waiting: Vec<Waker>,
}

impl Outbound {
    fn lock(&self) -> MutexGuard<'_, Blocked> {
        self.0.lock()
    }

    fn unblock(&self) {
        let mut state = self.lock();
        state.batches -= 1;
        if state.batches > 0 {
            return;
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for waker in waiting {
            waker.wake();
        }
    }
}

/// A waiting batch, counted until it is dropped. After the last one writers continue.
struct Unblock(Arc<Outbound>);

impl Unblock {
    fn after(outbound: &Arc<Outbound>) -> Self {
        outbound.lock().batches += 1;
        Self(outbound.clone())
    }
}

impl Drop for Unblock {
    fn drop(&mut self) {
        self.0.unblock();
    }
}

impl<A: Addr, S: Swarm<A>> SwarmSocket<A, S> {
    pub(super) fn new(inner: S, max_addrs: usize, runtime: Handle) -> Self {
        Self {
            inner: Arc::new(inner),
            runtime,
            mapped_addrs: Mutex::new(MappedAddrs::new(max_addrs)),
            inbound: Mutex::new(Inbound {
                pull: None,
                waiting: VecDeque::new(),
                batch_buffer: Vec::new(),
                failures: 0,
            }),
            outbound: Arc::default(),
            counters: Arc::new(Counters::new("quic-socket")),
        }
    }

    fn mapped_addrs(&self) -> MutexGuard<'_, MappedAddrs<A>> {
        self.mapped_addrs.lock()
    }
}

impl<A: Addr> Inbound<A> {
    /// Moves waiting messages into the buffers; returns the number of filled buffers.
    fn fill(
        &mut self,
        mapped_addrs: &mut MappedAddrs<A>,
        counters: &Counters,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> usize {
        let mut filled = 0;
        while let (Some(buf), Some(meta)) = (bufs.get_mut(filled), metas.get_mut(filled)) {
            let Some(message) = self.waiting.pop_front() else {
                break;
            };
            let len = message.payload.len();
            let Some(room) = buf.get_mut(..len) else {
                counters.add_dropped_from(DropReason::Oversize, &message.src);
                continue;
            };
            if let Err(reason) = datagram::check(&message.payload) {
                counters.add_dropped_from(reason, &message.src);
                continue;
            }
            let Some(addr) = mapped_addrs.map(&message.src, Some(&message.dst)) else {
                counters.add_dropped_from(DropReason::Budget, &message.src);
                continue;
            };
            room.copy_from_slice(&message.payload);
            *meta = RecvMeta {
                addr,
                len,
                stride: len,
                ecn: None,
                dst_ip: None,
            };
            filled += 1;
        }
        counters.add_delivered(filled);
        filled
    }
}

impl<A: Addr, S: Swarm<A>> AsyncUdpSocket for SwarmSocket<A, S> {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller(self.outbound.clone()))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.outbound.lock().batches > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Some(addr) = self.mapped_addrs().addr(transmit.destination).cloned() else {
            self.counters
                .add_dropped_from(DropReason::NoPeer, &transmit.destination);
            return Ok(());
        };
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let room = self.inner.headroom();
        let segments = transmit.contents.chunks(size);
        let mut batch: Vec<(A, Packet)> = segments
            .map(|segment| (addr.clone(), Packet::new(room, segment)))
            .collect();
        let count = batch.len();
        let (inner, counters) = (self.inner.clone(), self.counters.clone());
        let mut tell = Box::pin(async move {
            match inner.tell_batch(&mut batch).await {
                Ok(()) => counters.add_sent(count),
                Err(error) => {
                    // For QUIC it is an ordinary loss.
                    counters.add_sent(count);
                    counters.add_dropped_many(DropReason::Refused, error.refused);
                }
            }
        });
        if tell
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
        {
            let unblock = Unblock::after(&self.outbound);
            self.runtime.spawn(async move {
                tell.await;
                drop(unblock);
            });
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbound = self.inbound.lock();
        loop {
            if !inbound.waiting.is_empty() {
                let filled = inbound.fill(&mut self.mapped_addrs(), &self.counters, bufs, metas);
                if filled > 0 {
                    return Poll::Ready(Ok(filled));
                }
            }
            let mut pull = inbound.pull.take().unwrap_or_else(|| {
                let (inner, mut out) = (self.inner.clone(), std::mem::take(&mut inbound.batch_buffer));
                Box::pin(async move {
                    let result = inner.receive_batch(&mut out, PULL).await;
                    (out, result)
                })
            });
            let Poll::Ready((mut out, result)) = pull.as_mut().poll(cx) else {
                inbound.pull = Some(pull);
                return Poll::Pending;
            };
            self.counters.add_received(out.len());
            inbound.waiting.extend(out.drain(..));
            inbound.batch_buffer = out;
            match result {
                Ok(_) => inbound.failures = 0,
                Err(error) => {
                    inbound.failures += 1;
                    if matches!(error, Error::Closed) || inbound.failures == MAX_FAILURES {
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::NotConnected, error)));
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        // Any IPv6 address: it tells quinn that synthetic addresses, which are IPv6, can be sent to.
        Ok(SocketAddr::new(
            [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].into(),
            PORT,
        ))
    }

    fn max_transmit_segments(&self) -> usize {
        SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl<A: Addr, S: Swarm<A>> AddrMapping<A> for SwarmSocket<A, S> {
    fn pin(&self, addr: &A) -> Result<SocketAddr> {
        let mut mapped_addrs = self.mapped_addrs();
        let at = mapped_addrs.map(addr, None).ok_or(Error::Limit {
            what: "addresses in use",
            limit: mapped_addrs.len(),
        })?;
        mapped_addrs.pin(at);
        Ok(at)
    }

    fn pin_source(&self, at: SocketAddr, _: Option<IpAddr>) -> Option<(A, A)> {
        let (src, dst) = self.mapped_addrs().pin(at)?;
        let dst = dst.or_else(|| self.inner.local_addrs().into_iter().next());
        if dst.is_none() {
            self.mapped_addrs().unpin(at);
        }
        Some((src, dst?))
    }

    fn unpin(&self, at: SocketAddr) {
        self.mapped_addrs().unpin(at);
    }

    fn local_addrs(&self) -> Vec<A> {
        self.inner.local_addrs()
    }

    fn parse_addr(&self, text: &str) -> Result<A> {
        self.inner.parse_addr(text)
    }

    fn release(&self) {}

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.inner.close())
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.counters);
        self.inner.visit_counters(visit);
    }
}

impl<A, S> fmt::Debug for SwarmSocket<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SwarmSocket")
    }
}

struct Poller(Arc<Outbound>);

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if state.batches == 0 {
            return Poll::Ready(Ok(()));
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Poller")
    }
}
