//! Direct messages and introductions: an extension of this library, enabled by
//! [`Config::direct`](super::Config).
//!
//! The source of a swarm's message is an address that can be told to. A message to one neighbour is in its
//! own field of the RPC, is never forwarded, and names its recipient if it is signed. Other implementations
//! ignore the field. Peers send [hello](super::wire::Hello) to one another, because a medium of messages has
//! no connections that would announce a peer.

use std::time::Duration;

use bytes::Bytes;
use p2p::{Addr, Error};

use super::admission::GREETINGS;
use super::codec::Arrived;
use super::engine::Engine;
use super::event::{Event, Received, Refused};
use super::identity::Author;
use super::peer::PeerKey;
use super::queue::Priority;
use super::signing::PolicyError;
use super::topic::Topic;
use super::wire::{Hello, Rpc, WireError};

/// Heartbeats for which subscriptions are repeated, at doubling intervals. After that,
/// [`announce_every`](super::Config::announce_every) is the interval.
const REPEATED_FOR: u32 = 64;

impl<A: Addr> Engine<A> {
    /// Sends a message about a topic to one peer only. It is never forwarded, and is lost if its RPC is lost.
    ///
    /// # Errors
    /// [`Error::Unreachable`] for an address that is not a peer, or for a peer that has not announced that it
    /// accepts direct messages; [`Error::Invalid`] for an invalid topic; [`Error::MtuExceeded`] if the RPC
    /// would exceed [`SendLimits::rpc`](super::SendLimits). Nothing is sent.
    pub fn tell(&mut self, now: Duration, peer: &A, topic: &str, data: Bytes) -> p2p::Result<()> {
        let key = self.keys.get(peer).copied();
        let found = key.and_then(|key| Some((key, self.peers.get(&key)?)));
        let (key, known) = found.ok_or_else(|| Error::unreachable(peer, "it is not a neighbour"))?;
        // A signed message must name its recipient.
        if !known.takes_direct || (known.author.is_none() && self.codec.signing.author().is_some()) {
            return Err(Error::unreachable(peer, "it has not sent its identity"));
        }
        let frame = self.codec.write_direct(topic, data, known.author.as_ref())?;
        let topic = self.intern(topic);
        self.speak_of(now, &topic);
        self.counts.told += 1;
        self.push_message(now, key, Priority::Own, frame, None);
        Ok(())
    }

    /// Says goodbye to all peers: leaves all topics and announces that this node leaves.
    pub fn leave(&mut self, now: Duration) {
        let joined: Vec<Topic> = self.subscriptions().cloned().collect();
        for topic in joined {
            self.unsubscribe(now, &topic);
        }
        if !self.config.direct {
            return;
        }
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in keys {
            let hello = Hello {
                leaves: Some(true),
                ..Hello::default()
            };
            self.push_hello(now, key, hello);
        }
    }

    /// Returns the topics for which direct messages are accepted: the subscribed ones, and those that this
    /// node recently sent to.
    pub fn local_topics(&self) -> impl Iterator<Item = &Topic> {
        let spoken = self.spoken.iter();
        let only = spoken.filter(|topic| !self.topics.get(*topic).is_some_and(|state| state.joined));
        self.subscriptions().chain(only)
    }

    /// Returns the author id that a peer claims; `None` if messages are not signed, or the peer has not sent
    /// it yet.
    pub fn author(&self, peer: &A) -> Option<Author> {
        let key = self.keys.get(peer)?;
        self.peers.get(key)?.author
    }

    /// Returns whether a peer has sent hello, or, where hellos are not used ([`Config::direct`](super::Config)), is a peer.
    pub fn is_met(&self, peer: &A) -> bool {
        let key = self.keys.get(peer);
        key.and_then(|key| self.peers.get(key))
            .is_some_and(|peer| peer.met)
    }

    /// Records that this node sent to a topic, so that direct answers are accepted.
    pub(super) fn speak_of(&mut self, now: Duration, topic: &Topic) {
        if !self.spoken.contains(topic) {
            self.spoken.insert(now, topic.clone(), ());
        }
    }

    /// Sends this node's identity and subscriptions to a peer; with `asks`, requests the same from it.
    ///
    /// If hellos are enabled, the number of greetings to an identity that reconnects repeatedly is limited.
    pub(super) fn greet(&mut self, now: Duration, key: PeerKey, asks: bool) {
        if self.config.direct {
            let Some(peer) = self.peers.get_mut(&key) else {
                return;
            };
            if peer.usage.greetings >= GREETINGS {
                self.counts.greetings_withheld += 1;
                return;
            }
            peer.usage.greetings += 1;
            let author = self.codec.signing.author();
            let hello = Hello {
                author: author.map(|author| Bytes::copy_from_slice(author.as_bytes())),
                asks: asks.then_some(true),
                leaves: None,
            };
            self.push_hello(now, key, hello);
        }
        let joined: Vec<Topic> = self.subscriptions().cloned().collect();
        self.announce(now, key, &joined, true);
    }

    fn push_hello(&mut self, now: Duration, key: PeerKey, hello: Hello) {
        let rpc = Rpc {
            hello: Some(hello),
            ..Rpc::default()
        };
        self.push(now, key, Priority::Control, rpc.emit());
    }

