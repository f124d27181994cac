//! State shared by the callers of one node and its driver: the engine under a lock, and the queues around it.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use p2p::{Addr, Counters, DropReason, Error, Message, PeerId, Result, Swarm};
use p2p_formats::x509::{Ed25519, PublicKey};
use p2p_protocols::gossipsub::wire::{self, PeerInfo};
use p2p_protocols::gossipsub::{
    Author, Codec, Config, Connection, Counts, Engine, Event, MessageId, Received, RpcBatch, Signing,
    Validation,
};
use p2p_protocols::hash::HashMap;
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::closing::Closing;
use super::config::GossipConfig;
use super::event::{Departure, Events, GossipEvent};
use super::links::LinkControl;
use super::{GossipAddr, Place};
use crate::driver::{Clock, Driver, Mailbox, Timer};
use crate::env::Env;
use crate::inbox::Limits;

pub(super) const LAYER: &str = "gossip";

/// Prefix of an address in the field where libp2p has a signed peer record.
const RECORD: &str = "p2p-addr:";

/// What callers wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Message,
    Event,
}

pub(super) struct Shared<A: Addr, S> {
    pub(super) inner: S,
    pub(super) config: GossipConfig,
    pub(super) mtu: usize,
    /// This node's identity, where messages are signed.
    pub(super) id: Option<PeerId>,
    /// Encodes and decodes messages without the engine's lock.
    pub(super) codec: Codec,
    pub(super) driver: Driver<Kind>,
    pub(super) timer: Timer,
    pub(super) mailbox: Mailbox<Message<GossipAddr<A>>>,
    pub(super) counters: Counters,
    events: Mutex<Events<A>>,
    state: Mutex<State<A>>,
    /// Notifies callers that wait for room.
    pub(super) room: Notify,
    /// Notifies callers that wait for a peer's hello that one arrived, or that a peer was removed.
    pub(super) peers_changed: Notify,
    /// Sends in progress to peers that currently accept no more.
    pub(super) sending: Mutex<JoinSet<()>>,
    /// Number of messages in these sends.
    pub(super) in_flight: AtomicUsize,
    /// The state of closing, and messages to send before it ends.
    pub(super) closing: Closing,
    /// The runtime, if it has several threads, for verifying signatures in parallel.
    pub(super) threads: Option<Handle>,
    /// The medium below, if it has connections.
    pub(super) links: Option<Arc<dyn LinkControl<A>>>,
}

pub(super) struct State<A> {
    /// `None` once the swarm is closed.
    pub(super) engine: Option<Box<Engine<A>>>,
    /// Peers by the identity that they claim.
    pub(super) peers_of: HashMap<PeerId, Vec<A>>,
    ids: HashMap<Author, PeerId>,
    last: Counts,
}

/// Effects of engine calls, to be applied without its lock.
pub(super) struct Effects<A> {
    pub(super) now: Duration,
    /// RPCs to send, by peer.
    pub(super) to_send: Vec<(A, RpcBatch)>,
    pub(super) messages: Vec<Arrived<A>>,
    pub(super) to_validate: Vec<Arrived<A>>,
    pub(super) events: Vec<GossipEvent<A>>,
    pub(super) sooner: bool,
}

/// A message with its author.
pub(super) struct Arrived<A> {
    pub(super) received: Received<A>,
    pub(super) author: Option<PeerId>,
    pub(super) is_direct: bool,
}

