//! State shared by the callers of one overlay and its driver: the engine under a lock, and the address book
//! beside it.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use p2p::engine::RequestTransmit;
use p2p::{Addr, AskSwarm, Counters, DropReason, Error, Message, Packet, PeerId, Request, Result};
use p2p_protocols::hash::HashMap;
use p2p_protocols::overlay::wire::{Header, MAX_DIRECT};
use p2p_protocols::overlay::{AddressBook, Budget, Prefix, Returns, Route};
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::OverlayConfig;
use super::router::{OperationEvent, Router};
use crate::driver::{BackgroundSends, Clock, Driver, Interest, Mailbox, Timer};
use crate::env::Env;
use crate::inbox::{Inbox, Limits};

pub(super) struct Core<A: Addr, S, R: Router<A>> {
    pub(super) inner: Arc<S>,
    pub(super) id: PeerId,
    /// Whether addresses below prove ids.
    pub(super) proven: bool,
    /// Whether this node's own messages may be relayed.
    pub(super) sends_relayed: bool,
    pub(super) mtu: usize,
    pub(super) config: OverlayConfig,
    pub(super) driver: Driver<()>,
    pub(super) timer: Timer,
    pub(super) env: Env,
    pub(super) told: Mailbox<Message<PeerId>>,
    pub(super) asked: Inbox<Request<PeerId>>,
    /// Relayed messages for this node, still encrypted.
    pub(super) relayed: Inbox<Message<PeerId>>,
    pub(super) background_sends: BackgroundSends,
    pub(super) tells: Counters,
    pub(super) asks: Counters,
    pub(super) relays: Counters,
    pub(super) requests: Counters,
    /// Whether requests of the engine wait to be sent.
    has_outgoing: AtomicBool,
    state: Mutex<State<A, R>>,
    book: RwLock<AddressBook<A>>,
    arriving: Mutex<Arriving<A>>,
}

/// Relayed messages for this node, before they are authenticated.
pub(super) struct Arriving<A: Addr> {
    returns: Returns<A>,
    budget: Budget<A>,
    /// The address book from before the swarm was closed: messages that were accepted before are still sent.
    closing: Option<AddressBook<A>>,
}

pub(super) struct State<A: Addr, R: Router<A>> {
    /// `None` once the swarm is closed.
    pub(super) engine: Option<R>,
    pub(super) budget: Budget<A>,
    operations: HashMap<R::OpId, Waiter<A, R>>,
    searches: HashMap<PeerId, Search<A>>,
    searched_by: HashMap<R::OpId, PeerId>,
    outgoing: Vec<RequestTransmit<A>>,
}

/// The caller that waits for an operation.
pub(super) struct Waiter<A: Addr, R: Router<A>> {
    pub(super) progress: watch::Sender<R::Progress>,
    pub(super) done: oneshot::Sender<R::Outcome>,
}

/// A lookup of a node, and the callers that wait for it.
struct Search<A> {
    since: Duration,
    waiting: Vec<oneshot::Sender<Result<Route<A>>>>,
}

impl<A: Addr, S: AskSwarm<A>, R: Router<A>> Core<A, S, R> {
    pub(super) fn new(
        inner: Arc<S>,
        id: PeerId,
        proven: bool,
        config: OverlayConfig,
        make: impl FnOnce(Duration) -> R,
    ) -> Self {
        let header = if proven { 1 } else { MAX_DIRECT };
        let clock = Clock::new(Instant::now(), Duration::from_secs(1));
        let [tells, asks, relays, requests] = R::LAYERS.map(Counters::new);
        let relayed = Limits {
            copy_below: 0,
            ..config.messages
        };
        Self {
            mtu: inner.mtu().saturating_sub(header),
            id,
            proven,
            sends_relayed: false,
            driver: Driver::new(),
            timer: Timer::new(clock),
            env: Env::current(),
            told: Mailbox::new(config.messages),
            asked: Inbox::new(config.asks),
            relayed: Inbox::new(relayed),
            background_sends: BackgroundSends::default(),
            tells,
            asks,
            relays,
            requests,
            has_outgoing: AtomicBool::new(false),
            state: Mutex::new(State {
                engine: Some(make(clock.now())),
                budget: Budget::new(config.relay_bytes, config.relay_bytes_each),
                operations: HashMap::default(),
                searches: HashMap::default(),
                searched_by: HashMap::default(),
                outgoing: Vec::new(),
            }),
            book: RwLock::new(AddressBook::new(
                config.addresses,
                config.due_after,
                config.forget_after,
            )),
            arriving: Mutex::new(Arriving {
                returns: Returns::default(),
                budget: Budget::new(config.arriving_bytes, config.arriving_bytes_each),
                closing: None,
            }),
            inner,
            config,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State<A, R>> {
        self.state.lock()
    }

    pub(super) fn book(&self) -> RwLockReadGuard<'_, AddressBook<A>> {
        self.book.read()
    }

    fn book_mut(&self) -> RwLockWriteGuard<'_, AddressBook<A>> {
        self.book.write()
    }

