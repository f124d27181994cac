//! Reception: processes RPCs, and validates and forwards messages.

use std::time::Duration;

use bytes::Bytes;
use p2p::Addr;

use super::block::Block;
use super::codec::{Arrived, Incoming};
use super::config::Validation;
use super::engine::Engine;
use super::event::{Event, MessageAcceptance, Received, Refused};
use super::message_id::MessageId;
use super::peer::{PeerKey, Version, hash_of};
use super::queue::Priority;
use super::topic::Topic;
use super::wire::{ControlIDontWant, ControlMessage, Rpc, SubOpts, WireError};
use crate::overlay::Prefix;

/// The status of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// The application has not decided yet.
    Validating,
    /// The message was accepted at this time.
    Valid(Duration),
    Invalid,
    Ignored,
}

/// A known message, and the peers that sent it.
#[derive(Debug)]
pub(super) struct Delivery {
    status: Status,
    /// The peer that sent it first; `None` for an own message.
    first: Option<PeerKey>,
    /// The peers that sent it later, except long after it was accepted.
    later: Vec<PeerKey>,
}

impl Delivery {
    /// The entry of an own message.
    pub(super) fn own(now: Duration) -> Self {
        Self {
            status: Status::Valid(now),
            first: None,
            later: Vec::new(),
        }
    }

    /// Iterates over the peers that sent it, the first one first.
    fn by(&self) -> impl Iterator<Item = PeerKey> {
        self.first.into_iter().chain(self.later.iter().copied())
    }
}

impl<A: Addr> Engine<A> {
    /// Processes an RPC. Faults are counted and scored; the sender gets no answer.
    ///
    /// A message that is alone in its RPC is kept as that RPC, so `bytes` should not be part of a larger
    /// buffer. Of other RPCs, each message is copied once. Data in events shares its buffer with the message
    /// and, if it is short, with neighbouring messages, up to 16 KiB.
    pub fn handle_rpc(&mut self, now: Duration, from: &A, bytes: &Bytes) {
        if let Some(key) = self.hear(now, from) {
            let incoming = self.codec.read(bytes);
            self.act(now, key, incoming);
        }
    }

    /// Processes an RPC that [`Codec::read`](super::Codec::read) parsed. Verifies the signatures that are
    /// needed and were not verified before.
    pub fn handle_incoming(&mut self, now: Duration, from: &A, incoming: Incoming) {
        if let Some(key) = self.hear(now, from) {
            self.act(now, key, incoming);
        }
    }

    /// Reports an RPC of a peer that a driver refused before it was read whole. It is counted and scored as one that cannot
    /// be parsed.
    pub fn handle_unreadable(&mut self, now: Duration, from: &A, reason: WireError) {
        if let Some(key) = self.hear(now, from) {
            self.refuse_rpc(key, reason);
        }
    }

    fn refuse_rpc(&mut self, key: PeerKey, reason: WireError) {
        self.counts.malformed += 1;
        self.scores.penalize(key, 1);
        self.reject(key, reason);
    }

    /// Returns the key of the sender of an RPC, unless the RPC is ignored.
    fn hear(&mut self, now: Duration, from: &A) -> Option<PeerKey> {
        self.counts.rpcs += 1;
        let Some(key) = self.keys.get(from).copied() else {
            self.counts.strangers += 1;
            return None;
        };
        if self.is_graylisted(now, key) {
            self.counts.graylisted += 1;
            return None;
        }
        Some(key)
    }

    /// Returns whether a peer's score is so low that its RPCs are ignored.
    pub(super) fn is_graylisted(&self, now: Duration, key: PeerKey) -> bool {
        let is_explicit = self.peers.get(&key).is_some_and(|peer| peer.explicit);
        let threshold = self.scores.config().map(|config| config.graylist_threshold);
        !is_explicit && threshold.is_some_and(|threshold| self.scores.score(now, key) < threshold)
    }

