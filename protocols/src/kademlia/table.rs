//! The routing table: contacts in buckets by distance; long-lived contacts that answer keep their places.
//!
//! Maymounkov and Mazières 2002, sections 2.2 and 4.1. A node enters the table only after it has answered a
//! request, so sending alone earns no place.

use std::collections::HashMap;
use std::time::Duration;

use p2p::{Addr, PeerId};

use super::distance::Distance;
use super::{Config, Counts};
use crate::overlay::{Contact, Prefix};

#[derive(Clone, Debug)]
struct Entry<A> {
    contact: Contact<A>,
    heard: Duration,
    failures: u8,
    /// Another address that the node has sent from, and since when; set while the node is pinged at its known
    /// address.
    elsewhere: Option<Box<(A, Duration)>>,
}

#[derive(Clone, Debug)]
struct Bucket<A> {
    /// Ordered by last contact, the least recent first.
    entries: Vec<Entry<A>>,
    /// Ordered by age, the newest last.
    waiting: Vec<Entry<A>>,
    /// Time of the last lookup in this bucket.
    looked_up: Duration,
}

/// All contacts. Bucket *n* holds those that share exactly *n* leading bits with this node's id.
#[derive(Debug)]
pub(super) struct Table<A> {
    own: PeerId,
    buckets: Vec<Bucket<A>>,
    prefixes: HashMap<Prefix, usize>,
    len: usize,
}

/// What the table needs after a contact has answered.
pub(super) struct Wanted<A> {
    /// A contact to ping because a newcomer waits for its place.
    pub(super) check: Option<Contact<A>>,
    /// Whether the contact was added.
    pub(super) added: bool,
}

