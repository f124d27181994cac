//! Simulates a bad network as a layer: messages sent through it are lost, duplicated, reordered, delayed,
//! corrupted or cut off.
//!
//! Faults apply where a message is sent; receiving passes through unchanged. All choices are derived from a
//! seed ([`Faults`]): the nth message of a node has the same fate in every run with the same settings. Times
//! follow tokio's clock with its precision of 1 ms, and are exact if that clock is paused. Without faults a
//! message passes through without a copy, an allocation or a task.
//!
//! Faults apply in this order: a cut link, loss, the queue of a link with a rate limit, delay with jitter and
//! hold-back, and corruption. A duplicate is created behind the rate limit, and has its own delay and
//! corruption. Below an encrypting layer, ciphertext is corrupted, and above it plaintext.
//!
//! Asks are delayed and lost like messages, but neither duplicated nor corrupted. A lost ask fails with
//! [`Error::TimedOut`] after [`FaultyConfig::ask_timeout`], as an ask with a timeout on a real medium would.
//!
//! Deliberately absent: faults on receiving. Give the same [`Faults`] to both ends instead.
//!
//! # Limits
//! The number and bytes of delayed messages are bounded per node and per link ([`FaultyConfig`]); further
//! messages are dropped and counted as [`DropReason::QueueFull`].

mod delayed;
mod faults;
mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use p2p::{
    Addr, AskSwarm, BatchError, BatchOutcome, Counters, DropReason, Error, Message, Packet, Request, Result,
    SecureSwarm, Swarm, pass_through,
};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::driver::finish_close;
use delayed::{Delayed, End, TooLate, deliver};
pub use faults::{Faults, FaultyConfig};
pub use plan::LinkFaults;
use plan::{Bottleneck, Fate, Flight, Planner};

/// A layer that applies the faults of a medium.
///
/// A tell that a fault affects returns `Ok`, and the drop is counted at the sender as [`DropReason::Lost`],
/// [`DropReason::Partitioned`], [`DropReason::QueueFull`] (no room to wait), [`DropReason::Refused`] (the swarm below
/// refused a delayed message or a duplicate) or [`DropReason::Closed`]. So on each node, in the counters of
/// `faulty`, `sent + duplicated = dropped +` [`in_flight`](Self::in_flight) `+` the number of messages sent
/// through the layer below. `faulty-ask` counts requests.
///
/// Delays need a tokio runtime with its timer enabled.
///
/// ```
/// use p2p::Swarm;
/// use p2p_swarms::{Faults, FaultySwarm, LinkFaults, MemorySwarm};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// let faults = Faults::seeded(7);
/// let alice = FaultySwarm::new(MemorySwarm::new(), faults.clone());
/// let bob = alice.inner().realm().open();
///
/// faults.set_all(LinkFaults { loss: 1.0, ..LinkFaults::default() })?;
/// alice.tell(&bob.local_addr(), alice.packet(b"lost")).await?;
/// faults.set_all(LinkFaults::default())?;
/// alice.tell(&bob.local_addr(), alice.packet(b"hello")).await?;
/// assert_eq!(bob.receive().await?.payload, b"hello");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FaultySwarm<A, S> {
    inner: Arc<S>,
    faults: Faults<A>,
    local: Vec<A>,
    choices: Mutex<Choices<A>>,
    delayed: Arc<Delayed<A>>,
    task: Mutex<Option<JoinHandle<()>>>,
    closing: Notify,
    ask_counters: Counters,
}

/// The state that determines the fate of the next message, besides the settings.
#[derive(Debug)]
struct Choices<A> {
    planner: Planner,
    necks: HashMap<A, Bottleneck>,
    /// The instant from which the bottlenecks count time.
    start: Option<Instant>,
}

/// Maximum number of rate-limited links with messages in flight; a message on a further link is dropped.
const BUSY_LINKS: usize = 4096;

