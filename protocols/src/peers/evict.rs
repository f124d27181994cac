//! Room for changes: charges, eviction, and the indexes.

use std::collections::btree_map::Entry as Place;
use std::time::Duration;

use super::config::Source;
use super::entry::{Entry, KnownAddr};
use super::store::{Error, PeerStore};

impl<P: Clone + Ord, A: Clone + Eq> PeerStore<P, A> {
    /// Changes a value of a peer, which is created if it is not known. `new` is the name of the value and its
    /// bytes; `old` returns the bytes of the value that it replaces.
    pub(super) fn change(
        &mut self,
        now: Duration,
        peer: &P,
        new: (&'static str, usize),
        old: impl FnOnce(&Entry<A>) -> usize,
        apply: impl FnOnce(&mut Entry<A>),
    ) -> Result<(), Error> {
        let old = self.entries.get(peer).map_or(0, old);
        self.make_room(peer, new, old)?;
        let until = self.config.expiry(now, Source::Recent);
        let entry = self.entry(now, peer);
        entry.keep_until = entry.keep_until.max(until);
        apply(entry);
        self.update(peer);
        Ok(())
    }

    /// Adds an address. Returns whether it is stored.
    pub(super) fn add_addr(
        &mut self,
        now: Duration,
        peer: &P,
        addr: A,
        source: Source,
        is_certified: bool,
    ) -> bool {
        let (known, is_connected) = self.entries.get(peer).map_or((false, false), |entry| {
            let mut addrs = entry.addrs.iter();
            let is_known = addrs.any(|known| known.addr == addr && known.expiry > now);
            (is_known, entry.is_connected)
        });
        let source = match source {
            Source::Connected if !is_connected => Source::Recent,
            source => source,
        };
        let bytes = Entry::<A>::ADDR + (self.addr_len)(&addr);
        if self.config.addrs == 0 || (!known && self.make_room(peer, ("an address", bytes), 0).is_err()) {
            return false;
        }
        let config = self.config;
        let new = KnownAddr {
            addr,
            source,
            expiry: config.expiry(now, source),
            is_certified,
        };
        let entry = self.entry(now, peer);
        entry.addrs.retain(|known| known.expiry > now);
        let is_stored = entry.add(&config, new);
        self.update(peer);
        is_stored
    }

    /// Returns the entry of a peer. The caller has made room for it.
    fn entry(&mut self, now: Duration, peer: &P) -> &mut Entry<A> {
        self.serial += 1;
        let rank = (false, now, self.serial);
        match self.entries.entry(peer.clone()) {
            Place::Occupied(place) => place.into_mut(),
            Place::Vacant(place) => place.insert(Entry::new(rank, now)),
        }
    }

    /// Makes room for `new` more bytes of a peer and `old` fewer, and for the peer itself.
    fn make_room(&mut self, peer: &P, new: (&'static str, usize), old: usize) -> Result<(), Error> {
        let (what, new) = new;
        let charged = self.entries.get(peer).map(|entry| entry.bytes);
        let size = (charged.unwrap_or(Self::PEER) + new).saturating_sub(old);
        let limit = self.config.peer_bytes;
        // A change that makes a peer smaller is never refused.
        if size > limit && new > old {
            return Err(Error::TooMuch { what, size, limit });
        }
        let others = self.bytes.saturating_sub(charged.unwrap_or(0));
        if size > self.config.bytes || (charged.is_none() && self.config.peers == 0) {
            return Err(Error::Full);
        }
        let mut others = others;
        while others + size > self.config.bytes
            || (charged.is_none() && self.entries.len() >= self.config.peers)
        {
            let mut removable = self.removable.values();
            let Some(removed) = removable.find(|other| *other != peer).cloned() else {
                return Err(Error::Full);
            };
            others = others.saturating_sub(self.entries.get(&removed).map_or(0, |entry| entry.bytes));
            self.remove(&removed);
        }
        Ok(())
    }

    /// Updates the charge and the indexes of a peer after a change.
    pub(super) fn update(&mut self, peer: &P) {
        let Some(entry) = self.entries.get_mut(peer) else {
            return;
        };
        self.changes += 1;
        let bytes = Self::PEER + entry.measure(self.addr_len);
        self.bytes = self.bytes.saturating_sub(entry.bytes) + bytes;
        entry.bytes = bytes;
        let due = entry.next_expiry();
        if due != entry.due {
            if let Some(old) = entry.due {
                self.expiries.remove(&(old, peer.clone()));
            }
            if let Some(due) = due {
                self.expiries.insert((due, peer.clone()));
            }
            entry.due = due;
        }
        // The rank changes only while the peer is connected, and so not in the index.
        if entry.is_removable() {
            self.removable.entry(entry.rank).or_insert_with(|| peer.clone());
        } else {
            self.removable.remove(&entry.rank);
        }
    }
}
