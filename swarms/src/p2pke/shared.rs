//! State shared by the callers of one swarm and its driver: the engine under a lock, and the data paths
//! beside it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use p2p::{Addr, Counters, DropReason, Error, Message, Packet, PeerId, Result, Swarm};
use p2p_formats::x509::PrivateKey;
use p2p_protocols::hash::{HashMap, HashSet};
use p2p_protocols::overlay::Prefix;
use p2p_protocols::p2pke::{self, DataPath, Endpoint, Event, Local, wire};
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::oneshot;

use super::{MIN_INNER_MTU, P2pkeConfig};
use crate::KeyAddr;
use crate::allowed_peers::Permits as _;
use crate::driver::{BackgroundSends, Driver, Interest, Mailbox, Timer};
use crate::env::Env;

pub(super) const LAYER: &str = "p2pke";

/// Maximum number of sessions that a message is tried in: a new session may have ended before the caller runs
/// again.
pub(super) const ATTEMPTS: usize = 3;

pub(super) struct Shared<A: Addr, S> {
    pub(super) inner: S,
    pub(super) config: P2pkeConfig,
    pub(super) mtu: usize,
    pub(super) driver: Driver<()>,
    pub(super) timer: Timer,
    pub(super) env: Env,
    pub(super) mailbox: Mailbox<Message<KeyAddr<A>>>,
    pub(super) messages: Counters,
    pub(super) handshakes: Counters,
    /// The buffer of the last batch, emptied, for the next.
    pub(super) batch_buffer: Mutex<Vec<(A, Packet)>>,
    local: Arc<Local>,
    /// The data path of each address. Written under the engine's lock, and read without it.
    paths: RwLock<HashMap<A, Arc<DataPath>>>,
    state: Mutex<State<A>>,
    background_sends: BackgroundSends,
    next_ticket: AtomicU64,
}

pub(super) struct State<A> {
    /// `None` once the swarm is closed.
    pub(super) endpoint: Option<Endpoint<A>>,
    /// The callers that wait for a session, by address and peer, in the order of their tickets.
    waiting: HashMap<A, BTreeMap<PeerId, Waiters>>,
}

type Waiters = BTreeMap<u64, oneshot::Sender<Opened>>;

/// How a handshake ends for a caller; with `None` it retries.
type Opened = Result<Option<Arc<DataPath>>>;

/// Effects of engine calls, to be applied after its lock is released.
pub(super) struct Effects<A> {
    to_send: Vec<(A, Packet)>,
    /// Callers whose handshakes ended, with the results.
    ended: Vec<(oneshot::Sender<Opened>, Opened)>,
    /// Whether the next timeout is earlier than before.
    sooner: bool,
}

