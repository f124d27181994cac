//! The store as plain data, to save it in a file.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::config::Source;
use super::entry::{Entry, Record};
use super::store::PeerStore;

/// The version of the encoding.
const VERSION: u8 = 1;

/// A peer store as plain data. Connections and protections are not part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot<P, A> {
    version: u8,
    /// Unix time at which it was made.
    pub saved_at: Duration,
    /// The peers, those that are removed first at a limit first.
    pub peers: Vec<SavedPeer<P, A>>,
}

/// A peer in a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPeer<P, A> {
    /// The peer.
    pub peer: P,
    /// Its addresses, without those that the program configured.
    pub addrs: Vec<SavedAddr<A>>,
    /// Its public key.
    pub key: Option<Vec<u8>>,
    /// Its protocols.
    pub protocols: Vec<String>,
    /// Its agent.
    pub agent: Option<String>,
    /// The sequence number and the envelope of its record.
    pub record: Option<(u64, Vec<u8>)>,
    /// Whether it was ever connected.
    pub was_connected: bool,
}

/// An address in a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedAddr<A> {
    /// The address.
    pub addr: A,
    /// The time for which it is kept after the snapshot was made.
    pub ttl: Duration,
    /// Whether the record has it.
    pub is_certified: bool,
    /// Whether the peer was connected at it.
    pub was_connected: bool,
}

/// The state of a store at one time, to find out whether a snapshot of it is outdated:
/// [`PeerStore::is_outdated`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision {
    changes: u64,
    at: Duration,
}

/// The reason for which bytes are not a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The bytes are not the encoding of a snapshot.
    #[error("the bytes are not a peer store: {0}")]
    Malformed(postcard::Error),
    /// Another version of this library wrote the snapshot.
    #[error("the peer store has version {found}, not {VERSION}")]
    Version {
        /// The version of the snapshot.
        found: u8,
    },
}

impl<P: Serialize, A: Serialize> Snapshot<P, A> {
    /// Encodes the snapshot.
    ///
    /// # Errors
    /// [`SnapshotError::Malformed`] if a key or an address has no encoding.
    pub fn encode(&self) -> Result<Vec<u8>, SnapshotError> {
        postcard::to_allocvec(self).map_err(SnapshotError::Malformed)
    }
}

impl<'a, P: Deserialize<'a>, A: Deserialize<'a>> Snapshot<P, A> {
    /// Decodes a snapshot. It holds no more than a small multiple of the bytes.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, SnapshotError> {
        match bytes.first() {
            Some(&found) if found != VERSION => Err(SnapshotError::Version { found }),
            _ => postcard::from_bytes(bytes).map_err(SnapshotError::Malformed),
        }
    }
}

impl<P: Clone + Ord, A: Clone + Eq> PeerStore<P, A> {
    /// Returns the store as plain data. `unix` is the current Unix time.
    ///
    /// Addresses of connected peers are saved as if the peers disconnected now.
    pub fn export(&self, now: Duration, unix: Duration) -> Snapshot<P, A> {
        let rank = |peer: &&P| {
            self.entries
                .get(peer)
                .map(|entry| (!entry.is_removable(), entry.rank))
        };
        let mut order: Vec<&P> = self.entries.keys().collect();
        order.sort_by_key(rank);
        let saved = |peer: &P| {
            let entry = self.entries.get(peer)?;
            let known = entry.addrs.iter().filter_map(|known| {
                let ttl = match known.source {
                    Source::Configured => return None,
                    Source::Connected => self.config.recent_ttl,
                    _ => known.expiry.checked_sub(now).filter(|ttl| !ttl.is_zero())?,
                };
                Some(SavedAddr {
                    addr: known.addr.clone(),
                    ttl,
                    is_certified: known.is_certified,
                    was_connected: known.source >= Source::Recent,
                })
            });
            Some(SavedPeer {
                peer: peer.clone(),
                addrs: known.collect(),
                key: entry.key.as_ref().map(|key| key.to_vec()),
                protocols: entry.protocols.clone(),
                agent: entry.agent.clone(),
                record: entry
                    .record
                    .as_ref()
                    .map(|record| (record.seq, record.envelope.to_vec())),
                was_connected: entry.rank.0 || entry.is_connected,
            })
        };
        Snapshot {
            version: VERSION,
            saved_at: unix,
            peers: order.into_iter().filter_map(saved).collect(),
        }
    }