impl<A: Addr, S: Swarm<A>> FaultySwarm<A, S> {
    /// Creates a layer that applies `faults` to messages sent through `inner`.
    pub fn new(inner: S, faults: Faults<A>) -> Self {
        Self {
            local: inner.local_addrs(),
            inner: Arc::new(inner),
            choices: Mutex::new(Choices {
                planner: faults.planner(),
                necks: HashMap::new(),
                start: None,
            }),
            delayed: Arc::new(Delayed::new(faults.config(), faults.in_flight())),
            task: Mutex::new(None),
            closing: Notify::new(),
            ask_counters: Counters::new("faulty-ask"),
            faults,
        }
    }

    /// Returns the swarm below.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Returns the settings of the medium.
    pub fn faults(&self) -> &Faults<A> {
        &self.faults
    }

    /// Returns the number of messages that are currently delayed.
    pub fn in_flight(&self) -> usize {
        self.delayed.len()
    }

    /// Decides the fate of the next message, or returns the reason for dropping it.
    fn decide(&self, dst: &A, len: usize) -> Result<(Flight, Option<Flight>), DropReason> {
        let link = self.faults.link(&self.local, dst);
        let mut choices = self.choices.lock();
        // A message on a cut link also consumes its random draws, so that later messages keep their fates.
        let fate = choices.planner.fate(&link.unwrap_or_default(), len);
        let link = link.ok_or(DropReason::Partitioned)?;
        let Fate::Sent { original, duplicate } = fate else {
            return Err(DropReason::Lost);
        };
        let crossing = choices.cross(&link, dst, len).ok_or(DropReason::QueueFull)?;
        let later = |flight: Flight| Flight {
            delay: flight.delay + crossing,
            ..flight
        };
        Ok((later(original), duplicate.map(later)))
    }

    fn check(&self, packet: &Packet) -> Result<()> {
        packet.check_mtu(self.inner.mtu())?;
        self.check_open()
    }

    fn check_open(&self) -> Result<()> {
        if self.delayed.is_closed() {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Returns the result of `call`, unless this layer is closed first.
    async fn unless_closed<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let closing = self.closing.notified();
        self.check_open()?;
        tokio::select! {
            biased;
            result = call => result,
            () = closing => Err(Error::Closed),
        }
    }

    /// Spawns the task that delivers delayed messages, if it does not run.
    fn ensure_task(&self) -> Result<()> {
        let mut task = self.task.lock();
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            let runtime = Handle::try_current()
                .map_err(|error| Error::invalid("context", format!("a delay needs a runtime: {error}")))?;
            let deliver = deliver(End(self.delayed.clone()), Arc::downgrade(&self.inner));
            *task = Some(runtime.spawn(deliver));
        }
        Ok(())
    }

    /// Closes this layer, not the swarm below. Returns whether messages are in flight.
    fn close_now(&self) -> bool {
        let busy = self.delayed.close();
        self.closing.notify_waiters();
        busy
    }
}

impl<A: Addr> Choices<A> {
    /// Returns the time that a message needs to cross the rate limit on its way to `dst`, or `None` if it
    /// cannot be queued.
    fn cross(&mut self, link: &LinkFaults, dst: &A, len: usize) -> Option<Duration> {
        if link.rate == 0 {
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        let now = now - *self.start.get_or_insert(now);
        if self.necks.len() >= BUSY_LINKS && !self.necks.contains_key(dst) {
            self.necks.retain(|_, neck| !neck.is_idle(now));
            if self.necks.len() >= BUSY_LINKS {
                return None;
            }
        }
        self.necks.entry(dst.clone()).or_default().cross(link, len, now)
    }
}

impl<A: Addr, S: Swarm<A>> FaultySwarm<A, S> {
    fn received(&self, count: usize) {
        self.delayed.counters.add_received(count);
        self.delayed.counters.add_delivered(count);
    }