impl<A> Default for Effects<A> {
    fn default() -> Self {
        Self {
            to_send: Vec::new(),
            ended: Vec::new(),
            sooner: false,
        }
    }
}

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    pub(super) fn new(inner: S, key: &PrivateKey, config: P2pkeConfig) -> Result<Self> {
        let mtu = inner.mtu();
        if mtu < MIN_INNER_MTU {
            let reason =
                format!("P2PKE needs an MTU of at least {MIN_INNER_MTU} bytes below, and it is {mtu}");
            return Err(Error::invalid("inner swarm", reason));
        }
        let local = Arc::new(config.local(key)?);
        let env = Env::current();
        let endpoint = Endpoint::new(local.clone(), &mut env.rng()).with_prefixes(Prefix::of);
        Ok(Self {
            inner,
            mtu: (mtu - wire::OVERHEAD).min(wire::MAX_MESSAGE),
            driver: Driver::new(),
            timer: Timer::new(env.later_clock()),
            env,
            mailbox: Mailbox::new(config.messages),
            messages: Counters::new(LAYER),
            handshakes: Counters::new("p2pke-handshake"),
            batch_buffer: Mutex::default(),
            local,
            paths: RwLock::default(),
            state: Mutex::new(State {
                endpoint: Some(endpoint),
                waiting: HashMap::default(),
            }),
            background_sends: BackgroundSends::default(),
            next_ticket: AtomicU64::new(0),
            config,
        })
    }

    pub(super) fn local(&self) -> &Local {
        &self.local
    }

    pub(super) fn id(&self) -> PeerId {
        self.local.id()
    }

    pub(super) fn sessions(&self) -> usize {
        self.paths.read().len()
    }

    pub(super) fn path(&self, addr: &A) -> Option<Arc<DataPath>> {
        self.with_path(addr, Arc::clone)
    }

    /// Accesses the data path of an address without cloning its handle.
    pub(super) fn with_path<T>(&self, addr: &A, look: impl FnOnce(&Arc<DataPath>) -> T) -> Option<T> {
        let paths = self.paths.read();
        paths.get(addr).map(look)
    }

    fn set_path(&self, addr: A, path: Option<Arc<DataPath>>) {
        let mut paths = self.paths.write();
        match path {
            Some(path) => drop(paths.insert(addr, path)),
            None => drop(paths.remove(&addr)),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock()
    }

    pub(super) fn check_open(&self) -> Result<()> {
        match self.state().endpoint {
            Some(_) => Ok(()),
            None => Err(Error::Closed),
        }
    }

    /// Returns the data path to a peer; establishes a session if there is none.
    pub(super) async fn session(self: &Arc<Self>, peer: &KeyAddr<A>) -> Result<Arc<DataPath>> {
        // The caller's callback runs outside of all locks.
        let known = self.with_path(&peer.addr, |path| path.peer() == peer.id);
        if !known.unwrap_or(false) && !self.config.allow.permits(&peer.id) {
            return Err(self.error(peer, &p2pke::Error::Denied, None));
        }
        for _ in 0..ATTEMPTS {
            let (mut waiting, mut to_send) = match self.connect(peer)? {
                Connect::Ready(path) => return Ok(path),
                Connect::Wait(waiting, to_send) => (waiting, to_send),
            };
            if !to_send.is_empty() {
                // An error of the swarm below for the hello applies to the message as well.
                let sent = self.inner.tell_batch(&mut to_send).await;
                sent.map_err(|error| error.first)?;
            }
            let opened = |cx: &mut std::task::Context<'_>| {
                let opened = Pin::new(&mut waiting.opened).poll(cx);
                opened.map(|opened| opened.unwrap_or(Err(Error::Closed)))
            };
            if let Some(path) = self.driver.wait(Interest::Own(()), opened).await? {
                return Ok(path);
            }
        }
        Err(Error::unreachable(
            peer,
            "too many callers expect other peers at this address; try again",
        ))
    }

    fn connect(self: &Arc<Self>, peer: &KeyAddr<A>) -> Result<Connect<'_, A, S>> {
        let mut effects = Effects::default();
        let mut state = self.state();
        let endpoint = state.endpoint.as_mut().ok_or(Error::Closed)?;
        let connected = endpoint.connect(self.timer.now(), &peer.addr, Some(peer.id), &mut self.env.rng());
        let waiting = matches!(connected, Ok(None)).then(|| self.join(&mut state, peer));
        self.drain_engine(&mut state, &mut effects);
        drop(state);
        let to_send = std::mem::take(&mut effects.to_send);
        self.handshakes.add_sent(to_send.len());
        self.apply(effects);
        match (connected, waiting) {
            (Ok(Some(path)), _) => Ok(Connect::Ready(path)),
            (Ok(None), Some(waiting)) => Ok(Connect::Wait(waiting, to_send)),
            (Ok(None), None) => Err(Error::Closed),
            (Err(error), _) => Err(self.error(peer, &error, None)),
        }
    }

    fn join<'a>(&'a self, state: &mut State<A>, peer: &KeyAddr<A>) -> Waiting<'a, A, S> {
        let (sender, opened) = oneshot::channel();
        let ticket = self
            .next_ticket
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let here = state.waiting.entry(peer.addr.clone()).or_default();
        here.entry(peer.id).or_default().insert(ticket, sender);
        Waiting {
            shared: self,
            peer: peer.clone(),
            ticket,
            opened,
        }
    }

    /// Starts to replace the session at an address, which is still valid.
    pub(super) fn rekey(self: &Arc<Self>, addr: &A) {
        let peer = self.with_path(addr, |path| path.peer());
        if peer.is_none_or(|peer| !self.config.allow.permits(&peer)) {
            return;
        }
        let mut effects = Effects::default();
        let mut state = self.state();
        let Some(endpoint) = &mut state.endpoint else {
            return;
        };
        if let Err(error) = endpoint.rekey(self.timer.now(), addr, &mut self.env.rng()) {
            tracing::debug!(layer = LAYER, peer = %addr, %error, "rekeying did not start");
        }
        self.drain_engine(&mut state, &mut effects);
        drop(state);
        self.apply(effects);
    }

    /// Collects the effects of an engine call.
    pub(super) fn drain_engine(&self, state: &mut State<A>, effects: &mut Effects<A>) {
        let State { endpoint, waiting } = state;
        let Some(endpoint) = endpoint else { return };
        while let Some((addr, event)) = endpoint.poll_event() {
            match event {
                Event::Established(path) => {
                    tracing::debug!(layer = LAYER, peer = %path.peer(), %addr, "session established");
                    let waiters = waiters_for(waiting, &addr, path.peer());
                    effects
                        .ended
                        .extend(waiters.map(|waiter| (waiter, Ok(Some(path.clone())))));
                    self.set_path(addr, Some(path));
                }
                Event::Changed(path) => self.set_path(addr, Some(path)),
                Event::Expired => {
                    tracing::debug!(layer = LAYER, %addr, "session expired");
                    self.set_path(addr, None);
                }
                Event::Failed {
                    expected,
                    found,
                    error,
                } => {
                    let expected_text = expected.map(tracing::field::display);
                    tracing::debug!(layer = LAYER, peer = expected_text, %addr, %error, "no session");
                    let ids: Vec<_> = match expected {
                        Some(id) => vec![id],
                        None => waiting
                            .get(&addr)
                            .map_or_else(Vec::new, |here| here.keys().copied().collect()),
                    };
                    for id in ids {
                        let peer = KeyAddr::new(id, addr.clone());
                        let again = expected.is_none() && found == Some(id);
                        let waiters = waiters_for(waiting, &addr, id).map(|waiter| {
                            let failed = || Err(self.error(&peer, &error, found));
                            (waiter, if again { Ok(None) } else { failed() })
                        });
                        effects.ended.extend(waiters);
                    }
                }
            }
        }
        effects
            .to_send
            .extend(std::iter::from_fn(|| endpoint.poll_transmit()));
        effects.sooner |= self.timer.set(endpoint.poll_timeout());
    }

    /// Applies the effects of engine calls. Never waits.
    pub(super) fn apply(self: &Arc<Self>, effects: Effects<A>) {
        if effects.sooner {
            self.driver.wake();
        }
        for (waiter, path) in effects.ended {
            // A caller that no longer waits needs no result.
            let _ = waiter.send(path);
        }
        let (count, mut to_send) = (effects.to_send.len(), effects.to_send);
        if count == 0 {
            return;
        }
        self.handshakes.add_sent(count);
        let shared = self.clone();
        let sending = async move {
            // A failed send is a loss, as on the medium: the engine retransmits.
            if let Err(error) = shared.inner.tell_batch(&mut to_send).await {
                shared
                    .handshakes
                    .add_dropped_many(DropReason::Refused, error.refused);
                tracing::debug!(layer = LAYER, error = %error.first, "a handshake message could not be sent");
            }
        };
        if let Err(reason) = self.background_sends.send(sending) {
            self.handshakes.add_dropped_many(reason, count);
        }
    }

    /// Translates an engine error for a caller that tells `peer`, where `found` answered.
    pub(super) fn error(&self, peer: &KeyAddr<A>, error: &p2pke::Error, found: Option<PeerId>) -> Error {
        if let (p2pke::Error::WrongPeer, Some(found)) = (error, found) {
            return Error::unreachable(peer, format!("{error}: {found}"));
        }
        match error {
            p2pke::Error::Denied => Error::denied(peer),
            p2pke::Error::TimedOut => Error::TimedOut {
                doing: "the handshake with the peer",
                limit: self.config.engine.handshake_timeout,
            },
            p2pke::Error::Full => Error::Limit {
                what: "channels",
                limit: self.config.engine.channels,
            },
            other => Error::unreachable(peer, other.to_string()),
        }
    }

    /// Drops the sessions with peers that the configuration forbids.
    pub(super) fn disconnect_forbidden(&self) -> usize {
        let paths = self.paths.read();
        let mut peers: HashSet<_> = paths.values().map(|path| path.peer()).collect();
        drop(paths);
        // The caller's callback runs outside of all locks.
        peers.retain(|peer| !self.config.allow.permits(peer));
        self.disconnect(|peer| peers.contains(peer))
    }

    /// Drops the sessions with the peers that `pick` selects.
    pub(super) fn disconnect(&self, pick: impl Fn(&PeerId) -> bool) -> usize {
        let (mut count, mut waiters) = (0, Vec::new());
        let mut state = self.state();
        let State { endpoint, waiting } = &mut *state;
        let Some(endpoint) = endpoint else { return 0 };
        let mut paths = self.paths.write();
        for (addr, _) in paths.extract_if(|_, path| pick(&path.peer())) {
            count += 1;
            endpoint.disconnect(&addr);
            // A handshake with another peer at this address also ends.
            for (id, here) in waiting.remove(&addr).unwrap_or_default() {
                let peer = KeyAddr::new(id, addr.clone());
                waiters.extend(here.into_values().map(|waiter| (peer.clone(), waiter)));
            }
        }
        drop((paths, state));
        for (peer, waiter) in waiters {
            let error = Error::unreachable(&peer, "its address was disconnected");
            let _ = waiter.send(Err(error));
        }
        count
    }

    /// Fails all current and later calls, and drops all keys.
    pub(super) fn close(&self) {
        let mut state = self.state();
        let gone = (state.endpoint.take(), std::mem::take(&mut state.waiting));
        let paths = std::mem::take(&mut *self.paths.write());
        drop(state);
        // Waiting callers notice that the sender was dropped.
        drop((gone, paths));
        let dropped = self.mailbox.close();
        self.messages.add_dropped_many(DropReason::Closed, dropped);
        self.driver.close();
    }
}

