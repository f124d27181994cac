//! State shared by the callers of one swarm, its responders and its driver.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use p2p::{Addr, BatchOutcome, Counters, DropReason, Error, Message, Packet, Request, Result, Swarm};
use p2p_protocols::hash::HashMap;
use p2p_protocols::mbapp::{AskId, Engine, Now};
use parking_lot::{Mutex, MutexGuard};
use rand::RngExt as _;

use super::MbappConfig;
use crate::driver::{BackgroundSends, Driver, Mailbox, Timer};
use crate::env::Env;

#[derive(Debug)]
pub(super) struct Shared<A: Addr, S: Swarm<A>> {
    pub(super) inner: S,
    pub(super) config: MbappConfig,
    pub(super) mtu: usize,
    /// Number of message bytes that one datagram carries.
    pub(super) chunk: usize,
    state: Mutex<State<A>>,
    pub(super) driver: Driver<Want>,
    pub(super) timer: Timer,
    env: Env,
    pub(super) told: Mailbox<Message<A>>,
    pub(super) asked: Mailbox<Asked<A>>,
    pub(super) background_sends: BackgroundSends,
    pub(super) tells: Counters,
    pub(super) asks: Counters,
    pub(super) datagrams: Counters,
}

#[derive(Debug)]
pub(super) struct State<A> {
    pub(super) engine: Engine<A>,
    slots: HashMap<AskId, Arc<Slot>>,
    /// Replies that are to be sent together.
    pub(super) replies: Vec<(A, Packet)>,
    closed: bool,
}

/// What callers wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Told,
    Asked,
    Answer(AskId),
}

/// A request that waits for the node's reader, behind the time at which the asker gives up.
pub(super) type Asked<A> = (Duration, Request<A>);

/// Holds the result of one ask until the asker takes it.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Outcome>);

#[derive(Debug, Default)]
struct Outcome {
    response: Option<Result<Packet>>,
    asker: Option<Waker>,
}

