//! Drives the engine of one node: its requests are streams of the host, and its timer is a task.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use multiaddr::PeerId;
use p2p::{Counters, DropReason, Error, Packet, Rejection, Result};
use p2p_protocols::kademlia::libp2p::{Message, MessageType};
use p2p_protocols::kademlia::{
    Contact, Engine, Event, Failure, OpId, Outcome, RequestId, RequestTransmit, Rules,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::KademliaConfig;
use super::codec::{HostCodec, key};
use super::config::Mode;
use crate::addr::HostAddr;
use crate::host::{Host, Observe, Shared};
use crate::key::identity;
use crate::swarm::{Budgets, exchange};

/// The longest sleep of the timer.
const LONGEST_SLEEP: Duration = Duration::from_hours(24);

/// A node, which its handle and its tasks share.
pub(super) struct Node {
    pub(super) host: Arc<Shared>,
    pub(super) protocol: Arc<str>,
    pub(super) mode: Mode,
    pub(super) idle_timeout: Duration,
    pub(super) message_timeout: Duration,
    pub(super) peer_streams: usize,
    /// Maximum length in bytes of a message that is received.
    pub(super) longest: usize,
    pub(super) reassembly: Budgets,
    /// Streams of each peer that are being served.
    pub(super) serving: Mutex<HashMap<PeerId, usize>>,
    pub(super) requests: Counters,
    codec: Arc<HostCodec>,
    request_timeout: Duration,
    /// Whether peers support the protocol, as they said since the engine was told last. The state is not locked where this is.
    said: Mutex<BTreeMap<PeerId, bool>>,
    state: Mutex<State>,
    /// Tells the timer that it is due earlier.
    rearm: Notify,
    closing: watch::Sender<bool>,
}

struct State {
    /// `None` once the node is closed.
    engine: Option<Engine<HostAddr>>,
    callers: HashMap<OpId, oneshot::Sender<Outcome<HostAddr>>>,
    /// The time at which the timer is due.
    armed: Option<Duration>,
}

impl Node {
    /// Creates a node and begins its tasks.
    pub(super) fn begin(host: &Host, config: KademliaConfig) -> Result<Arc<Self>> {
        config.check()?;
        let KademliaConfig {
            mode,
            protocol,
            namespaces,
            mut engine,
            peer_streams,
            idle_timeout,
            message_timeout,
            reassembly,
            peer_reassembly,
        } = config;
        engine.serves = mode == Mode::Server;
        let rules = Arc::new(Rules::new(engine, |text: &str| text.parse().ok(), namespaces));
        let engine = *rules.config();
        let (shared, own) = (host.core().clone(), key(&host.peer_id().to_bytes()));
        let codec = Arc::new(HostCodec::new(shared.clone(), own.clone(), engine.k));
        let now = shared.now();
        let node = Arc::new(Self {
            protocol: protocol.into(),
            mode,
            idle_timeout,
            message_timeout,
            peer_streams,
            longest: engine.message,
            reassembly: Budgets::new(reassembly, peer_reassembly, engine.message),
            serving: Mutex::default(),
            requests: Counters::new("kad"),
            request_timeout: engine.request_timeout,
            said: Mutex::default(),
            state: Mutex::new(State {
                engine: Some(Engine::with_codec(own, codec.clone(), rules, now, rand::random())),
                callers: HashMap::new(),
                armed: None,
            }),
            rearm: Notify::new(),
            closing: watch::Sender::new(false),
            codec,
            host: shared,
        });
        if mode == Mode::Server {
            super::serve::register(&node)?;
        }
        node.keep_time();
        node.host.observe(&node);
        let weak = Arc::downgrade(&node);
        node.host.at_end(node.closing.subscribe(), move || {
            if let Some(node) = weak.upgrade() {
                node.close();
            }
        });
        Ok(node)
    }

    /// Calls the engine, and carries out what it decides. Fails once the node is closed.
    pub(super) fn drive<T>(
        self: &Arc<Self>,
        call: impl FnOnce(&mut Engine<HostAddr>, Duration) -> T,
    ) -> Result<T> {
        let mut state = self.state.lock();
        let result = self.drive_locked(&mut state, call)?;
        drop(state);
        Ok(result)
    }

    fn drive_locked<T>(
        self: &Arc<Self>,
        state: &mut State,
        call: impl FnOnce(&mut Engine<HostAddr>, Duration) -> T,
    ) -> Result<T> {
        let engine = state.engine.as_mut().ok_or(Error::Closed)?;
        let result = call(engine, self.host.now());
        while let Some(transmit) = engine.poll_transmit() {
            self.host.spawn(self.clone().ask(transmit));
        }
        while let Some(event) = engine.poll_event() {
            if let Event::Done { op, outcome, .. } = event
                && let Some(caller) = state.callers.remove(&op)
            {
                // Fails where the caller has gone.
                let _ = caller.send(outcome);
            }
        }
        let next = engine.poll_timeout();
        if state.armed.is_none_or(|armed| next < armed) {
            self.rearm.notify_one();
        }
        Ok(result)
    }

    /// Sends a request, and passes its answer to the engine.
    async fn ask(self: Arc<Self>, transmit: RequestTransmit<HostAddr>) {
        let RequestTransmit { to, id, request } = transmit;
        let mut closing = self.closing.subscribe();
        let read = Message::read(&request);
        let has_answer = read.is_ok_and(|request| request.message.message_type != MessageType::AddProvider);
        let headroom = p2p::Headroom::new(p2p_formats::varint::MAX_LEN, 0);
        let request = Packet::new(headroom, &request);
        let exchange = exchange(&self.host, &to, &self.protocol, request, self.longest);
        self.requests.add_sent(1);
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => {}
            answer = timeout(self.request_timeout, exchange) => {
                let limit = self.request_timeout;
                let doing = "waiting for an answer";
                let answer = match answer {
                    Ok(Ok(Some(answer))) => Ok(answer),
                    // Over yamux a reset may look like an end.
                    Ok(Ok(None)) if has_answer => Err(Error::Rejected(Rejection::DROPPED)),
                    Ok(Ok(None)) => Ok(Packet::default()),
                    Ok(Err(error)) => Err(error),
                    Err(_) => Err(Error::TimedOut { doing, limit }),
                };
                self.answered(id, &to, answer);
            }
        }
    }

    fn answered(self: &Arc<Self>, id: RequestId, by: &HostAddr, answer: Result<Packet>) {
        // Fails where the node is closed.
        let _ = self.drive(|engine, now| match answer {
            Ok(answer) => engine.handle_answer(now, id, &answer),
            Err(error) => {
                tracing::trace!(layer = "kad", peer = %by, %error, "no answer");
                let failure = match error {
                    Error::Rejected(_) => Failure::Rejected,
                    _ => Failure::Unreachable,
                };
                engine.handle_failure(now, id, failure);
            }
        });
    }

    /// Calls the engine when its timer is due or peers have said what they support, in a task.
    fn keep_time(self: &Arc<Self>) {
        let node = self.clone();
        let mut closing = self.closing.subscribe();
        self.host.spawn(async move {
            loop {
                let said = std::mem::take(&mut *node.said.lock());
                for (peer, serves) in said {
                    node.met(&peer, serves);
                }
                let now = node.host.now();
                let due = {
                    let mut state = node.state.lock();
                    let Some(engine) = &state.engine else { return };
                    let due = engine.poll_timeout();
                    state.armed = Some(due);
                    due
                };
                if due <= now {
                    let _ = node.drive(Engine::handle_timeout);
                    tokio::task::yield_now().await;
                    continue;
                }
                let at = Instant::now() + due.saturating_sub(now).min(LONGEST_SLEEP);
                tokio::select! {
                    _ = closing.wait_for(|closing| *closing) => return,
                    () = node.rearm.notified() => {}
                    () = sleep_until(at) => {}
                }
            }
        });
    }

    /// Tells the engine whether a peer serves requests, unless it is no longer connected.
    fn met(self: &Arc<Self>, peer: &PeerId, serves: bool) {
        let id = identity(peer);
        let addr = self.host.addr_of(peer);
        // Fails where the node is closed.
        let _ = self.drive(|engine, now| match addr {
            Some(addr) if serves => engine.handle_contact(now, &Contact { id, addr }),
            Some(_) => engine.handle_departure(&id),
            None => {}
        });
    }

    /// Begins an operation, and waits for its outcome.
    ///
    /// # Cancel safety
    /// Cancelling cancels the operation.
    pub(super) async fn run(
        self: &Arc<Self>,
        begin: impl FnOnce(&mut Engine<HostAddr>, Duration) -> Result<OpId>,
    ) -> Result<Outcome<HostAddr>> {
        let (caller, outcome) = oneshot::channel();
        let op = {
            let mut state = self.state.lock();
            // An operation may end at once, so its caller must be known before the events are taken.
            let engine = state.engine.as_mut().ok_or(Error::Closed)?;
            let op = begin(engine, self.host.now())?;
            state.callers.insert(op, caller);
            self.drive_locked(&mut state, |_, _| op)?
        };
        let _cancel = CancelOnDrop { node: self, op };
        outcome.await.map_err(|_| Error::Closed)
    }

    /// Returns the number of parts of messages that were left out.
    pub(super) fn ignored(&self) -> u64 {
        self.codec.ignored.load(Relaxed)
    }

    /// Counts a request that is not served.
    pub(super) fn drop_request(&self, reason: DropReason, from: &HostAddr) {
        self.requests.add_dropped_from(reason, from);
    }

    /// Waits until the node is closed.
    pub(super) async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        // Fails only without a sender, and `self` has one.
        let _ = closing.wait_for(|closing| *closing).await;
    }

    /// Ends all calls and tasks, and serves no more requests.
    pub(super) fn close(&self) {
        if self.closing.send_replace(true) {
            return;
        }
        if self.mode == Mode::Server {
            self.host.remove_handler(&self.protocol);
        }
        let (engine, callers) = {
            let mut state = self.state.lock();
            (state.engine.take(), std::mem::take(&mut state.callers))
        };
        drop((engine, callers));
    }
}

impl Observe for Node {
    fn connected(&self, _: &HostAddr) {}

    fn disconnected(&self, _: &HostAddr, _: bool) {}

    /// Leaves it to the task: the engine's codec calls the host.
    fn supports(&self, peer: &HostAddr, protocols: &[String]) {
        if let Some(peer) = peer.libp2p_id() {
            let serves = protocols.iter().any(|id| **id == *self.protocol);
            self.said.lock().insert(peer, serves);
            self.rearm.notify_one();
        }
    }
}

/// Cancels an operation with its caller.
struct CancelOnDrop<'a> {
    node: &'a Arc<Node>,
    op: OpId,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        let mut state = self.node.state.lock();
        state.callers.remove(&self.op);
        if let Some(engine) = &mut state.engine {
            engine.cancel(self.op);
        }
    }
}