/// The result of asking the engine for a session.
enum Connect<'a, A: Addr, S: Swarm<A>> {
    Ready(Arc<DataPath>),
    /// A handshake is in progress; these packets are to be sent for it.
    Wait(Waiting<'a, A, S>, Vec<(A, Packet)>),
}

/// An entry among the callers that wait for a session, removed when it is dropped.
struct Waiting<'a, A: Addr, S: Swarm<A>> {
    shared: &'a Shared<A, S>,
    peer: KeyAddr<A>,
    ticket: u64,
    opened: oneshot::Receiver<Opened>,
}

impl<A: Addr, S: Swarm<A>> Drop for Waiting<'_, A, S> {
    /// The handshake ends with its last caller.
    fn drop(&mut self) {
        let (KeyAddr { id, addr }, mut state) = (&self.peer, self.shared.state());
        let State { endpoint, waiting } = &mut *state;
        let Some(here) = waiting.get_mut(addr) else { return };
        if let Some(others) = here.get_mut(id) {
            others.remove(&self.ticket);
            if others.is_empty() {
                here.remove(id);
            }
        }
        let left = match (here.is_empty(), here.contains_key(id)) {
            (true, _) => None,
            (false, false) => Some(*id),
            (false, true) => return,
        };
        if left.is_none() {
            waiting.remove(addr);
        }
        if let Some(endpoint) = endpoint {
            endpoint.release(addr, left);
        }
    }
}

/// Removes and returns the callers that wait for `peer` at `addr`.
fn waiters_for<A: Addr>(
    waiting: &mut HashMap<A, BTreeMap<PeerId, Waiters>>,
    addr: &A,
    peer: PeerId,
) -> impl Iterator<Item = oneshot::Sender<Opened>> + use<A> {
    let mut found = Waiters::new();
    if let Some(here) = waiting.get_mut(addr) {
        found = here.remove(&peer).unwrap_or_default();
        if here.is_empty() {
            waiting.remove(addr);
        }
    }
    found.into_values()
}
