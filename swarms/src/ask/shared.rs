//! What the callers of one swarm, its responders and its background task share.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use p2p::{Addr, BatchOutcome, Counters, Error, Message, Packet, Reason, Rejection, Request, Result, Swarm};
use p2p_protocols::ask::{Answer, AskId, Engine, Event, Now, What};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use super::replies::Reply;
use super::{AskingConfig, background};
use crate::inbox::{Inbox, Queued};
use crate::turn::{Turn, Wait};

/// Sends that may wait for room at a time although nobody waits for them. Further ones are dropped; they are
/// replies and inquiries, and peers inquire again.
const DETACHED: usize = 64;

#[derive(Debug)]
pub(super) struct Shared<A: Addr, S: Swarm<A>> {
    pub(super) inner: S,
    pub(super) config: AskingConfig,
    pub(super) mtu: usize,
    /// Bytes of a message that one datagram carries.
    pub(super) chunk: usize,
    state: Mutex<State<A>>,
    pub(super) told: Inbox<Message<A>>,
    pub(super) asked: Inbox<Asked<A>>,
    pub(super) turn: Turn<Pulled<A>>,
    /// Tells the one who drives to look again: at the timer, or whether somebody else wants the turn.
    nudge: Notify,
    in_background: AtomicBool,
    detached: Arc<AtomicUsize>,
    epoch: Instant,
    pub(super) tells: Counters,
    pub(super) asks: Counters,
    pub(super) datagrams: Counters,
}

#[derive(Debug)]
pub(super) struct State<A> {
    pub(super) engine: Engine<A>,
    slots: HashMap<AskId, Arc<Inbox<Outcome>>>,
    /// When whoever drives looks at the engine's timers: never later than the engine wants, and often sooner, so
    /// that the timer need not be set anew for each ask.
    armed: Option<Duration>,
    /// How often somebody pulled from below.
    pulls: u64,
    background: Option<AbortHandle>,
    /// Replies that leave together.
    pub(super) replies: Vec<(A, Packet)>,
    closed: bool,
}

/// What only the one who drives has.
pub(super) struct Pulled<A> {
    messages: Vec<Message<A>>,
    events: Vec<Event<A>>,
    timer: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl<A> Default for Pulled<A> {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            events: Vec::new(),
            timer: None,
        }
    }
}

/// A request that waits for the node's reader.
#[derive(Debug)]
pub(super) struct Asked<A> {
    pub(super) request: Request<A>,
    /// When its asker gives up.
    pub(super) until: Duration,
}

impl<A> Queued for Asked<A> {
    fn payload(&self) -> &Packet {
        self.request.payload()
    }
    fn payload_mut(&mut self) -> &mut Packet {
        self.request.payload_mut()
    }
}

/// How an ask of this node ended.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) response: Packet,
    pub(super) failed: Option<Error>,
}

impl Queued for Outcome {
    fn payload(&self) -> &Packet {
        &self.response
    }
    fn payload_mut(&mut self) -> &mut Packet {
        &mut self.response
    }
}

