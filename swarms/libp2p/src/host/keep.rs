//! What keeps connections open: streams, protocols, tags and protections of peers.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use multiaddr::PeerId;
use p2p::{Error, Result};
use p2p_protocols::connections::{self, ConnId};
use p2p_protocols::peers::Source;

use super::Host;
use super::engines::{DialKey, Engines, KnownPeer};
use super::shared::Shared;
use crate::addr::HostAddr;
use crate::connection::{Connection, ConnectionInfo};

/// The protection that [`Host::maintain`] gives.
const MAINTAINED: &str = "maintained";

/// A reason for which a connection is open.
///
/// A connection without any of the first four is closed after
/// [`HostConfig::unused_timeout`](crate::HostConfig::unused_timeout).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenReason {
    /// This many streams are open.
    Streams(usize),
    /// The peer is protected under this name ([`Host::protect`]), so that the connection is neither trimmed nor closed
    /// because nothing needs it.
    Protected(Box<str>),
    /// The peer has tags with this positive sum ([`Host::tag`]).
    Tagged(i64),
    /// A swarm of the host has exchanged messages on it, or the program asked for it under this name
    /// ([`Host::keep_alive`]).
    KeepAlive(Box<str>),
    /// It is too young to be trimmed.
    Young {
        /// The rest of [`HostConfig::grace`](crate::HostConfig::grace).
        left: Duration,
    },
    /// Nothing needs it.
    Unused {
        /// The time after which it is closed unless it is used.
        left: Duration,
    },
}

impl OpenReason {
    fn new(now: Duration, reason: connections::OpenReason) -> Self {
        use connections::OpenReason as Reason;
        match reason {
            Reason::Streams(count) => Self::Streams(count),
            Reason::Protected(name) => Self::Protected(name.into()),
            Reason::Tagged(value) => Self::Tagged(value),
            Reason::KeepAlive(protocol) => Self::KeepAlive(protocol.into()),
            Reason::Grace { until } => Self::Young {
                left: until.saturating_sub(now),
            },
            Reason::Idle { until } => Self::Unused {
                left: until.saturating_sub(now),
            },
        }
    }
}

impl fmt::Display for OpenReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Streams(1) => f.write_str("1 stream"),
            Self::Streams(count) => write!(f, "{count} streams"),
            Self::Protected(name) => write!(f, "protected: {name}"),
            Self::Tagged(value) => write!(f, "tags: {value}"),
            Self::KeepAlive(name) => write!(f, "kept by {name}"),
            Self::Young { left } => write!(f, "young: {} s", left.as_secs()),
            Self::Unused { left } => write!(f, "unused: closed in {} s", left.as_secs()),
        }
    }
}

impl Host {
    /// Returns what is known of each connection, in the order of their handshakes.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.core().connections()
    }

    /// Keeps a connection open under a name, until [`release`](Self::release) or its end: it is not closed because nothing
    /// needs it. Trimming may close it. Does nothing if it has ended.
    ///
    /// # Errors
    /// [`Error::Limit`] if more than 64 names keep it open.
    pub fn keep_alive(&self, connection: ConnId, name: &str) -> Result<()> {
        let kept = |engines: &mut Engines, now| engines.connections.keep_alive(now, connection, name);
        self.core().drive(kept).map_err(full)
    }

    /// Ends [`keep_alive`](Self::keep_alive) under a name.
    pub fn release(&self, connection: ConnId, name: &str) {
        let core = self.core();
        core.drive(|engines, now| engines.connections.release(now, connection, name));
    }

    /// Gives a peer a tag with a value, or changes the value. Connections with peers whose tags have a positive sum stay
    /// open; trimming begins with the lowest sums. A tag stays when the peer disconnects.
    ///
    /// # Errors
    /// [`Error::Limit`] beyond 64 tags and protections of one peer, or 4096 peers that have any; [`Error::Invalid`] if
    /// the address names no peer.
    pub fn tag(&self, peer: &HostAddr, name: &str, value: i64) -> Result<()> {
        let peer = peer_of(peer)?;
        let tagged = |engines: &mut Engines, now| engines.connections.tag(now, &peer, name, value);
        self.core().drive(tagged).map_err(full)
    }

    /// Removes a tag of a peer. Returns whether the peer had it.
    pub fn untag(&self, peer: &HostAddr, name: &str) -> bool {
        let Ok(peer) = peer_of(peer) else { return false };
        let core = self.core();
        core.drive(|engines, now| engines.connections.untag(now, &peer, name))
    }

    /// Protects a peer under a name: its connections are neither trimmed, nor closed for others, nor closed because
    /// nothing needs them, and the host does not forget it. A peer may have several protections.
    ///
    /// # Errors
    /// Those of [`tag`](Self::tag), and [`Error::Limit`] if all known peers are connected or protected.
    pub fn protect(&self, peer: &HostAddr, name: &str) -> Result<()> {
        let peer = peer_of(peer)?;
        let core = self.core();
        core.drive(|engines, now| protect(engines, now, &peer, name, core.config.max_known_peers))
    }

    /// Removes a protection of a peer. Returns whether the peer is still protected.
    pub fn unprotect(&self, peer: &HostAddr, name: &str) -> bool {
        let Ok(peer) = peer_of(peer) else { return false };
        let core = self.core();
        core.drive(|engines, now| unprotect(engines, now, &peer, name))
    }

    /// Keeps a peer connected: protects it, connects to it now unless a connection exists, and again whenever its last
    /// connection ends. A place in `peer` is remembered without end; what else is known of the peer expires as usual.
    /// Attempts that fail are repeated after 5 s, 10 s, 20 s and so on up to 5 min, each with a jitter of a fifth.
    ///
    /// # Errors
    /// Those of [`protect`](Self::protect); [`Error::Limit`] beyond
    /// [`HostConfig::max_maintained`](crate::HostConfig::max_maintained) peers; [`Error::Closed`].
    pub fn maintain(&self, peer: &HostAddr) -> Result<()> {
        let core = self.core();
        core.check_open()?;
        let id = peer_of(peer)?;
        core.drive(|engines, now| {
            protect(engines, now, &id, MAINTAINED, core.config.max_known_peers)?;
            if !peer.place().is_empty() {
                let place = [peer.place().clone()];
                engines
                    .peers
                    .add_addrs(now, &KnownPeer(id), place, Source::Configured);
            }
            let is_connected = engines.connections.best(&id).is_some();
            let maintained = engines.dialer.maintain(now, &DialKey::Peer(id), is_connected);
            maintained.map_err(|full| {
                unprotect(engines, now, &id, MAINTAINED);
                let (what, limit) = (full.what, full.limit);
                Error::Limit { what, limit }
            })
        })
    }

    /// Ends [`maintain`](Self::maintain). A connection with the peer stays while anything needs it.
    pub fn stop_maintaining(&self, peer: &HostAddr) {
        let Ok(id) = peer_of(peer) else { return };
        self.core().drive(|engines, now| {
            engines.dialer.release(&DialKey::Peer(id));
            unprotect(engines, now, &id, MAINTAINED)
        });
    }
}

