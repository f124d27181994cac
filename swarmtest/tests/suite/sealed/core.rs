//! A node's state: handshakes, sessions and asks under way.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use p2p::{Counters, DropReason, Error, Message, Packet, PeerId, Rejection, Request, Result, Swarm as _};
use p2p_swarmtest::wire::{Port, Tap};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::fault::Fault;
use super::frame::{Frame, HELLO};
use super::session::{Pair, Public, Sessions, id_of};
use super::{ASKS, Name, QUEUE};

/// How long to wait before a hello is sent again, and for how long in all.
const RETRY: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(1);

/// What waits for a reader.
pub(crate) struct Inbox<T> {
    pub(super) put: mpsc::Sender<T>,
    take: tokio::sync::Mutex<mpsc::Receiver<T>>,
}

impl<T> Inbox<T> {
    fn new() -> Self {
        let (put, take) = mpsc::channel(QUEUE);
        Self {
            put,
            take: tokio::sync::Mutex::new(take),
        }
    }

    /// Drops what waits, and returns how many items that were. A reader that holds the lock finds nothing there.
    fn clear(&self) -> usize {
        let Ok(mut take) = self.take.try_lock() else {
            return 0;
        };
        std::iter::from_fn(|| take.try_recv().ok()).count()
    }

    pub(crate) async fn take(&self) -> Result<T> {
        self.take.lock().await.recv().await.ok_or(Error::Closed)
    }
}

/// A handshake under way.
pub(super) struct Opening {
    pub(super) number: u64,
    pub(super) short: Pair,
    pub(super) hello: Vec<u8>,
    sent: Instant,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) openings: HashMap<Name, Opening>,
    pub(super) sessions: Sessions,
    /// The newest session with each peer.
    pub(super) current: HashMap<Name, u64>,
    pub(super) asks: HashMap<u64, (Name, oneshot::Sender<Result<Packet, Rejection>>)>,
    pub(super) last_ask: u64,
    /// What faults remember.
    pub(super) unchecked: HashMap<Name, u64>,
    pub(super) met: HashSet<PeerId>,
    pub(super) first_at: HashMap<Port, PeerId>,
    pub(super) last_key: HashMap<Port, Public>,
    pub(super) resented: HashSet<Name>,
    pub(super) senseless: HashMap<Port, usize>,
    /// Answers of others in a peer's place.
    pub(super) wrong_answers: HashMap<Name, usize>,
    lookups: usize,
}

/// A node's state, and the tap that it is on.
pub(crate) struct Core {
    pub(crate) tap: Tap,
    pub(crate) pair: Pair,
    pub(crate) counters: Counters,
    pub(crate) messages: Inbox<Message<Name>>,
    pub(crate) requests: Inbox<Request<Name>>,
    pub(crate) closed: AtomicBool,
    pub(crate) closing: Notify,
    pub(super) opened: Notify,
    state: Mutex<State>,
    pub(super) fault: Fault,
    /// Whether another node had this key before.
    pub(super) again: bool,
}

