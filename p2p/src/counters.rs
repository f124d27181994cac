//! What became of every message: each layer counts, and drops have reasons.

use std::fmt::{self, Display};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Its bytes are not what this layer's peer would send.
    Malformed,
    /// The reader's queue was full.
    QueueFull,
    /// A byte budget was spent; this was the oldest or the one too many.
    Budget,
    /// It waited too long for what belongs to it.
    Expired,
    /// It was here before.
    Duplicate,
    /// Nobody opened its channel.
    NoChannel,
    /// An allow-list forbids its address.
    Denied,
    /// It is longer than this node takes.
    Oversize,
    /// Nobody is at its destination.
    NoPeer,
    /// Its sender could not be proven.
    Unauthenticated,
    /// The medium lost it, or was told to.
    Lost,
    /// The medium is partitioned.
    Partitioned,
    /// The layer below refused to send it.
    Refused,
    /// The swarm closed while it waited.
    Closed,
    /// Its address has no translation.
    NoAddr,
}

impl Reason {
    /// Every reason, in the order of the counters.
    pub const ALL: [Reason; 15] = [
        Reason::Malformed,
        Reason::QueueFull,
        Reason::Budget,
        Reason::Expired,
        Reason::Duplicate,
        Reason::NoChannel,
        Reason::Denied,
        Reason::Oversize,
        Reason::NoPeer,
        Reason::Unauthenticated,
        Reason::Lost,
        Reason::Partitioned,
        Reason::Refused,
        Reason::Closed,
        Reason::NoAddr,
    ];

    /// The reason as a label in metrics and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::QueueFull => "queue_full",
            Reason::Budget => "budget",
            Reason::Expired => "expired",
            Reason::Duplicate => "duplicate",
            Reason::NoChannel => "no_channel",
            Reason::Denied => "denied",
            Reason::Oversize => "oversize",
            Reason::NoPeer => "no_peer",
            Reason::Unauthenticated => "unauthenticated",
            Reason::Lost => "lost",
            Reason::Partitioned => "partitioned",
            Reason::Refused => "refused",
            Reason::Closed => "closed",
            Reason::NoAddr => "no_addr",
        }
    }
}

impl Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The counters of one layer of one node.
///
/// Over all nodes of a swarm, `sent + duplicated = delivered + dropped + in flight` at every layer, with
/// one unit: a message of this layer (drops of pieces, such as fragments, are counted in pieces apart from
/// that; the layer's docs say so).
#[derive(Debug)]
pub struct Counters {
    layer: &'static str,
    sent: AtomicU64,
    received: AtomicU64,
    delivered: AtomicU64,
    duplicated: AtomicU64,
    dropped: [AtomicU64; Reason::ALL.len()],
}

impl Counters {
    /// Counters at zero for the layer of this name.
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

    /// The name of the layer that counts here.
    pub fn layer(&self) -> &'static str {
        self.layer
    }

    /// `count` messages left through this layer.
    pub fn sent(&self, count: usize) {
        self.sent.fetch_add(count as u64, Relaxed);
    }

    /// `count` messages arrived from below, before any check.
    pub fn received(&self, count: usize) {
        self.received.fetch_add(count as u64, Relaxed);
    }

    /// `count` messages went to a reader.
    pub fn delivered(&self, count: usize) {
        self.delivered.fetch_add(count as u64, Relaxed);
    }

    /// The medium made `count` messages out of nothing.
    pub fn duplicated(&self, count: usize) {
        self.duplicated.fetch_add(count as u64, Relaxed);
    }

    /// A message was dropped.
    pub fn dropped(&self, reason: Reason) {
        self.dropped_many(reason, 1);
        tracing::trace!(layer = self.layer, reason = reason.as_str(), "dropped");
    }

    /// A message from or to `peer` was dropped.
    pub fn dropped_at(&self, reason: Reason, peer: &impl Display) {
        self.dropped_many(reason, 1);
        tracing::trace!(layer = self.layer, reason = reason.as_str(), %peer, "dropped");
    }

    /// `count` messages were dropped for the same reason.
    pub fn dropped_many(&self, reason: Reason, count: usize) {
        self.dropped[reason as usize].fetch_add(count as u64, Relaxed);
    }

    /// The counters as they are now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            sent: self.sent.load(Relaxed),
            received: self.received.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            duplicated: self.duplicated.load(Relaxed),
            dropped: std::array::from_fn(|reason| self.dropped[reason].load(Relaxed)),
        }
    }
}

/// What [`Counters`] said at one moment.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Messages that left through this layer.
    pub sent: u64,
    /// Messages that arrived from below, before any check.
    pub received: u64,
    /// Messages that went to a reader.
    pub delivered: u64,
    /// Messages that the medium made out of nothing.
    pub duplicated: u64,
    dropped: [u64; Reason::ALL.len()],
}

impl Snapshot {
    /// Messages dropped for this reason.
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Messages dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

impl fmt::Debug for Snapshot {
    /// Names each reason for which a message was dropped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sent,
            received,
            delivered,
            duplicated,
            dropped: _,
        } = self;
        f.debug_struct("Snapshot")
            .field("sent", sent)
            .field("received", received)
            .field("delivered", delivered)
            .field("duplicated", duplicated)
            .field("dropped", &Dropped(self))
            .finish()
    }
}

/// The reasons that occurred, with their counts.
struct Dropped<'a>(&'a Snapshot);

impl fmt::Debug for Dropped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for reason in Reason::ALL {
            let count = self.0.dropped(reason);
            if count > 0 {
                map.entry(&format_args!("{reason}"), &count);
            }
        }
        map.finish()
    }
}

impl std::ops::AddAssign for Snapshot {
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
