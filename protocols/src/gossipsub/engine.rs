//! The engine of one node: its peers, its topics, and its message state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use p2p::{Addr, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::admission::Admission;
use super::backoff::Backoffs;
use super::block::Block;
use super::codec::Codec;
use super::config::Config;
use super::event::{Counts, Event, RpcBatch, Transmit};
use super::message_cache::MessageCache;
use super::message_id::MessageId;
use super::peer::{Connection, Identity, Peer, PeerKey, Version, hash_of};
use super::queue::{Item, Pack, Priority, Queue};
use super::receive::Delivery;
use super::score::Scores;
use super::seen::Seen;
use super::signing::Signing;
use super::topic::Topic;
use super::validating::Validating;
use super::wire::{ControlMessage, Rpc, SubOpts};
use crate::hash::HashMap;
use crate::overlay::Prefix;

/// Upper bound of the bytes around a topic, an id or a peer in an RPC.
const AROUND_EACH: usize = 16;
/// Upper bound of the bytes around all of them.
const AROUND_ALL: usize = 48;

/// The state of a topic.
#[derive(Debug, Default)]
pub(super) struct TopicState {
    /// Whether this node has subscribed to it.
    pub(super) joined: bool,
    /// Peers that have subscribed to it.
    pub(super) subscribers: BTreeSet<PeerKey>,
    /// Mesh peers; all of them are subscribers. Empty unless joined.
    pub(super) mesh: BTreeSet<PeerKey>,
    /// The peers that own messages go to while the topic is not joined, and the time of the last message.
    pub(super) fanout: Option<(BTreeSet<PeerKey>, Duration)>,
    /// Time from which on the mesh accepts an idle peer.
    pub(super) next_idle: Duration,
    /// The network of the peer that named the topic first, which is charged for it.
    pub(super) charged: Option<Prefix>,
}

impl TopicState {
    fn is_nothing(&self) -> bool {
        !self.joined && self.subscribers.is_empty() && self.fanout.is_none()
    }
}

/// One node of a gossipsub network. See the [module](super).
pub struct Engine<A> {
    pub(super) config: Config,
    pub(super) codec: Codec,
    pub(super) rng: StdRng,
    pub(super) peers: BTreeMap<PeerKey, Peer<A>>,
    pub(super) keys: HashMap<A, PeerKey>,
    pub(super) explicit: BTreeSet<A>,
    /// Peers that get every message of their topics: explicit peers and floodsub peers.
    pub(super) always: BTreeSet<PeerKey>,
    pub(super) topics: BTreeMap<Topic, TopicState>,
    /// Number of topics that each network is charged for.
    pub(super) topics_of: HashMap<Prefix, usize>,
    /// Topics that this node recently subscribed to or left, with the number of heartbeats since: see
    /// [`direct`](super::direct).
    pub(super) changed: BTreeMap<Topic, u32>,
    pub(super) seen: Seen<MessageId, Delivery>,
    /// Direct messages that are recognised as duplicates.
    pub(super) told: Seen<MessageId, ()>,
    /// Topics that this node sent to.
    pub(super) spoken: Seen<Topic, ()>,
    pub(super) cache: MessageCache,
    /// Memory for messages of other nodes.
    pub(super) block: Block,
    pub(super) validating: Validating,
    pub(super) backoffs: Backoffs<Identity<A>>,
    /// Messages requested from peers that announced them, with the deadline of each.
    pub(super) promises: BTreeMap<MessageId, BTreeMap<PeerKey, Duration>>,
    pub(super) scores: Scores<Identity<A>>,
    pub(super) admission: Admission,
    pub(super) events: VecDeque<Event<A>>,
    pub(super) counts: Counts,
    pub(super) next_heartbeat: Duration,
    pub(super) next_decay: Duration,
    pub(super) next_announce: Duration,
    pub(super) next_connect: Duration,
    pub(super) ticks: u64,
    /// Peers with a nonempty queue, in the order of their turns.
    ready: VecDeque<PeerKey>,
    last_key: u64,
}