impl<A: Addr> Table<A> {
    pub(super) fn new(own: PeerId) -> Self {
        Self {
            own,
            buckets: Vec::new(),
            prefixes: HashMap::new(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Contact<A>> {
        let entries = self.buckets.iter().flat_map(|bucket| &bucket.entries);
        entries.map(|entry| &entry.contact)
    }

    fn index(&self, id: &PeerId) -> usize {
        Distance::between(&self.own, id).shared_bits()
    }

    /// Returns the number of contacts in a bucket above which newcomers are not pinged for it.
    ///
    /// Half the places, if there are many more nodes for the bucket than places; this node's lookups bring
    /// more. The deeper buckets together have about as many contacts as there are nodes for this bucket. If
    /// there are few, this node should know all of them.
    fn enough(&self, index: usize, config: &Config) -> usize {
        let deeper = self.buckets.iter().skip(index + 1);
        let population: usize = deeper.map(|bucket| bucket.entries.len()).sum();
        if population >= config.k {
            config.k.div_ceil(2)
        } else {
            config.k
        }
    }

    /// Processes a message from a node. Returns the contact to ping: the sender if there is a place for it,
    /// or, if it is known at another address, the contact at that address.
    ///
    /// If the source address authenticates the sender, a message from a contact shows that it is alive.
    pub(super) fn heard(
        &mut self,
        now: Duration,
        contact: &Contact<A>,
        config: &Config,
    ) -> Option<Contact<A>> {
        let index = self.index(&contact.id);
        let enough = self.enough(index, config);
        let Some(bucket) = self.buckets.get_mut(index) else {
            return Some(contact.clone());
        };
        if let Some((at, entry)) = bucket
            .entries
            .iter_mut()
            .enumerate()
            .find(|(_, entry)| entry.contact.id == contact.id)
        {
            let failed = entry.failures > 0;
            if entry.contact.addr != contact.addr {
                if failed {
                    return Some(contact.clone());
                }
                // The node has two addresses or has moved. If it has moved, the new address replaces the old
                // one once that has failed.
                let last = entry.elsewhere.as_ref().map(|elsewhere| elsewhere.1);
                if last.is_some_and(|last| now.saturating_sub(last) < config.upkeep_every) {
                    return None;
                }
                entry.elsewhere = Some(Box::new((contact.addr.clone(), now)));
                return Some(entry.contact.clone());
            }
            if contact.addr.peer_id().is_some() {
                bucket.refresh(at, now);
                return None;
            }
            return failed.then(|| contact.clone());
        }
        let waits = bucket.waiting.iter().any(|entry| entry.contact.id == contact.id);
        let oldest = bucket.waiting.first();
        let may_wait = bucket.waiting.len() < config.waiting
            || oldest.is_some_and(|oldest| now.saturating_sub(oldest.heard) >= config.ask_after);
        let place = if bucket.entries.len() < config.k {
            bucket.entries.len() < enough
        } else {
            may_wait || bucket.worst(config).is_some()
        };
        (!waits && place).then(|| contact.clone())
    }

    /// Processes an answer of a contact; adds it if there is a place.
    pub(super) fn answered(
        &mut self,
        now: Duration,
        contact: Contact<A>,
        config: &Config,
        counts: &mut Counts,
    ) -> Wanted<A> {
        let nothing = Wanted {
            check: None,
            added: false,
        };
        let index = self.index(&contact.id);
        if contact.id == self.own {
            return nothing;
        }
        while self.buckets.len() <= index {
            self.buckets.push(Bucket {
                entries: Vec::new(),
                waiting: Vec::new(),
                looked_up: now,
            });
        }
        let prefix = Prefix::of(&contact.addr);
        let in_table = prefix.map_or(0, |prefix| self.prefixes.get(&prefix).copied().unwrap_or(0));
        let Some(bucket) = self.buckets.get_mut(index) else {
            return nothing;
        };
        let known = match bucket.find(&contact.id) {
            Some((at, entry)) if entry.contact.addr == contact.addr => {
                bucket.refresh(at, now);
                return nothing;
            }
            // Of a node with two addresses, the one that answers stays.
            Some((_, entry)) if entry.failures == 0 => return nothing,
            Some((at, _)) => Some(at),
            None => None,
        };
        let leaves = known.or_else(|| bucket.worst(config));
        let leaving = leaves.and_then(|at| bucket.entries.get(at));
        let leaving_prefix = leaving.and_then(|entry| Prefix::of(&entry.contact.addr));
        if let Some(prefix) = prefix {
            let same = usize::from(leaving_prefix == Some(prefix));
            let of_prefix = |entry: &&Entry<A>| Prefix::of(&entry.contact.addr) == Some(prefix);
            let in_bucket = bucket.entries.iter().filter(of_prefix).count();
            if in_bucket - same >= prefix.limit(config.bucket_per_prefix)
                || in_table - same >= prefix.limit(config.table_per_prefix)
            {
                counts.crowded += 1;
                return nothing;
            }
        }
        let entry = Entry {
            contact,
            heard: now,
            failures: 0,
            elsewhere: None,
        };
        if known.is_none() && bucket.entries.len() < config.k {
            bucket.entries.push(entry);
        } else if let Some(at) = leaves {
            bucket.entries.remove(at);
            bucket.entries.push(entry);
            counts.replaced += 1;
            self.len -= 1;
            self.uncount(leaving_prefix);
        } else {
            if let Some(prefix) = prefix {
                let of_prefix = |other: &&Entry<A>| {
                    other.contact.id != entry.contact.id && Prefix::of(&other.contact.addr) == Some(prefix)
                };
                let held = bucket.entries.iter().chain(&bucket.waiting).filter(of_prefix);
                if held.count() >= prefix.limit(config.bucket_per_prefix) {
                    counts.crowded += 1;
                    return nothing;
                }
            }
            return bucket.wait(now, entry, config);
        }
        self.len += 1;
        if let Some(prefix) = prefix {
            *self.prefixes.entry(prefix).or_default() += 1;
        }
        Wanted {
            check: None,
            added: true,
        }
    }

    fn uncount(&mut self, prefix: Option<Prefix>) {
        if let Some(prefix) = prefix
            && let Some(count) = self.prefixes.get_mut(&prefix)
        {
            *count -= 1;
            if *count == 0 {
                self.prefixes.remove(&prefix);
            }
        }
    }

    /// Records that a contact did not answer. After enough failures its place goes to a waiting contact;
    /// without a waiting one it stays, since the fault may be local. Returns another address of the node to
    /// ping, if it has sent from one.
    pub(super) fn failed(
        &mut self,
        now: Duration,
        contact: &Contact<A>,
        config: &Config,
        counts: &mut Counts,
    ) -> Option<Contact<A>> {
        let index = self.index(&contact.id);
        let bucket = self.buckets.get_mut(index)?;
        bucket.waiting.retain(|entry| entry.contact != *contact);
        let (at, entry) = bucket.find(&contact.id)?;
        if entry.contact.addr != contact.addr {
            return None;
        }
        let failures = entry.failures.saturating_add(1);
        // The contact moves to the end, so that another one is checked next time.
        bucket.refresh(at, now);
        let entry = bucket.entries.last_mut()?;
        entry.failures = failures;
        if let Some(elsewhere) = entry.elsewhere.take() {
            let id = contact.id;
            let (addr, _) = *elsewhere;
            return Some(Contact { id, addr });
        }
        if failures < config.failures {
            return None;
        }
        // `answered` adds a waiting contact unless its network has too many; the list shrinks in each
        // iteration.
        while let Some(next) = self
            .buckets
            .get_mut(index)
            .and_then(|bucket| bucket.waiting.pop())
        {
            let heard = next.heard;
            if self.answered(heard, next.contact, config, counts).added {
                if let Some(bucket) = self.buckets.get_mut(index) {
                    bucket.entries.sort_by_key(|entry| entry.heard);
                }
                break;
            }
        }
        None
    }

    /// Returns the `wanted` contacts nearest to `target`, the nearest first. Contacts with a failure are
    /// included only with `all`, after all others.
    pub(super) fn nearest(
        &self,
        target: &PeerId,
        count: usize,
        wanted: impl Fn(&Contact<A>) -> bool,
        all: bool,
    ) -> Vec<&Contact<A>> {
        let first = self.index(target).min(self.buckets.len());
        let mut found = Vec::with_capacity(count);
        // Contacts in the target's bucket are nearer to it than those in deeper buckets, which are nearer
        // than those in shallower ones.
        let deeper = self.buckets.len().min(first + 1)..self.buckets.len();
        let outwards = (0..first).rev().map(|bucket| bucket..bucket + 1);
        for buckets in [first..first + 1, deeper].into_iter().chain(outwards) {
            if found.len() >= count {
                break;
            }
            let answers = |entry: &Entry<A>| entry.failures == 0 && wanted(&entry.contact);
            self.collect(buckets, target, count, answers, &mut found);
        }
        if all && found.len() < count {
            let every = 0..self.buckets.len();
            let failed = |entry: &Entry<A>| entry.failures > 0 && wanted(&entry.contact);
            self.collect(every, target, count, failed, &mut found);
        }
        found
    }

    fn collect<'a>(
        &'a self,
        buckets: std::ops::Range<usize>,
        target: &PeerId,
        count: usize,
        wanted: impl Fn(&Entry<A>) -> bool,
        found: &mut Vec<&'a Contact<A>>,
    ) {
        let from = found.len();
        let buckets = buckets.filter_map(|at| self.buckets.get(at));
        let entries = buckets.flat_map(|bucket| &bucket.entries);
        let entries = entries.filter(|entry| wanted(entry));
        found.extend(entries.map(|entry| &entry.contact));
        let distance = |contact: &&Contact<A>| Distance::between(target, &contact.id);
        if let Some(new) = found.get_mut(from..) {
            let room = count - from;
            if new.len() > room {
                new.select_nth_unstable_by_key(room, distance);
            }
            let kept = new.len().min(room);
            if let Some(kept) = new.get_mut(..kept) {
                kept.sort_unstable_by_key(distance);
            }
        }
        found.truncate(count);
    }

    /// Returns the least recently heard contact of each bucket, if it was silent for `ask_after`.
    pub(super) fn silent(&self, now: Duration, config: &Config) -> Vec<Contact<A>> {
        let first = |bucket: &Bucket<A>| {
            let entry = bucket.entries.first()?;
            (now.saturating_sub(entry.heard) >= config.ask_after).then(|| entry.contact.clone())
        };
        self.buckets.iter().filter_map(first).collect()
    }

    /// Records a lookup near `target`.
    pub(super) fn looked_up(&mut self, now: Duration, target: &PeerId) {
        let index = self.index(target);
        if let Some(bucket) = self.buckets.get_mut(index) {
            bucket.looked_up = now;
        }
    }

    /// Returns a bucket without a recent lookup.
    pub(super) fn neglected(&self, now: Duration, config: &Config) -> Option<usize> {
        let old = |bucket: &Bucket<A>| now.saturating_sub(bucket.looked_up) >= config.refresh_every;
        self.buckets.iter().position(old)
    }

    /// Returns the buckets that a node should fill after a join: those up to its nearest neighbour, without
    /// those that are more than a quarter full.
    pub(super) fn to_fill(&self, config: &Config) -> Vec<usize> {
        let filled = |bucket: &Bucket<A>| bucket.entries.len() > config.k / 4;
        let buckets = self.buckets.iter().enumerate();
        let wanting = buckets.filter(|(_, bucket)| !filled(bucket));
        let deepest = self.buckets.iter().rposition(|bucket| !bucket.entries.is_empty());
        wanting
            .map(|(at, _)| at)
            .filter(|at| deepest > Some(*at))
            .collect()
    }

    /// Removes a contact.
    pub(super) fn remove(&mut self, id: &PeerId) {
        let index = self.index(id);
        let Some(bucket) = self.buckets.get_mut(index) else {
            return;
        };
        bucket.waiting.retain(|entry| entry.contact.id != *id);
        let gone = bucket
            .find(id)
            .map(|(at, entry)| (at, Prefix::of(&entry.contact.addr)));
        if let Some((at, prefix)) = gone {
            bucket.entries.remove(at);
            self.len -= 1;
            self.uncount(prefix);
        }
    }
}

impl<A: Addr> Bucket<A> {
    fn find(&self, id: &PeerId) -> Option<(usize, &Entry<A>)> {
        let mut entries = self.entries.iter().enumerate();
        entries.find(|(_, entry)| entry.contact.id == *id)
    }

    fn refresh(&mut self, at: usize, now: Duration) {
        if let Some(tail) = self.entries.get_mut(at..)
            && let Some(entry) = tail.first_mut()
        {
            entry.heard = now;
            entry.failures = 0;
            tail.rotate_left(1);
        }
    }

    /// Returns the contact that may be replaced.
    fn worst(&self, config: &Config) -> Option<usize> {
        if self.entries.len() < config.k {
            return None;
        }
        let entries = self.entries.iter().enumerate();
        let (at, worst) = entries.max_by_key(|(_, entry)| entry.failures)?;
        (worst.failures >= config.failures).then_some(at)
    }

    /// Adds a newcomer to the waiting list.
    fn wait(&mut self, now: Duration, entry: Entry<A>, config: &Config) -> Wanted<A> {
        self.waiting.retain(|other| other.contact.id != entry.contact.id);
        self.waiting.push(entry);
        let surplus = self.waiting.len().saturating_sub(config.waiting);
        self.waiting.drain(..surplus);
        let oldest = self.entries.first();
        let silent = oldest
            .filter(|oldest| oldest.failures > 0 || now.saturating_sub(oldest.heard) >= config.ask_after);
        Wanted {
            check: silent.map(|oldest| oldest.contact.clone()),
            added: false,
        }
    }
}
