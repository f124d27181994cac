//! The builder of a host.

use p2p::{Error, Result};
use p2p_formats::x509::PrivateKey;

use super::Host;
use super::shared::Shared;
use crate::addr::{HostAddr, Place, Target};
use crate::config::{HostConfig, Security};

/// Configures and starts a [`Host`].
#[derive(Debug)]
pub struct HostBuilder {
    private: PrivateKey,
    listen: Vec<Place>,
    config: HostConfig,
}

impl Host {
    /// Returns a builder of a host with this key, which must be Ed25519.
    pub fn builder(private: &PrivateKey) -> HostBuilder {
        HostBuilder {
            private: private.clone(),
            listen: Vec::new(),
            config: HostConfig::default(),
        }
    }
}

impl HostBuilder {
    /// Adds a place to listen at: `/ip4/0.0.0.0/udp/4001/quic-v1` or `/ip4/0.0.0.0/tcp/4001`; port 0 takes a free
    /// one. Without any, the host only dials.
    ///
    /// # Errors
    /// [`Error::InvalidAddr`] for any other address.
    pub fn listen(mut self, place: &str) -> Result<Self> {
        let addr: HostAddr = place.parse()?;
        let Some(at @ (Place::Quic(Target::Ip(_)) | Place::Tcp(Target::Ip(_)))) = addr.transport() else {
            let reason = "a host listens at /ip4 or /ip6, then /udp/PORT/quic-v1 or /tcp/PORT";
            return Err(Error::addr(place, 0, reason));
        };
        self.listen.push(at);
        Ok(self)
    }

    /// Replaces the limits and timeouts.
    #[must_use]
    pub fn config(mut self, config: HostConfig) -> Self {
        self.config = config;
        self
    }

    /// Replaces the secure channels over TCP, best first.
    #[must_use]
    pub fn security(mut self, security: &[Security]) -> Self {
        self.config.security = security.to_vec();
        self
    }

    /// Starts the host: it listens when this returns. Ping and identify are served.
    ///
    /// # Errors
    /// [`Error::Io`] if a socket cannot be bound, [`Error::Invalid`] for a key that is not Ed25519, for limits that
    /// cannot work, and outside of a tokio runtime.
    #[expect(clippy::unused_async, reason = "a transport may have to wait for its address")]
    pub async fn start(self) -> Result<Host> {
        self.config.check()?;
        let shared = Shared::new(&self.private, self.config)?;
        let host = Host::of(shared.clone());
        for place in self.listen {
            match place {
                Place::Quic(Target::Ip(addr)) => shared.listen_quic(addr)?,
                Place::Tcp(Target::Ip(addr)) => shared.listen_tcp(addr)?,
                Place::Quic(Target::Dns { .. }) | Place::Tcp(Target::Dns { .. }) => {}
            }
        }
        Ok(host)
    }
}
