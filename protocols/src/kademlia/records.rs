//! The record store: records kept for other nodes, with limits on number, bytes and source.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use p2p::PeerId;

use super::cache::{Cache, Entry};
use super::config::Rules;
use super::event::Refusal;
use crate::overlay::{Key, Source};

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) value: Vec<u8>,
    /// The bytes of its key, where the network hashes keys.
    preimage: Option<Arc<[u8]>>,
    source: Source,
    /// Time at which to replicate the record, unless another node does so before.
    pub(super) replicate_at: Duration,
}

impl Kept {
    /// Returns the bytes that count against the limit of the store.
    fn bytes(&self) -> usize {
        self.value.len() + self.preimage.as_ref().map_or(0, |key| key.len())
    }
}

#[derive(Debug)]
pub(super) struct Records {
    cache: Cache<PeerId, Kept>,
    bytes: usize,
    sources: HashMap<Source, usize>,
}

/// A record to store.
pub(super) struct Incoming<'a> {
    pub(super) key: &'a Key,
    pub(super) value: &'a [u8],
    pub(super) ttl: Duration,
    pub(super) source: Source,
    pub(super) replicate_at: Duration,
}

impl Records {
    pub(super) fn new(own: PeerId, max: usize) -> Self {
        Self {
            cache: Cache::near(own, max),
            bytes: 0,
            sources: HashMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns a record's value and its remaining lifetime.
    pub(super) fn get(&self, now: Duration, key: &PeerId) -> Option<(&[u8], Duration)> {
        let entry = self.cache.get(now, key)?;
        let ttl = entry.expires?.saturating_sub(now);
        Some((&entry.value.value, ttl))
    }

    /// Stores a record. Returns the number of other records that were evicted.
    pub(super) fn put<A>(
        &mut self,
        now: Duration,
        record: &Incoming<'_>,
        rules: &Rules<A>,
    ) -> Result<u64, Refusal> {
        let (config, key) = (&rules.config, record.key.id());
        if record.value.len() > config.value {
            return Err(Refusal::Oversize);
        }
        if record.ttl.is_zero() {
            return Err(Refusal::Expired);
        }
        if !rules.validator.is_valid(record.key, record.value) {
            return Err(Refusal::Invalid);
        }
        let expires = now.saturating_add(record.ttl.min(config.record_ttl));
        if let Some(entry) = self.cache.get_mut(now, key) {
            let old = &entry.value.value;
            if *old == record.value {
                entry.expires = entry.expires.max(Some(expires));
                entry.value.replicate_at = record.replicate_at;
                return Ok(0);
            }
            if !rules.validator.supersedes(record.key, record.value, old) {
                return Err(Refusal::Stale);
            }
        }
        let old = self.cache.get(now, key);
        let before = old.map(|entry| entry.value.source);
        // A better record inherits the age of the one that it replaces, so that it is not the first to be
        // evicted.
        let created = old.map_or(now, |entry| entry.created);
        let charged = self.sources.get(&record.source).copied().unwrap_or(0);
        if before != Some(record.source) && charged >= config.records_per_source {
            return Err(Refusal::Limit);
        }
        self.remove(key);
        let kept = Kept {
            value: record.value.to_vec(),
            preimage: record.key.preimage().cloned(),
            source: record.source,
            replicate_at: record.replicate_at,
        };
        if kept.bytes() > config.record_bytes {
            return Err(Refusal::Full);
        }
        let mut evicted = 0;
        if self.cache.is_full() {
            let own = self.count(record.source) + 1;
            if self.pop_greatest(now, own) {
                evicted += 1;
            } else if !self.cache.would_add(key, created) || !self.may_displace(own) {
                return Err(Refusal::Full);
            }
        }
        *self.sources.entry(record.source).or_default() += 1;
        self.bytes += kept.bytes();
        let entry = Entry {
            value: kept,
            created,
            expires: Some(expires),
        };
        let put = self.cache.put(*key, entry);
        if let Some((_, entry)) = put.evicted {
            self.uncharge(&entry);
            evicted += 1;
        }
        let mut stays = put.added;
        while self.bytes > config.record_bytes {
            let own = self.count(record.source);
            if self.pop_greatest(now, own) {
                evicted += 1;
                continue;
            }
            if !self.may_displace(own) {
                self.remove(key);
                stays = false;
                break;
            }
            let Some((gone, entry)) = self.cache.pop_farthest() else {
                break;
            };
            self.uncharge(&entry);
            if gone == *key {
                stays = false;
            } else {
                evicted += 1;
            }
        }
        if stays { Ok(evicted) } else { Err(Refusal::Full) }
    }

    /// Returns the number of records of a source.
    fn count(&self, source: Source) -> usize {
        self.sources.get(&source).copied().unwrap_or(0)
    }

    /// Evicts the newest record of the source with the most records, if that is more than `own`. So sources
    /// that arrive first with many records leave room for others. Returns whether a record was evicted.
    fn pop_greatest(&mut self, now: Duration, own: usize) -> bool {
        let sources = self.sources.iter().filter(|(_, count)| **count > own);
        let Some((greatest, _)) = sources.max_by_key(|(source, count)| (**count, **source)) else {
            return false;
        };
        let of_it = self
            .cache
            .iter(now)
            .filter(|(_, entry)| entry.value.source == *greatest);
        let newest = of_it.max_by_key(|(key, entry)| (entry.created, **key));
        let Some(key) = newest.map(|(key, _)| *key) else {
            return false;
        };
        self.remove(&key);
        true
    }

    /// Returns whether a source with `own` records may displace the next record to evict: not if that
    /// record's source has fewer.
    fn may_displace(&self, own: usize) -> bool {
        let next = self.cache.next_to_leave();
        next.is_none_or(|(_, entry)| self.count(entry.value.source) >= own)
    }

    fn remove(&mut self, key: &PeerId) {
        if let Some(entry) = self.cache.remove(key) {
            self.uncharge(&entry);
        }
    }

    fn uncharge(&mut self, entry: &Entry<Kept>) {
        self.bytes -= entry.value.bytes();
        if let Some(count) = self.sources.get_mut(&entry.value.source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&entry.value.source);
            }
        }
    }

    pub(super) fn expire(&mut self, now: Duration) {
        for (_, entry) in self.cache.expire(now) {
            self.uncharge(&entry);
        }
    }

    /// Returns a record that is due for replication, and schedules its next replication at `again`.
    pub(super) fn next_to_replicate(
        &mut self,
        now: Duration,
        again: Duration,
    ) -> Option<(Key, Vec<u8>, Duration)> {
        let mut entries = self.cache.iter(now);
        let due = entries.find(|(_, entry)| entry.value.replicate_at <= now);
        let key = *due?.0;
        drop(entries);
        let entry = self.cache.get_mut(now, &key)?;
        entry.value.replicate_at = again;
        let ttl = entry.expires?.saturating_sub(now);
        let key = Key::from_parts(key, entry.value.preimage.clone());
        Some((key, entry.value.value.clone(), ttl))
    }
}