    /// Sends one copy of a message, now or later.
    async fn launch(&self, dst: &A, mut packet: Packet, flight: Flight) -> Result<()> {
        flight.damage(&mut packet);
        if flight.delay.is_zero() {
            self.inner.tell(dst, packet).await?;
        } else {
            self.ensure_task()?;
            let held = [(Instant::now() + flight.delay, dst.clone(), packet)];
            self.delayed
                .hold(held.into_iter())
                .map_err(|TooLate { .. }| Error::Closed)?;
        }
        Ok(())
    }
}

impl<A: Addr, S: Swarm<A>> Swarm<A> for FaultySwarm<A, S> {
    pass_through!(inner: mtu, local_addrs, parse_addr, headroom);

    async fn receive(&self) -> Result<Message<A>> {
        let message = self.unless_closed(self.inner.receive()).await?;
        self.received(1);
        Ok(message)
    }

    async fn receive_batch(&self, out: &mut Vec<Message<A>>, max: usize) -> Result<usize> {
        let count = self.unless_closed(self.inner.receive_batch(out, max)).await?;
        self.received(count);
        Ok(count)
    }

    async fn tell(&self, dst: &A, packet: Packet) -> Result<()> {
        if !self.faults.is_active() {
            self.check_open()?;
            self.inner.tell(dst, packet).await?;
            self.delayed.counters.add_sent(1);
            return Ok(());
        }
        self.check(&packet)?;
        let counters = &self.delayed.counters;
        let (original, duplicate) = match self.decide(dst, packet.len()) {
            Ok(fate) => fate,
            Err(reason) => {
                counters.add_sent(1);
                counters.add_dropped_from(reason, dst);
                return Ok(());
            }
        };
        let copy = duplicate.map(|flight| (flight, packet.clone()));
        self.launch(dst, packet, original).await?;
        counters.add_sent(1);
        if let Some((flight, packet)) = copy {
            counters.add_duplicated(1);
            if self.launch(dst, packet, flight).await.is_err() {
                counters.add_dropped_from(DropReason::Refused, dst);
            }
        }
        Ok(())
    }

    async fn tell_batch(&self, batch: &mut Vec<(A, Packet)>) -> Result<(), BatchError> {
        if !self.faults.is_active() && !self.delayed.is_closed() {
            let count = batch.len();
            let result = self.inner.tell_batch(batch).await;
            self.delayed
                .counters
                .add_sent(result.as_ref().map_or_else(|error| error.sent, |()| count));
            return result;
        }
        let counters = &self.delayed.counters;
        let mut outcome = BatchOutcome::default();
        let Sorted { held, mut copies } = self.sort(batch, &mut outcome);
        if !held.is_empty() {
            match self.ensure_task() {
                Ok(()) => {
                    if let Err(TooLate { messages }) = self.delayed.hold(held.into_iter()) {
                        counters.add_dropped_many(DropReason::Closed, messages);
                    }
                }
                Err(_) => counters.add_dropped_many(DropReason::Refused, held.len()),
            }
        }
        counters.add_sent(outcome.tell(&self.inner, batch).await);
        if !copies.is_empty() {
            let result = self.inner.tell_batch(&mut copies).await;
            let refused = result.map_or_else(|error| error.refused, |()| 0);
            counters.add_dropped_many(DropReason::Refused, refused);
        }
        outcome.finish()
    }

    /// Closes this layer at once, and the swarm below when no message is delayed any more: after at most
    /// [`FaultyConfig::linger`], plus the time for sending them on.
    ///
    /// Messages told before are in flight, and arrive as if the node still existed.
    async fn close(&self) {
        if self.close_now() && self.ensure_task().is_err() {
            self.delayed.abandon();
        }
        // Dropping this swarm frees the one below, also while messages are delayed.
        let (delayed, inner) = (self.delayed.clone(), Arc::downgrade(&self.inner));
        finish_close(async move {
            delayed.emptied().await;
            if let Some(inner) = inner.upgrade() {
                inner.close().await;
            }
        })
        .await;
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.delayed.counters);
        visit(&self.ask_counters);
        self.inner.visit_counters(visit);
    }
}

/// The parts of a batch other than messages that are sent at once.
struct Sorted<A> {
    /// Messages and duplicates that arrive later.
    held: Vec<(Instant, A, Packet)>,
    /// Duplicates that are sent at once.
    copies: Vec<(A, Packet)>,
}

