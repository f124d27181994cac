//! The send queue of one peer: four lanes by priority, each limited in length and age, and all together in
//! bytes.
//!
//! At the byte limit, the oldest item of the lowest priority is dropped, but never for an item of lower
//! priority. Consecutive messages are sent as one RPC, as many as fit.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::config::QueueConfig;
use super::message_id::MessageId;

/// The priority of an item, the highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// Subscriptions, GRAFT, PRUNE, IDONTWANT.
    Control,
    /// This node's own messages.
    Own,
    /// Messages of other nodes.
    Forwarded,
    /// IHAVE and IWANT.
    Gossip,
}

const LANES: usize = 4;

/// An item of the queue.
#[derive(Debug)]
pub(super) struct Item {
    rpc: Bytes,
    /// The id of the message, if peers may refuse it with IDONTWANT.
    id: Option<MessageId>,
    is_message: bool,
    expires: Duration,
}

impl Item {
    /// Creates an item for an RPC that is not a message.
    pub(super) fn new(rpc: Bytes) -> Self {
        Self {
            rpc,
            id: None,
            is_message: false,
            expires: Duration::MAX,
        }
    }

    /// Creates an item for a message.
    pub(super) fn message(rpc: Bytes, id: Option<MessageId>) -> Self {
        Self {
            id,
            is_message: true,
            ..Self::new(rpc)
        }
    }
}

/// Number of RPCs that were dropped, and of messages among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) rpcs: u64,
    pub(super) messages: u64,
}

impl Dropped {
    fn add(&mut self, item: &Item) {
        self.rpcs += 1;
        self.messages += u64::from(item.is_message);
    }
}

/// Limits of messages that are sent as one RPC; a single message may be longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pack {
    pub(super) bytes: usize,
    pub(super) messages: usize,
}

/// The send queue of one peer; see the [module](self).
#[derive(Debug, Default)]
pub(super) struct Queue {
    lanes: [VecDeque<Item>; LANES],
    bytes: usize,
}

impl Queue {
    /// Adds an item. Returns what was dropped for it, which is the item itself if there is no room.
    pub(super) fn push(
        &mut self,
        now: Duration,
        priority: Priority,
        mut item: Item,
        config: &QueueConfig,
    ) -> Dropped {
        let (max, age) = config.lane(priority);
        let mut dropped = Dropped::default();
        while self.lane(priority).len() >= max.max(1) {
            self.drop_oldest(priority, &mut dropped);
        }
        while self.bytes.saturating_add(item.rpc.len()) > config.bytes {
            let least = [
                Priority::Gossip,
                Priority::Forwarded,
                Priority::Own,
                Priority::Control,
            ]
            .into_iter()
            .find(|lane| !self.lane(*lane).is_empty())
            .filter(|lane| *lane >= priority);
            let Some(least) = least else {
                dropped.add(&item);
                return dropped;
            };
            self.drop_oldest(least, &mut dropped);
        }
        self.bytes += item.rpc.len();
        item.expires = now.saturating_add(age);
        self.lane(priority).push_back(item);
        dropped
    }

    /// Appends the parts of the next RPC to `out`: one item that is not a message, or as many messages as fit
    /// into `pack`. Returns what was dropped because it was too old or unwanted.
    pub(super) fn pop(
        &mut self,
        now: Duration,
        mut is_unwanted: impl FnMut(&MessageId) -> bool,
        pack: Pack,
        out: &mut Vec<Bytes>,
    ) -> Dropped {
        let (mut dropped, mut bytes, mut messages) = (Dropped::default(), 0_usize, 0);
        for lane in &mut self.lanes {
            while let Some(item) = lane.front() {
                let len = item.rpc.len();
                let is_good = item.expires >= now && !item.id.as_ref().is_some_and(&mut is_unwanted);
                let fits =
                    item.is_message && bytes.saturating_add(len) <= pack.bytes && messages < pack.messages;
                if is_good && messages > 0 && !fits {
                    return dropped;
                }
                let Some(item) = lane.pop_front() else { break };
                self.bytes -= len;
                if !is_good {
                    dropped.add(&item);
                    continue;
                }
                out.push(item.rpc);
                if !item.is_message {
                    return dropped;
                }
                (bytes, messages) = (bytes.saturating_add(len), messages + 1);
            }
        }
        dropped
    }

    /// Returns whether the lane of own messages, or the queue's bytes, are at half their limit.
    pub(super) fn is_half_full(&self, config: &QueueConfig) -> bool {
        let [_, own, ..] = &self.lanes;
        own.len() >= config.own / 2 || self.bytes >= config.bytes / 2
    }

    /// Drops the whole queue.
    pub(super) fn clear(&mut self) -> Dropped {
        let mut dropped = Dropped::default();
        let lanes = self.lanes.iter_mut().flat_map(|lane| lane.drain(..));
        lanes.for_each(|item| dropped.add(&item));
        self.bytes = 0;
        dropped
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    /// Returns the number of queued RPCs, and their total bytes.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.lanes.iter().map(VecDeque::len).sum(), self.bytes)
    }

    fn lane(&mut self, priority: Priority) -> &mut VecDeque<Item> {
        let [control, own, forwarded, gossip] = &mut self.lanes;
        match priority {
            Priority::Control => control,
            Priority::Own => own,
            Priority::Forwarded => forwarded,
            Priority::Gossip => gossip,
        }
    }

