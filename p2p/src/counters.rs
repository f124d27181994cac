//! Counters of each layer: messages sent, received, delivered and dropped, with a reason for each drop.

use std::fmt::{self, Display};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The reason for dropping a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// Its bytes are invalid for this layer.
    Malformed,
    /// The reader's queue was full.
    QueueFull,
    /// A byte budget was exhausted: the oldest message, or the message that exceeded it, was dropped.
    Budget,
    /// Its time limit passed before the rest of the message, or the event that it needed, arrived.
    Expired,
    /// The same message arrived before.
    Duplicate,
    /// No reader is open on its channel.
    NoChannel,
    /// An allow-list denies its address.
    Denied,
    /// It is longer than this node's limit.
    Oversize,
    /// No node is reachable at its destination.
    NoPeer,
    /// Its source could not be authenticated.
    Unauthenticated,
    /// The medium lost it, or was configured to lose it.
    Lost,
    /// The medium is partitioned.
    Partitioned,
    /// The layer below refused to send it.
    Refused,
    /// The swarm was closed while the message was queued.
    Closed,
    /// Its address has no translation.
    NoAddr,
}

impl DropReason {
    /// Every reason, in the order of the counters.
    pub const ALL: [DropReason; 15] = [
        DropReason::Malformed,
        DropReason::QueueFull,
        DropReason::Budget,
        DropReason::Expired,
        DropReason::Duplicate,
        DropReason::NoChannel,
        DropReason::Denied,
        DropReason::Oversize,
        DropReason::NoPeer,
        DropReason::Unauthenticated,
        DropReason::Lost,
        DropReason::Partitioned,
        DropReason::Refused,
        DropReason::Closed,
        DropReason::NoAddr,
    ];

    /// Returns the reason as a label for metrics and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            DropReason::Malformed => "malformed",
            DropReason::QueueFull => "queue_full",
            DropReason::Budget => "budget",
            DropReason::Expired => "expired",
            DropReason::Duplicate => "duplicate",
            DropReason::NoChannel => "no_channel",
            DropReason::Denied => "denied",
            DropReason::Oversize => "oversize",
            DropReason::NoPeer => "no_peer",
            DropReason::Unauthenticated => "unauthenticated",
            DropReason::Lost => "lost",
            DropReason::Partitioned => "partitioned",
            DropReason::Refused => "refused",
            DropReason::Closed => "closed",
            DropReason::NoAddr => "no_addr",
        }
    }
}

impl Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The counters of one layer of one node.
///
/// Over all nodes of a swarm, `sent + duplicated = delivered + dropped + in flight` holds at every layer, in
/// messages of this layer. Drops of parts of messages, such as fragments, are counted separately, in parts;
/// the documentation of the layer says so.
#[derive(Debug)]
pub struct Counters {
    layer: &'static str,
    sent: AtomicU64,
    received: AtomicU64,
    delivered: AtomicU64,
    duplicated: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl Counters {
    /// Creates zeroed counters for the layer `layer`.
    pub fn new(layer: &'static str) -> Self {
        Self {
            layer,
            sent: AtomicU64::default(),
            received: AtomicU64::default(),
            delivered: AtomicU64::default(),
            duplicated: AtomicU64::default(),
            dropped: Default::default(),
        }
    }

    /// Returns the name of the layer.
    pub fn layer(&self) -> &'static str {
        self.layer
    }

    /// Counts `count` messages that were sent through this layer.
    pub fn add_sent(&self, count: usize) {
        self.sent.fetch_add(count as u64, Relaxed);
    }

    /// Counts `count` messages that arrived from the layer below, before any check.
    pub fn add_received(&self, count: usize) {
        self.received.fetch_add(count as u64, Relaxed);
    }

    /// Counts `count` messages that were delivered to a reader.
    pub fn add_delivered(&self, count: usize) {
        self.delivered.fetch_add(count as u64, Relaxed);
    }

    /// Counts `count` messages that the medium created without a sender.
    pub fn add_duplicated(&self, count: usize) {
        self.duplicated.fetch_add(count as u64, Relaxed);
    }

    /// Counts a dropped message.
    pub fn add_dropped(&self, reason: DropReason) {
        self.add_dropped_many(reason, 1);
        tracing::trace!(layer = self.layer, reason = reason.as_str(), "dropped");
    }

    /// Counts a dropped message from or to `peer`.
    pub fn add_dropped_from(&self, reason: DropReason, peer: &impl Display) {
        self.add_dropped_many(reason, 1);
        tracing::trace!(layer = self.layer, reason = reason.as_str(), %peer, "dropped");
    }

    /// Counts `count` messages that were dropped for the same reason.
    pub fn add_dropped_many(&self, reason: DropReason, count: usize) {
        self.dropped[reason as usize].fetch_add(count as u64, Relaxed);
    }

    /// Returns the current values.
    pub fn snapshot(&self) -> CounterSnapshot {
        CounterSnapshot {
            sent: self.sent.load(Relaxed),
            received: self.received.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            duplicated: self.duplicated.load(Relaxed),
            dropped: std::array::from_fn(|reason| self.dropped[reason].load(Relaxed)),
        }
    }
}

/// The values of [`Counters`] at one moment.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct CounterSnapshot {
    /// Messages that were sent through this layer.
    pub sent: u64,
    /// Messages that arrived from the layer below, before any check.
    pub received: u64,
    /// Messages that were delivered to a reader.
    pub delivered: u64,
    /// Messages that the medium created without a sender.
    pub duplicated: u64,
    dropped: [u64; DropReason::ALL.len()],
}

impl CounterSnapshot {
    /// Returns the number of messages dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Returns the number of messages dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

impl fmt::Debug for CounterSnapshot {
    /// Lists only the reasons that occurred.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sent,
            received,
            delivered,
            duplicated,
            dropped: _,
        } = self;
        f.debug_struct("CounterSnapshot")
            .field("sent", sent)
            .field("received", received)
            .field("delivered", delivered)
            .field("duplicated", duplicated)
            .field("dropped", &Dropped(self))
            .finish()
    }
}

/// The reasons that occurred, with their counts.
struct Dropped<'a>(&'a CounterSnapshot);

impl fmt::Debug for Dropped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for reason in DropReason::ALL {
            let count = self.0.dropped(reason);
            if count > 0 {
                map.entry(&format_args!("{reason}"), &count);
            }
        }
        map.finish()
    }
}

impl std::ops::AddAssign for CounterSnapshot {
    /// Adds up the counters of several nodes.
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.delivered += other.delivered;
        self.duplicated += other.duplicated;
        for (sum, more) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += more;
        }
    }
}
