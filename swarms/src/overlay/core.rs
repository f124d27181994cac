//! What the callers of one overlay and its work share: the engine under a lock, and the book of addresses beside it.

use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use p2p::{Addr, AskSwarm, Counters, Error, Message, Packet, PeerId, Reason, Request, Result};
use p2p_protocols::hash::HashMap;
use p2p_protocols::overlay::wire::{Header, MAX_DIRECT};
use p2p_protocols::overlay::{Book, Budget, Prefix, Returns, Way};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::OverlayConfig;
use super::router::{Event, Router, Transmit};
use crate::driver::{Alarm, Clock, Detached, Driver, Wants};
use crate::inbox::{Inbox, Limits};

pub(super) struct Core<A: Addr, S, R: Router<A>> {
    pub(super) inner: Arc<S>,
    pub(super) id: PeerId,
    /// Whether addresses below prove ids.
    pub(super) proven: bool,
    /// Whether this node's own messages may go over others.
    pub(super) sends_over: bool,
    pub(super) mtu: usize,
    pub(super) config: OverlayConfig,
    pub(super) driver: Driver<()>,
    pub(super) alarm: Alarm,
    pub(super) told: Inbox<Message<PeerId>>,
    pub(super) asked: Inbox<Request<PeerId>>,
    /// What came over others, still sealed.
    pub(super) over: Inbox<Message<PeerId>>,
    pub(super) detached: Detached,
    pub(super) tells: Counters,
    pub(super) asks: Counters,
    pub(super) relays: Counters,
    pub(super) requests: Counters,
    /// Whether requests wait to be asked.
    wanted: AtomicBool,
    state: Mutex<State<A, R>>,
    book: RwLock<Book<A>>,
    arriving: Mutex<Arriving<A>>,
}

/// What comes over others for this node, before anything of it is proven.
pub(super) struct Arriving<A: Addr> {
    returns: Returns<A>,
    budget: Budget<A>,
    /// The book as it was when the swarm was closed: what was accepted before still leaves.
    closing: Option<Book<A>>,
}

pub(super) struct State<A: Addr, R: Router<A>> {
    /// Gone once the swarm is closed.
    pub(super) engine: Option<R>,
    pub(super) budget: Budget<A>,
    operations: HashMap<R::OpId, Waiter<A, R>>,
    searches: HashMap<PeerId, Search<A>>,
    searched_by: HashMap<R::OpId, PeerId>,
    to_ask: Vec<Transmit<A, R::RequestId>>,
}

/// Whoever waits for an operation.
pub(super) struct Waiter<A: Addr, R: Router<A>> {
    pub(super) progress: watch::Sender<R::Progress>,
    pub(super) done: oneshot::Sender<R::Outcome>,
}

