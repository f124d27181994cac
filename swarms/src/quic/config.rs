//! What a node on QUIC allows, and what it holds at most.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use p2p::{Error, PeerId, Result};
use p2p_formats::x509::{Fingerprint, Registry, sha3_256};

use super::stream::WAITING;
use crate::inbox::Limits;

/// Which peers may have a session here; see [`QuicConfig::allow`].
pub type Allow = Arc<dyn Fn(&PeerId) -> bool + Send + Sync>;

/// Limits of a [`QuicSwarm`](super::QuicSwarm).
///
/// What peers can make a node hold at most: [`max_sessions`](Self::max_sessions) ×
/// ([`receive_window`](Self::receive_window) + [`send_window`](Self::send_window)), plus
/// [`reassembly`](Self::reassembly), plus the two inboxes, plus some 10 KiB for each session and handshake, plus four first
/// datagrams for each of [`max_handshakes`](Self::max_handshakes). Sessions that end wait in the background for what was
/// sent to be acknowledged, at most as many as [`max_sessions`](Self::max_sessions) and for [`linger`](Self::linger).
#[derive(Clone)]
pub struct QuicConfig {
    /// Bytes that a message, a request or a response carries at most. Both sides must allow a size for it to pass.
    /// Default: 1 MiB, as the Go library has it.
    pub mtu: usize,
    /// Which peers may have a session; others are turned away in the handshake, both when they dial and when they are
    /// dialled. Default: everybody. See [`QuicSwarm::disconnect`](super::QuicSwarm::disconnect) for sessions that exist.
    pub allow: Option<Allow>,
    /// How a key becomes a [`PeerId`]; both sides must do it alike. Default: SHA3-256.
    pub fingerprint: Fingerprint,
    /// Algorithms of keys. TLS signatures are made and checked with Ed25519 alone. Default: Ed25519.
    pub registry: Registry,
    /// Sessions that are held, of which a quarter is kept for peers that this node dials. Default: 256.
    ///
    /// At the limit another session makes room: never one with asks under way, those that peers dialled before others, of
    /// these one of the identity that has most, and then the least recently used. Where there is none, a dial of this node
    /// is [`Error::Limit`], and peers that dial are turned away, and dial again.
    pub max_sessions: usize,
    /// Sessions that peers of one identity dialled. At the limit one of these makes room, or the new one is closed. Never
    /// more than a quarter of [`max_sessions`](Self::max_sessions), nor less than two. Default: 16.
    pub max_sessions_per_id: usize,
    /// The same for the peers of one public network (an IPv4 /24, an IPv6 /48), half of
    /// [`max_sessions`](Self::max_sessions). Default: 64.
    pub max_sessions_per_prefix: usize,
    /// Handshakes that are under way, for each direction. At the limit a dial takes the place of one that is without a session
    /// for a fifth of [`handshake_timeout`](Self::handshake_timeout), which fails with [`Error::Limit`], as does the new one if
    /// there is none; dials to one public network take three quarters of the places at most. A peer that dials is turned away at
    /// the limit, and from a quarter of it on must first prove its address. Default: 64.
    pub max_handshakes: usize,
    /// Addresses of the swarm below that are known at a time; those of sessions and handshakes are always known. At the
    /// limit the one that was not used for longest is forgotten. Unused on UDP. Default: 4096.
    pub max_addrs: usize,
    /// How long a handshake may take, and so how long a tell to nobody takes to fail. Default: 5 s.
    pub handshake_timeout: Duration,
    /// How long a session without traffic is kept; the smaller of both sides' values counts. Default: 30 s.
    pub idle_timeout: Duration,
    /// How long a session that this node ends (by [`close`](p2p::Swarm::close), by being dropped, or for another session)
    /// waits for the peer to acknowledge what was told and answered. What is not acknowledged by then may be lost. Zero
    /// waits for nothing. Default: 3 s.
    pub linger: Duration,
    /// How long a message waits for room in its session before it fails. Default: 10 s.
    pub send_timeout: Duration,
    /// How long an ask waits for its response. Default: 30 s.
    pub ask_timeout: Duration,
    /// How long a message may take from its first byte to its last; it is dropped then. Default: 30 s.
    pub message_timeout: Duration,
    /// Tells, and as many asks, that a peer may have under way in one session. Default: 256.
    pub max_streams: u32,
    /// Bytes that a session holds of what a peer sent out of order. Default: 2 MiB.
    pub receive_window: u32,
    /// Bytes that a session holds until the peer has them. Default: 4 MiB.
    pub send_window: u32,
    /// Bytes of messages whose end is still missing, over all sessions. At the limit the message that grows is dropped. Peers
    /// that hold more than one message take no more than half of it, and a quarter is kept for responses to asks of this
    /// node. Default: 64 MiB.
    pub reassembly: usize,
    /// The same for each peer, in all its sessions. Default: 16 MiB.
    pub session_reassembly: usize,
    /// Messages that wait for a reader; at the limit one of the source with the most is dropped. Default: 1024 messages, 16 MiB.
    pub messages: Limits,
    /// Requests that wait for a reader; at the limit an asker with the most gets [`BUSY`](p2p::Rejection::BUSY) at once.
    /// Default: 1024 requests, 16 MiB.
    pub asks: Limits,
}

