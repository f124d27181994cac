//! Limits and times.

use std::time::Duration;

/// The origin of an address, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Found for one operation only. Kept for [`Config::temporary_ttl`].
    Temporary,
    /// Named by another peer or by a discovery service. Kept for [`Config::learnt_ttl`].
    Learnt,
    /// The peer was connected a short time ago. Kept for [`Config::recent_ttl`].
    Recent,
    /// The peer is connected and uses or names this address. Kept while it is connected, then
    /// [`Recent`](Self::Recent). For a peer that is not connected it means [`Recent`](Self::Recent).
    Connected,
    /// Configured by the program. Does not expire.
    Configured,
}

/// Limits and times of a [`PeerStore`](super::PeerStore).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Peers. At the limit, the least useful peer is removed for a new one. Default: 16,384.
    pub peers: usize,
    /// Bytes of all peers, with bookkeeping. At the limit, the least useful peers are removed. Default: 64
    /// MiB.
    pub bytes: usize,
    /// Bytes of one peer, with bookkeeping. A value that does not fit is refused. Default: 128 KiB, which
    /// is more than the limits of [`identify`](crate::identify) let through.
    pub peer_bytes: usize,
    /// Addresses of one peer. At the limit, a better address replaces the worst one. Default: 100.
    pub addrs: usize,
    /// Protocols of one peer. Further ones are refused. Default: 1024.
    pub protocols: usize,
    /// Time for which addresses are kept after the last connection. Default: 15 min.
    pub recent_ttl: Duration,
    /// Time for which addresses are kept that other peers named. Default: 1 h.
    pub learnt_ttl: Duration,
    /// Time for which temporary addresses are kept. Default: 2 min.
    pub temporary_ttl: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            peers: 16_384,
            bytes: 64 << 20,
            peer_bytes: 128 << 10,
            addrs: 100,
            protocols: 1024,
            recent_ttl: Duration::from_mins(15),
            learnt_ttl: Duration::from_hours(1),
            temporary_ttl: Duration::from_mins(2),
        }
    }
}

impl Config {
    /// Returns the expiry of an address that is added now. `Duration::MAX` means never.
    pub(super) fn expiry(&self, now: Duration, source: Source) -> Duration {
        match source {
            Source::Temporary => now.saturating_add(self.temporary_ttl),
            Source::Learnt => now.saturating_add(self.learnt_ttl),
            Source::Recent => now.saturating_add(self.recent_ttl),
            Source::Connected | Source::Configured => Duration::MAX,
        }
    }
}