impl Slot {
    /// Stores the result; returns the waker to call.
    pub(super) fn fill(&self, response: Result<Packet>) -> Option<Waker> {
        let mut outcome = self.outcome();
        outcome.response = Some(response);
        outcome.asker.take()
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Packet>> {
        let mut outcome = self.outcome();
        if let Some(response) = outcome.response.take() {
            return Poll::Ready(response);
        }
        let known = outcome.asker.as_ref();
        let outdated = if known.is_some_and(|asker| asker.will_wake(cx.waker())) {
            None
        } else {
            outcome.asker.replace(cx.waker().clone())
        };
        // Only after the lock is released: dropping a waker may run foreign code.
        drop(outcome);
        drop(outdated);
        Poll::Pending
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.0.lock()
    }
}

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    pub(super) fn new(inner: S, config: MbappConfig) -> Self {
        let env = Env::current();
        let engine = Engine::new(config.engine, inner.mtu(), inner.headroom(), env.seed());
        let engine = engine.counting_from(env.rng().random());
        Self {
            mtu: engine.mtu(),
            chunk: engine.chunk(),
            state: Mutex::new(State {
                engine,
                slots: HashMap::default(),
                replies: Vec::new(),
                closed: false,
            }),
            env,
            told: Mailbox::new(config.messages),
            asked: Mailbox::new(config.asks),
            driver: Driver::new(),
            timer: Timer::default(),
            background_sends: BackgroundSends::default(),
            tells: Counters::new("mbapp"),
            asks: Counters::new("mbapp-ask"),
            datagrams: Counters::new("mbapp-datagram"),
            inner,
            config,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock()
    }

    pub(super) fn now(&self) -> Now {
        Now {
            elapsed: self.timer.now(),
            unix_ms: self.env.unix_time().as_millis() as u64,
        }
    }

    pub(super) fn held(&self) -> usize {
        self.state().engine.held()
    }

    /// Starts an ask whose result goes to `slot`; returns the datagrams to send.
    pub(super) fn begin(
        &self,
        dst: &A,
        request: Packet,
        limit: Duration,
        slot: &Arc<Slot>,
    ) -> Result<(AskId, Vec<(A, Packet)>)> {
        let now = self.now();
        let mut state = self.state();
        state.check_open()?;
        let id = state.engine.ask(now, dst, request, limit)?;
        state.slots.insert(id, slot.clone());
        let datagrams = state.transmits();
        let sooner = self.arm(&mut state);
        drop(state);
        if sooner {
            self.driver.wake();
        }
        Ok((id, datagrams))
    }

    /// Cancels an ask, if it has not ended.
    pub(super) fn end(&self, id: AskId) {
        let mut state = self.state();
        state.engine.cancel(id);
        state.slots.remove(&id);
    }

    /// Removes and returns the slot of an ended ask, if its asker still waits.
    pub(super) fn take_slot(&self, id: AskId) -> Option<Arc<Slot>> {
        self.state().slots.remove(&id)
    }

    /// Sets the timer if the engine's timeout is earlier; returns whether it was.
    pub(super) fn arm(&self, state: &mut State<A>) -> bool {
        self.timer.set_sooner(state.engine.poll_timeout())
    }

    /// Writes the header of a message that fits into one datagram.
    pub(super) fn mark(&self, dst: &A, packet: Packet) -> Result<Packet> {
        let now = self.now();
        let mut state = self.state();
        state.check_open()?;
        state.mark(now, dst, packet)
    }

    /// Writes the headers of the messages in a batch that fit into one datagram; removes and returns the
    /// others.
    pub(super) fn mark_batch(
        &self,
        batch: &mut Vec<(A, Packet)>,
        outcome: &mut BatchOutcome,
    ) -> Vec<(A, Packet)> {
        let now = self.now();
        let mut state = self.state();
        let mut long = Vec::new();
        batch.retain_mut(|(dst, packet)| {
            let whole = std::mem::take(packet);
            if whole.len() > self.chunk {
                long.push((dst.clone(), whole));
                return false;
            }
            match state.check_open().and_then(|()| state.mark(now, dst, whole)) {
                Ok(marked) => {
                    *packet = marked;
                    true
                }
                Err(error) => {
                    outcome.add_refused(1, error);
                    false
                }
            }
        });
        long
    }

    /// Fragments a message.
    pub(super) fn split(&self, dst: &A, packet: Packet, out: &mut Vec<(A, Packet)>) -> Result<()> {
        let now = self.now();
        let mut state = self.state();
        state.check_open()?;
        state.engine.tell(now, dst, packet)?;
        out.extend(state.transmits());
        Ok(())
    }

    /// Sends datagrams that are useful only together.
    pub(super) async fn send(&self, datagrams: &mut Vec<(A, Packet)>) -> Result<()> {
        let sent = self.inner.tell_batch(datagrams).await;
        sent.map_err(|error| error.first)
    }

    /// Sends datagrams that no caller awaits: at once, or in a task of its own while it waits for room.
    pub(super) fn send_in_background(self: &Arc<Self>, mut datagrams: Vec<(A, Packet)>) {
        let count = datagrams.len();
        if count == 0 {
            return;
        }
        let shared = self.clone();
        let sending = async move {
            // A failed send is a loss, as on the medium: peers retransmit.
            drop(shared.inner.tell_batch(&mut datagrams).await);
        };
        if let Err(reason) = self.background_sends.send(sending) {
            self.datagrams.add_dropped_many(reason, count);
        }
    }

    /// Fails all current and later calls. Stored responses are sent as far as there is room at once.
    pub(super) fn close(self: &Arc<Self>) {
        let mut state = self.state();
        state.closed = true;
        let replies = std::mem::take(&mut state.replies);
        // Waiting callers are woken by the driver.
        let slots = std::mem::take(&mut state.slots);
        drop(state);
        drop(slots);
        self.send_in_background(replies);
        self.tells.add_dropped_many(DropReason::Closed, self.told.close());
        self.asks.add_dropped_many(DropReason::Closed, self.asked.close());
        self.driver.close();
    }
}

impl<A: Addr> State<A> {
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed { Err(Error::Closed) } else { Ok(()) }
    }

    pub(super) fn transmits(&mut self) -> Vec<(A, Packet)> {
        std::iter::from_fn(|| self.engine.poll_transmit()).collect()
    }

    fn mark(&mut self, now: Now, dst: &A, packet: Packet) -> Result<Packet> {
        self.engine.tell(now, dst, packet)?;
        // A message of one datagram causes one transmit.
        Ok(self
            .engine
            .poll_transmit()
            .map(|(_, packet)| packet)
            .unwrap_or_default())
    }
}