impl<A: Addr> Engine<A> {
    /// Creates a node without peers and topics. `seed` seeds its random choices.
    ///
    /// `seqno` precedes the sequence number of its first message. No number may be used twice, even after a
    /// restart: use the nanoseconds of the system clock.
    ///
    /// # Errors
    /// [`Error::Invalid`](p2p::Error::Invalid) as described at [`Config::check`].
    pub fn new(config: Config, signing: Signing, seqno: u64, now: Duration, seed: u64) -> Result<Self> {
        config.check()?;
        let mut rng = StdRng::seed_from_u64(seed);
        let phase = config.heartbeat_interval.mul_f64(rng.random_range(0.0..1.0));
        let decay = config.score.as_ref().map(|score| score.decay_interval);
        Ok(Self {
            peers: BTreeMap::new(),
            keys: HashMap::default(),
            explicit: BTreeSet::new(),
            always: BTreeSet::new(),
            topics: BTreeMap::new(),
            topics_of: HashMap::default(),
            changed: BTreeMap::new(),
            seen: Seen::new(config.seen_ttl, config.max_seen),
            told: Seen::new(config.seen_ttl, config.max_seen),
            spoken: Seen::new(Duration::MAX, config.max_spoken),
            cache: MessageCache::new(
                config.mcache_len,
                config.mcache_gossip,
                config.max_cached,
                config.max_cached_bytes,
            ),
            block: Block::default(),
            validating: Validating::new(config.validation_timeout, config.max_validating),
            backoffs: Backoffs::new(config.max_backoffs),
            promises: BTreeMap::new(),
            scores: Scores::new(config.score.clone()),
            admission: Admission::default(),
            events: VecDeque::new(),
            counts: Counts::default(),
            next_heartbeat: now.saturating_add(phase),
            next_decay: decay.map_or(Duration::MAX, |every| now.saturating_add(every)),
            next_announce: now.saturating_add(config.announce_every),
            next_connect: now,
            ticks: 0,
            ready: VecDeque::new(),
            last_key: 0,
            codec: Codec::new(signing, config.limits, config.send_limits(), seqno),
            config,
            rng,
        })
    }

    /// Adds a peer, or replaces its connection. Sends it this node's subscriptions.
    ///
    /// # Errors
    /// [`Error::Limit`](p2p::Error::Limit) with [`Config::max_peers`] peers, or for an inbound peer with
    /// [`Config::max_inbound`] inbound peers, unless the peer is explicit or replaces an inbound peer: see
    /// [`Config::max_inbound`]. [`Event::Left`] reports a replaced peer.
    pub fn add_peer(&mut self, now: Duration, addr: &A, connection: Connection) -> Result<()> {
        let version = if self.config.floodsub {
            Version::Floodsub
        } else {
            connection.version
        };
        let explicit = self.explicit.contains(addr);
        if !explicit {
            self.make_room(now, addr, connection.outbound)?;
        }
        if self.keys.contains_key(addr) {
            self.remove_peer(now, addr);
        }
        self.last_key += 1;
        let (key, identity) = (PeerKey(self.last_key), Identity::new(addr));
        let number = self.number_of(&identity);
        let ip = addr.socket_addr().map(|addr| addr.ip());
        self.scores.add_peer(now, key, &identity, ip);
        let ttl = self
            .config
            .heartbeat_interval
            .saturating_mul(self.config.idontwant_ttl);
        let peer = Peer {
            addr: addr.clone(),
            identity,
            version,
            outbound: connection.outbound,
            info: connection.info.filter(|info| info.fits(&self.config.limits)),
            explicit,
            topics: BTreeSet::new(),
            queue: Queue::default(),
            writable: true,
            ready: false,
            usage: self.admission.return_of(number),
            since: now,
            takes_direct: false,
            author: None,
            heard: now,
            // A connection makes itself known.
            met: !self.config.direct,
            answered: false,
            beats: 0,
            dont_send: Seen::new(ttl, self.config.max_idontwant_messages.saturating_mul(2)),
        };
        if peer.explicit || !peer.is_router() {
            self.always.insert(key);
        }
        self.peers.insert(key, peer);
        self.keys.insert(addr.clone(), key);
        self.greet(now, key, true);
        Ok(())
    }

