//! Runs an engine on a swarm: the loop between an [`Engine`] and any [`AskSwarm`].
//!
//! An engine that was written for a simulation (`p2p_swarmtest::sim`) runs unchanged. [`drive`] returns a
//! [`Driven`] node with the calls of a simulation: [`act`](Driven::act) calls the engine, and
//! [`event`](Driven::event) waits for its next event. Messages and requests go to the engine, its transmissions
//! to the swarm, and its timeouts are kept, also while the application awaits nothing.
//!
//! ```
//! use std::time::Duration;
//! use p2p::Swarm;
//! use p2p::engine::{Engine, Failure, RequestId, Transmit};
//! use p2p_swarms::{MemoryRealm, drive};
//!
//! /// Asks one node for the length of a text.
//! struct Length<A> { out: Option<Transmit<A>>, answer: Option<u8> }
//!
//! impl<A> Engine for Length<A> {
//!     type Addr = A;
//!     type Event = u8;
//!
//!     fn handle_request(&mut self, _now: Duration, _from: &A, text: &[u8]) -> Result<Vec<u8>, p2p::Rejection> {
//!         Ok(vec![u8::try_from(text.len()).map_err(|_| p2p::Rejection::OVERSIZE)?])
//!     }
//!     fn handle_answer(&mut self, _now: Duration, _id: RequestId, answer: &[u8]) {
//!         self.answer = answer.first().copied();
//!     }
//!     fn poll_transmit(&mut self, _now: Duration) -> Option<Transmit<A>> { self.out.take() }
//!     fn poll_event(&mut self) -> Option<u8> { self.answer.take() }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> p2p::Result<()> {
//! let realm = MemoryRealm::default();
//! let node = || drive(Length { out: None, answer: None }, realm.open());
//! let (server, client) = (node()?, node()?);
//! let to = server.swarm().local_addr();
//! client.act(|engine, _now| {
//!     engine.out = Some(Transmit::Ask { to, id: RequestId(1), request: b"hello".to_vec() });
//! })?;
//! assert_eq!(client.event().await?, 5);
//! # Ok(())
//! # }
//! ```
//!
//! # What ends it
//! [`Driven::close`], [`Driven::leave`], dropping the [`Driven`], and the end of the swarm. The engine is dropped
//! then; requests in flight get neither an answer nor a failure.
//!
//! # Limits
//! [`DriveConfig`] bounds requests in flight, and events that wait to be taken. While the maximum number of
//! requests is in flight, the engine is not asked for transmissions. A message that waits for room in the swarm
//! is dropped if 64 others wait as well.
//!
//! # Cancel safety
//! [`Driven::event`] is cancel safe. The engine runs on while no call waits.
//!
//! Deliberately absent: retries (an engine decides about them), and the encoding of messages. A swarm without
//! asks gets them from [`mbapp`](crate::SwarmExt::mbapp).

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use p2p::engine::{Engine, Failure, RequestId, Transmit};
use p2p::{Addr, AskSwarm, Counters, DropReason, Error, Message, Packet, Request, Result};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::{sleep, timeout};

use crate::driver::{BackgroundSends, Driver, Interest, PAUSE, Sleeper, Timer, finish_close, found};

/// Limits of a [`Driven`] node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriveConfig {
    /// Timeout of a request; then the engine gets a [`Failure::Unreachable`]. Default: 5 s.
    pub ask_timeout: Duration,
    /// Maximum number of requests in flight. At the limit the engine is not asked for transmissions. Default:
    /// 1024.
    pub asks: usize,
    /// Maximum number of events that wait to be taken; further ones are dropped and
    /// [counted](Driven::missed_events). Default: 1024.
    pub events: usize,
    /// Maximum number of messages that are received at a time. Default: 64.
    pub batch: usize,
}

impl Default for DriveConfig {
    fn default() -> Self {
        Self {
            ask_timeout: Duration::from_secs(5),
            asks: 1024,
            events: 1024,
            batch: 64,
        }
    }
}

/// Runs `engine` on `swarm` with the default limits; see the [module](self).
///
/// The engine's time begins at zero with this call.
///
/// # Errors
/// Returns [`Error::Invalid`] outside of a tokio runtime.
pub fn drive<S, E>(engine: E, swarm: S) -> Result<Driven<S, E>>
where
    S: AskSwarm<E::Addr>,
    E: Engine<Addr: Addr, Event: Send> + Send + 'static,
{
    drive_with(engine, swarm, DriveConfig::default())
}