/// A search for a node, and those who wait for it.
struct Search<A> {
    since: Duration,
    waiting: Vec<oneshot::Sender<Result<Way<A>>>>,
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
        let over = Limits {
            copy_below: 0,
            ..config.messages
        };
        Self {
            mtu: inner.mtu().saturating_sub(header),
            id,
            proven,
            sends_over: false,
            driver: Driver::new(),
            alarm: Alarm::new(clock),
            told: Inbox::new(config.messages),
            asked: Inbox::new(config.asks),
            over: Inbox::new(over),
            detached: Detached::default(),
            tells,
            asks,
            relays,
            requests,
            wanted: AtomicBool::new(false),
            state: Mutex::new(State {
                engine: Some(make(clock.now())),
                budget: Budget::new(config.relay_bytes, config.relay_bytes_each),
                operations: HashMap::default(),
                searches: HashMap::default(),
                searched_by: HashMap::default(),
                to_ask: Vec::new(),
            }),
            book: RwLock::new(Book::new(config.addresses, config.due_after, config.forget_after)),
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn book(&self) -> RwLockReadGuard<'_, Book<A>> {
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn book_mut(&self) -> RwLockWriteGuard<'_, Book<A>> {
        self.book.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn arriving(&self) -> MutexGuard<'_, Arriving<A>> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something that a neighbour brought for this node is to be taken in. The neighbour is charged for it.
    pub(super) fn admit(&self, now: Duration, src: PeerId, from: &A, bytes: usize) -> bool {
        let mut arriving = self.arriving();
        let prefix = Prefix::of(from);
        arriving.returns.note_in(now, src, from, prefix) && arriving.budget.spend_in(now, from, prefix, bytes)
    }

    /// How something that goes over others leaves for a node, without looking for that: as it is known to be reached, or else
    /// over those that brought something in its name.
    pub(super) fn way_over(&self, id: &PeerId) -> Option<Way<A>> {
        if let Some(way) = self.known(id) {
            return Some(way);
        }
        let arriving = self.arriving();
        if let Some(found) = arriving
            .closing
            .as_ref()
            .and_then(|book| book.find(self.alarm.now(), id))
        {
            return Some(found.way);
        }
        Some(arriving.returns.find(id))
            .filter(|by| !by.is_empty())
            .map(Way::Over)
    }

    /// Forgets the ways that were kept while what was accepted leaves.
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

    /// The header of what goes straight to a node.
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

    /// Does something with the engine from outside of the work, and takes over what it wants.
    pub(super) fn with_engine<T>(&self, call: impl FnOnce(&mut R, Duration) -> T) -> Result<T> {
        let mut state = self.state();
        let engine = state.engine.as_mut().ok_or(Error::Closed)?;
        let result = call(engine, self.alarm.now());
        let calls = self.settle(&mut state);
        drop(state);
        if calls {
            self.driver.wake();
        }
        Ok(result)
    }

    /// Takes over what the engine has to say after a call. Says whether there is something for the work to do.
    pub(super) fn settle(&self, state: &mut State<A, R>) -> bool {
        let before = state.to_ask.len();
        let Some(mut engine) = state.engine.take() else {
            return false;
        };
        state.to_ask.extend(std::iter::from_fn(|| engine.poll_transmit()));
        while let Some(event) = engine.poll_event() {
            match event {
                Event::Progress(op, progress) => {
                    if let Some(waiter) = state.operations.get(&op) {
                        waiter.progress.send_replace(progress);
                    }
                }
                Event::Done(op, outcome) => match state.searched_by.remove(&op) {
                    Some(id) => self.searched(state, id, outcome),
                    None => {
                        if let Some(waiter) = state.operations.remove(&op) {
                            // Whoever does not wait any more needs no answer.
                            let _ = waiter.done.send(outcome);
                        }
                    }
                },
            }
        }
        let sooner = self.alarm.set(engine.poll_timeout());
        state.engine = Some(engine);
        let wants = state.to_ask.len() > before;
        if wants {
            self.wanted.store(true, Relaxed);
        }
        sooner || wants
    }

    /// The requests that wait to be asked.
    pub(super) fn take_requests(&self) -> Vec<Transmit<A, R::RequestId>> {
        if !self.has_requests() {
            return Vec::new();
        }
        let mut state = self.state();
        self.wanted.store(false, Relaxed);
        mem::take(&mut state.to_ask)
    }

    pub(super) fn has_requests(&self) -> bool {
        self.wanted.load(Relaxed)
    }

    /// Begins an operation of the application.
    pub(super) fn begin(
        &self,
        call: impl FnOnce(&mut R, Duration) -> Result<R::OpId>,
        waiter: Waiter<A, R>,
    ) -> Result<R::OpId> {
        let mut state = self.state();
        let engine = state.engine.as_mut().ok_or(Error::Closed)?;
        let op = call(engine, self.alarm.now())?;
        state.operations.insert(op, waiter);
        let calls = self.settle(&mut state);
        drop(state);
        if calls {
            self.driver.wake();
        }
        Ok(op)
    }

    /// Gives an operation of the application up.
    pub(super) fn cancel(&self, op: R::OpId) {
        let mut state = self.state();
        if state.operations.remove(&op).is_some()
            && let Some(engine) = &mut state.engine
        {
            engine.cancel(op);
        }
    }

    /// How a node is reached, as far as that is known without asking anybody.
    pub(super) fn known(&self, id: &PeerId) -> Option<Way<A>> {
        let found = self.book().find(self.alarm.now(), id)?;
        if found.is_due {
            // Beside the message, which need not wait for it.
            let _ = self.search(*id, None);
        }
        Some(found.way)
    }

    /// How a node is reached; looks for it, if that is not known.
    pub(super) async fn way(&self, id: &PeerId) -> Result<Way<A>> {
        match self.known(id) {
            Some(way) => Ok(way),
            None => self.find(id).await,
        }
    }

    /// Looks for a node.
    async fn find(&self, id: &PeerId) -> Result<Way<A>> {
        let (sender, mut found) = oneshot::channel();
        self.search(*id, Some(sender))?;
        let wait = |cx: &mut std::task::Context<'_>| {
            let found = Pin::new(&mut found).poll(cx);
            found.map(|found| found.unwrap_or(Err(Error::Closed)))
        };
        self.driver.wait(Wants::Own(()), wait).await
    }

