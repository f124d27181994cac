//! The record store: records of the node's own range, and copies of other nodes' records.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use p2p::PeerId;

use super::config::Rules;
use super::distance::in_half_open;
use super::event::Refusal;
use super::wire::Record;
use crate::overlay::Source;

/// Records by key, with limits on their number and bytes, in total and for each source network.
#[derive(Debug, Default)]
pub(super) struct Store {
    records: BTreeMap<PeerId, Kept>,
    bytes: usize,
    /// Number of records by source.
    sources: HashMap<Source, usize>,
}

#[derive(Debug)]
struct Kept {
    value: Box<[u8]>,
    expires: Duration,
    /// Time at which the record was last stored.
    seen: Duration,
    source: Source,
}

/// A record to store.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    pub(super) record: Record<'a>,
    /// The source of the record.
    pub(super) source: Source,
    /// The arc of this node's own records, from its predecessor to itself, if it has one.
    pub(super) own_range: Option<(PeerId, PeerId)>,
    /// Whether the record is in that arc.
    pub(super) is_own: bool,
}

impl Store {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns a record that has not expired.
    pub(super) fn get(&self, now: Duration, key: &PeerId) -> Option<Record<'_>> {
        record(now, key, self.records.get(key)?)
    }

    /// Stores a record. Of two records with one key, the better one stays; an equal one extends the lifetime.
    pub(super) fn put<A>(
        &mut self,
        now: Duration,
        incoming: &Incoming<'_>,
        rules: &Rules<A>,
    ) -> Result<(), Refusal> {
        let Incoming { record, source, .. } = incoming;
        let (config, key, value) = (&rules.config, PeerId::new(record.key), record.value);
        if value.len() > config.value {
            return Err(Refusal::Oversize);
        }
        if record.ttl == 0 || !rules.validator.is_valid(&key.into(), value) {
            return Err(Refusal::Invalid);
        }
        let ttl = Duration::from_secs(record.ttl.into()).min(config.record_ttl);
        let mut expires = now.saturating_add(ttl);
        let old = self.records.get(&key).filter(|old| old.expires > now);
        if let Some(old) = old {
            if *old.value == *value {
                expires = expires.max(old.expires);
            } else if !rules.validator.supersedes(&key.into(), value, &old.value) {
                return Err(Refusal::Stale);
            }
        }
        self.make_room(key, incoming, rules)?;
        self.remove(&key);
        self.bytes += value.len();
        *self.sources.entry(*source).or_default() += 1;
        let kept = Kept {
            value: value.into(),
            expires,
            seen: now,
            source: *source,
        };
        self.records.insert(key, kept);
        Ok(())
    }

    /// Evicts records if there is no room for a new one.
    fn make_room<A>(
        &mut self,
        key: PeerId,
        incoming: &Incoming<'_>,
        rules: &Rules<A>,
    ) -> Result<(), Refusal> {
        let (config, old) = (&rules.config, self.records.get(&key));
        let from_source = self.sources.get(&incoming.source).copied().unwrap_or(0);
        let is_new = old.is_none_or(|old| old.source != incoming.source);
        if is_new && from_source >= config.records_per_source {
            return Err(Refusal::Limit);
        }
        let mut count = self.records.len() + usize::from(old.is_none());
        let mut bytes = self.bytes - old.map_or(0, |old| old.value.len()) + incoming.record.value.len();
        let mut leaving = Vec::new();
        // The keys right after this node on the circle are the farthest before it.
        let own = incoming.own_range.map(|(_, own)| own).unwrap_or_default();
        let mut others = self.around(own);
        let mut copies = true;
        while count > config.records || bytes > config.record_bytes {
            // A copy only replaces a copy of a source with more records.
            let copy = incoming
                .own_range
                .filter(|_| incoming.is_own)
                .and_then(|(predecessor, own)| {
                    let copy = others.next().filter(|_| copies);
                    copy.filter(|(farthest, _)| !in_half_open(farthest, &predecessor, &own))
                });
            copies = copy.is_some();
            let left = copy.or_else(|| self.of_greatest(key, incoming, from_source, &leaving));
            let (leaves, kept) = left.ok_or(Refusal::Full)?;
            count -= 1;
            bytes -= kept.value.len();
            leaving.push(*leaves);
        }
        drop(others);
        for key in leaving {
            self.remove(&key);
        }
        Ok(())
    }

    /// Returns a record of the source with the most remaining records, if that is clearly more than `own`. So
    /// sources that arrive first with many records leave room for others.
    fn of_greatest(
        &self,
        but: PeerId,
        incoming: &Incoming<'_>,
        own: usize,
        leaving: &[PeerId],
    ) -> Option<(&PeerId, &Kept)> {
        let mut counts = self.sources.clone();
        for gone in leaving.iter().filter_map(|key| self.records.get(key)) {
            if let Some(count) = counts.get_mut(&gone.source) {
                *count = count.saturating_sub(1);
            }
        }
        let (greatest, count) = counts
            .into_iter()
            .max_by_key(|(source, count)| (*count, *source))?;
        if greatest == incoming.source || count <= own + 1 {
            return None;
        }
        let mut of_it = self
            .records
            .iter()
            .rev()
            .filter(|(_, kept)| kept.source == greatest);
        let may_leave = |key: &PeerId| {
            let is_own = |(from, to): (PeerId, PeerId)| in_half_open(key, &from, &to);
            incoming.is_own || !incoming.own_range.is_some_and(is_own)
        };
        of_it.find(|(key, _)| **key != but && !leaving.contains(key) && may_leave(key))
    }

    pub(super) fn remove(&mut self, key: &PeerId) {
        let Some(old) = self.records.remove(key) else {
            return;
        };
        self.bytes -= old.value.len();
        if let Some(count) = self.sources.get_mut(&old.source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&old.source);
            }
        }
    }

    /// Removes expired records.
    pub(super) fn expire(&mut self, now: Duration) {
        let expired = self.records.iter().filter(|(_, kept)| kept.expires <= now);
        for key in expired.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.remove(&key);
        }
    }

    /// Iterates over the records in the arc after `from`, up to and including `to`, in the order of the
    /// circle.
    pub(super) fn range(&self, now: Duration, from: PeerId, to: PeerId) -> impl Iterator<Item = Record<'_>> {
        self.around(from)
            .take_while(move |(key, _)| in_half_open(key, &from, &to))
            .filter_map(move |(key, kept)| record(now, key, kept))
    }

    /// Returns keys of some records outside an arc that were not stored again since `since`, and marks them
    /// as seen now.
    pub(super) fn strays(
        &mut self,
        now: Duration,
        since: Duration,
        own_range: (PeerId, PeerId),
        count: usize,
    ) -> Vec<PeerId> {
        let (from, to) = own_range;
        let strays = self
            .records
            .iter_mut()
            .filter(|(key, kept)| kept.seen < since && kept.expires > now && !in_half_open(key, &from, &to));
        strays
            .take(count)
            .map(|(key, kept)| {
                kept.seen = now;
                *key
            })
            .collect()
    }

    /// Returns the time at which the record was last stored.
    pub(super) fn seen(&self, key: &PeerId) -> Option<Duration> {
        self.records.get(key).map(|kept| kept.seen)
    }

    /// Iterates over all records in the order of the circle, starting after this key and ending with it.
    fn around(&self, from: PeerId) -> impl Iterator<Item = (&PeerId, &Kept)> {
        let above = self.records.range((Excluded(from), Unbounded));
        above.chain(self.records.range(..=from))
    }
}

fn record<'a>(now: Duration, key: &PeerId, kept: &'a Kept) -> Option<Record<'a>> {
    let left = kept.expires.checked_sub(now).filter(|left| !left.is_zero())?;
    // Rounded up, so that a copy does not lose a second on each transfer.
    let ttl = left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0));
    Some(Record {
        key: *key.as_bytes(),
        ttl: u32::try_from(ttl).unwrap_or(u32::MAX),
        value: &kept.value,
    })
}