/// Runs `engine` on `swarm` with these limits.
///
/// # Errors
/// Returns the errors of [`drive`].
pub fn drive_with<S, E>(engine: E, swarm: S, config: DriveConfig) -> Result<Driven<S, E>>
where
    S: AskSwarm<E::Addr>,
    E: Engine<Addr: Addr, Event: Send> + Send + 'static,
{
    let core = Arc::new(Core {
        swarm: Arc::new(swarm),
        config: DriveConfig {
            asks: config.asks.max(1),
            batch: config.batch.max(1),
            ..config
        },
        driver: Driver::new(),
        timer: Timer::default(),
        sends: BackgroundSends::default(),
        tells: Counters::new("engine"),
        requests: Counters::new("engine-ask"),
        has_output: AtomicBool::new(true),
        state: Mutex::new(State {
            engine: Some(engine),
            events: VecDeque::new(),
            missed: 0,
        }),
    });
    core.driver.start(core.clone().work())?;
    Ok(Driven(core))
}

/// An engine that runs on a swarm; see the [module](self). Dropping it ends the engine and drops the swarm.
pub struct Driven<S, E: Engine>(Arc<Core<S, E>>);

struct Core<S, E: Engine> {
    swarm: Arc<S>,
    config: DriveConfig,
    driver: Driver<()>,
    timer: Timer,
    sends: BackgroundSends,
    tells: Counters,
    requests: Counters,
    /// Whether the engine may have transmissions.
    has_output: AtomicBool,
    state: Mutex<State<E>>,
}

struct State<E: Engine> {
    /// `None` once the node is closed.
    engine: Option<E>,
    events: VecDeque<E::Event>,
    missed: u64,
}

impl<S, E> Driven<S, E>
where
    S: AskSwarm<E::Addr>,
    E: Engine<Addr: Addr, Event: Send> + Send + 'static,
{
    /// Calls the engine with the current time; its transmissions are sent afterwards.
    ///
    /// Messages wait while `call` runs, so it should be short.
    ///
    /// # Errors
    /// Returns [`Error::Closed`] once the node is closed.
    pub fn act<T>(&self, call: impl FnOnce(&mut E, Duration) -> T) -> Result<T> {
        let core = &self.0;
        let (result, events) = core.with_engine(call).ok_or(Error::Closed)?;
        core.driver.notify((), events);
        core.driver.wake();
        Ok(result)
    }

    /// Waits for the next event of the engine.
    ///
    /// # Errors
    /// Returns [`Error::Closed`] once the node is closed and all events are taken, and errors of receiving,
    /// after which the node runs on.
    ///
    /// # Cancel safety
    /// Cancelling loses no event.
    pub async fn event(&self) -> Result<E::Event> {
        tokio::task::coop::consume_budget().await;
        let take = |_: &mut Context<'_>| found(Ok(self.0.state().events.pop_front()));
        self.0.driver.wait(Interest::Items((), 1), take).await
    }

    /// Returns the number of events that were dropped because too many waited.
    pub fn missed_events(&self) -> u64 {
        self.0.state().missed
    }

    /// Returns the engine's current time: the time since [`drive`] was called.
    pub fn now(&self) -> Duration {
        self.0.timer.now()
    }

    /// Returns the swarm.
    pub fn swarm(&self) -> &S {
        &self.0.swarm
    }

    /// Lets the engine announce its departure, and closes the node after `grace`.
    ///
    /// # Cancel safety
    /// Cancelling leaves the node running.
    pub async fn leave(&self, grace: Duration) {
        if self.act(Engine::handle_leave).is_ok() {
            sleep(grace).await;
        }
        self.close().await;
    }

    /// Drops the engine and closes the swarm. Later calls fail with [`Error::Closed`].
    ///
    /// # Cancel safety
    /// The close takes effect at the first poll, and continues if it is cancelled.
    pub async fn close(&self) {
        self.0.close();
        let swarm = self.0.swarm.clone();
        finish_close(async move { swarm.close().await }).await;
    }

    /// Calls `visit` with the counters of the engine's messages and requests, and with those of the swarm.
    pub fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.0.tells);
        visit(&self.0.requests);
        self.0.swarm.visit_counters(visit);
    }
}

