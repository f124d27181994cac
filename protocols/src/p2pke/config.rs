//! The configuration of a node: limits, timeouts, and its key.

use std::fmt;
use std::time::Duration;

use p2p::PeerId;
use p2p_formats::x509::{Fingerprint, KeyError, PrivateKey, PublicKey, Registry, Signer, shake256};

/// Limits and timeouts. The defaults match the fixed values of the Go library.
#[derive(Clone, Debug)]
pub struct Config {
    /// Age at which a session in use is replaced (rekey). A longer time exposes more data if a key leaks.
    /// Default: 120 s.
    pub rekey_after: Duration,
    /// Number of data messages after which a session in use is replaced. Default: 2³¹ − 1, half of the
    /// counter's range.
    pub rekey_after_messages: u32,
    /// Age from which a session is not used at all. If it is longer than the peer's value, the peer drops the
    /// packets of the last seconds. Default: 180 s.
    pub reject_after: Duration,
    /// Silence after which a sender starts a rekey while it keeps using the current session. The Go library
    /// forgets a session on which it only receives, so this must be less than `max_silence`. Default: 10 s.
    pub rekey_after_silence: Duration,
    /// Silence after which nothing is sent on a session, because the peer may have forgotten it. Any
    /// authentic packet ends a silence. Default: 15 s.
    pub max_silence: Duration,
    /// Timeout before the first retransmission of a handshake message; each further timeout is longer by
    /// half. Default: 250 ms.
    pub retry_first: Duration,
    /// Maximum retransmission timeout. Default: 1 s.
    pub retry_max: Duration,
    /// Relative jitter of each timeout, so that nodes that lost their connection at the same time do not
    /// return in step. Default: 0.2 (1 s becomes 0.8 s to 1.2 s).
    pub retry_jitter: f32,
    /// Time without progress after which a handshake ends with [`Error::TimedOut`](super::Error::TimedOut),
    /// and half-open sessions of other nodes are forgotten. Default: 15 s; with 30 % loss, one handshake in
    /// 50,000 takes longer.
    pub handshake_timeout: Duration,
    /// Hellos that one channel answers at the same time; beyond this, the oldest is forgotten. Default: 4.
    pub half_open_per_channel: usize,
    /// Channels that other nodes have opened and not confirmed; beyond this, the oldest is forgotten.
    /// Default: 1024.
    pub half_open: usize,
    /// Channels in total, without half-open ones. At the limit, a channel that a peer opened is removed for a
    /// new one: first a channel that never carried data of its peer, then one that was silent for longer than
    /// [`max_silence`](Self::max_silence), then one that was silent for longer than
    /// [`rekey_after_silence`](Self::rekey_after_silence) and is not its peer's only one; among these, one of
    /// the peer or network with the most, and the longest silent. For a channel that this node opens, its own
    /// silent ones are removed as well. If no channel may be removed, hellos are dropped, and opening fails
    /// with [`Full`](super::Error::Full). Default: 16,384.
    pub channels: usize,
    /// Percentage of `channels` that is reserved for this node's own handshakes, so that other nodes cannot
    /// prevent it from opening channels. At most 100; 0 reserves none. Default: 12.
    pub outbound_percent: u8,
    /// Channels that one peer may open, from any addresses. At the limit, its least valuable ones are
    /// removed; if all are in use, its new ones are dropped. Default: 64.
    pub channels_per_peer: usize,
    /// Channels that the peers of one network (an IPv4 /24 or an IPv6 /48; not private ones) may open, with
    /// the same rule. Counted only if the driver [provides](super::Endpoint::with_prefixes) the network of an
    /// address. Default: 2048.
    pub channels_per_prefix: usize,
    /// Hellos that are verified per second, from all sources; the burst size is the same. Each costs a
    /// verification, a signature and two X25519 operations, about 0.2 ms. Default: 1000.
    pub hello_rate: u32,
    /// Hellos that are verified per second for one network (an IPv4 /24 or an IPv6 /48; not private ones);
    /// the burst size is the same. Networks share 1024 buckets by hash. Default: 250.
    pub hello_rate_per_prefix: u32,
    /// Hellos that are verified per second for one source; the burst size is the same. Sources share 4096
    /// buckets by hash. A peer with a session at its address has a separate allowance of the same size, so
    /// that no flood prevents it from replacing the session. Default: 10.
    pub hello_rate_per_source: u32,
    /// Data packets without a session that are answered with a no-session notice per second, for all sources;
    /// one source gets at most 10 per second. The notice is not longer than the packet. A peer that gets one
    /// starts another handshake at once instead of after [`rekey_after_silence`](Self::rekey_after_silence).
    /// The same number of received notices is processed per second. With 0, there are no notices, and a
    /// session that a peer forgot is detected by silence only. Default: 1000.
    pub hint_rate: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rekey_after: Duration::from_mins(2),
            rekey_after_messages: (1 << 31) - 1,
            reject_after: Duration::from_mins(3),
            rekey_after_silence: Duration::from_secs(10),
            max_silence: Duration::from_secs(15),
            retry_first: Duration::from_millis(250),
            retry_max: Duration::from_secs(1),
            retry_jitter: 0.2,
            handshake_timeout: Duration::from_secs(15),
            half_open_per_channel: 4,
            half_open: 1024,
            channels: 16_384,
            outbound_percent: 12,
            channels_per_peer: 64,
            channels_per_prefix: 2048,
            hello_rate: 1000,
            hello_rate_per_prefix: 250,
            hello_rate_per_source: 10,
            hint_rate: 1000,
        }
    }
}

/// Decides whether a peer may have a session here.
type Allow = Box<dyn Fn(&PeerId) -> bool + Send + Sync>;

/// The key, the allow-list and the configuration of a node, which all its channels share.
pub struct Local {
    pub(super) signer: Box<dyn Signer>,
    pub(super) registry: Registry,
    pub(super) fingerprint: Fingerprint,
    pub(super) config: Config,
    pub(super) allow: Option<Allow>,
    id: PeerId,
}

impl Local {
    /// Creates a node with this key, the default registry, SHAKE256 as its fingerprint, and no allow-list.
    ///
    /// # Errors
    /// The key's error, if it does not load.
    pub fn new(key: &PrivateKey, config: Config) -> Result<Self, KeyError> {
        Self::with_registry(key, Registry::default(), config)
    }

    /// Creates a node with this key and these algorithms.
    ///
    /// # Errors
    /// The key's error, if it does not load.
    pub fn with_registry(key: &PrivateKey, registry: Registry, config: Config) -> Result<Self, KeyError> {
        let signer = registry.signer(key)?;
        Ok(Self {
            id: shake256(signer.public_key()),
            signer,
            registry,
            fingerprint: shake256,
            config,
            allow: None,
        })
    }

    /// Sets another fingerprint. All nodes of a swarm must use the same.
    #[must_use]
    pub fn fingerprint(mut self, fingerprint: Fingerprint) -> Self {
        self.fingerprint = fingerprint;
        self.id = fingerprint(self.signer.public_key());
        self
    }

    /// Sets the allow-list: only peers for which `allow` returns true may have a session. It is called before
    /// any cryptographic operation for the peer.
    #[must_use]
    pub fn allow(mut self, allow: impl Fn(&PeerId) -> bool + Send + Sync + 'static) -> Self {
        self.allow = Some(Box::new(allow));
        self
    }

    /// Returns this node's id.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Returns this node's public key.
    pub fn public_key(&self) -> &PublicKey {
        self.signer.public_key()
    }

    pub(super) fn allows(&self, peer: &PeerId) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow(peer))
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
