//! Fragments and reassembles messages longer than the MTU below.
//!
//! The format is that of go-p2p's `fragswarm`. Fragments are not retransmitted: a message arrives if all its
//! fragments do.
//!
//! # Limits
//! A message has at most 255 fragments and [`FragmentConfig::mtu`] bytes. Incomplete messages are bounded in
//! bytes, total and per source, and in time by [`Limits`]; at a bound the oldest incomplete message is
//! dropped as a whole.
//!
//! # Security
//! Fragments are not authenticated: a peer that forges sources can complete or spoil messages of others. Use
//! a secure layer below where that matters.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use p2p::{
    Addr, BatchError, BatchOutcome, Counters, DropReason, Headroom, Message, Packet, Result, SecureSwarm,
    Swarm, pass_through,
};
use p2p_protocols::fragment::{self, Handled, Ids, Limits, Reassembler};
use tokio::time::{Instant, timeout_at};

use crate::inbox::{self, Inbox};
use crate::turn::{Driving, Turn, Wait};

/// Length of the header of an unfragmented message: an id of up to five bytes, then one byte each for part
/// and total.
const HEADER: usize = 7;

/// Bounds of a [`FragmentSwarm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentConfig {
    /// Maximum length of a message in bytes; 255 fragments are the upper bound. Default: 64 KiB.
    pub mtu: usize,
    /// Bounds of incomplete messages in bytes and time. At a bound the oldest incomplete message is dropped
    /// as a whole.
    pub reassembly: Limits,
    /// Number of destinations with a message id counter. At the bound, the least recently used counters are
    /// removed, and new destinations no longer start at 0. Default: 4096.
    pub destinations: usize,
    /// Maximum number of fragments that are received from below at a time. A larger number costs memory while
    /// a batch is processed, a smaller one costs more calls. Default: 64.
    pub batch: usize,
}

impl Default for FragmentConfig {
    fn default() -> Self {
        Self {
            mtu: 64 << 10,
            reassembly: Limits::default(),
            destinations: 4096,
            batch: 64,
        }
    }
}

/// A layer that carries messages longer than the MTU below, in go-p2p's `fragswarm` format.
///
/// A message that fits into one fragment keeps its buffer on both sides. A longer one is copied once into a
/// batch of fragments, and once on reassembly. Fragments are not retransmitted: a message arrives if all its
/// fragments do. This layer does not pass asks on; put `mbapp` above it for asks.
///
/// The task that calls `receive` also receives from below; of several waiting readers one receives for all.
/// While a reader waits, incomplete messages expire on time, which needs a tokio runtime with time enabled.
/// While no reader waits, they stay, within [`Limits`].
///
/// Counters: `frag` counts messages; a message counts as `received` with the first of its fragments. A
/// message that the swarm below refused after some of its fragments were sent counts as sent: the receiver
/// drops the remaining fragments. `frag-piece` counts fragments: `delivered` are those that became part of a
/// complete message.
///
/// ```
/// use p2p::Swarm;
/// use p2p_swarms::{FragmentSwarm, UdpSwarm};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// let node = || -> p2p::Result<_> {
///     let udp = UdpSwarm::bind(([127, 0, 0, 1], 0).into())?;
///     Ok(FragmentSwarm::new(udp, 64 << 10))
/// };
/// let (alice, bob) = (node()?, node()?);
/// assert!(alice.inner().mtu() < 10_000);
/// alice.tell(&bob.local_addrs()[0], alice.packet(&[7; 10_000])).await?;
/// assert_eq!(bob.receive().await?.payload, &[7; 10_000]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FragmentSwarm<A, S> {
    inner: S,
    config: FragmentConfig,
    chunk: usize,
    mtu: usize,
    ids: Mutex<Ids<A>>,
    burst: Mutex<Burst<A>>,
    engine: Mutex<Reassembler<A>>,
    epoch: Instant,
    /// Complete messages beyond the number that the receiving call asked for: at most one batch.
    ready: Inbox<Message<A>>,
    turn: Turn<Pulled<A>>,
    counters: Counters,
    pieces: Counters,
}

/// Buffers of the last fragmented message, reused for the next one.
#[derive(Debug)]
struct Burst<A> {
    slab: BytesMut,
    /// Always empty here.
    parts: Vec<(A, Packet)>,
}

impl<A> Default for Burst<A> {
    fn default() -> Self {
        Self {
            slab: BytesMut::new(),
            parts: Vec::new(),
        }
    }
}

/// Buffers of messages up to this many bytes are reused.
const KEPT: usize = 128 << 10;

/// State of the reader that receives from below.
#[derive(Debug)]
struct Pulled<A> {
    /// Empty except while a batch is processed.
    messages: Vec<Message<A>>,
    /// The next timeout of the engine.
    timeout: Option<Duration>,
}

