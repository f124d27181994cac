//! The messages of recent heartbeats, for IWANT requests: gossipsub v1.0, "Message Cache".
//!
//! One window for each heartbeat, the newest first. Windows, messages and bytes are bounded; beyond a limit,
//! the oldest messages are dropped.

use std::collections::VecDeque;

use bytes::Bytes;

use super::fifo::FifoMap;
use super::message_id::MessageId;
use super::topic::Topic;
use crate::overlay::Prefix;

/// Maximum number of identities that get one message by IWANT, a quarter of them from one network; further
/// ones get none. As many more places are reserved for outbound peers.
const ASKERS: usize = 256;

/// A peer that requests messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    /// The number of its identity.
    pub(super) identity: u64,
    /// Its network, with a short hash of it.
    pub(super) network: Option<(u32, Prefix)>,
    /// Whether it is an outbound or explicit peer.
    pub(super) is_chosen: bool,
}

/// Number of times that an identity got a message by IWANT.
#[derive(Clone, Copy, Debug)]
struct Sent {
    identity: u64,
    network: Option<u32>,
    count: u32,
}

/// A message that can be sent again.
#[derive(Debug)]
struct Entry {
    topic: Topic,
    frame: Bytes,
    /// The identities that got this message by IWANT, including those that have left, so that a reconnect
    /// does not reset the count. At most twice [`ASKERS`].
    sent: Vec<Sent>,
}

/// The message cache; see the [module](self).
#[derive(Debug)]
pub(super) struct MessageCache {
    /// Number of messages in each of the `mcache_len` windows, the newest first.
    windows: VecDeque<usize>,
    /// `mcache_gossip`.
    gossip: usize,
    /// Ordered by age, the oldest first.
    messages: FifoMap<MessageId, Entry>,
    bytes: usize,
    max_messages: usize,
    max_bytes: usize,
}

impl MessageCache {
    pub(super) fn new(len: usize, gossip: usize, max_messages: usize, max_bytes: usize) -> Self {
        Self {
            windows: (0..len.max(1)).map(|_| 0).collect(),
            gossip,
            messages: FifoMap::default(),
            bytes: 0,
            max_messages,
            max_bytes,
        }
    }

    /// Adds a message to the newest window. A message longer than the limit is not stored.
    pub(super) fn put(&mut self, topic: Topic, id: MessageId, frame: Bytes) {
        let len = frame.len();
        if len > self.max_bytes || self.max_messages == 0 {
            return;
        }
        let sent = Vec::new();
        if !self.messages.push(id, Entry { topic, frame, sent }) {
            return;
        }
        self.bytes += len;
        if let Some(newest) = self.windows.front_mut() {
            *newest += 1;
        }
        while self.messages.len() > self.max_messages || self.bytes > self.max_bytes {
            self.drop_oldest();
            if let Some(oldest) = self.windows.iter_mut().rev().find(|count| **count > 0) {
                *oldest -= 1;
            }
        }
    }

    /// Returns a message for an IWANT request, unless the identity got it `retransmissions` times already, or
    /// too many identities got it.
    pub(super) fn get_for(&mut self, id: &MessageId, asker: Asker, retransmissions: u32) -> Option<Bytes> {
        let entry = self.messages.get_mut(id)?;
        if let Some(sent) = entry.sent.iter_mut().find(|sent| sent.identity == asker.identity) {
            if sent.count >= retransmissions {
                return None;
            }
            sent.count += 1;
        } else if retransmissions == 0 || !has_place(&entry.sent, asker) {
            return None;
        } else {
            entry.sent.push(Sent {
                identity: asker.identity,
                network: asker.network.map(|(hash, _)| hash),
                count: 1,
            });
        }
        Some(entry.frame.clone())
    }

    /// Returns the ids of a topic's messages in the windows for gossip, the newest last.
    pub(super) fn gossip_ids(&self, topic: &Topic) -> Vec<MessageId> {
        let newest: usize = self.windows.iter().take(self.gossip).sum();
        let older = self.messages.len().saturating_sub(newest);
        let of_topic = self.messages.iter().skip(older);
        of_topic
            .filter(|(_, entry)| entry.topic == *topic)
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Starts a new window, and drops the oldest one.
    pub(super) fn shift(&mut self) {
        for _ in 0..self.windows.pop_back().unwrap_or_default() {
            self.drop_oldest();
        }
        self.windows.push_front(0);
    }

    /// Returns the number of messages, and their total bytes.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.messages.len(), self.bytes)
    }

