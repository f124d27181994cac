//! The limits and the patience of a node, and who it is.

use std::fmt;
use std::time::Duration;

use p2p::PeerId;
use p2p_formats::x509::{Fingerprint, KeyError, PrivateKey, PublicKey, Registry, Signer, shake256};

/// Limits and patience. The defaults suit a peer of the Go library, which has them fixed.
#[derive(Clone, Debug)]
pub struct Config {
    /// Age at which a session that is sent on is replaced. Longer: more is lost with a key that leaks.
    /// Default: 120 s.
    pub rekey_after: Duration,
    /// Data messages after which a session that is sent on is replaced. Default: 2³¹ − 1, half of what the counter can
    /// count.
    pub rekey_after_messages: u32,
    /// Age from which a session is not used any more, whatever comes. Longer than the peer's: packets of the last
    /// seconds are dropped there. Default: 180 s.
    pub reject_after: Duration,
    /// Silence after which a sender asks for a new session while it goes on with the old one. The Go library
    /// forgets a session on which it only receives, so this must be less than `keep_alive`. Default: 10 s.
    pub refresh_after: Duration,
    /// Silence after which a session is not sent on any more, because the peer may have forgotten it. Any
    /// authentic packet ends a silence. Default: 15 s.
    pub keep_alive: Duration,
    /// Wait before a handshake message is repeated for the first time; each further wait is half as long again.
    /// Default: 250 ms.
    pub retry_first: Duration,
    /// The longest wait between two repetitions. Default: 1 s.
    pub retry_max: Duration,
    /// Part of each wait that is left to chance, so that nodes that were cut off do not come back in step.
    /// Default: 0.2 (a wait of 1 s is 0.8 s to 1.2 s).
    pub retry_jitter: f32,
    /// Time without progress after which a handshake ends with [`Error::TimedOut`](super::Error::TimedOut), and
    /// half-open ones of others are forgotten. Default: 15 s, which 30 % of loss outlast once in 50,000 times.
    pub handshake_timeout: Duration,
    /// Hellos that one channel answers at the same time; the oldest goes first. Default: 4.
    pub half_open_per_channel: usize,
    /// Channels that others have opened and not confirmed; beyond it the oldest is forgotten. Default: 1024.
    pub half_open: usize,
    /// Channels in total, beside those that are half open. At the limit a channel that peers opened goes for a new one:
    /// first one that never carried data of its peer, then one that was silent for longer than
    /// [`keep_alive`](Self::keep_alive), then one that was silent for longer than [`refresh_after`](Self::refresh_after)
    /// and is not its peer's only one; of these, one of the peer or network with the most, and the longest silent. For one
    /// that this node opens, a silent one of its own goes as well. If there is none, hellos are dropped and opening fails with [`Full`](super::Error::Full). Default: 16,384.
    pub channels: usize,
    /// Hundredths of `channels` that only this node's own handshakes can take, so that strangers cannot keep it from
    /// opening channels. 0: none; at most 100. Default: 12.
    pub outbound_percent: u8,
    /// Channels that one peer may open, from whatever addresses. At the limit its own least useful ones go; if all are
    /// in use, its new ones are dropped. Default: 64.
    pub channels_per_peer: usize,
    /// Channels that peers of one network (an IPv4 /24, an IPv6 /48; not private ones) may open, as above. Counted
    /// only where the driver [says](super::Endpoint::with_prefixes) which network an address belongs to. Default: 2048.
    pub channels_per_prefix: usize,
    /// Hellos that are verified per second, over all sources; as many may come at once. Each costs a
    /// verification, a signature and two X25519 operations, about 0.2 ms. Default: 1000.
    pub hello_rate: u32,
    /// Hellos that are verified per second for one network (an IPv4 /24, an IPv6 /48; not private ones); as many may come
    /// at once. Networks share 1024 buckets by hash. Default: 250.
    pub hello_rate_per_prefix: u32,
    /// Hellos that are verified per second for one source; as many may come at once. Sources share 4096 buckets
    /// by hash. A peer that has a session at its address has an allowance of the same size for itself, beside all these,
    /// so that no flood keeps it from replacing the session. Default: 10.
    pub hello_rate_per_source: u32,
    /// Data packets per second that belong to no session and whose sources are told so, over all sources; one source is
    /// told 10 times a second at most. The answer is not longer than the packet. A peer that was told opens another
    /// session at once instead of after [`refresh_after`](Self::refresh_after). This is as well the number of such
    /// answers per second that this node looks at. 0: none, and sessions that a peer forgot are only found out by its
    /// silence. Default: 1000.
    pub hint_rate: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rekey_after: Duration::from_mins(2),
            rekey_after_messages: (1 << 31) - 1,
            reject_after: Duration::from_mins(3),
            refresh_after: Duration::from_secs(10),
            keep_alive: Duration::from_secs(15),
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

/// Whether a peer may have a session here.
type Allow = Box<dyn Fn(&PeerId) -> bool + Send + Sync>;

/// Who a node is, whom it speaks with, and its configuration: what all its channels share.
pub struct Local {
    pub(super) signer: Box<dyn Signer>,
    pub(super) registry: Registry,
    pub(super) fingerprint: Fingerprint,
    pub(super) config: Config,
    pub(super) allow: Option<Allow>,
    id: PeerId,
}

impl Local {
    /// A node with this key, the default registry and SHAKE256 as fingerprint, that speaks with everyone.
    ///
    /// # Errors
    /// The key's, if it does not load.
    pub fn new(key: &PrivateKey, config: Config) -> Result<Self, KeyError> {
        Self::with_registry(key, Registry::default(), config)
    }

    /// A node with this key and these algorithms.
    ///
    /// # Errors
    /// The key's, if it does not load.
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

    /// Uses another fingerprint. All nodes of a swarm need the same.
    #[must_use]
    pub fn fingerprint(mut self, fingerprint: Fingerprint) -> Self {
        self.fingerprint = fingerprint;
        self.id = fingerprint(self.signer.public_key());
        self
    }

    /// Speaks only with peers for which `allow` says yes. It is asked before any arithmetic is done for them.
    #[must_use]
    pub fn allow(mut self, allow: impl Fn(&PeerId) -> bool + Send + Sync + 'static) -> Self {
        self.allow = Some(Box::new(allow));
        self
    }

    /// This node's id.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// This node's public key.
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