impl<A> Effects<A> {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            now,
            to_send: Vec::new(),
            messages: Vec::new(),
            to_validate: Vec::new(),
            events: Vec::new(),
            sooner: false,
        }
    }
}

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    pub(super) fn new(
        inner: S,
        signing: Signing,
        mut config: GossipConfig,
        links: Option<Arc<dyn LinkControl<A>>>,
    ) -> Result<Self> {
        let engine = &mut config.engine;
        if links.is_some() {
            (engine.peer_idle, config.accept_peers) = (Duration::MAX, false);
        } else {
            (engine.direct, engine.peer_idle) = (true, config.peer_idle);
        }
        engine.limits.rpc = engine.limits.rpc.min(inner.mtu());
        engine.send.rpc = engine.send.rpc.min(inner.mtu());
        if config.validator.is_some() {
            engine.validation = Validation::Application;
        } else {
            engine.validation = Validation::Automatic;
        }
        let mtu = mtu(engine, signing.author().is_some())?;
        let clock = Clock::new(Instant::now(), Duration::from_secs(1));
        let author = signing.author().copied();
        let env = Env::current();
        // Sequence numbers start at the wall clock, so that none repeats after a restart.
        let first_seqno = u64::try_from(env.unix_time().as_nanos()).unwrap_or_default();
        let mut router = Engine::new(engine.clone(), signing, first_seqno, clock.now(), env.seed())?;
        if let Some(name) = config.message_id.clone() {
            router.set_message_id(move |message| name(message));
        }
        let codec = router.codec().clone();
        let state = State {
            engine: Some(Box::new(router)),
            peers_of: HashMap::default(),
            ids: HashMap::default(),
            last: Counts::default(),
        };
        // Payloads have buffers of their own.
        let messages = Limits {
            copy_below: 0,
            ..config.messages
        };
        Ok(Self {
            id: author.and_then(|author| identify(&author, &config)),
            codec,
            inner,
            mtu,
            driver: Driver::new(),
            timer: Timer::new(clock),
            mailbox: Mailbox::new(messages),
            counters: Counters::new(LAYER),
            events: Mutex::new(Events::new(config.events)),
            state: Mutex::new(state),
            room: Notify::new(),
            peers_changed: Notify::new(),
            sending: Mutex::new(JoinSet::new()),
            in_flight: AtomicUsize::new(0),
            closing: Closing::default(),
            threads: Handle::try_current()
                .ok()
                .filter(|runtime| runtime.metrics().num_workers() > 1),
            config,
            links,
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock()
    }

    pub(super) fn events(&self) -> MutexGuard<'_, Events<A>> {
        self.events.lock()
    }

    /// Reads the engine.
    pub(super) fn with<T>(&self, look: impl FnOnce(&Engine<A>) -> T) -> Result<T> {
        self.state().engine.as_deref().map(look).ok_or(Error::Closed)
    }

    /// Calls the engine, and applies the effects.
    pub(super) fn change<T>(
        self: &Arc<Self>,
        call: impl FnOnce(&mut Engine<A>, Duration, &mut Effects<A>) -> Result<T>,
    ) -> Result<T> {
        let mut effects = Effects::new(self.timer.now());
        let mut state = self.state();
        let engine = state.engine.as_mut().ok_or(Error::Closed)?;
        let result = call(engine, effects.now, &mut effects);
        self.drain_engine(&mut state, &mut effects);
        drop(state);
        self.apply(effects);
        result
    }

    /// Removes a peer. Returns whether it was present.
    pub(super) fn remove(self: &Arc<Self>, addr: &A, why: Departure) -> Result<bool> {
        self.state().forget(addr);
        let removed = self.change(|engine, now, effects| {
            let removed = engine.remove_peer(now, addr);
            if removed {
                let peer = addr.clone();
                effects.events.push(GossipEvent::Left { peer, why });
            }
            Ok(removed)
        });
        self.peers_changed.notify_waiters();
        removed
    }

    /// Returns the address of this node for replies to its messages.
    pub(super) fn here(&self) -> Option<Place<A>> {
        match self.id {
            Some(id) => Some(Place::Author(id)),
            None => self.inner.local_addrs().into_iter().next().map(Place::Neighbour),
        }
    }

    /// Returns how a peer is described to other peers, and which side initiated the contact.
    pub(super) fn connection(&self, addr: &A, outbound: bool) -> Connection {
        let id = addr.peer_id().map(|id| Bytes::copy_from_slice(id.as_bytes()));
        Connection {
            version: self.config.version,
            outbound,
            info: Some(PeerInfo {
                peer_id: Some(id.unwrap_or(Bytes::from_static(b"?"))),
                signed_peer_record: Some(format!("{RECORD}{addr}").into()),
            }),
        }
    }

    /// Collects the effects of engine calls. `effects` are to be [applied](Self::apply) without the lock.
    pub(super) fn drain_engine(&self, state: &mut State<A>, effects: &mut Effects<A>) {
        let Some(mut engine) = state.engine.take() else {
            return;
        };
        let mut batch = RpcBatch::default();
        while let Some(peer) = engine.poll_transmits(effects.now, self.config.burst, &mut batch) {
            effects.to_send.push((peer, mem::take(&mut batch)));
        }
        while let Some(event) = engine.poll_event() {
            self.take_event(state, event, effects);
        }
        effects.sooner |= self.timer.set(Some(engine.poll_timeout()));
        self.count(&mut state.last, engine.counts());
        state.engine = Some(engine);
    }

    fn take_event(&self, state: &mut State<A>, event: Event<A>, effects: &mut Effects<A>) {
        let event = match event {
            Event::Message(received) => {
                let arrived = self.arrived(state, received, false);
                return effects.messages.push(arrived);
            }
            Event::Direct(received) => {
                let arrived = self.arrived(state, received, true);
                return effects.messages.push(arrived);
            }
            Event::Validate(received) => {
                let arrived = self.arrived(state, received, false);
                return effects.to_validate.push(arrived);
            }
            Event::Introduced { peer, author } => {
                state.forget(&peer);
                if let Some(id) = author.and_then(|author| self.id_of(state, &author)) {
                    state.peers_of.entry(id).or_default().push(peer);
                }
                self.peers_changed.notify_waiters();
                return;
            }
            Event::Left { peer } => {
                state.forget(&peer);
                self.peers_changed.notify_waiters();
                if let Some(links) = &self.links {
                    links.removed(&peer);
                }
                let why = Departure::Gone;
                GossipEvent::Left { peer, why }
            }
            Event::Subscribed { peer, topic } => GossipEvent::Subscribed { peer, topic },
            Event::Unsubscribed { peer, topic } => GossipEvent::Unsubscribed { peer, topic },
            Event::Grafted { peer, topic } => GossipEvent::Grafted { peer, topic },
            Event::Pruned { peer, topic } => GossipEvent::Pruned { peer, topic },
            Event::Rejected { peer, reason } => {
                tracing::debug!(layer = LAYER, %peer, %reason, "refused");
                GossipEvent::Rejected { peer, reason }
            }
            Event::PeerExchange { peer, topic, peers } => {
                let peers = peers
                    .iter()
                    .filter_map(|info| self.located(&peer, info))
                    .collect();
                GossipEvent::PeerExchange { peer, topic, peers }
            }
            // This swarm has no explicit peers.
            Event::Connect { .. } => return,
        };
        effects.events.push(event);
    }

    fn arrived(&self, state: &mut State<A>, received: Received<A>, is_direct: bool) -> Arrived<A> {
        let author = received.author.and_then(|author| self.id_of(state, &author));
        Arrived {
            received,
            author,
            is_direct,
        }
    }

    /// Returns the id of an author's key.
    fn id_of(&self, state: &mut State<A>, author: &Author) -> Option<PeerId> {
        if let Some(id) = state.ids.get(author) {
            return Some(*id);
        }
        let id = identify(author, &self.config)?;
        // Removed entries are recomputed, which costs one hash.
        if state.ids.len() >= self.config.engine.max_peers {
            state.ids.clear();
        }
        state.ids.insert(*author, id);
        Some(id)
    }

    /// Returns the address of a node that the peer `by` names.
    fn located(&self, by: &A, info: &PeerInfo) -> Option<A> {
        if let Some(links) = &self.links {
            return links.locate(by, info);
        }
        let record = std::str::from_utf8(info.signed_peer_record.as_ref()?).ok()?;
        self.inner.parse_addr(record.strip_prefix(RECORD)?).ok()
    }

    /// Counts messages as copies: one that is sent to several peers counts once for each.
    fn count(&self, last: &mut Counts, now: Counts) {
        let diff =
            |count: fn(&Counts) -> u64| usize::try_from(count(&now) - count(last)).unwrap_or(usize::MAX);
        let counters = &self.counters;
        let firsts = diff(|counts| counts.published - counts.unheard);
        counters.add_duplicated(diff(|counts| counts.copies).saturating_sub(firsts));
        counters.add_dropped_many(DropReason::NoPeer, diff(|counts| counts.unheard));
        counters.add_dropped_many(DropReason::QueueFull, diff(|counts| counts.messages_dropped));
        counters.add_dropped_many(
            DropReason::Duplicate,
            diff(|counts| counts.duplicates + counts.own),
        );
        counters.add_dropped_many(DropReason::Unauthenticated, diff(|counts| counts.rejected));
        counters.add_dropped_many(DropReason::Expired, diff(|counts| counts.ignored));
        counters.add_dropped_many(DropReason::NoChannel, diff(|counts| counts.unrequested));
        counters.add_dropped_many(DropReason::Malformed, diff(|counts| counts.malformed));
        counters.add_dropped_many(DropReason::Denied, diff(|counts| counts.graylisted));
        counters.add_received(diff(|counts| {
            let taken = counts.delivered + counts.direct + counts.duplicates + counts.own;
            taken + counts.rejected + counts.ignored + counts.unrequested
        }));
        *last = now;
    }
}