/// What the one who drives waits for itself: it takes that without a detour through an inbox.
pub(super) enum Want<'a, A> {
    Nothing,
    /// So many messages at most.
    Told(&'a mut dyn FnMut(Message<A>), usize),
    Asked(&'a mut Option<Asked<A>>),
    Answer(AskId, &'a mut Option<Outcome>),
}

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    pub(super) fn new(inner: S, config: AskingConfig) -> Self {
        let engine = Engine::new(config.engine, inner.mtu(), inner.headroom(), rand::random());
        Self {
            mtu: engine.mtu(),
            chunk: engine.chunk(),
            state: Mutex::new(State {
                engine,
                slots: HashMap::new(),
                armed: None,
                pulls: 0,
                background: None,
                replies: Vec::new(),
                closed: false,
            }),
            told: Inbox::new(config.messages),
            asked: Inbox::new(config.asks),
            turn: Turn::new(Pulled::default()),
            nudge: Notify::new(),
            in_background: AtomicBool::new(false),
            detached: Arc::default(),
            epoch: Instant::now(),
            tells: Counters::new("mbapp"),
            asks: Counters::new("mbapp-ask"),
            datagrams: Counters::new("mbapp-datagram"),
            inner,
            config,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Now {
        let unix = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            elapsed: self.epoch.elapsed(),
            unix_ms: unix.as_millis() as u64,
        }
    }

    pub(super) fn held(&self) -> usize {
        self.state().engine.held()
    }

    /// Begins an ask whose outcome goes to `slot`; returns the datagrams to be sent for it.
    pub(super) fn begin(
        &self,
        dst: &A,
        request: Packet,
        limit: Duration,
        slot: &Arc<Inbox<Outcome>>,
    ) -> Result<(AskId, Vec<(A, Packet)>)> {
        let now = self.now();
        let mut state = self.state();
        state.check_open()?;
        let id = state.engine.ask(now, dst, request, limit)?;
        state.slots.insert(id, slot.clone());
        let datagrams = state.transmits();
        let sooner = state.arm();
        drop(state);
        if sooner {
            self.nudge.notify_one();
        }
        Ok((id, datagrams))
    }

    /// Forgets an ask, if it is not over.
    pub(super) fn end(&self, id: AskId) {
        let mut state = self.state();
        state.engine.cancel(id);
        state.slots.remove(&id);
    }

    /// Writes the header of a message that one datagram carries.
    pub(super) fn mark(&self, dst: &A, packet: Packet) -> Result<Packet> {
        let now = self.now();
        let mut state = self.state();
        state.check_open()?;
        state.mark(now, dst, packet)
    }

    /// Writes the headers of those messages of a batch that one datagram carries; takes out and returns the others.
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
                    outcome.refused(1, error);
                    false
                }
            }
        });
        long
    }

    /// Takes a message apart.
    pub(super) fn split(&self, dst: &A, packet: Packet, out: &mut Vec<(A, Packet)>) -> Result<()> {
        let now = self.now();
        let mut state = self.state();
        state.check_open()?;
        state.engine.tell(now, dst, packet)?;
        out.extend(state.transmits());
        Ok(())
    }

    /// Sends datagrams that only count together.
    pub(super) async fn send(&self, datagrams: &mut Vec<(A, Packet)>) -> Result<()> {
        let sent = self.inner.tell_batch(datagrams).await;
        sent.map_err(|error| error.first)
    }

    /// Waits for an item or for the turn, which the background gives back if it has it.
    pub(super) async fn wait<I: Queued>(&self, inbox: &Inbox<I>) -> Result<Wait<'_, Pulled<A>, I>> {
        if self.in_background.load(Ordering::Relaxed) {
            self.nudge.notify_one();
        }
        self.turn.drive_or_pop(inbox).await
    }

    /// Waits for datagrams, the timer or a nudge; [`land`](Self::land) must follow. Says whether it was a nudge.
    pub(super) async fn pull(&self, pulled: &mut Pulled<A>) -> Result<bool> {
        let armed = self.state().armed;
        pulled.set_timer(armed, self.epoch);
        let Pulled { messages, timer, .. } = pulled;
        let mut receiving = pin!(self.inner.receive_batch(messages, self.config.batch));
        let mut nudged = pin!(self.nudge.notified());
        poll_fn(|cx| {
            if let Poll::Ready(received) = receiving.as_mut().poll(cx) {
                return Poll::Ready(received.map(|_| false));
            }
            if let Some((_, sleep)) = timer
                && sleep.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Ok(false));
            }
            nudged.as_mut().poll(cx).map(|()| Ok(true))
        })
        .await
    }

    /// Looks at what was pulled and at the timers, and hands everything to whom it belongs. Never waits.
    pub(super) fn land(self: &Arc<Self>, pulled: &mut Pulled<A>, mut want: Want<'_, A>) {
        let now = self.now();
        let mut state = self.state();
        state.pulls += 1;
        self.datagrams.received(pulled.messages.len());
        for message in pulled.messages.drain(..) {
            state.engine.handle_message(now, message);
        }
        if state.armed.is_some_and(|armed| armed <= now.elapsed) {
            state.engine.handle_timeout(now);
            state.armed = None;
        }
        let datagrams = state.transmits();
        while let Some(event) = state.engine.poll_event() {
            pulled.events.push(event);
        }
        state.arm();
        if state.background.is_none() && !state.closed && state.engine.remembered() > 0 {
            // Without a runtime nobody pulls while nobody waits, and that is all.
            let task = background::run(Arc::downgrade(self));
            let spawned = Handle::try_current().map(|runtime| runtime.spawn(task));
            state.background = spawned.ok().map(|task| task.abort_handle());
        }
        drop(state);
        for event in pulled.events.drain(..) {
            self.deliver(event, &mut want);
        }
        self.send_detached(datagrams);
    }

    /// Hands over what came of an event.
    fn deliver(self: &Arc<Self>, event: Event<A>, want: &mut Want<'_, A>) {
        match event {
            Event::Told(message) => {
                self.tells.received(1);
                match want {
                    Want::Told(out, left) if *left > 0 => {
                        *left -= 1;
                        self.tells.delivered(1);
                        out(message);
                    }
                    _ => {
                        if let Err(refused) = self.told.push(message) {
                            self.tells.dropped_at(refused.reason, &refused.item.src);
                        }
                    }
                }
            }
            Event::Asked { id, message, until } => {
                self.asks.received(1);
                let reply = Reply::new(self, id);
                let request = Request::new(message.src, message.dst, message.payload, reply);
                let asked = Asked { request, until };
                match want {
                    Want::Asked(own) if own.is_none() => **own = Some(asked),
                    _ => {
                        if let Err(refused) = self.asked.push(asked) {
                            let request = refused.item.request;
                            self.asks.dropped_at(refused.reason, &request.src);
                            request.reject(Rejection::BUSY);
                        }
                    }
                }
            }
            Event::Answered { id, answer } => {
                let slot = self.state().slots.remove(&id);
                let (response, failed) = match answer {
                    Answer::Response(response) => (response, None),
                    Answer::Rejected(why) => (Packet::default(), Some(Error::Rejected(why))),
                    Answer::TimedOut(limit) => {
                        let doing = "asking";
                        (Packet::default(), Some(Error::TimedOut { doing, limit }))
                    }
                };
                let outcome = Outcome { response, failed };
                match (want, slot) {
                    (Want::Answer(own, place), _) if *own == id => **place = Some(outcome),
                    // Its only item; a slot that is closed needs none.
                    (_, Some(slot)) => drop(slot.push(outcome)),
                    (_, None) => {}
                }
            }
            Event::Dropped { src, what, reason } => match what {
                What::Tell => {
                    self.tells.received(1);
                    self.tells.dropped_at(reason, &src);
                }
                What::Ask => {
                    self.asks.received(1);
                    self.asks.dropped_at(reason, &src);
                }
                What::Datagram => self.datagrams.dropped_at(reason, &src),
            },
        }
    }

    /// Sends what nobody waits for: at once, or in a task of its own if there is no room at the moment.
    pub(super) fn send_detached(self: &Arc<Self>, mut datagrams: Vec<(A, Packet)>) {
        if datagrams.is_empty() {
            return;
        }
        let count = datagrams.len();
        let Ok(runtime) = Handle::try_current() else {
            // Layers below may set timers.
            self.datagrams.dropped_many(Reason::Refused, count);
            return;
        };
        let shared = self.clone();
        let mut sending = Box::pin(async move {
            // What cannot be sent is lost as on the medium: peers inquire again.
            drop(shared.inner.tell_batch(&mut datagrams).await);
        });
        let mut nobody = Context::from_waker(Waker::noop());
        if sending.as_mut().poll(&mut nobody).is_ready() {
            return;
        }
        let detached = self.detached.clone();
        if detached.load(Ordering::Relaxed) >= DETACHED {
            self.datagrams.dropped_many(Reason::QueueFull, count);
            return;
        }
        detached.fetch_add(1, Ordering::Relaxed);
        runtime.spawn(async move {
            sending.await;
            detached.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Whether askers may still want something of this node; if so, how often somebody has pulled. If not, the
    /// background task must end.
    pub(super) fn still_needed(&self) -> Option<u64> {
        let mut state = self.state();
        if state.closed || state.engine.remembered() == 0 {
            state.background = None;
            return None;
        }
        Some(state.pulls)
    }

    /// Says that the background drives, until the result is dropped.
    pub(super) fn drive_in_background(&self) -> impl Drop {
        struct Driven<'a>(&'a AtomicBool);
        impl Drop for Driven<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Relaxed);
            }
        }
        self.in_background.store(true, Ordering::Relaxed);
        Driven(&self.in_background)
    }

    /// Fails everybody who waits, now and later. What was answered leaves, as far as there is room at once.
    pub(super) fn close(self: &Arc<Self>) {
        let mut state = self.state();
        state.closed = true;
        let replies = std::mem::take(&mut state.replies);
        let slots = std::mem::take(&mut state.slots);
        let background = state.background.take();
        drop(state);
        if let Some(background) = background {
            background.abort();
        }
        for slot in slots.into_values() {
            slot.close();
        }
        self.send_detached(replies);
        self.tells.dropped_many(Reason::Closed, self.told.close());
        self.asks.dropped_many(Reason::Closed, self.asked.close());
        self.nudge.notify_one();
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
        // A message of one datagram makes one.
        Ok(self
            .engine
            .poll_transmit()
            .map(|(_, packet)| packet)
            .unwrap_or_default())
    }

    /// Makes sure that the timer is soon enough; says whether it must be set sooner.
    pub(super) fn arm(&mut self) -> bool {
        let Some(timeout) = self.engine.poll_timeout() else {
            return false;
        };
        let sooner = self.armed.is_none_or(|armed| timeout < armed);
        if sooner {
            self.armed = Some(timeout);
        }
        sooner
    }
}

impl<A> Pulled<A> {
    fn set_timer(&mut self, armed: Option<Duration>, epoch: Instant) {
        let deadline = armed.and_then(|armed| Some((armed, epoch.checked_add(armed)?)));
        match (&mut self.timer, deadline) {
            (Some((set, _)), Some((armed, _))) if *set == armed => {}
            (Some((set, sleep)), Some((armed, deadline))) => {
                *set = armed;
                sleep.as_mut().reset(deadline);
            }
            (timer, deadline) => {
                *timer = deadline.map(|(armed, deadline)| (armed, Box::pin(sleep_until(deadline))));
            }
        }
    }
}

impl<A> std::fmt::Debug for Pulled<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pulled")
    }
}