    pub(super) fn handle_hello(&mut self, now: Duration, key: PeerKey, hello: &Hello) {
        let Some(peer) = self.peers.get_mut(&key).filter(|_| self.config.direct) else {
            return;
        };
        if hello.leaves() {
            let addr = peer.addr.clone();
            self.remove_peer(now, &addr);
            return self.events.push_back(Event::Left { peer: addr });
        }
        let author = hello.author.as_deref().and_then(Author::from_bytes);
        peer.met = true;
        if !peer.takes_direct || peer.author != author {
            (peer.takes_direct, peer.author) = (true, author);
            let peer = peer.addr.clone();
            self.events.push_back(Event::Introduced { peer, author });
        }
        // Answer once per heartbeat, so that a short hello cannot provoke many long answers.
        if let Some(peer) = self.peers.get_mut(&key)
            && hello.asks()
            && !std::mem::replace(&mut peer.answered, true)
        {
            self.greet(now, key, false);
        }
    }

    /// Sends hello again to peers that have not sent it, and subscriptions to recent peers, at increasing
    /// intervals. Removes peers that were silent for too long.
    pub(super) fn watch_peers(&mut self, now: Duration) {
        let (mut unmet, mut met, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for (key, peer) in &mut self.peers {
            peer.answered = false;
            if now.saturating_sub(peer.heard) > self.config.peer_idle {
                gone.push(peer.addr.clone());
            } else if self.config.direct {
                peer.beats = peer.beats.saturating_add(1);
                if peer.beats.is_power_of_two() && !peer.met {
                    unmet.push(*key);
                } else if peer.beats.is_power_of_two() && peer.beats <= REPEATED_FOR {
                    met.push(*key);
                }
            }
        }
        for peer in gone {
            self.remove_peer(now, &peer);
            self.events.push_back(Event::Left { peer });
        }
        for key in unmet {
            self.greet(now, key, true);
        }
        let joined: Vec<Topic> = self.subscriptions().cloned().collect();
        for key in met {
            self.announce(now, key, &joined, true);
        }
        self.repeat_changes(now);
    }

    /// Records a subscription or its end, so that it is repeated: a lost RPC is not reported. If too many
    /// changes are recorded at a time, further ones are sent once.
    pub(super) fn note_change(&mut self, topic: &Topic) {
        if self.config.direct && self.changed.len() < self.config.max_topics {
            self.changed.insert(topic.clone(), 0);
        }
    }

    fn repeat_changes(&mut self, now: Duration) {
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        for (topic, beats) in &mut self.changed {
            *beats += 1;
            if beats.is_power_of_two() {
                let is_joined = self.topics.get(topic).is_some_and(|state| state.joined);
                let list = if is_joined { &mut joined } else { &mut left };
                list.push(topic.clone());
            }
        }
        self.changed.retain(|_, beats| *beats < REPEATED_FOR);
        if joined.is_empty() && left.is_empty() {
            return;
        }
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in keys {
            self.announce(now, key, &joined, true);
            self.announce(now, key, &left, false);
        }
    }

    /// Returns whether direct messages of a topic are accepted.
    pub(super) fn hears_of(&self, topic: &str) -> bool {
        let is_joined = self.topics.get(topic).is_some_and(|state| state.joined);
        self.config.direct && (is_joined || self.spoken.contains(&Topic::from(topic)))
    }

    /// Performs the cheapest checks first, as for messages of topics.
    pub(super) fn handle_direct(
        &mut self,
        now: Duration,
        key: PeerKey,
        arrived: Result<Arrived, WireError>,
        rpc: usize,
    ) {
        let mut arrived = match arrived {
            Ok(arrived) => arrived,
            Err(reason) => return self.refuse_direct(key, reason),
        };
        if !self.hears_of(arrived.message.topic()) {
            self.counts.unrequested += 1;
            return;
        }
        if self.codec.is_own(&arrived.message) {
            self.counts.own += 1;
            return;
        }
        let id = match arrived.id.clone() {
            // Without signatures, the id is a sequence number of the neighbour.
            Ok(id) if arrived.message.from.is_none() => {
                // Its numbers continue after a reconnect.
                let peer = self.peers.get(&key).map(|peer| self.number_of(&peer.identity));
                [&peer.unwrap_or_default().to_be_bytes()[..], &id].concat().into()
            }
            Ok(id) => id,
            Err(reason) => return self.refuse_direct(key, reason),
        };
        if self.told.contains_at(now, &id) {
            self.counts.duplicates += 1;
            return;
        }
        if let Err(reason) = arrived.verify(&self.codec.signing) {
            return self.refuse_direct(key, reason);
        }
        let Some(peer) = self.peers.get(&key) else { return };
        let received = Received {
            id: id.clone(),
            topic: self.intern(arrived.message.topic()),
            via: peer.addr.clone(),
            author: arrived.author(),
            data: arrived.into_data(rpc),
        };
        let (_, evicted) = self.told.insert(now, id, ());
        self.counts.seen_evicted += evicted as u64;
        self.counts.direct += 1;
        self.events.push_back(Event::Direct(received));
    }

    fn refuse_direct(&mut self, key: PeerKey, reason: impl Into<Refused>) {
        let reason = reason.into();
        self.counts.rejected += 1;
        // A sender that addressed the wrong node was misinformed; it is not penalised.
        if reason != PolicyError::ForOthers.into() {
            self.scores.penalize(key, 1);
        }
        self.reject(key, reason);
    }
}