    fn drop_oldest(&mut self, priority: Priority, dropped: &mut Dropped) {
        if let Some(item) = self.lane(priority).pop_front() {
            self.bytes -= item.rpc.len();
            dropped.add(&item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn config() -> QueueConfig {
        QueueConfig {
            bytes: 100,
            control: 3,
            own: 3,
            forwarded: 3,
            gossip: 3,
            ..QueueConfig::default()
        }
    }

    fn push(queue: &mut Queue, priority: Priority, n: u8, len: usize) -> u64 {
        let item = Item::message(vec![n; len].into(), Some(vec![n].into()));
        queue.push(NOW, priority, item, &config()).rpcs
    }

    fn drain(queue: &mut Queue, now: Duration) -> Vec<u8> {
        let rpcs = drain_packed(
            queue,
            now,
            Pack {
                bytes: 0,
                messages: 1,
            },
        );
        rpcs.into_iter()
            .map(|rpc| <[u8; 1]>::try_from(rpc).expect("one message per RPC")[0])
            .collect()
    }

    fn drain_packed(queue: &mut Queue, now: Duration, pack: Pack) -> Vec<Vec<u8>> {
        let mut rpcs = Vec::new();
        loop {
            let mut parts = Vec::new();
            queue.pop(now, |id| **id == [99], pack, &mut parts);
            if parts.is_empty() {
                return rpcs;
            }
            rpcs.push(parts.iter().map(|part| part[0]).collect());
        }
    }

    #[test]
    fn the_highest_priority_is_sent_first_in_fifo_order() {
        let mut queue = Queue::default();
        for (n, priority) in [
            (1, Priority::Gossip),
            (2, Priority::Forwarded),
            (3, Priority::Control),
            (4, Priority::Own),
            (5, Priority::Control),
        ] {
            assert_eq!(push(&mut queue, priority, n, 1), 0);
        }
        assert_eq!(drain(&mut queue, NOW), [3, 5, 4, 2, 1]);
        assert_eq!(queue.len(), (0, 0));
    }

    #[test]
    fn a_full_lane_drops_its_oldest_item() {
        let mut queue = Queue::default();
        let dropped: u64 = (1..=5).map(|n| push(&mut queue, Priority::Own, n, 1)).sum();
        assert_eq!((dropped, drain(&mut queue, NOW)), (2, vec![3, 4, 5]));
    }

    #[test]
    fn at_the_byte_limit_the_lowest_priority_is_dropped() {
        let mut queue = Queue::default();
        push(&mut queue, Priority::Gossip, 1, 40);
        push(&mut queue, Priority::Forwarded, 2, 40);
        assert_eq!(push(&mut queue, Priority::Own, 3, 40), 1);
        assert_eq!(push(&mut queue, Priority::Gossip, 4, 21), 1);
        assert_eq!(push(&mut queue, Priority::Control, 5, 101), 3);
        assert_eq!(queue.len(), (0, 0));
    }

    #[test]
    fn messages_that_fit_are_sent_together_in_order() {
        let mut queue = Queue::default();
        for (n, priority, len) in [
            (1, Priority::Own, 10),
            (2, Priority::Own, 10),
            (3, Priority::Own, 11),
            (4, Priority::Forwarded, 9),
            (5, Priority::Forwarded, 40),
        ] {
            assert_eq!(push(&mut queue, priority, n, len), 0);
        }
        for (n, priority) in [(6, Priority::Control), (7, Priority::Gossip)] {
            queue.push(NOW, priority, Item::new(vec![n].into()), &config());
        }
        let pack = Pack {
            bytes: 20,
            messages: 3,
        };
        assert_eq!(
            drain_packed(&mut queue, NOW, pack),
            [vec![6], vec![1, 2], vec![3, 4], vec![5], vec![7]]
        );
        assert_eq!(queue.len(), (0, 0));
    }

    #[test]
    fn a_pack_respects_the_limit_of_messages() {
        let mut queue = Queue::default();
        (1..=3).for_each(|n| {
            push(&mut queue, Priority::Own, n, 1);
        });
        let pack = Pack {
            bytes: 20,
            messages: 2,
        };
        assert_eq!(drain_packed(&mut queue, NOW, pack), [vec![1, 2], vec![3]]);
    }

    #[test]
    fn a_pack_leaves_out_expired_and_unwanted_messages() {
        let mut queue = Queue::default();
        let config = config();
        let mut push = |at, priority, n: u8| {
            let item = Item::message(vec![n].into(), Some(vec![n].into()));
            queue.push(at, priority, item, &config);
        };
        let late = NOW + config.forwarded_age + Duration::from_nanos(1);
        push(late, Priority::Own, 1);
        push(late, Priority::Own, 99);
        push(late, Priority::Own, 2);
        push(NOW, Priority::Forwarded, 3);
        push(late, Priority::Forwarded, 4);
        let pack = Pack {
            bytes: 20,
            messages: 9,
        };
        let mut parts = Vec::new();
        let dropped = queue.pop(late, |id| **id == [99], pack, &mut parts);
        assert_eq!((dropped.rpcs, dropped.messages), (2, 2));
        assert_eq!(parts.concat(), [1, 2, 4]);
        assert_eq!(queue.len(), (0, 0));
    }

    #[test]
    fn expired_and_unwanted_messages_are_dropped() {
        let mut queue = Queue::default();
        push(&mut queue, Priority::Forwarded, 1, 1);
        push(&mut queue, Priority::Forwarded, 99, 1);
        push(&mut queue, Priority::Control, 2, 1);
        let late = NOW + config().forwarded_age + Duration::from_nanos(1);
        assert_eq!(drain(&mut queue, late), [2]);
        push(&mut queue, Priority::Forwarded, 1, 1);
        push(&mut queue, Priority::Forwarded, 99, 1);
        assert_eq!(drain(&mut queue, NOW + config().forwarded_age), [1]);
    }
}
