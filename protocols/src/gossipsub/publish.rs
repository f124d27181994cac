//! Publishing: own messages and their destinations.

use std::time::Duration;

use bytes::Bytes;
use p2p::{Addr, Error, Result};

use super::codec::Outgoing;
use super::engine::Engine;
use super::event::Published;
use super::peer::PeerKey;
use super::queue::Priority;
use super::receive::Delivery;
use super::topic::Topic;

impl<A: Addr> Engine<A> {
    /// Publishes a message to a topic, with or without a subscription. The message is not delivered to this
    /// node.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an invalid topic, and for a recent duplicate if message ids depend on the data
    /// only; [`Error::MtuExceeded`] if the RPC would exceed [`SendLimits::rpc`](super::SendLimits). Nothing is
    /// sent.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the signature should not expose whether the data is copied"
    )]
    pub fn publish(&mut self, now: Duration, topic: &str, data: Bytes) -> Result<Published> {
        let outgoing = self.codec.write(topic, &data)?;
        self.send(now, outgoing)
    }

    /// Publishes a message that [`Codec::write`](super::Codec::write) encoded.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a recent duplicate if message ids depend on the data only. Nothing is sent.
    pub fn send(&mut self, now: Duration, outgoing: Outgoing) -> Result<Published> {
        let Outgoing { topic, id, frame } = outgoing;
        let (is_new, evicted) = self.seen.insert(now, id.clone(), Delivery::own(now));
        self.counts.seen_evicted += evicted as u64;
        if !is_new {
            return Err(Error::invalid(
                "message",
                "the same message was recently published or received",
            ));
        }
        let topic = self.intern(&topic);
        self.counts.published += 1;
        self.cache.put(topic.clone(), id.clone(), frame.clone());
        self.speak_of(now, &topic);
        let to = self.publish_to(now, &topic);
        self.counts.copies += to.len() as u64;
        self.counts.unheard += u64::from(to.is_empty());
        for key in &to {
            self.push_message(now, *key, Priority::Own, frame.clone(), Some(id.clone()));
        }
        let peers = to.len();
        Ok(Published { id, peers })
    }

    /// Returns the peers that an own message goes to.
    fn publish_to(&mut self, now: Duration, topic: &Topic) -> Vec<PeerKey> {
        let threshold = self.scores.config().map(|config| config.publish_threshold);
        let state = self.topics.entry(topic.clone()).or_default();
        let (joined, flood) = (state.joined, self.config.flood_publish);
        let subscribers = state.subscribers.iter().copied();
        let mut to: Vec<PeerKey> = subscribers
            .filter(|key| {
                let Some(peer) = self.peers.get(key) else {
                    return false;
                };
                let low = || threshold.is_some_and(|threshold| self.scores.score(now, *key) < threshold);
                peer.explicit || ((flood || !peer.is_router()) && !low())
            })
            .collect();
        if flood {
            self.forget_topic(topic);
        } else if joined {
            to.extend(state.mesh.iter().copied());
        } else {
            let mut peers = state.fanout.take().map(|(peers, _)| peers).unwrap_or_default();
            if peers.is_empty() {
                peers = self.fanout_candidates(now, topic, &peers, self.config.d);
            }
            to.extend(peers.iter().copied());
            if let Some(state) = self.topics.get_mut(topic) {
                state.fanout = Some((peers, now));
            }
        }
        to.sort_unstable();
        to.dedup();
        to
    }
}