    /// Removes a peer that left. Its score and its backoffs are kept. Returns whether it was present.
    pub fn remove_peer(&mut self, now: Duration, addr: &A) -> bool {
        let Some(key) = self.keys.remove(addr) else {
            return false;
        };
        let Some(mut peer) = self.peers.remove(&key) else {
            return false;
        };
        self.always.remove(&key);
        let number = self.number_of(&peer.identity);
        self.admission.leave(number, peer.usage, self.config.max_peers);
        self.counts.dropped(peer.queue.clear());
        for topic in &peer.topics {
            if let Some(state) = self.topics.get_mut(topic) {
                state.subscribers.remove(&key);
                if state.mesh.remove(&key) {
                    let (peer, topic) = (peer.addr.clone(), topic.clone());
                    self.events.push_back(Event::Pruned { peer, topic });
                }
                if let Some((fanout, _)) = &mut state.fanout {
                    fanout.remove(&key);
                }
            }
            self.forget_topic(topic);
        }
        self.promises.retain(|_, peers| {
            peers.remove(&key);
            !peers.is_empty()
        });
        self.scores.remove_peer(now, key, peer.identity);
        true
    }

    /// Makes an address an explicit peer, by agreement of both sides: it always gets every message, and is in
    /// no mesh. The other node should have this node as an explicit peer as well.
    pub fn add_explicit(&mut self, now: Duration, addr: A) {
        if let Some(peer) = self.keys.get(&addr).and_then(|key| self.peers.get_mut(key)) {
            peer.explicit = true;
            let (key, topics) = (self.keys.get(&addr).copied(), peer.topics.clone());
            self.always.extend(key);
            for topic in topics {
                if let Some(key) = key {
                    self.leave_mesh(now, key, &topic);
                }
            }
        }
        self.explicit.insert(addr);
        self.next_connect = now;
    }

    /// Removes an address from the explicit peers. Returns whether it was one.
    pub fn remove_explicit(&mut self, addr: &A) -> bool {
        if let Some(key) = self.keys.get(addr)
            && let Some(peer) = self.peers.get_mut(key)
        {
            peer.explicit = false;
            if peer.is_router() {
                self.always.remove(key);
            }
        }
        self.explicit.remove(addr)
    }

    /// Sets P5, the application-specific score of a peer. A value that is not finite counts as 0.
    pub fn set_app_specific_score(&mut self, addr: &A, score: f64) {
        if let Some(key) = self.keys.get(addr) {
            self.scores.set_app_specific(*key, score);
        }
    }

