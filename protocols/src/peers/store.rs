//! The store: changes and queries.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::config::{Config, Source};
use super::entry::{Entry, KnownAddr, Rank, Record, text_bytes};

/// The reason for refusing a change. The store is unchanged, except that peers may have been removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store is full of connected and protected peers.
    #[error("the peer store is full: all of its peers are connected or protected")]
    Full,
    /// A value does not fit into the limit of one peer.
    #[error("{what} of {size} exceeds the limit of {limit} for one peer")]
    TooMuch {
        /// The value.
        what: &'static str,
        /// Its size: items, or bytes of the peer with it.
        size: usize,
        /// The limit.
        limit: usize,
    },
}

/// The result of adding addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Number of addresses that are stored now, new or improved.
    pub added: usize,
    /// Number of addresses that were refused at a limit.
    pub refused: usize,
}

/// A view of one peer.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// The public key.
    pub key: Option<&'a Bytes>,
    /// The protocols.
    pub protocols: &'a [String],
    /// The implementation and its version.
    pub agent: Option<&'a str>,
    /// The certified record.
    pub record: Option<&'a Record>,
    /// Whether it is connected.
    pub is_connected: bool,
    /// Whether it is protected from removal.
    pub is_protected: bool,
}

/// The data of a node about other peers; see the [module](super).
#[derive(Debug)]
pub struct PeerStore<P, A> {
    pub(super) config: Config,
    pub(super) addr_len: fn(&A) -> usize,
    pub(super) entries: BTreeMap<P, Entry<A>>,
    /// Removable peers, in the order of removal.
    pub(super) removable: BTreeMap<Rank, P>,
    /// The next expiry of each peer.
    pub(super) expiries: BTreeSet<(Duration, P)>,
    pub(super) bytes: usize,
    pub(super) serial: u64,
    /// Number of changes.
    pub(super) changes: u64,
}

impl<P: Clone + Ord, A: Clone + Eq> PeerStore<P, A> {
    /// Bookkeeping of a peer: nodes of three trees may be half full.
    pub(super) const PEER: usize = 2 * (size_of::<Entry<A>>() + 3 * size_of::<P>() + size_of::<Rank>() + 16);

    /// Creates an empty store. `addr_len` returns the bytes that an address holds outside of its own type.
    pub fn new(config: Config, addr_len: fn(&A) -> usize) -> Self {
        Self {
            config,
            addr_len,
            entries: BTreeMap::new(),
            removable: BTreeMap::new(),
            expiries: BTreeSet::new(),
            bytes: 0,
            serial: 0,
            changes: 0,
        }
    }

    /// Returns the number of peers.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there is no peer.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the bytes that all peers are charged.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Iterates over the peers.
    pub fn peers(&self) -> impl Iterator<Item = &P> {
        self.entries.keys()
    }