impl<A: Addr> State<A> {
    /// Removes the claimed identity of a peer.
    pub(super) fn forget(&mut self, addr: &A) {
        self.peers_of.retain(|_, peers| {
            peers.retain(|peer| peer != addr);
            !peers.is_empty()
        });
    }

    /// Passes the application's decision on a message to the engine.
    pub(super) fn validate(
        &mut self,
        now: Duration,
        id: &MessageId,
        acceptance: super::MessageAcceptance,
    ) -> bool {
        let engine = self.engine.as_mut();
        engine.is_some_and(|engine| engine.validate(now, id, acceptance))
    }
}

/// Returns the maximum payload of a message with the longest permitted topic.
fn mtu(config: &Config, signed: bool) -> Result<usize> {
    let (limits, rpc) = (&config.limits, config.send_limits().rpc);
    let overhead = wire::overhead(limits.topic, rpc, signed);
    match rpc.checked_sub(overhead) {
        Some(mtu @ 1..) => Ok(mtu),
        _ => Err(Error::invalid(
            "swarm below gossip",
            format!(
                "an RPC of {} bytes has no room for a message with a topic of {} bytes: configure a shorter limits.topic",
                rpc, limits.topic
            ),
        )),
    }
}

/// Returns the id of an author's key.
fn identify(author: &Author, config: &GossipConfig) -> Option<PeerId> {
    match (author.key(), config.other_ids) {
        (Some(key), _) => {
            let key = PublicKey::new(Ed25519::OID, key).ok()?;
            Some((config.fingerprint)(&key))
        }
        (None, identify) => identify.map(|identify| identify(author)),
    }
}
