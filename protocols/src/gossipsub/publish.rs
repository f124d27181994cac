//! Own messages, and whom they go to.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use p2p::{Addr, Error, Result};
use p2p_formats::varint;
use prost::Message as _;

use super::engine::Engine;
use super::event::Published;
use super::peer::PeerKey;
use super::queue::Priority;
use super::receive::Delivery;
use super::signing::MessageId;
use super::topic::Topic;
use super::wire::{FRAME, Message};

impl<A: Addr> Engine<A> {
    /// Publishes a message to a topic, whether subscribed to or not. It is not delivered here.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a topic that cannot be, and if the same was published just now where messages are named by
    /// what they say; [`Error::MtuExceeded`] if the RPC would exceed [`Limits::rpc`](super::wire::Limits). Nothing is
    /// sent.
    pub fn publish(&mut self, now: Duration, topic: &str, data: Bytes) -> Result<Published> {
        self.check_topic(topic)?;
        let topic = self.intern(topic);
        let seqno = self.seqno.wrapping_add(1);
        let message = self.signing.make(&topic, data, seqno);
        let len = message.encoded_len();
        let mut frame = BytesMut::with_capacity(FRAME + len);
        frame.put_u8(2 << 3 | 2);
        frame.put_slice(varint::write(len as u64, &mut [0; varint::MAX_LEN]));
        let (size, mtu) = (frame.len() + len, self.config.limits.rpc);
        if size > mtu {
            return Err(Error::MtuExceeded { size, mtu });
        }
        // There is room for all of it.
        let _ = message.encode(&mut frame);
        let frame = frame.freeze();
        let id = self.name(&message);
        if id.is_empty() || id.len() > self.config.limits.id {
            return Err(Error::invalid("message id", "it is empty or too long"));
        }
        let (is_new, evicted) = self.seen.insert(now, id.clone(), Delivery::own(now));
        self.counts.seen_evicted += evicted as u64;
        if !is_new {
            return Err(Error::invalid(
                "message",
                "the same was published or received lately",
            ));
        }
        self.seqno = seqno;
        self.counts.published += 1;
        self.cache.put(topic.clone(), id.clone(), frame.clone());
        let to = self.publish_to(now, &topic);
        self.counts.copies += to.len() as u64;
        for key in &to {
            self.push(now, *key, Priority::Own, frame.clone(), Some(id.clone()));
        }
        let peers = to.len();
        Ok(Published { id, peers })
    }

    /// Whom an own message goes to.
    fn publish_to(&mut self, now: Duration, topic: &Topic) -> BTreeSet<PeerKey> {
        let threshold = self.scores.config().map(|config| config.publish_threshold);
        let state = self.topics.entry(topic.clone()).or_default();
        let (joined, flood) = (state.joined, self.config.flood_publish);
        let subscribers = state.subscribers.iter().copied();
        let mut to: BTreeSet<PeerKey> = subscribers
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
        to
    }

    /// The id of a message.
    pub(super) fn name(&self, message: &Message) -> MessageId {
        match &self.name_message {
            Some(name) => name(message),
            None => self.signing.message_id(message),
        }
    }
}