fn protect(engines: &mut Engines, now: Duration, peer: &PeerId, name: &str, limit: usize) -> Result<()> {
    let known = KnownPeer(*peer);
    let what = "known peers";
    let remembered = engines.peers.protect(now, &known, true);
    remembered.map_err(|_| Error::Limit { what, limit })?;
    let protected = engines.connections.protect(now, peer, name);
    protected.map_err(|error| {
        if !engines.connections.is_protected(peer) {
            // Ending a protection cannot fail.
            let _ = engines.peers.protect(now, &known, false);
        }
        full(error)
    })
}

fn unprotect(engines: &mut Engines, now: Duration, peer: &PeerId, name: &str) -> bool {
    let is_protected = engines.connections.unprotect(now, peer, name);
    if !is_protected {
        // Ending a protection cannot fail.
        let _ = engines.peers.protect(now, &KnownPeer(*peer), false);
    }
    is_protected
}

fn peer_of(addr: &HostAddr) -> Result<PeerId> {
    let peer = addr.libp2p_id();
    peer.ok_or_else(|| Error::invalid("address", format!("{addr} names no peer")))
}

fn full(full: connections::Full) -> Error {
    let (what, limit) = (full.what, full.limit);
    Error::Limit { what, limit }
}

/// A stream that counts as a reason to keep its connection open, until it is dropped.
#[derive(Debug)]
pub(crate) struct CountedStream {
    host: Weak<Shared>,
    connection: ConnId,
}

impl Drop for CountedStream {
    fn drop(&mut self) {
        if let Some(host) = self.host.upgrade() {
            host.drive(|engines, now| engines.connections.handle_stream_closed(now, self.connection));
        }
    }
}

impl Shared {
    fn connections(self: &Arc<Self>) -> Vec<ConnectionInfo> {
        self.drive(|engines, now| {
            let infos = engines.connections.iter().filter_map(|info| {
                let mut known = engines.open.get(&info.id)?.info.clone();
                let reasons = engines.connections.why_open(now, info.id).into_iter();
                known.reasons = reasons.map(|reason| OpenReason::new(now, reason)).collect();
                known.streams = info.streams;
                known.age = now.saturating_sub(info.since);
                Some(known)
            });
            infos.collect()
        })
    }

    /// Counts a stream, and lets its connection stay open if a swarm has its protocol.
    pub(crate) fn count_stream(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        protocol: &str,
    ) -> CountedStream {
        let keeper = self.keepers.read().get(protocol).cloned();
        let keeper = keeper.filter(|keeper| {
            let mut kept_by = connection.kept_by.lock();
            let is_new = !kept_by.iter().any(|other| other == keeper);
            if is_new {
                kept_by.push(keeper.clone());
            }
            is_new
        });
        let id = connection.info.id;
        self.drive(|engines, now| {
            engines.connections.handle_stream_opened(now, id);
            if let Some(keeper) = keeper {
                // At the limit of names, the connection is closed when nothing else needs it.
                let _ = engines.connections.keep_alive(now, id, &keeper);
            }
        });
        CountedStream {
            host: Arc::downgrade(self),
            connection: id,
        }
    }

    /// Keeps each connection open on which a stream of one of these protocols is opened from now on, under the name of
    /// the first.
    pub(crate) fn keep_alive_by(&self, protocols: &[&Arc<str>]) {
        let mut keepers = self.keepers.write();
        for protocol in protocols {
            if let Some(first) = protocols.first() {
                keepers.insert((*protocol).clone(), (*first).clone());
            }
        }
    }

    /// Ends [`keep_alive_by`](Self::keep_alive_by), for open connections as well.
    pub(crate) fn release_by(self: &Arc<Self>, protocols: &[&Arc<str>]) {
        {
            let mut keepers = self.keepers.write();
            for protocol in protocols {
                keepers.remove(&***protocol);
            }
        }
        let Some(name) = protocols.first() else { return };
        self.drive(|engines, now| {
            let open: Vec<_> = engines.open.values().cloned().collect();
            for connection in open {
                let mut kept_by = connection.kept_by.lock();
                kept_by.retain(|keeper| keeper != *name);
                drop(kept_by);
                engines.connections.release(now, connection.info.id, name);
            }
        });
    }
}