impl<A> Default for Pulled<A> {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            timeout: None,
        }
    }
}

impl<A: Addr, S: Swarm<A>> FragmentSwarm<A, S> {
    /// Carries messages of up to `mtu` bytes over `inner`, or of as many as 255 fragments hold: of none where the MTU of `inner`
    /// leaves no room beside the header of a fragment.
    pub fn new(inner: S, mtu: usize) -> Self {
        let config = FragmentConfig {
            mtu,
            ..FragmentConfig::default()
        };
        Self::with_config(inner, config)
    }

    /// Creates a layer with the given bounds.
    pub fn with_config(inner: S, config: FragmentConfig) -> Self {
        let chunk = fragment::chunk(inner.mtu());
        let mtu = fragment::mtu(config.mtu, inner.mtu());
        let room = Headroom::new(HEADER, 0).plus(inner.headroom());
        Self {
            config,
            chunk,
            mtu,
            ids: Mutex::new(Ids::new(config.destinations)),
            burst: Mutex::default(),
            engine: Mutex::new(Reassembler::new(config.reassembly, mtu, room)),
            epoch: Instant::now(),
            // Nothing is received while messages are ready, so one batch is the bound.
            ready: Inbox::new(inbox::Limits {
                items: usize::MAX,
                bytes: usize::MAX,
                copy_below: 0,
            }),
            turn: Turn::new(Pulled::default()),
            counters: Counters::new("frag"),
            pieces: Counters::new("frag-piece"),
            inner,
        }
    }

    /// Returns the swarm below.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Returns the number of bytes that incomplete messages hold, including bookkeeping.
    pub fn held(&self) -> usize {
        self.engine().held()
    }

    fn engine(&self) -> MutexGuard<'_, Reassembler<A>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_id(&self, dst: &A) -> u32 {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.next(dst)
    }

    fn burst(&self) -> MutexGuard<'_, Burst<A>> {
        self.burst.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the header of a message of one part.
    fn mark_single(&self, dst: &A, packet: &mut Packet) -> Result<()> {
        let (id, whole) = (self.next_id(dst), std::mem::take(packet));
        let (room, mut slab) = (Headroom::default(), BytesMut::new());
        fragment::split(id, whole, self.chunk, room, &mut slab, |marked| *packet = marked)
    }

    /// Sends a message of several parts as one batch.
    async fn tell_parts(&self, dst: &A, packet: Packet) -> Result<()> {
        let (len, count) = (packet.len(), packet.len().div_ceil(self.chunk));
        // Taken out, so that concurrent tells do not wait for each other's copy.
        let Burst { mut slab, mut parts } = std::mem::take(&mut *self.burst());
        parts.reserve(count);
        let (id, room) = (self.next_id(dst), self.inner.headroom());
        fragment::split(id, packet, self.chunk, room, &mut slab, |part| {
            parts.push((dst.clone(), part));
        })?;
        let result = self.inner.tell_batch(&mut parts).await;
        if len <= KEPT {
            parts.clear();
            *self.burst() = Burst { slab, parts };
        }
        match result {
            Ok(()) => self.count_sent(1, count),
            Err(error) => {
                self.count_sent(usize::from(error.sent > 0), error.sent);
                return Err(error.first);
            }
        }
        Ok(())
    }

    fn count_sent(&self, messages: usize, pieces: usize) {
        self.counters.add_sent(messages);
        self.pieces.add_sent(pieces);
    }

    /// Receives from below until at least one message is complete. Passes up to `max` messages to `out` and
    /// keeps the rest.
    async fn pull(
        &self,
        mut driving: Driving<'_, Pulled<A>>,
        max: usize,
        mut out: impl FnMut(Message<A>),
    ) -> Result<usize> {
        let batch = max.max(self.config.batch);
        loop {
            let Pulled { messages, timeout } = &mut *driving;
            let pulling = self.inner.receive_batch(messages, batch);
            match timeout.and_then(|timeout| self.epoch.checked_add(timeout)) {
                None => drop(pulling.await?),
                // An expired deadline is not an error: overdue messages are handled below.
                Some(deadline) => drop(timeout_at(deadline, pulling).await.unwrap_or(Ok(0))?),
            }
            let count = self.handle_batch(&mut driving, max, &mut out);
            if count > 0 {
                return Ok(count);
            }
        }
    }

    /// Processes received fragments; returns the number of messages that were passed to `out`.
    fn handle_batch(&self, pulled: &mut Pulled<A>, max: usize, mut out: impl FnMut(Message<A>)) -> usize {
        let now = self.epoch.elapsed();
        let mut engine = self.engine();
        self.pieces.add_received(pulled.messages.len());
        engine.handle_timeout(now);
        let mut messages = pulled
            .messages
            .drain(..)
            .filter_map(|message| self.accept(&mut engine, now, message));
        let mut count = 0;
        for message in messages.by_ref().take(max) {
            out(message);
            count += 1;
        }
        if let Some(next) = messages.next() {
            let put = self.ready.extend(std::iter::once(next).chain(messages));
            self.counters.add_dropped_many(put.reason, put.refused.len());
        } else {
            drop(messages);
        }
        self.count_given_up(&mut engine);
        pulled.timeout = engine.poll_timeout();
        self.counters.add_delivered(count);
        count
    }

    /// Passes a fragment to the engine; returns the message that it completes.
    fn accept(
        &self,
        engine: &mut Reassembler<A>,
        now: Duration,
        mut message: Message<A>,
    ) -> Option<Message<A>> {
        match engine.handle(now, &message.src, std::mem::take(&mut message.payload)) {
            Handled::Whole {
                message: payload,
                parts,
            } => {
                if parts == 1 {
                    self.counters.add_received(1);
                }
                self.pieces.add_delivered(parts);
                message.payload = payload;
                return Some(message);
            }
            Handled::Kept { first: true } => self.counters.add_received(1),
            Handled::Kept { first: false } => {}
            Handled::Dropped(reason) => self.pieces.add_dropped_from(reason, &message.src),
        }
        None
    }

    fn count_given_up(&self, engine: &mut Reassembler<A>) {
        while let Some(given_up) = engine.poll_given_up() {
            self.counters.add_dropped_from(given_up.reason, &given_up.src);
            self.pieces.add_dropped_many(given_up.reason, given_up.parts);
        }
    }
}