    fn arriving(&self) -> MutexGuard<'_, Arriving<A>> {
        self.arriving.lock()
    }

    /// Returns whether to accept a relayed message for this node. The neighbour that relayed it is charged.
    pub(super) fn admit(&self, now: Duration, src: PeerId, from: &A, bytes: usize) -> bool {
        let mut arriving = self.arriving();
        let prefix = Prefix::of(from);
        arriving.returns.note_in(now, src, from, prefix) && arriving.budget.spend_in(now, from, prefix, bytes)
    }

    /// Returns the route for a relayed message to a node, without a lookup: the known route, or else the
    /// neighbours that relayed messages of its id.
    ///
    /// No lookup starts for a known node that is silent either. Any node could relay a message in its name, and lookups for
    /// many of them would take the places of this node's own operations.
    pub(super) fn relay_route(&self, id: &PeerId) -> Option<Route<A>> {
        let now = self.timer.now();
        let known = self.book().route(now, id);
        if known.is_some() {
            return known;
        }
        let arriving = self.arriving();
        let closing = arriving.closing.as_ref();
        if let Some(route) = closing.and_then(|book| book.route(now, id)) {
            return Some(route);
        }
        Some(arriving.returns.find(id))
            .filter(|by| !by.is_empty())
            .map(Route::Relayed)
    }

    /// Drops the routes that were kept while accepted messages were sent.
    pub(super) fn closed(&self) {
        let mut arriving = self.arriving();
        arriving.closing = None;
        arriving.returns.clear();
    }

    pub(super) fn check_open(&self) -> Result<()> {
        match self.state().engine {
            Some(_) => Ok(()),
            None => Err(Error::Closed),
        }
    }

    /// Returns the header of messages that are sent to a node directly.
    pub(super) fn header(&self, dst: &PeerId) -> Header {
        if self.proven {
            Header::Direct
        } else {
            Header::Named {
                src: self.id,
                dst: *dst,
            }
        }
    }

    /// Calls the engine from outside of the driver, and handles its effects.
    pub(super) fn with_engine<T>(&self, call: impl FnOnce(&mut R, Duration) -> T) -> Result<T> {
        let mut state = self.state();
        let engine = state.engine.as_mut().ok_or(Error::Closed)?;
        let result = call(engine, self.timer.now());
        let calls = self.drain_engine(&mut state);
        drop(state);
        if calls {
            self.driver.wake();
        }
        Ok(result)
    }

    /// Handles the effects of an engine call. Returns whether there is work for the driver.
    pub(super) fn drain_engine(&self, state: &mut State<A, R>) -> bool {
        let before = state.outgoing.len();
        let Some(mut engine) = state.engine.take() else {
            return false;
        };
        let now = self.timer.now();
        state
            .outgoing
            .extend(std::iter::from_fn(|| engine.poll_transmit(now)));
        while let Some(event) = engine.poll_event() {
            let Some(event) = R::operation_event(event) else {
                continue;
            };
            match event {
                OperationEvent::Progress(op, progress) => {
                    if let Some(waiter) = state.operations.get(&op) {
                        waiter.progress.send_replace(progress);
                    }
                }
                OperationEvent::Done(op, outcome) => match state.searched_by.remove(&op) {
                    Some(id) => self.searched(state, id, outcome),
                    None => {
                        if let Some(waiter) = state.operations.remove(&op) {
                            // A caller that no longer waits needs no result.
                            let _ = waiter.done.send(outcome);
                        }
                    }
                },
            }
        }
        let sooner = self.timer.set(engine.poll_timeout());
        state.engine = Some(engine);
        let has_new = state.outgoing.len() > before;
        if has_new {
            self.has_outgoing.store(true, Relaxed);
        }
        sooner || has_new
    }

    /// Takes the requests that wait to be sent.
    pub(super) fn take_requests(&self) -> Vec<RequestTransmit<A>> {
        if !self.has_requests() {
            return Vec::new();
        }
        let mut state = self.state();
        self.has_outgoing.store(false, Relaxed);
        mem::take(&mut state.outgoing)
    }

    pub(super) fn has_requests(&self) -> bool {
        self.has_outgoing.load(Relaxed)
    }

    /// Starts an operation of the application.
    pub(super) fn begin(
        &self,
        call: impl FnOnce(&mut R, Duration) -> Result<R::OpId>,
        waiter: Waiter<A, R>,
    ) -> Result<R::OpId> {
        let mut state = self.state();
        let engine = state.engine.as_mut().ok_or(Error::Closed)?;
        let op = call(engine, self.timer.now())?;
        state.operations.insert(op, waiter);
        let calls = self.drain_engine(&mut state);
        drop(state);
        if calls {
            self.driver.wake();
        }
        Ok(op)
    }

    /// Cancels an operation of the application.
    pub(super) fn cancel(&self, op: R::OpId) {
        let mut state = self.state();
        if state.operations.remove(&op).is_some()
            && let Some(engine) = &mut state.engine
        {
            engine.cancel(op);
        }
    }

    /// Returns the route to a node, as far as it is known without a lookup.
    pub(super) fn known(&self, id: &PeerId) -> Option<Route<A>> {
        let found = self.book().find(self.timer.now(), id)?;
        if found.is_due {
            // Concurrently: the message need not wait for the lookup.
            let _ = self.search(*id, None);
        }
        Some(found.route)
    }

    /// Returns the route to a node; looks it up if it is not known.
    pub(super) async fn route(&self, id: &PeerId) -> Result<Route<A>> {
        match self.known(id) {
            Some(route) => Ok(route),
            None => self.find(id).await,
        }
    }

    /// Looks a node up.
    async fn find(&self, id: &PeerId) -> Result<Route<A>> {
        let (sender, mut found) = oneshot::channel();
        self.search(*id, Some(sender))?;
        let wait = |cx: &mut std::task::Context<'_>| {
            let found = Pin::new(&mut found).poll(cx);
            found.map(|found| found.unwrap_or(Err(Error::Closed)))
        };
        self.driver.wait(Interest::Own(()), wait).await
    }

    /// Starts a lookup of a node, or joins the one in progress.
    fn search(&self, id: PeerId, waiting: Option<oneshot::Sender<Result<Route<A>>>>) -> Result<()> {
        let mut state = self.state();
        if let Some(search) = state.searches.get_mut(&id) {
            search.waiting.retain(|waiting| !waiting.is_closed());
            search.waiting.extend(waiting);
            return Ok(());
        }
        let since = self.timer.now();
        let engine = state.engine.as_mut().ok_or(Error::Closed)?;
        let op = engine.locate(since, id)?;
        state.searched_by.insert(op, id);
        let waiting = waiting.into_iter().collect();
        state.searches.insert(id, Search { since, waiting });
        let calls = self.drain_engine(&mut state);
        drop(state);
        if calls {
            self.driver.wake();
        }
        Ok(())
    }

    /// Handles the result of a lookup.
    fn searched(&self, state: &mut State<A, R>, id: PeerId, outcome: R::Outcome) {
        let Some(search) = state.searches.remove(&id) else {
            return;
        };
        let now = self.timer.now();
        let found = R::located(outcome);
        let route = match found.addr {
            Some(addr) => Ok(Route::Direct(addr)),
            None if found.named_by.is_empty() => Err("no node that was asked knows this id"),
            None if !self.sends_relayed => Err("the node does not answer, and relaying is not enabled"),
            None => Ok(Route::Relayed(found.named_by)),
        };
        match &route {
            Ok(route) => self.learn(now, id, route.clone()),
            Err(_) => drop(self.book_mut().forget(&id, search.since)),
        }
        for waiting in search.waiting {
            let route = route.clone().map_err(|reason| Error::unreachable(&id, reason));
            let _ = waiting.send(route);
        }
    }

    /// Records the route to a node that this node has looked up.
    fn learn(&self, now: Duration, id: PeerId, route: Route<A>) {
        if id != self.id && self.book_mut().learn(now, id, route) {
            tracing::debug!(layer = R::LAYERS[0], peer = %id, "the route to the node has changed");
        }
    }

    /// Records that a node sends from a new address.
    pub(super) fn meet(&self, now: Duration, id: PeerId, addr: A) {
        if id != self.id && self.book_mut().meet(now, id, addr) {
            tracing::debug!(layer = R::LAYERS[0], peer = %id, "the route to the node has changed");
        }
    }

    /// Records that sending to a node failed: the next message looks it up again.
    pub(super) fn failed(&self, id: &PeerId, error: &Error) {
        if matches!(error, Error::Unreachable { .. } | Error::TimedOut { .. }) {
            self.book_mut().forget(id, self.timer.now());
        }
    }

    /// Delivers a message of this node to itself.
    pub(super) fn loop_back(&self, payload: Packet) -> Result<()> {
        self.check_open()?;
        self.tells.add_sent(1);
        self.tells.add_received(1);
        let message = Message {
            src: self.id,
            dst: self.id,
            payload,
        };
        self.deliver([message]);
        Ok(())
    }

    /// Fails all current and later calls.
    pub(super) fn close(&self) {
        let mut state = self.state();
        let gone = (
            state.engine.take(),
            mem::take(&mut state.operations),
            mem::take(&mut state.searches),
            mem::take(&mut state.outgoing),
        );
        state.searched_by.clear();
        drop(state);
        // Waiting callers notice that the sender was dropped.
        drop(gone);
        let book = mem::replace(
            &mut *self.book_mut(),
            AddressBook::new(0, Duration::ZERO, Duration::ZERO),
        );
        if !book.is_empty() {
            self.arriving().closing = Some(book);
        }
        self.tells.add_dropped_many(DropReason::Closed, self.told.close());
        self.asks.add_dropped_many(DropReason::Closed, self.asked.close());
        self.relays
            .add_dropped_many(DropReason::Closed, self.relayed.close());
        self.driver.close();
    }
}