    /// Sets whether a peer accepts more RPCs now. The queue of a peer that does not is bounded, and its items
    /// expire.
    pub fn set_writable(&mut self, addr: &A, writable: bool) {
        let Some(key) = self.keys.get(addr).copied() else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.writable = writable;
            if writable && !peer.ready && !peer.queue.is_empty() {
                peer.ready = true;
                self.ready.push_back(key);
            }
        }
    }

    /// Repeats to a peer what must not be lost after its stream was: subscriptions, and the GRAFTs of the meshes that it is
    /// in. It accepts RPCs again. Returns whether it is a peer.
    pub fn resume(&mut self, now: Duration, addr: &A) -> bool {
        let Some(key) = self.keys.get(addr).copied() else {
            return false;
        };
        self.set_writable(addr, true);
        self.greet(now, key, false);
        let meshes = self.topics.iter().filter(|(_, state)| state.mesh.contains(&key));
        let meshes: Vec<Topic> = meshes.map(|(topic, _)| topic.clone()).collect();
        for topic in meshes {
            self.graft(now, key, &topic);
        }
        true
    }

    /// Returns whether publishing to a topic is useless at present: no subscriber [accepts
    /// more](Self::set_writable), and the queue of each is at least half full.
    pub fn is_congested(&self, topic: &str) -> bool {
        let subscribers = self.topics.get(topic).map(|state| &state.subscribers);
        let mut keys = subscribers.into_iter().flatten().peekable();
        keys.peek().is_some() && keys.all(|key| self.is_key_congested(*key))
    }

    /// Returns whether [telling](Self::tell) a peer more is useless at present.
    pub fn is_peer_congested(&self, peer: &A) -> bool {
        let key = self.keys.get(peer);
        key.is_some_and(|key| self.is_key_congested(*key))
    }

    fn is_key_congested(&self, key: PeerKey) -> bool {
        let peer = self.peers.get(&key);
        peer.is_some_and(|peer| !peer.writable && peer.queue.is_half_full(&self.config.queue))
    }

    /// Returns the next RPC to send. Peers take turns.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Transmit<A>> {
        let mut batch = RpcBatch::default();
        let to = self.poll_transmits(now, 1, &mut batch)?;
        let rpc = match &*batch.parts {
            [alone] => alone.clone(),
            parts => parts.concat().into(),
        };
        Some(Transmit { to, rpc })
    }

    /// Replaces the contents of `out` with the next RPCs to one peer, at least one and at most `max`, and
    /// returns the peer. Peers take turns.
    pub fn poll_transmits(&mut self, now: Duration, max: usize, out: &mut RpcBatch) -> Option<A> {
        out.clear();
        let pack = Pack {
            bytes: self.config.pack.min(self.codec.send.rpc),
            messages: self.codec.send.messages,
        };
        while let Some(key) = self.ready.pop_front() {
            let Some(peer) = self.peers.get_mut(&key) else {
                continue;
            };
            peer.ready = false;
            if !peer.writable {
                continue;
            }
            let hasher = self.keys.hasher();
            let Peer { queue, dont_send, .. } = peer;
            let is_unwanted =
                |id: &MessageId| dont_send.len() > 0 && dont_send.contains(&hash_of(hasher, id));
            while out.ends.len() < max.max(1) {
                let dropped = queue.pop(now, is_unwanted, pack, &mut out.parts);
                self.counts.dropped(dropped);
                if !out.end() {
                    break;
                }
            }
            if !queue.is_empty() {
                peer.ready = true;
                self.ready.push_back(key);
            }
            if !out.ends.is_empty() {
                return Some(peer.addr.clone());
            }
        }
        None
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event<A>> {
        self.events.pop_front()
    }

    /// Returns the time at which [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Duration {
        self.next_heartbeat
    }

    /// Queues an RPC that is not a message.
    pub(super) fn push(&mut self, now: Duration, key: PeerKey, priority: Priority, rpc: Bytes) {
        self.push_item(now, key, priority, Item::new(rpc));
    }

    /// Queues a message.
    pub(super) fn push_message(
        &mut self,
        now: Duration,
        key: PeerKey,
        priority: Priority,
        rpc: Bytes,
        id: Option<MessageId>,
    ) {
        self.push_item(now, key, priority, Item::message(rpc, id));
    }

    fn push_item(&mut self, now: Duration, key: PeerKey, priority: Priority, item: Item) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let dropped = peer.queue.push(now, priority, item, &self.config.queue);
        self.counts.dropped(dropped);
        if !peer.ready && peer.writable && !peer.queue.is_empty() {
            peer.ready = true;
            self.ready.push_back(key);
        }
    }

    pub(super) fn push_control(
        &mut self,
        now: Duration,
        key: PeerKey,
        priority: Priority,
        control: ControlMessage,
    ) {
        let rpc = Rpc {
            control: Some(control),
            ..Rpc::default()
        };
        self.push(now, key, priority, rpc.emit());
    }

    /// Announces subscriptions, or their end, to a peer.
    pub(super) fn announce(&mut self, now: Duration, key: PeerKey, topics: &[Topic], subscribe: bool) {
        let mut rest = topics;
        while !rest.is_empty() {
            let fit = self
                .fitting(rest.iter().map(|topic| topic.len()))
                .min(self.codec.send.subscriptions);
            let (topics, later) = rest.split_at(fit.clamp(1, rest.len()));
            rest = later;
            let subscriptions = topics.iter().map(|topic| SubOpts {
                subscribe: Some(subscribe),
                topicid: Some(topic.to_string()),
            });
            let rpc = Rpc {
                subscriptions: subscriptions.collect(),
                ..Rpc::default()
            };
            self.push(now, key, Priority::Control, rpc.emit());
        }
    }

    /// Returns how many parts of these lengths fit into one RPC without messages, including their overhead.
    pub(super) fn fitting(&self, parts: impl Iterator<Item = usize>) -> usize {
        let mut room = self.codec.send.control.saturating_sub(AROUND_ALL);
        parts
            .take_while(|len| match room.checked_sub(len + AROUND_EACH) {
                Some(less) => {
                    room = less;
                    true
                }
                None => false,
            })
            .count()
    }

    /// Removes a topic without subscribers and local interest.
    pub(super) fn forget_topic(&mut self, topic: &str) {
        if self.topics.get(topic).is_some_and(TopicState::is_nothing)
            && let Some(charged) = self.topics.remove(topic).and_then(|state| state.charged)
            && let Some(count) = self.topics_of.get_mut(&charged)
        {
            *count -= 1;
            if *count == 0 {
                self.topics_of.remove(&charged);
            }
        }
    }
}

impl<A: fmt::Debug> fmt::Debug for Engine<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("codec", &self.codec)
            .field("topics", &self.topics)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}