    /// Returns the revision of the store, for a snapshot that is made or was loaded now.
    pub fn revision(&self, now: Duration) -> Revision {
        Revision {
            changes: self.changes,
            at: now,
        }
    }

    /// Returns whether a new snapshot has more than one of this revision: something was changed, or a peer is
    /// connected, and half of [`Config::recent_ttl`](super::Config::recent_ttl) has passed, after which the
    /// older snapshot would lose its addresses.
    pub fn is_outdated(&self, now: Duration, saved: Revision) -> bool {
        let is_connected =
            |entry: &Entry<A>| entry.addrs.iter().any(|known| known.source == Source::Connected);
        saved.changes != self.changes
            || (now.saturating_sub(saved.at) >= self.config.recent_ttl / 2
                && self.entries.values().any(is_connected))
    }

    /// Adds what a snapshot has, within the limits and for no longer than an address of the same source is
    /// kept; what is known already stays. `unix` is the current Unix time. Returns the number of peers that
    /// were added.
    pub fn import(&mut self, now: Duration, unix: Duration, snapshot: Snapshot<P, A>) -> usize {
        let elapsed = unix.saturating_sub(snapshot.saved_at);
        let mut added = 0;
        for saved in snapshot.peers {
            let peer = saved.peer;
            if self.entries.contains_key(&peer) {
                continue;
            }
            let addrs = saved.addrs.into_iter().filter(|known| known.ttl > elapsed);
            let addrs: Vec<_> = addrs.take(self.config.addrs).collect();
            // A peer without an address is not worth a place.
            if addrs.is_empty() {
                continue;
            }
            for SavedAddr {
                addr,
                ttl,
                is_certified,
                was_connected,
            } in addrs
            {
                let source = if was_connected {
                    Source::Recent
                } else {
                    Source::Learnt
                };
                if self.add_addr(now, &peer, addr.clone(), source, is_certified) {
                    self.shorten(&peer, &addr, now.saturating_add(ttl.saturating_sub(elapsed)));
                }
            }
            if !self.entries.contains_key(&peer) {
                continue;
            }
            added += 1;
            // Values that do not fit are left out.
            let _ = saved.key.map(|key| self.set_key(now, &peer, &key));
            let _ = self.set_protocols(now, &peer, saved.protocols);
            let _ = saved.agent.map(|agent| self.set_agent(now, &peer, agent));
            if let Some((seq, envelope)) = saved.record {
                let envelope = envelope.into();
                let _ = self.restore_record(now, &peer, Record { seq, envelope });
            }
            self.restore_rank(now, &peer, saved.was_connected);
        }
        added
    }

    /// Sets an earlier expiry of an address.
    fn shorten(&mut self, peer: &P, addr: &A, expiry: Duration) {
        let entry = self.entries.get_mut(peer);
        let known = entry.and_then(|entry| entry.addrs.iter_mut().find(|known| known.addr == *addr));
        if let Some(known) = known {
            known.expiry = known.expiry.min(expiry);
            self.update(peer);
        }
    }

    fn restore_record(&mut self, now: Duration, peer: &P, record: Record) -> Result<(), super::Error> {
        let new = ("a record", record.envelope.len());
        self.change(now, peer, new, |_| 0, |entry| entry.record = Some(record))
    }

    fn restore_rank(&mut self, now: Duration, peer: &P, was_connected: bool) {
        let Some(entry) = self.entries.get_mut(peer) else {
            return;
        };
        self.removable.remove(&entry.rank);
        entry.rank = (was_connected, now, entry.rank.2);
        self.update(peer);
    }
}