impl Core {
    pub(crate) fn new(tap: Tap, pair: Pair, again: bool, fault: Fault) -> Self {
        Self {
            tap,
            pair,
            again,
            counters: Counters::new("sealed"),
            messages: Inbox::new(),
            requests: Inbox::new(),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
            opened: Notify::new(),
            state: Mutex::default(),
            fault,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn name(&self) -> Name {
        Name {
            id: id_of(&self.pair.public),
            at: self.tap.port(),
        }
    }

    pub(crate) fn close(&self) {
        if !self.closed.swap(true, SeqCst) {
            self.closing.notify_waiters();
            let _ = self.tap.close().now_or_never();
            self.counters
                .add_dropped_many(DropReason::Closed, self.messages.clear());
        }
    }

    pub(super) fn put(&self, dst: Port, bytes: Vec<u8>) -> Result<()> {
        // A tap never waits.
        self.tap
            .tell(&dst, Packet::from(bytes))
            .now_or_never()
            .unwrap_or(Ok(()))
    }

    /// Sends a frame, and first opens a session if there is none.
    pub(crate) async fn send(&self, dst: &Name, frame: &Frame<'_>) -> Result<()> {
        self.unless_closed(async {
            self.session(dst).await?;
            self.answer(dst, frame);
            Ok(())
        })
        .await
    }

    /// Sends a frame, if there is a session.
    pub(crate) fn answer(&self, dst: &Name, frame: &Frame<'_>) {
        let packet = self.seal(dst, frame);
        // An error means that this node is closing.
        let _ = packet.map(|packet| self.put(dst.at, packet));
    }

    pub(crate) async fn lookup(&self, addr: &Name) -> Result<Vec<u8>> {
        self.check_open()?;
        {
            let mut state = self.state();
            state.lookups += 1;
            let by_port = self.fault == Fault::KeyByPort
                || self.fault == Fault::KeyByPortAtTimes && state.lookups.is_multiple_of(8);
            if let Some(key) = state.last_key.get(&addr.at).filter(|_| by_port) {
                return Ok(key.to_vec());
            }
        }
        self.unless_closed(async {
            let number = self.session(addr).await?;
            let mut state = self.state();
            let session = state.sessions.get(number);
            session
                .map(|session| session.peer_key.to_vec())
                .ok_or(Error::Closed)
        })
        .await
    }

    /// The session with a peer, as soon as there is one.
    async fn session(&self, dst: &Name) -> Result<u64> {
        let open = async {
            loop {
                let opened = self.opened.notified();
                {
                    let mut state = self.state();
                    let State {
                        current, sessions, ..
                    } = &mut *state;
                    if let Some(number) = current.get(dst).filter(|number| sessions.get(**number).is_some()) {
                        return *number;
                    }
                    self.hello(&mut state, *dst);
                }
                let _ = timeout(RETRY, opened).await;
            }
        };
        if self.state().resented.contains(dst) {
            return Err(Error::unreachable(dst, "it did not answer once"));
        }
        timeout(PATIENCE, open)
            .await
            .map_err(|_| Error::unreachable(dst, "it does not prove its identity"))
    }

    /// Begins a handshake, or begins again, unless that was done just now.
    pub(super) fn hello(&self, state: &mut State, dst: Name) {
        let opening = state.openings.entry(dst).or_insert_with(|| {
            let (number, short) = (random(), Pair::new());
            let hello = [
                &[HELLO][..],
                &u64::to_be_bytes(number),
                &short.public,
                &self.pair.public,
            ];
            Opening {
                hello: hello.concat(),
                number,
                short,
                sent: Instant::now() - RETRY,
            }
        });
        if opening.sent.elapsed() >= RETRY {
            opening.sent = Instant::now();
            let _ = self.put(dst.at, opening.hello.clone());
        }
    }

    fn seal(&self, dst: &Name, frame: &Frame<'_>) -> Option<Vec<u8>> {
        let mut state = self.state();
        let unchecked = match (self.fault, frame) {
            (Fault::UncheckedTells | Fault::UncheckedTellsLate, Frame::Tell(_))
            | (Fault::UncheckedAsks | Fault::UncheckedAsksLate, Frame::Request(..)) => {
                state.unchecked.get(dst).copied()
            }
            _ => None,
        };
        let number = unchecked.or_else(|| state.current.get(dst).copied())?;
        let session = state.sessions.get(number)?;
        let counter = session.next;
        session.next += 1;
        Some(self.fault.seal(session, &self.pair.public, counter, frame))
    }

    pub(crate) fn begin_ask(
        &self,
        dst: &Name,
        asker: oneshot::Sender<Result<Packet, Rejection>>,
    ) -> Result<u64> {
        let mut state = self.state();
        if state.asks.len() >= ASKS {
            return Err(Error::Limit {
                what: "asks under way",
                limit: ASKS,
            });
        }
        state.last_ask += 1;
        let number = state.last_ask;
        state.asks.insert(number, (*dst, asker));
        Ok(number)
    }

    pub(crate) fn end_ask(&self, number: u64) {
        self.state().asks.remove(&number);
    }
}

pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).expect("randomness");
    u64::from_be_bytes(bytes)
}