    fn act(&mut self, now: Duration, key: PeerKey, incoming: Incoming) {
        let parts = match incoming.parts {
            Ok(parts) => parts,
            Err(reason) => return self.refuse_rpc(key, reason),
        };
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.heard = now;
        }
        if let Some(hello) = &parts.hello {
            self.handle_hello(now, key, hello);
        }
        for subscription in &parts.subscriptions {
            self.handle_subscription(now, key, subscription);
        }
        for message in parts.messages {
            self.handle_message(now, key, message);
        }
        for message in parts.direct {
            self.handle_direct(now, key, message, incoming.len);
        }
        let is_router = self.peers.get(&key).is_some_and(super::peer::Peer::is_router);
        if let Some(control) = parts.control
            && is_router
        {
            self.handle_control(now, key, control);
        }
    }

    /// Decides about a message of [`Event::Validate`]. Returns whether the decision was still awaited.
    pub fn validate(&mut self, now: Duration, id: &MessageId, acceptance: MessageAcceptance) -> bool {
        self.expire_validating(now);
        let Some(waiting) = self.validating.remove(id) else {
            return false;
        };
        let Some(delivery) = self.seen.get_mut(id) else {
            return false;
        };
        match acceptance {
            MessageAcceptance::Accept => self.accept(now, id, &waiting.topic, &waiting.frame),
            MessageAcceptance::Ignore => {
                delivery.status = Status::Ignored;
                self.counts.ignored += 1;
            }
            MessageAcceptance::Reject => {
                delivery.status = Status::Invalid;
                let by: Vec<PeerKey> = delivery.by().collect();
                (delivery.first, delivery.later) = (None, Vec::new());
                self.counts.rejected += 1;
                for key in by {
                    self.scores.invalid(key, &waiting.topic);
                    self.reject(key, Refused::Application);
                }
            }
        }
        true
    }

    fn handle_subscription(&mut self, now: Duration, key: PeerKey, change: &SubOpts) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let name = change.topicid();
        let topic = self.topics.get_key_value(name).map(|(topic, _)| topic.clone());
        if change.subscribe() {
            if peer.topics.contains(name) {
                return;
            }
            let network = Prefix::of(&peer.addr);
            // A quarter more is reserved for topics of outbound peers.
            let reserve = if peer.outbound || peer.explicit {
                self.config.max_topics / 4
            } else {
                0
            };
            let is_charged = network.is_some_and(|network| {
                let count = self.topics_of.get(&network).copied().unwrap_or(0);
                count >= network.limit(self.config.max_topics.div_ceil(4))
            });
            let is_full = topic.is_none()
                && (is_charged || self.topics.len() >= self.config.max_topics.saturating_add(reserve));
            if is_full || peer.topics.len() >= self.config.max_topics_per_peer {
                self.counts.subscriptions_ignored += 1;
                return;
            }
            let is_new = topic.is_none();
            let topic = topic.unwrap_or_else(|| Topic::from(name));
            peer.topics.insert(topic.clone());
            let addr = peer.addr.clone();
            let state = self.topics.entry(topic.clone()).or_default();
            state.subscribers.insert(key);
            if let Some(network) = network.filter(|_| is_new) {
                state.charged = Some(network);
                *self.topics_of.entry(network).or_default() += 1;
            }
            self.events.push_back(Event::Subscribed { peer: addr, topic });
        } else if let Some(topic) = topic.filter(|topic| peer.topics.remove(topic)) {
            let addr = peer.addr.clone();
            self.leave_mesh(now, key, &topic);
            if let Some(state) = self.topics.get_mut(&topic) {
                state.subscribers.remove(&key);
                if let Some((fanout, _)) = &mut state.fanout {
                    fanout.remove(&key);
                }
            }
            self.forget_topic(&topic);
            self.events.push_back(Event::Unsubscribed { peer: addr, topic });
        }
    }

    /// Performs the cheapest checks first: the topic, the fields, the duplicate check, then the signature.
    fn handle_message(&mut self, now: Duration, key: PeerKey, arrived: Result<Arrived, WireError>) {
        let mut arrived = match arrived {
            Ok(arrived) => arrived,
            Err(reason) => {
                self.counts.rejected += 1;
                self.scores.penalize(key, 1);
                return self.reject(key, reason);
            }
        };
        let joined = self.topics.get_key_value(arrived.message.topic());
        let Some((topic, _)) = joined.filter(|(_, state)| state.joined) else {
            self.counts.unrequested += 1;
            return;
        };
        let topic = topic.clone();
        if self.codec.is_own(&arrived.message) {
            self.counts.own += 1;
            return;
        }
        let id = match arrived.id.clone() {
            Ok(id) => id,
            Err(reason) => return self.refuse(key, &topic, reason),
        };
        if self.seen.contains_at(now, &id) {
            return self.handle_duplicate(now, key, &id, &topic);
        }
        if let Err(reason) = arrived.verify(&self.codec.signing) {
            return self.refuse(key, &topic, reason);
        }
        let author = arrived.author();
        let (frame, data) = match self.config.validation {
            // Its lifetime equals that of its neighbours in the block.
            Validation::Automatic => arrived.into_frame(&mut self.block),
            Validation::Application => arrived.into_frame(&mut Block::default()),
        };
        self.promises.remove(&id);
        let delivery = Delivery {
            status: Status::Validating,
            first: Some(key),
            later: Vec::new(),
        };
        let (_, evicted) = self.seen.insert(now, id.clone(), delivery);
        self.counts.seen_evicted += evicted as u64;
        if data.len() >= self.config.idontwant_threshold {
            self.tell_idontwant(now, key, &id, &topic, frame.len());
        }
        let Some(peer) = self.peers.get(&key) else { return };
        let received = Received {
            id: id.clone(),
            topic: topic.clone(),
            via: peer.addr.clone(),
            author,
            data,
        };
        match self.config.validation {
            Validation::Automatic => {
                self.events.push_back(Event::Message(received));
                self.accept(now, &id, &topic, &frame);
            }
            Validation::Application => {
                self.expire_validating(now);
                let (message, from) = ((topic, frame), (key, &received.via));
                let removed = self.validating.insert(now, &mut self.rng, id, message, from);
                self.counts.ignored += removed as u64;
                self.events.push_back(Event::Validate(received));
            }
        }
    }

    fn handle_duplicate(&mut self, now: Duration, key: PeerKey, id: &MessageId, topic: &Topic) {
        self.counts.duplicates += 1;
        let window = self.scores.window(topic);
        let Some(delivery) = self.seen.get_mut(id) else {
            return;
        };
        if delivery.by().any(|by| by == key) {
            return;
        }
        match delivery.status {
            Status::Validating => delivery.later.push(key),
            Status::Valid(at) if now.saturating_sub(at) <= window => {
                delivery.later.push(key);
                self.scores.near_first(key, topic);
            }
            Status::Invalid => self.scores.invalid(key, topic),
            Status::Valid(_) | Status::Ignored => {}
        }
    }

    /// Accepts a message: scores the peers that sent it so far, and forwards it to all others in the mesh.
    fn accept(&mut self, now: Duration, id: &MessageId, topic: &Topic, frame: &Bytes) {
        let (mut first, mut later) = (None, Vec::new());
        if let Some(delivery) = self.seen.get_mut(id) {
            delivery.status = Status::Valid(now);
            first = delivery.first;
            later.clone_from(&delivery.later);
        }
        if let Some(key) = first {
            self.scores.first(key, topic);
        }
        for key in &later {
            self.scores.near_first(*key, topic);
        }
        self.counts.delivered += 1;
        self.cache.put(topic.clone(), id.clone(), frame.clone());
        let Some(state) = self.topics.get(topic) else {
            return;
        };
        let hash = hash_of(self.keys.hasher(), id);
        let always = self.always.intersection(&state.subscribers);
        let all = state
            .mesh
            .iter()
            .chain(always.filter(|key| !state.mesh.contains(key)));
        let to: Vec<PeerKey> = all
            .copied()
            .filter(|key| first != Some(*key) && !later.contains(key))
            .filter(|key| {
                let peer = self.peers.get(key);
                peer.is_some_and(|peer| !peer.dont_send.contains(&hash))
            })
            .collect();
        for key in to {
            self.counts.copies += 1;
            self.push_message(now, key, Priority::Forwarded, frame.clone(), Some(id.clone()));
        }
    }

    /// Sends IDONTWANT for a large received message to other mesh peers. A peer that gets the message itself
    /// at once, in a datagram or two, needs none.
    fn tell_idontwant(&mut self, now: Duration, from: PeerKey, id: &MessageId, topic: &Topic, len: usize) {
        let mesh = self.topics.get(topic).map(|state| &state.mesh);
        let pack = self.config.pack;
        let leaves_at_once = self.config.validation == Validation::Automatic && len <= pack;
        let hash = hash_of(self.keys.hasher(), id);
        let heeds = |key: &PeerKey| {
            let peer = self.peers.get(key);
            peer.is_some_and(|peer| {
                let gets_it = leaves_at_once && peer.takes_at_once(pack) && !peer.dont_send.contains(&hash);
                peer.version >= Version::V1_2 && !gets_it
            })
        };
        let to = mesh.into_iter().flatten().copied();
        let to: Vec<PeerKey> = to.filter(|key| *key != from && heeds(key)).collect();
        if to.is_empty() {
            return;
        }
        let control = ControlMessage {
            idontwant: vec![ControlIDontWant {
                message_ids: vec![id.to_bytes()],
            }],
            ..ControlMessage::default()
        };
        let rpc = Rpc {
            control: Some(control),
            ..Rpc::default()
        };
        let rpc = rpc.emit();
        for key in to {
            self.counts.idontwant_sent += 1;
            self.push(now, key, Priority::Control, rpc.clone());
        }
    }

    /// Ignores messages with a decision that timed out.
    pub(super) fn expire_validating(&mut self, now: Duration) {
        self.counts.ignored += self.validating.expire(now) as u64;
    }

    /// Refuses an invalid message. Its id cannot be trusted, so it is not recorded.
    fn refuse(&mut self, key: PeerKey, topic: &Topic, reason: impl Into<Refused>) {
        self.counts.rejected += 1;
        self.scores.invalid(key, topic);
        self.reject(key, reason);
    }

    pub(super) fn reject(&mut self, key: PeerKey, reason: impl Into<Refused>) {
        if let Some(peer) = self.peers.get(&key) {
            let (peer, reason) = (peer.addr.clone(), reason.into());
            self.events.push_back(Event::Rejected { peer, reason });
        }
    }
}
