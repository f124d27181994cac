//! Configuration of a P2PKE node: permitted peers and limits.

use std::fmt;
use std::sync::Arc;

use p2p::{Error, PeerId, Result};
use p2p_formats::x509::{Fingerprint, PrivateKey, Registry, shake256};
use p2p_protocols::p2pke::{Config, Local};

use crate::allowed_peers::Allow;
use crate::inbox::Limits;

/// Limits of a [`P2pkeSwarm`](super::P2pkeSwarm).
///
/// Peers can make a node hold at most ([`channels`](Config::channels) + [`half_open`](Config::half_open)) × 4
/// KiB. Of these, [`half_open`](Config::half_open) may have
/// [`half_open_per_channel`](Config::half_open_per_channel) handshakes of 4 KiB each. Queued
/// [`messages`](Self::messages) come in addition.
#[derive(Clone)]
pub struct P2pkeConfig {
    /// Limits of channels and handshakes, and their timeouts.
    pub engine: Config,
    /// Decides which peers may have a session. Hellos of other peers are dropped, and telling them fails with
    /// [`Error::Denied`].
    ///
    /// The callback is called for each hello, outside of all locks, so it may call the swarm. Default: every
    /// peer. [`P2pkeSwarm::disconnect`](super::P2pkeSwarm::disconnect) ends existing sessions.
    pub allow: Option<Allow>,
    /// Derives a [`PeerId`] from a key; all nodes of a swarm must use the same function. Default: SHAKE256.
    pub fingerprint: Fingerprint,
    /// Key algorithms. Default: Ed25519.
    pub registry: Registry,
    /// Messages that wait for a reader; at the limit one of the peer or network with the most is dropped and counted.
    /// Default: 1024 messages, 4 MiB, payloads under 256 bytes are copied.
    pub messages: Limits,
    /// Maximum number of packets that are received from below at a time. As many may wait, in addition to
    /// [`messages`](Self::messages), for a reader that took some of them. A smaller number costs more calls.
    /// Default: 64.
    pub batch: usize,
}

impl Default for P2pkeConfig {
    fn default() -> Self {
        Self {
            engine: Config::default(),
            allow: None,
            fingerprint: shake256,
            registry: Registry::default(),
            messages: Limits::default(),
            batch: 64,
        }
    }
}

impl P2pkeConfig {
    /// Allows sessions with the peers for which `allow` returns true, and no others.
    #[must_use]
    pub fn allow(mut self, allow: impl Fn(&PeerId) -> bool + Send + Sync + 'static) -> Self {
        self.allow = Some(Arc::new(allow));
        self
    }

    /// Creates the identity that the engine uses.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] for values that cannot work, and for a key that cannot be loaded.
    pub(super) fn local(&self, key: &PrivateKey) -> Result<Local> {
        let fail = |reason: &str| Err(Error::invalid("P2PKE configuration", reason));
        let engine = &self.engine;
        if engine.channels == 0 || engine.half_open == 0 || engine.half_open_per_channel == 0 {
            return fail("channels, half_open and half_open_per_channel must be at least 1");
        }
        if self.batch == 0 {
            return fail("batch must be at least 1");
        }
        if engine.rekey_after_silence >= engine.max_silence || engine.rekey_after >= engine.reject_after {
            return fail(
                "rekey_after_silence must be less than max_silence, and rekey_after less than reject_after",
            );
        }
        if engine.outbound_percent > 100 {
            return fail("outbound_percent must be at most 100");
        }
        let local = Local::with_registry(key, self.registry.clone(), engine.clone())
            .map_err(|error| Error::invalid("private key", error.to_string()))?
            .fingerprint(self.fingerprint);
        // The driver calls `allow` itself, outside of the engine's lock.
        Ok(local)
    }
}

impl fmt::Debug for P2pkeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("P2pkeConfig")
            .field("engine", &self.engine)
            .field("messages", &self.messages)
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}