impl Default for QuicConfig {
    fn default() -> Self {
        // What waits was copied out of its datagrams already.
        let limits = Limits {
            items: 1024,
            bytes: 16 << 20,
            copy_below: 0,
        };
        Self {
            mtu: 1 << 20,
            allow: None,
            fingerprint: sha3_256,
            registry: Registry::default(),
            max_sessions: 256,
            max_sessions_per_id: 16,
            max_sessions_per_prefix: 64,
            max_handshakes: 64,
            max_addrs: 4096,
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            linger: Duration::from_secs(3),
            send_timeout: Duration::from_secs(10),
            ask_timeout: Duration::from_secs(30),
            message_timeout: Duration::from_secs(30),
            max_streams: 256,
            receive_window: 2 << 20,
            send_window: 4 << 20,
            reassembly: 64 << 20,
            session_reassembly: 16 << 20,
            messages: limits,
            asks: limits,
        }
    }
}

impl QuicConfig {
    /// Lets these peers in and nobody else.
    #[must_use]
    pub fn allow(mut self, allow: impl Fn(&PeerId) -> bool + Send + Sync + 'static) -> Self {
        self.allow = Some(Arc::new(allow));
        self
    }

    /// Whether `peer` may have a session.
    pub(super) fn allows(&self, peer: &PeerId) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow(peer))
    }

    /// # Errors
    /// [`Error::Invalid`] for values that cannot work.
    pub(super) fn check(&self) -> Result<()> {
        let fail = |reason: &str| Err(Error::invalid("QUIC configuration", reason));
        if u32::try_from(self.mtu).is_err() {
            return fail("mtu: the length of an ask has 32 bits");
        }
        if self.max_sessions == 0 || self.max_handshakes == 0 || self.max_streams == 0 {
            return fail("max_sessions, max_handshakes and max_streams are at least 1");
        }
        // Every address that is in use is pinned: two sessions and handshakes of both directions.
        if self.max_addrs < self.max_sessions + 2 * self.max_handshakes + 1 {
            return fail("max_addrs: at least one address for each session and handshake, and one more");
        }
        // A buffer grows by doubling.
        if self.session_reassembly.min(self.reassembly) < 2 * self.mtu + WAITING {
            return fail("reassembly and session_reassembly: at least two messages of the MTU");
        }
        if self.messages.bytes.min(self.asks.bytes) < 2 * self.mtu + WAITING {
            return fail("bytes of messages and asks: at least two messages of the MTU");
        }
        if self.receive_window == 0 || self.send_window == 0 {
            return fail("receive_window and send_window are at least 1");
        }
        if self.handshake_timeout.is_zero() || self.send_timeout.is_zero() || self.idle_timeout.is_zero() {
            return fail("handshake_timeout, send_timeout and idle_timeout are not zero");
        }
        if self.idle_timeout > Duration::from_secs(1 << 30) {
            return fail("idle_timeout: at most 2^30 seconds");
        }
        Ok(())
    }
}

impl fmt::Debug for QuicConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicConfig")
            .field("mtu", &self.mtu)
            .field("max_sessions", &self.max_sessions)
            .field("max_handshakes", &self.max_handshakes)
            .field("max_addrs", &self.max_addrs)
            .finish_non_exhaustive()
    }
}
