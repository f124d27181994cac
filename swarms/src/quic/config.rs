//! Configuration of a QUIC node: permitted peers and limits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use p2p::{Error, PeerId, Result};
use p2p_formats::x509::{Fingerprint, Registry, sha3_256};

use super::stream::WAITING;
use crate::allowed_peers::Allow;
use crate::inbox::Limits;

/// Limits of a [`QuicSwarm`](super::QuicSwarm).
///
/// Peers can make a node hold at most [`max_sessions`](Self::max_sessions) ×
/// ([`receive_window`](Self::receive_window) + [`send_window`](Self::send_window)), plus
/// [`reassembly`](Self::reassembly), the two inboxes, about 10 KiB for each session and handshake, and four
/// initial datagrams for each of [`max_handshakes`](Self::max_handshakes). Closing sessions wait in the
/// background for acknowledgements, at most as many as [`max_sessions`](Self::max_sessions) and for
/// [`linger`](Self::linger).
#[derive(Clone)]
pub struct QuicConfig {
    /// Maximum length of a message, a request or a response in bytes. Both sides must permit a length for it
    /// to pass. Default: 1 MiB, as in the Go library.
    pub mtu: usize,
    /// Decides which peers may have a session; others are refused during the handshake, in both directions.
    /// Default: every peer. [`QuicSwarm::disconnect`](super::QuicSwarm::disconnect) ends existing sessions.
    pub allow: Option<Allow>,
    /// Derives a [`PeerId`] from a key; both sides must use the same function. Default: SHA3-256.
    pub fingerprint: Fingerprint,
    /// Key algorithms. TLS signatures use Ed25519 only. Default: Ed25519.
    pub registry: Registry,
    /// Maximum number of sessions, of which a quarter is reserved for peers that this node dials. Default:
    /// 256.
    ///
    /// At the bound a session is evicted: never one with asks in flight, inbound sessions before outbound
    /// ones, of these one of the identity with the most sessions, and then the least recently used. If no
    /// session can be evicted, a dial of this node fails with [`Error::Limit`], and inbound dials are
    /// refused, which the peers retry.
    pub max_sessions: usize,
    /// Maximum number of inbound sessions of one identity. At the bound one of these is evicted, or the new
    /// one is closed. At most a quarter of [`max_sessions`](Self::max_sessions), and at least two. Default:
    /// 16.
    pub max_sessions_per_id: usize,
    /// Maximum number of inbound sessions from one public network (an IPv4 /24, an IPv6 /48); at most half of
    /// [`max_sessions`](Self::max_sessions). Default: 64.
    pub max_sessions_per_prefix: usize,
    /// Maximum number of handshakes in progress, for each direction; dials to one public network use at most
    /// three quarters. At the limit a dial stops the one that has been without a session for a fifth of
    /// [`handshake_timeout`](Self::handshake_timeout), which fails with [`Error::Limit`]; if there is none, the
    /// new dial fails. Inbound dials are refused at the limit, and from a quarter of it on a peer must first
    /// prove its address. Default: 64.
    pub max_handshakes: usize,
    /// Maximum number of known addresses of the swarm below; those of sessions and handshakes are always
    /// known. At the bound the least recently used address is removed. Unused on UDP. Default: 4096.
    pub max_addrs: usize,
    /// Timeout of a handshake, and so of a tell to an address without a node. Default: 5 s.
    pub handshake_timeout: Duration,
    /// How long a session without traffic is kept; the smaller of both sides' values applies. Default: 30 s.
    pub idle_timeout: Duration,
    /// How long a session that this node ends (by [`close`](p2p::Swarm::close), by being dropped, or for
    /// another session) waits for the peer to acknowledge messages and responses. Data that is not
    /// acknowledged by then may be lost. Zero disables the wait. Default: 3 s.
    pub linger: Duration,
    /// How long a message waits for room in its session before it fails. Default: 10 s.
    pub send_timeout: Duration,
    /// How long an ask waits for its response. Default: 30 s.
    pub ask_timeout: Duration,
    /// Maximum time between the first and the last byte of a message, after which it is dropped. Default: 30
    /// s.
    pub message_timeout: Duration,
    /// Maximum number of tells, and of asks, that a peer may have in flight in one session. Default: 256.
    pub max_streams: u32,
    /// Bytes of out-of-order data that a session buffers. Default: 2 MiB.
    pub receive_window: u32,
    /// Bytes that a session buffers until the peer acknowledges them. Default: 4 MiB.
    pub send_window: u32,
    /// Maximum number of bytes of incomplete messages over all sessions. At the bound the growing message is
    /// dropped. Peers with more than one message use at most half of it, and a quarter is reserved for
    /// responses to asks of this node. Default: 64 MiB.
    pub reassembly: usize,
    /// The same for each peer, over all of its sessions. Default: 16 MiB.
    pub session_reassembly: usize,
    /// Messages that wait for a reader; at the limit one of the source with the most is dropped. Default: 1024
    /// messages, 16 MiB.
    pub messages: Limits,
    /// Requests that wait for a reader; at the limit an asker with the most gets
    /// [`BUSY`](p2p::Rejection::BUSY) at once. Default: 1024 requests, 16 MiB.
    pub asks: Limits,
}

impl Default for QuicConfig {
    fn default() -> Self {
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
            messages: Limits::reassembled(),
            asks: Limits::reassembled(),
        }
    }
}

impl QuicConfig {
    /// Allows sessions with the peers for which `allow` returns true, and no others.
    #[must_use]
    pub fn allow(mut self, allow: impl Fn(&PeerId) -> bool + Send + Sync + 'static) -> Self {
        self.allow = Some(Arc::new(allow));
        self
    }

    /// Checks the values.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] for values that cannot work.
    pub(super) fn check(&self) -> Result<()> {
        let fail = |reason: &str| Err(Error::invalid("QUIC configuration", reason));
        if u32::try_from(self.mtu).is_err() {
            return fail("mtu must fit into 32 bits, the length field of an ask");
        }
        if self.max_sessions == 0 || self.max_handshakes == 0 || self.max_streams == 0 {
            return fail("max_sessions, max_handshakes and max_streams must be at least 1");
        }
        // Every address in use is pinned: those of sessions, and of handshakes in both directions.
        if self.max_addrs < self.max_sessions + 2 * self.max_handshakes + 1 {
            return fail(
                "max_addrs must be at least one address for each session and handshake, and one more",
            );
        }
        // While a buffer grows there are two of them, neither longer than a message.
        if self.session_reassembly.min(self.reassembly) < 2 * self.mtu + WAITING {
            return fail("reassembly and session_reassembly must hold at least two messages of the MTU");
        }
        if self.messages.bytes.min(self.asks.bytes) < 2 * self.mtu + WAITING {
            return fail("messages.bytes and asks.bytes must hold at least two messages of the MTU");
        }
        if self.receive_window == 0 || self.send_window == 0 {
            return fail("receive_window and send_window must be at least 1");
        }
        if self.handshake_timeout.is_zero() || self.send_timeout.is_zero() || self.idle_timeout.is_zero() {
            return fail("handshake_timeout, send_timeout and idle_timeout must not be zero");
        }
        if self.idle_timeout > Duration::from_secs(1 << 30) {
            return fail("idle_timeout must be at most 2^30 seconds");
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