    /// Begins to look for a node, or waits with those who do.
    fn search(&self, id: PeerId, waiting: Option<oneshot::Sender<Result<Way<A>>>>) -> Result<()> {
        let mut state = self.state();
        if let Some(search) = state.searches.get_mut(&id) {
            search.waiting.retain(|waiting| !waiting.is_closed());
            search.waiting.extend(waiting);
            return Ok(());
        }
        let since = self.alarm.now();
        let engine = state.engine.as_mut().ok_or(Error::Closed)?;
        let op = engine.locate(since, id)?;
        state.searched_by.insert(op, id);
        let waiting = waiting.into_iter().collect();
        state.searches.insert(id, Search { since, waiting });
        let calls = self.settle(&mut state);
        drop(state);
        if calls {
            self.driver.wake();
        }
        Ok(())
    }

    /// Takes over what a search came to.
    fn searched(&self, state: &mut State<A, R>, id: PeerId, outcome: R::Outcome) {
        let Some(search) = state.searches.remove(&id) else {
            return;
        };
        let now = self.alarm.now();
        let found = R::located(outcome);
        let way = match found.addr {
            Some(addr) => Ok(Way::Direct(addr)),
            None if found.named_by.is_empty() => Err("nobody who was asked knows a node of this id"),
            None if !self.sends_over => Err("it does not answer, and nothing goes over others here"),
            None => Ok(Way::Over(found.named_by)),
        };
        match &way {
            Ok(way) => self.learn(now, id, way.clone()),
            Err(_) => drop(self.book_mut().forget(&id, search.since)),
        }
        for waiting in search.waiting {
            let way = way.clone().map_err(|reason| Error::unreachable(&id, reason));
            let _ = waiting.send(way);
        }
    }

    /// Takes in how a node is reached that this node has looked for.
    fn learn(&self, now: Duration, id: PeerId, way: Way<A>) {
        if id != self.id && self.book_mut().learn(now, id, way) {
            tracing::debug!(layer = R::LAYERS[0], peer = %id, "is reached otherwise now");
        }
    }

    /// Notes that a node speaks from an address where it was not known to be.
    pub(super) fn meet(&self, now: Duration, id: PeerId, addr: A) {
        if id != self.id && self.book_mut().meet(now, id, addr) {
            tracing::debug!(layer = R::LAYERS[0], peer = %id, "is reached otherwise now");
        }
    }

    /// Notes that a message or a request could not leave for a node: the next one looks for it anew.
    pub(super) fn failed(&self, id: &PeerId, error: &Error) {
        if matches!(error, Error::Unreachable { .. } | Error::TimedOut { .. }) {
            self.book_mut().forget(id, self.alarm.now());
        }
    }

    /// A message of this node to itself.
    pub(super) fn loop_back(&self, payload: Packet) -> Result<()> {
        self.check_open()?;
        self.tells.sent(1);
        self.tells.received(1);
        let message = Message {
            src: self.id,
            dst: self.id,
            payload,
        };
        match self.told.push(message) {
            Ok(()) => self.driver.put((), 1),
            Err(refused) => {
                for message in refused.items {
                    self.tells.dropped_at(refused.reason, &message.src);
                }
            }
        }
        Ok(())
    }

    /// Fails everybody who waits, now and later.
    pub(super) fn close(&self) {
        let mut state = self.state();
        let gone = (
            state.engine.take(),
            mem::take(&mut state.operations),
            mem::take(&mut state.searches),
            mem::take(&mut state.to_ask),
        );
        state.searched_by.clear();
        drop(state);
        // Those who wait find out by the loss of the other end.
        drop(gone);
        let book = mem::replace(
            &mut *self.book_mut(),
            Book::new(0, Duration::ZERO, Duration::ZERO),
        );
        if !book.is_empty() {
            self.arriving().closing = Some(book);
        }
        self.tells.dropped_many(Reason::Closed, self.told.close());
        self.asks.dropped_many(Reason::Closed, self.asked.close());
        self.relays.dropped_many(Reason::Closed, self.over.close());
        self.driver.close();
    }
}