    fn drop_oldest(&mut self) {
        if let Some((_, entry)) = self.messages.pop_first() {
            self.bytes -= entry.frame.len();
        }
    }
}

/// Returns whether one more identity may get a message by IWANT.
fn has_place(sent: &[Sent], asker: Asker) -> bool {
    if asker.is_chosen {
        return sent.len() < 2 * ASKERS;
    }
    let is_crowd = asker.network.is_some_and(|(hash, network)| {
        let same = sent.iter().filter(|sent| sent.network == Some(hash));
        same.count() >= network.limit(ASKERS / 4)
    });
    sent.len() < ASKERS && !is_crowd
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An inbound peer without an IP address.
    fn asker(identity: u64) -> Asker {
        Asker {
            identity,
            network: None,
            is_chosen: false,
        }
    }

    fn id(n: u8) -> MessageId {
        vec![n].into()
    }

    fn put(cache: &mut MessageCache, topic: &str, n: u8, len: usize) {
        cache.put(Topic::from(topic), id(n), vec![n; len].into());
    }

    #[test]
    fn a_message_is_announced_for_mcache_gossip_windows_and_kept_for_mcache_len() {
        let mut cache = MessageCache::new(5, 3, 100, 1000);
        put(&mut cache, "a", 1, 10);
        put(&mut cache, "b", 2, 10);
        for shift in 0..6 {
            let gossip = cache.gossip_ids(&Topic::from("a"));
            assert_eq!(gossip, if shift < 3 { vec![id(1)] } else { vec![] });
            assert_eq!(cache.get_for(&id(1), asker(shift), 1).is_some(), shift < 5);
            cache.shift();
        }
        assert_eq!(cache.len(), (0, 0));
    }

    #[test]
    fn beyond_a_limit_the_oldest_messages_are_dropped() {
        let mut cache = MessageCache::new(3, 3, 4, 100);
        for n in 0..6 {
            put(&mut cache, "a", n, 10);
            if n == 2 {
                cache.shift();
            }
        }
        assert_eq!(cache.gossip_ids(&Topic::from("a")), [id(2), id(3), id(4), id(5)]);
        put(&mut cache, "a", 6, 90);
        assert_eq!(cache.len(), (2, 100));
        put(&mut cache, "a", 7, 101);
        assert_eq!(cache.gossip_ids(&Topic::from("a")), [id(5), id(6)]);
    }

    #[test]
    fn each_identity_gets_a_message_by_iwant_a_limited_number_of_times() {
        let mut cache = MessageCache::new(3, 3, 4, 100);
        put(&mut cache, "a", 1, 10);
        for peer in 0..3 {
            for request in 0..5 {
                let got = cache.get_for(&id(1), asker(peer), 3);
                assert_eq!(got.is_some(), request < 3);
            }
        }
        assert_eq!(cache.get_for(&id(1), asker(9), 0), None);
    }

    #[test]
    fn a_limited_number_of_identities_get_a_message_by_iwant() {
        let mut cache = MessageCache::new(3, 3, 4, 100);
        put(&mut cache, "a", 1, 10);
        let served = (0..10_000).filter(|identity| cache.get_for(&id(1), asker(*identity), 3).is_some());
        assert_eq!(served.count(), ASKERS);
        // Outbound peers have places of their own.
        let chosen = |identity| Asker {
            is_chosen: true,
            ..asker(identity)
        };
        let served =
            (20_000..30_000).filter(|identity| cache.get_for(&id(1), chosen(*identity), 3).is_some());
        assert_eq!(served.count(), ASKERS);
    }

    #[test]
    fn one_network_cannot_take_all_places_for_iwant() {
        let mut cache = MessageCache::new(3, 3, 4, 100);
        put(&mut cache, "a", 1, 10);
        let of = |identity, network: u8| Asker {
            network: Some((network.into(), Prefix::V4([203, 0, network]))),
            ..asker(identity)
        };
        let mut served = |network: u8| {
            let from = 1000 * u64::from(network);
            let served = (from..from + 300)
                .filter(|identity| cache.get_for(&id(1), of(*identity, network), 3).is_some());
            served.count()
        };
        assert_eq!((served(1), served(2)), (ASKERS / 4, ASKERS / 4));
    }
}