    /// Returns the data about a peer, except its addresses.
    pub fn get(&self, peer: &P) -> Option<Peer<'_>> {
        let entry = self.entries.get(peer)?;
        Some(Peer {
            key: entry.key.as_ref(),
            protocols: &entry.protocols,
            agent: entry.agent.as_deref(),
            record: entry.record.as_ref(),
            is_connected: entry.is_connected,
            is_protected: entry.is_protected,
        })
    }

    /// Returns the addresses of a peer that have not expired, those with the best source and the latest
    /// expiry first, with the time for which each is kept. `None` means without end.
    pub fn addrs(&self, now: Duration, peer: &P) -> Vec<(A, Option<Duration>)> {
        let known = self.entries.get(peer).map_or(&[][..], |entry| &entry.addrs);
        let mut known: Vec<_> = known.iter().filter(|known| known.expiry > now).collect();
        known.sort_by_key(|known| std::cmp::Reverse((known.source, known.expiry)));
        let time = |known: &KnownAddr<A>| {
            let expires = known.expiry < Duration::MAX;
            expires.then(|| known.expiry.saturating_sub(now))
        };
        known
            .into_iter()
            .map(|known| (known.addr.clone(), time(known)))
            .collect()
    }

    /// Returns where an address of a peer comes from, if it is known and has not expired.
    pub fn source(&self, now: Duration, peer: &P, addr: &A) -> Option<Source> {
        let mut known = self.entries.get(peer)?.addrs.iter();
        let known = known.find(|known| known.addr == *addr && known.expiry > now)?;
        Some(known.source)
    }

    /// Adds addresses of a peer.
    pub fn add_addrs(
        &mut self,
        now: Duration,
        peer: &P,
        addrs: impl IntoIterator<Item = A>,
        source: Source,
    ) -> Added {
        let mut outcome = Added::default();
        for addr in addrs {
            let is_stored = self.add_addr(now, peer, addr, source, false);
            outcome.added += usize::from(is_stored);
            outcome.refused += usize::from(!is_stored);
        }
        outcome
    }

    /// Removes an address, such as one at which another peer answered. Returns whether it was known.
    pub fn remove_addr(&mut self, now: Duration, peer: &P, addr: &A) -> bool {
        let Some(entry) = self.entries.get_mut(peer) else {
            return false;
        };
        let before = entry.addrs.len();
        entry.addrs.retain(|known| known.addr != *addr);
        let is_removed = entry.addrs.len() < before;
        if entry.expire(now) {
            self.update(peer);
        } else {
            self.remove(peer);
        }
        is_removed
    }

    /// Sets the public key of a peer.
    ///
    /// # Errors
    /// [`Error`], as for all values.
    pub fn set_key(&mut self, now: Duration, peer: &P, key: &[u8]) -> Result<(), Error> {
        let old = |entry: &Entry<A>| entry.key.as_ref().map_or(0, Bytes::len);
        self.change(now, peer, ("a key", key.len()), old, |entry| {
            entry.key = Some(Bytes::copy_from_slice(key));
        })
    }

    /// Sets the protocols of a peer.
    ///
    /// # Errors
    /// [`Error`]; [`Error::TooMuch`] also if there are more than [`Config::protocols`].
    pub fn set_protocols(&mut self, now: Duration, peer: &P, protocols: Vec<String>) -> Result<(), Error> {
        let (what, size, limit) = ("a list of protocols", protocols.len(), self.config.protocols);
        if size > limit {
            return Err(Error::TooMuch { what, size, limit });
        }
        let old = |entry: &Entry<A>| text_bytes(&entry.protocols);
        self.change(now, peer, (what, text_bytes(&protocols)), old, |entry| {
            entry.protocols = protocols;
        })
    }

    /// Sets the agent of a peer: its implementation and version.
    ///
    /// # Errors
    /// [`Error`], as for all values.
    pub fn set_agent(&mut self, now: Duration, peer: &P, agent: String) -> Result<(), Error> {
        let old = |entry: &Entry<A>| entry.agent.as_ref().map_or(0, String::len);
        self.change(now, peer, ("an agent", agent.len()), old, |entry| {
            entry.agent = Some(agent);
        })
    }

    /// Records that a peer is connected, at an address that this node dialled. Call it for each connection
    /// that begins.
    ///
    /// # Errors
    /// [`Error::Full`]; then nothing is stored about the peer.
    pub fn handle_connected(&mut self, now: Duration, peer: &P, addr: Option<A>) -> Result<(), Error> {
        self.change(now, peer, ("", 0), |_| 0, |entry| entry.is_connected = true)?;
        if let Some(addr) = addr {
            self.add_addr(now, peer, addr, Source::Connected, false);
        }
        Ok(())
    }

    /// Records that the last connection of a peer ended: its addresses expire after [`Config::recent_ttl`].
    pub fn handle_disconnected(&mut self, now: Duration, peer: &P) {
        let Some(entry) = self.entries.get_mut(peer).filter(|entry| entry.is_connected) else {
            return;
        };
        let until = self.config.expiry(now, Source::Recent);
        entry.is_connected = false;
        entry.keep_until = entry.keep_until.max(until);
        entry.rank = (true, now, entry.rank.2);
        let known = entry.addrs.iter_mut();
        for known in known.filter(|known| known.source == Source::Connected) {
            (known.source, known.expiry) = (Source::Recent, until);
        }
        self.update(peer);
    }

    /// Protects a peer from removal, or ends its protection. Its addresses expire all the same.
    ///
    /// # Errors
    /// [`Error::Full`] for a peer that is not known.
    pub fn protect(&mut self, now: Duration, peer: &P, is_protected: bool) -> Result<(), Error> {
        if !is_protected && !self.entries.contains_key(peer) {
            return Ok(());
        }
        self.change(
            now,
            peer,
            ("", 0),
            |_| 0,
            |entry| entry.is_protected = is_protected,
        )
    }

    /// Removes a peer. Returns whether it was known.
    pub fn remove(&mut self, peer: &P) -> bool {
        let Some(entry) = self.entries.remove(peer) else {
            return false;
        };
        self.changes += 1;
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        self.removable.remove(&entry.rank);
        if let Some(due) = entry.due {
            self.expiries.remove(&(due, peer.clone()));
        }
        true
    }

    /// Returns the time of the next [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.expiries.first().map(|(due, _)| *due)
    }

    /// Removes expired addresses and peers.
    pub fn handle_timeout(&mut self, now: Duration) {
        while self.expiries.first().is_some_and(|(due, _)| *due <= now)
            && let Some((_, peer)) = self.expiries.pop_first()
        {
            let Some(entry) = self.entries.get_mut(&peer) else {
                continue;
            };
            entry.due = None;
            if entry.expire(now) {
                self.update(&peer);
            } else {
                self.remove(&peer);
            }
        }
    }
}
