//! The peer store: the addresses of other peers, which expire, and their keys, protocols, agents and certified
//! records.
//!
//! A [`PeerStore`] has no I/O and no clock. It is generic over the key of a peer and over addresses, which it
//! compares and counts but does not read.
//!
//! # Expiry
//! An address is kept for a time that depends on where it comes from ([`Source`]): 2 min if it is temporary,
//! 1 h if another peer named it, 15 min after the last connection to it, and without end while the peer is
//! connected or if the program configured it. An address that is added again keeps the better source and the
//! later expiry. A peer is removed with its last address, but not while it is connected or protected, nor
//! within [`Config::recent_ttl`] after its last connection or change.
//!
//! Call [`PeerStore::handle_timeout`] at [`PeerStore::poll_timeout`]. Expired addresses are not returned also
//! if this call is late.
//!
//! # Certified records
//! A record is a list of addresses that the peer signed, with a sequence number (libp2p specifications, RFC
//! 0003). A record replaces an earlier one only with a higher number; the addresses of the earlier record
//! that are not in the new one are removed, unless the peer is connected at them or the program configured
//! them.
//!
//! # Persistence
//! [`PeerStore::export`] returns plain serde data, and [`Snapshot::encode`] its bytes (postcard).
//! [`PeerStore::import`] applies the limits to them, as to data of peers. Addresses lose the time that
//! passed in between. Connections and protections are not saved. [`PeerStore::is_outdated`] tells when a snapshot
//! is worth making.
//!
//! ```
//! use std::time::Duration;
//! use p2p_protocols::peers::{Config, PeerStore, Source};
//!
//! let mut store = PeerStore::new(Config::default(), |addr: &String| addr.len());
//! let now = Duration::ZERO;
//! store.add_addrs(now, &7_u64, ["/ip4/192.0.2.1/tcp/4001".into()], Source::Learnt);
//! assert_eq!(store.addrs(now, &7).len(), 1);
//!
//! let expiry = store.poll_timeout().unwrap();
//! assert_eq!(expiry, Duration::from_secs(3600));
//! store.handle_timeout(expiry);
//! assert!(store.is_empty());
//! ```
//!
//! # Limits
//! [`Config`] bounds the addresses, protocols and bytes of a peer, and the peers and bytes in total. At a
//! limit of one peer, an address with a better source or a later expiry replaces the worst one; anything else
//! is refused. At a limit of all peers, peers are removed that are neither connected nor protected: first
//! peers that were never connected, and among these the one that was created first; then the one whose last
//! connection ended first. So peers that others only name displace no peer that this node knows. If no peer
//! may be removed, the change is refused ([`Error::Full`]).
//!
//! # Security
//! **Required of the caller.** Signatures of records and envelopes are verified before
//! [`PeerStore::put_record`]; keys belong to their peers; addresses that a peer names are within the scope of
//! the peer ([`Scope`](crate::overlay::Scope)).
//!
//! **Not provided.** A peer that is removed is forgotten with its record, so that an older record of it is
//! accepted afterwards.

mod config;
mod entry;
mod evict;
mod record;
mod snapshot;
mod store;

pub use config::{Config, Source};
pub use entry::Record;
pub use snapshot::{Revision, SavedAddr, SavedPeer, Snapshot, SnapshotError};
pub use store::{Added, Error, Peer, PeerStore};