/// The next occurrence in the loop.
enum WorkEvent<A> {
    Messages,
    Request(Request<A>),
    Answer(RequestId, Result<Packet>),
    Timeout,
    /// The engine may have transmissions.
    Output,
    Failed(Error),
}

type Asks = FuturesUnordered<BoxFuture<'static, (RequestId, Result<Packet>)>>;

impl<S, E> Core<S, E>
where
    S: AskSwarm<E::Addr>,
    E: Engine<Addr: Addr, Event: Send> + Send + 'static,
{
    /// Runs the engine until the swarm is closed.
    async fn work(self: Arc<Self>) {
        let (mut pulled, mut sleeper, mut asks) = (Vec::new(), Sleeper::default(), Asks::new());
        // Persists over iterations, because a cancelled call would lose its place.
        let mut requests = pin!(self.swarm.receive_ask());
        let mut messages_first = false;
        loop {
            self.transmit(&mut asks);
            // Neither messages nor requests can keep the other from being handled.
            messages_first = !messages_first;
            let event = {
                let mut receiving = pin!(self.swarm.receive_batch(&mut pulled, self.config.batch));
                let mut messages = |cx: &mut Context<'_>| match receiving.as_mut().poll(cx) {
                    Poll::Ready(Ok(_)) => Some(WorkEvent::Messages),
                    Poll::Ready(Err(error)) => Some(WorkEvent::Failed(error)),
                    Poll::Pending => None,
                };
                poll_fn(|cx| {
                    if self.timer.poll(cx, &mut sleeper).is_ready() {
                        return Poll::Ready(WorkEvent::Timeout);
                    }
                    if messages_first && let Some(event) = messages(cx) {
                        return Poll::Ready(event);
                    }
                    if !asks.is_empty()
                        && let Poll::Ready(Some((id, answer))) = asks.poll_next_unpin(cx)
                    {
                        return Poll::Ready(WorkEvent::Answer(id, answer));
                    }
                    if let Poll::Ready(request) = requests.as_mut().poll(cx) {
                        requests.set(self.swarm.receive_ask());
                        return Poll::Ready(request.map_or_else(WorkEvent::Failed, WorkEvent::Request));
                    }
                    if !messages_first && let Some(event) = messages(cx) {
                        return Poll::Ready(event);
                    }
                    if self.has_output.load(Relaxed) && asks.len() < self.config.asks {
                        return Poll::Ready(WorkEvent::Output);
                    }
                    Poll::Pending
                })
                .await
            };
            let events = match event {
                WorkEvent::Output => 0,
                WorkEvent::Messages => self.handle_messages(&mut pulled),
                WorkEvent::Request(request) => self.handle_request(request),
                WorkEvent::Answer(id, answer) => self.handle_answer(id, answer),
                WorkEvent::Timeout => self.handle(E::handle_timeout),
                WorkEvent::Failed(Error::Closed) => return self.close(),
                WorkEvent::Failed(error) => {
                    tracing::debug!(layer = "engine", %error, "receiving failed");
                    self.driver.fail(error);
                    sleep(PAUSE).await;
                    0
                }
            };
            if events > 0 {
                self.driver.notify((), events);
                self.driver.yield_to_leader().await;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock()
    }

    /// Calls the engine, takes its events and sets the timer. Returns the result and the number of events, or
    /// `None` if the node is closed.
    fn with_engine<T>(&self, call: impl FnOnce(&mut E, Duration) -> T) -> Option<(T, usize)> {
        let mut state = self.state();
        let State {
            engine,
            events,
            missed,
        } = &mut *state;
        let engine = engine.as_mut()?;
        let result = call(engine, self.timer.now());
        let before = events.len();
        while let Some(event) = engine.poll_event() {
            if events.len() < self.config.events {
                events.push_back(event);
            } else {
                *missed += 1;
            }
        }
        self.timer.set(engine.poll_timeout());
        let new = events.len() - before;
        drop(state);
        self.has_output.store(true, Relaxed);
        Some((result, new))
    }

    /// Calls the engine from the loop. Returns the number of events.
    fn handle(&self, call: impl FnOnce(&mut E, Duration)) -> usize {
        self.with_engine(call).map_or(0, |((), events)| events)
    }

    fn handle_messages(&self, pulled: &mut Vec<Message<E::Addr>>) -> usize {
        let count = pulled.len();
        self.tells.add_received(count);
        let events = self.handle(|engine, now| {
            for Message { src, payload, .. } in pulled.drain(..) {
                engine.handle_message(now, &src, &payload);
            }
        });
        self.tells.add_delivered(count);
        events
    }

    fn handle_request(&self, request: Request<E::Addr>) -> usize {
        let Request { message, responder } = request;
        let (src, payload) = (message.src, message.payload);
        self.requests.add_received(1);
        let served = self.with_engine(|engine, now| engine.handle_request(now, &src, &payload));
        let Some((served, events)) = served else { return 0 };
        match served {
            Ok(answer) => {
                self.requests.add_delivered(1);
                let answer = Packet::new(self.swarm.headroom(), &answer);
                let responding = async move { drop(responder.respond(answer).await) };
                if let Err(reason) = self.sends.send(responding) {
                    tracing::debug!(layer = "engine", peer = %src, ?reason, "no room for an answer");
                }
            }
            Err(why) => {
                self.requests.add_dropped_from(DropReason::Refused, &src);
                responder.reject(why);
            }
        }
        events
    }

    fn handle_answer(&self, id: RequestId, answer: Result<Packet>) -> usize {
        self.handle(|engine, now| match answer {
            Ok(answer) => engine.handle_answer(now, id, &answer),
            Err(Error::Rejected(_)) => engine.handle_failure(now, id, Failure::Rejected),
            Err(error) => {
                tracing::trace!(layer = "engine", %error, "no answer");
                engine.handle_failure(now, id, Failure::Unreachable);
            }
        })
    }

    /// Sends what the engine has to send, as far as the limit of requests permits.
    fn transmit(self: &Arc<Self>, asks: &mut Asks) {
        while self.has_output.load(Relaxed) && asks.len() < self.config.asks {
            let transmit = {
                let mut state = self.state();
                let Some(engine) = &mut state.engine else { return };
                let transmit = engine.poll_transmit(self.timer.now());
                if transmit.is_none() {
                    self.has_output.store(false, Relaxed);
                    self.timer.set(engine.poll_timeout());
                }
                transmit
            };
            match transmit {
                None => {}
                Some(Transmit::Tell { to, payload }) => self.tell(to, &payload),
                Some(Transmit::Ask { to, id, request }) => asks.push(self.ask(to, id, &request)),
            }
        }
    }

    fn tell(self: &Arc<Self>, to: E::Addr, payload: &[u8]) {
        let packet = Packet::new(self.swarm.headroom(), payload);
        let core = self.clone();
        let telling = async move {
            match core.swarm.tell(&to, packet).await {
                Ok(()) => core.tells.add_sent(1),
                Err(error) => tracing::debug!(layer = "engine", peer = %to, %error, "a message was not sent"),
            }
        };
        if let Err(reason) = self.sends.send(telling) {
            tracing::debug!(layer = "engine", ?reason, "a message was not sent");
        }
    }

    fn ask(
        &self,
        to: E::Addr,
        id: RequestId,
        request: &[u8],
    ) -> BoxFuture<'static, (RequestId, Result<Packet>)> {
        let (swarm, limit) = (self.swarm.clone(), self.config.ask_timeout);
        let packet = Packet::new(swarm.headroom(), request);
        self.requests.add_sent(1);
        Box::pin(async move {
            let answer = timeout(limit, swarm.ask(&to, packet)).await;
            let doing = "asking a node for an engine";
            (id, answer.unwrap_or(Err(Error::TimedOut { doing, limit })))
        })
    }

    /// Fails all current and later calls.
    fn close(&self) {
        let engine = self.state().engine.take();
        drop(engine);
        self.driver.close();
    }
}

impl<S, E: Engine> Drop for Driven<S, E> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        let engine = state.engine.take();
        drop(state);
        drop(engine);
        self.0.driver.close();
    }
}

impl<S, E: Engine> fmt::Debug for Driven<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driven")
            .field("now", &self.0.timer.now())
            .finish_non_exhaustive()
    }
}
