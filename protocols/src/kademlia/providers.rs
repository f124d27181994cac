//! The provider store.
//!
//! When the list of a key is full, a newcomer replaces a provider of the network that has the most places in
//! it. If no network has more than the newcomer's would have, it replaces a random provider of the newer
//! half. So the oldest providers stay, and no number of earlier ones can keep a newcomer out.

use std::time::Duration;

use p2p::{Addr, PeerId};
use rand::{Rng, RngExt as _};

use super::Config;
use super::cache::{Cache, Entry};
use super::event::Refusal;
use crate::hash::HashMap;
use crate::overlay::{Contact, Prefix, Source};

#[derive(Debug)]
struct Provider<A> {
    contact: Contact<A>,
    expires: Duration,
}

#[derive(Debug)]
pub(super) struct Providers<A> {
    keys: Cache<PeerId, Vec<Provider<A>>>,
    sources: HashMap<Source, usize>,
}

impl<A: Addr> Providers<A> {
    pub(super) fn new(own: PeerId, max: usize) -> Self {
        Self {
            keys: Cache::near(own, max),
            sources: HashMap::default(),
        }
    }

    /// Returns the number of keys, and the total number of providers.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.keys.len(), self.sources.values().sum())
    }

    /// Returns the providers of a key, the oldest first.
    pub(super) fn get(&self, now: Duration, key: &PeerId) -> impl Iterator<Item = &Contact<A>> {
        let entry = self.keys.get(now, key);
        let all = entry.into_iter().flat_map(|entry| &entry.value);
        all.filter(move |provider| now < provider.expires)
            .map(|provider| &provider.contact)
    }

    /// Stores a provider. Returns the number of keys that were evicted.
    pub(super) fn put(
        &mut self,
        now: Duration,
        key: PeerId,
        contact: Contact<A>,
        ttl: Duration,
        config: &Config,
        rng: &mut impl Rng,
    ) -> Result<u64, Refusal> {
        if ttl.is_zero() {
            return Err(Refusal::Expired);
        }
        let expires = now.saturating_add(ttl.min(config.provider_ttl));
        self.expire_key(now, &key);
        let source = Source::of(&contact);
        let charged = self.sources.get(&source).copied().unwrap_or(0);
        let provider = Provider { contact, expires };
        if let Some(entry) = self.keys.get_mut(now, &key) {
            entry.expires = entry.expires.max(Some(expires));
            let mut known = entry.value.iter_mut();
            if let Some(known) = known.find(|known| known.contact.id == provider.contact.id) {
                // The provider may have moved. It stays charged to its first source, which keeps the counts
                // consistent.
                known.expires = expires;
                if Source::of(&known.contact) == source {
                    known.contact = provider.contact;
                }
                return Ok(0);
            }
            let prefix = Prefix::of(&provider.contact.addr);
            let same = |other: &&Provider<A>| Source::of(&other.contact) == source;
            let crowd = entry.value.iter().filter(same).count();
            if charged >= config.provided_per_source
                || prefix.is_some_and(|prefix| crowd >= prefix.limit(config.providers_per_prefix))
            {
                return Err(Refusal::Limit);
            }
            let mut gone = None;
            if entry.value.len() >= config.providers_per_key {
                let leaves = replaceable(&entry.value, crowd, rng).ok_or(Refusal::Limit)?;
                gone = Some(entry.value.remove(leaves));
            }
            entry.value.push(provider);
            *self.sources.entry(source).or_default() += 1;
            if let Some(gone) = gone {
                self.uncharge(&gone.contact);
            }
            return Ok(0);
        }
        if charged >= config.provided_per_source || config.providers_per_key == 0 {
            return Err(Refusal::Limit);
        }
        let mut count = self.make_room(now, &key, source)?;
        *self.sources.entry(source).or_default() += 1;
        let entry = Entry {
            value: vec![provider],
            created: now,
            expires: Some(expires),
        };
        let evicted = self.keys.put(key, entry).evicted;
        count += u64::from(evicted.is_some());
        for gone in evicted.into_iter().flat_map(|(_, entry)| entry.value) {
            self.uncharge(&gone.contact);
        }
        Ok(count)
    }

    /// Makes room for a key with its first provider, of `source`. Returns the number of keys that were
    /// evicted.
    ///
    /// Evicts the newest key of the source with the most keys, if it has more than this source would have.
    /// Otherwise the cache evicts its farthest key, unless that key's source has fewer keys than this one.
    fn make_room(&mut self, now: Duration, key: &PeerId, source: Source) -> Result<u64, Refusal> {
        if !self.keys.is_full() {
            return Ok(0);
        }
        let first =
            |entry: &Entry<Vec<Provider<A>>>| entry.value.first().map(|first| Source::of(&first.contact));
        let mut sources: HashMap<Source, (usize, Duration, PeerId)> = HashMap::default();
        for (key, entry) in self.keys.iter(now) {
            let Some(source) = first(entry) else { continue };
            let (count, newest, last) = sources.entry(source).or_insert((0, entry.created, *key));
            *count += 1;
            if (entry.created, *key) >= (*newest, *last) {
                (*newest, *last) = (entry.created, *key);
            }
        }
        let count_of = |source: &Source| sources.get(source).map_or(0, |(count, ..)| *count);
        let own = count_of(&source) + 1;
        let greatest = sources
            .iter()
            .max_by_key(|(source, (count, ..))| (*count, **source));
        if let Some((_, (_, _, leaves))) = greatest.filter(|(_, (count, ..))| *count > own) {
            let gone = self.keys.remove(leaves);
            for gone in gone.into_iter().flat_map(|entry| entry.value) {
                self.uncharge(&gone.contact);
            }
            return Ok(1);
        }
        let next = self.keys.next_to_leave().and_then(|(_, entry)| first(entry));
        if self.keys.would_add(key, now) && next.is_none_or(|next| count_of(&next) >= own) {
            Ok(0)
        } else {
            Err(Refusal::Full)
        }
    }

    /// Removes the expired providers of a key.
    fn expire_key(&mut self, now: Duration, key: &PeerId) {
        let Some(mut entry) = self.keys.remove(key) else {
            return;
        };
        let gone: Vec<_> = entry
            .value
            .extract_if(.., |provider| provider.expires <= now)
            .collect();
        for provider in gone {
            self.uncharge(&provider.contact);
        }
        if !entry.value.is_empty() {
            self.keys.put(*key, entry);
        }
    }

    fn uncharge(&mut self, contact: &Contact<A>) {
        let source = Source::of(contact);
        if let Some(count) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }

    pub(super) fn expire(&mut self, now: Duration) {
        for (_, entry) in self.keys.expire(now) {
            for provider in entry.value {
                self.uncharge(&provider.contact);
            }
        }
        let keys: Vec<PeerId> = self.keys.iter(now).map(|(key, _)| *key).collect();
        for key in keys {
            self.expire_key(now, &key);
        }
    }
}

/// Selects the provider that a newcomer replaces in a full list; its network has `crowd` places in the list.
fn replaceable<A: Addr>(providers: &[Provider<A>], crowd: usize, rng: &mut impl Rng) -> Option<usize> {
    let mut places: HashMap<Source, (usize, usize)> = HashMap::default();
    for (at, provider) in providers.iter().enumerate() {
        let (count, last) = places.entry(Source::of(&provider.contact)).or_default();
        (*count, *last) = (*count + 1, at);
    }
    let crowded = places.values().max_by_key(|(count, last)| (*count, *last));
    match crowded {
        Some((count, last)) if *count > crowd + 1 => Some(*last),
        _ => {
            let newer = providers.len() / 2..providers.len();
            (!newer.is_empty()).then(|| rng.random_range(newer))
        }
    }
}