impl<A: Addr, S: Swarm<A>> Swarm<A> for FragmentSwarm<A, S> {
    pass_through!(inner: local_addrs, parse_addr);

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn headroom(&self) -> Headroom {
        Headroom::new(HEADER, 0).plus(self.inner.headroom())
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.counters);
        visit(&self.pieces);
        self.inner.visit_counters(visit);
    }

    /// Sends a message; see [`Swarm::tell`]. After an error the message is never delivered, although some of
    /// its fragments may have been sent.
    async fn tell(&self, dst: &A, mut packet: Packet) -> Result<()> {
        packet.check_mtu(self.mtu)?;
        if packet.len() > self.chunk {
            return self.tell_parts(dst, packet).await;
        }
        self.mark_single(dst, &mut packet)?;
        self.inner.tell(dst, packet).await?;
        self.count_sent(1, 1);
        Ok(())
    }

    async fn tell_batch(&self, batch: &mut Vec<(A, Packet)>) -> Result<(), BatchError> {
        let mut outcome = BatchOutcome::default();
        let mut long = Vec::new();
        batch.retain_mut(|(dst, packet)| {
            if packet.len() > self.chunk {
                long.push((dst.clone(), std::mem::take(packet)));
                return false;
            }
            let marked = packet
                .check_mtu(self.mtu)
                .and_then(|()| self.mark_single(dst, packet));
            outcome.keep(marked)
        });
        let sent = outcome.tell(&self.inner, batch).await;
        self.count_sent(sent, sent);
        for (dst, packet) in long {
            outcome.record(self.tell(&dst, packet).await);
        }
        outcome.finish()
    }

    async fn receive(&self) -> Result<Message<A>> {
        loop {
            match self.turn.drive_or_pop(&self.ready).await? {
                Wait::Item(message) => {
                    self.counters.add_delivered(1);
                    return Ok(message);
                }
                Wait::Drive(driving) => {
                    let mut message = None;
                    self.pull(driving, 1, |whole| message = Some(whole)).await?;
                    if let Some(message) = message {
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
        match self.turn.drive_or_pop(&self.ready).await? {
            Wait::Drive(driving) => self.pull(driving, max, |message| out.push(message)).await,
            Wait::Item(message) => {
                out.push(message);
                let count = 1 + self.ready.try_pop_batch(out, max - 1).unwrap_or(0);
                self.counters.add_delivered(count);
                Ok(count)
            }
        }
    }

    async fn close(&self) {
        self.counters
            .add_dropped_many(DropReason::Closed, self.ready.close());
        {
            let mut engine = self.engine();
            engine.clear(DropReason::Closed);
            self.count_given_up(&mut engine);
        }
        self.inner.close().await;
    }
}

impl<A: Addr, S: SecureSwarm<A>> SecureSwarm<A> for FragmentSwarm<A, S> {
    pass_through!(inner: PublicKey, public_key, lookup_public_key);
}