impl<A: Addr, S: Swarm<A>> FaultySwarm<A, S> {
    /// Keeps the messages in `batch` that are to be sent at once, and counts the others.
    fn sort(&self, batch: &mut Vec<(A, Packet)>, outcome: &mut BatchOutcome) -> Sorted<A> {
        let counters = &self.delayed.counters;
        let now = Instant::now();
        let mut sorted = Sorted {
            held: Vec::new(),
            copies: Vec::new(),
        };
        batch.retain_mut(|(dst, packet)| {
            if let Err(error) = self.check(packet) {
                outcome.add_refused(1, error);
                return false;
            }
            let (original, duplicate) = match self.decide(dst, packet.len()) {
                Ok(fate) => fate,
                Err(reason) => {
                    outcome.add_sent(1);
                    counters.add_sent(1);
                    counters.add_dropped_from(reason, dst);
                    return false;
                }
            };
            if let Some(flight) = duplicate {
                counters.add_duplicated(1);
                let mut copy = packet.clone();
                flight.damage(&mut copy);
                if flight.delay.is_zero() {
                    sorted.copies.push((dst.clone(), copy));
                } else {
                    sorted.held.push((now + flight.delay, dst.clone(), copy));
                }
            }
            original.damage(packet);
            let at_once = original.delay.is_zero();
            if !at_once {
                outcome.add_sent(1);
                counters.add_sent(1);
                sorted
                    .held
                    .push((now + original.delay, dst.clone(), std::mem::take(packet)));
            }
            at_once
        });
        sorted
    }

    /// Waits while an ask is in flight.
    async fn travel(&self, time: Duration) -> Result<()> {
        if time.is_zero() {
            return Ok(());
        }
        let closing = self.closing.notified();
        if self.delayed.is_closed() {
            return Err(Error::Closed);
        }
        tokio::select! {
            biased;
            () = closing => Err(Error::Closed),
            () = sleep(time) => Ok(()),
        }
    }
}

impl<A: Addr, S: AskSwarm<A>> AskSwarm<A> for FaultySwarm<A, S> {
    async fn receive_ask(&self) -> Result<Request<A>> {
        let request = self.unless_closed(self.inner.receive_ask()).await?;
        self.ask_counters.add_received(1);
        self.ask_counters.add_delivered(1);
        Ok(request)
    }

    /// Sends a request through the medium; see [`AskSwarm::ask`].
    ///
    /// A request that is lost, cut off or finds the queue full fails with [`Error::TimedOut`] after
    /// [`FaultyConfig::ask_timeout`].
    async fn ask(&self, dst: &A, request: Packet) -> Result<Packet> {
        self.check(&request)?;
        let mut delay = Duration::ZERO;
        if self.faults.is_active() {
            match self.decide(dst, request.len()) {
                Ok((flight, _)) => delay = flight.delay,
                Err(reason) => {
                    self.ask_counters.add_sent(1);
                    self.ask_counters.add_dropped_from(reason, dst);
                    let limit = self.faults.config().ask_timeout;
                    self.travel(limit).await?;
                    return Err(Error::TimedOut {
                        doing: "an ask",
                        limit,
                    });
                }
            }
        }
        self.travel(delay).await?;
        self.ask_counters.add_sent(1);
        self.unless_closed(self.inner.ask(dst, request)).await
    }
}

impl<A: Addr, S: SecureSwarm<A>> SecureSwarm<A> for FaultySwarm<A, S> {
    pass_through!(inner: PublicKey, public_key);

    async fn lookup_public_key(&self, addr: &A) -> Result<S::PublicKey> {
        self.unless_closed(self.inner.lookup_public_key(addr)).await
    }
}

impl<A, S> Drop for FaultySwarm<A, S> {
    fn drop(&mut self) {
        self.delayed.abandon();
        let task = self.task.get_mut();
        if let Some(task) = task {
            task.abort();
        }
    }
}
