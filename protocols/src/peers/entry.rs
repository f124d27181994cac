//! The data about one peer.

use std::time::Duration;

use bytes::Bytes;

use super::config::{Config, Source};

/// A certified record: addresses that a peer signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The sequence number; a higher one is newer.
    pub seq: u64,
    /// The signed envelope, to pass on to others.
    pub envelope: Bytes,
}

/// An address of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownAddr<A> {
    pub(super) addr: A,
    pub(super) source: Source,
    /// `Duration::MAX` if it does not expire.
    pub(super) expiry: Duration,
    /// Whether the peer's record has it.
    pub(super) is_certified: bool,
}

/// The order of removal, the lowest first: whether the peer was ever connected, when it was created or its
/// last connection ended, and a serial number.
pub(super) type Rank = (bool, Duration, u64);

/// The data about one peer.
#[derive(Clone, Debug)]
pub(super) struct Entry<A> {
    pub(super) addrs: Vec<KnownAddr<A>>,
    pub(super) key: Option<Bytes>,
    pub(super) protocols: Vec<String>,
    pub(super) agent: Option<String>,
    pub(super) record: Option<Record>,
    pub(super) is_connected: bool,
    pub(super) is_protected: bool,
    /// The time until which the entry stays without an address.
    pub(super) keep_until: Duration,
    pub(super) rank: Rank,
    /// The bytes that it is charged.
    pub(super) bytes: usize,
    /// Its time in the index of expiries.
    pub(super) due: Option<Duration>,
}

impl<A: Eq> Entry<A> {
    /// Bytes of an address besides those that its type says: a vector may have twice the room.
    pub(super) const ADDR: usize = 2 * size_of::<KnownAddr<A>>();

    pub(super) fn new(rank: Rank, keep_until: Duration) -> Self {
        Self {
            addrs: Vec::new(),
            key: None,
            protocols: Vec::new(),
            agent: None,
            record: None,
            is_connected: false,
            is_protected: false,
            keep_until,
            rank,
            bytes: 0,
            due: None,
        }
    }

    /// Returns whether the entry may be removed for another one.
    pub(super) fn is_removable(&self) -> bool {
        !self.is_connected && !self.is_protected
    }

    /// Returns the time of the next change by expiry.
    pub(super) fn next_expiry(&self) -> Option<Duration> {
        let first = self.addrs.iter().map(|known| known.expiry).min();
        let due = match first {
            Some(first) => first,
            None if self.is_removable() => self.keep_until,
            None => return None,
        };
        (due < Duration::MAX).then_some(due)
    }

    /// Removes expired addresses. Returns whether the entry stays.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        self.addrs.retain(|known| known.expiry > now);
        !self.addrs.is_empty() || !self.is_removable() || self.keep_until > now
    }

    /// Returns the number of bytes that the values of this entry hold.
    pub(super) fn measure(&self, addr_len: fn(&A) -> usize) -> usize {
        let addrs: usize = self
            .addrs
            .iter()
            .map(|known| Self::ADDR + addr_len(&known.addr))
            .sum();
        let record = self.record.as_ref().map_or(0, |record| record.envelope.len());
        let key = self.key.as_ref().map_or(0, Bytes::len);
        let agent = self.agent.as_ref().map_or(0, String::len);
        addrs + record + key + agent + text_bytes(&self.protocols)
    }

    /// Adds an address, or improves it. Returns whether it is stored: a full entry refuses an address that is
    /// no better than its worst one.
    pub(super) fn add(&mut self, config: &Config, new: KnownAddr<A>) -> bool {
        if let Some(known) = self.addrs.iter_mut().find(|known| known.addr == new.addr) {
            known.expiry = known.expiry.max(new.expiry);
            known.source = known.source.max(new.source);
            known.is_certified |= new.is_certified;
            return true;
        }
        if self.addrs.len() < config.addrs {
            self.addrs.push(new);
            return true;
        }
        let worst = self
            .addrs
            .iter_mut()
            .min_by_key(|known| (known.source, known.expiry));
        let Some(worst) = worst else { return false };
        let is_better = (new.source, new.expiry) > (worst.source, worst.expiry);
        if is_better {
            *worst = new;
        }
        is_better
    }
}

/// Returns the bytes that texts hold, with their bookkeeping.
pub(super) fn text_bytes(texts: &[String]) -> usize {
    let each = |text: &String| text.len() + 2 * size_of::<String>();
    texts.iter().map(each).sum()
}
