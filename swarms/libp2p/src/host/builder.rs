//! The builder of a host.

use std::path::PathBuf;
use std::sync::Arc;

use p2p::{Addr, Error, Result, Swarm};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::quic::SwarmPort;

use super::Host;
use super::port::SwarmCarrier;
use super::shared::Shared;
use crate::addr::{HostAddr, Place, Target};
use crate::config::{HostConfig, Muxer, Security};

/// Addresses of a swarm below that are in use at the same time.
const MAX_ADDRS: usize = 4096;

/// Configures and starts a [`Host`].
#[derive(Debug)]
pub struct HostBuilder {
    private: PrivateKey,
    listen: Vec<Place>,
    swarms: Vec<Arc<dyn SwarmCarrier>>,
    config: HostConfig,
    peer_store: Option<PathBuf>,
}

impl Host {
    /// Returns a builder of a host with this key, which must be Ed25519.
    pub fn builder(private: &PrivateKey) -> HostBuilder {
        HostBuilder {
            private: private.clone(),
            listen: Vec::new(),
            swarms: Vec::new(),
            config: HostConfig::default(),
            peer_store: None,
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
        self.listen.push(place_to_listen(place)?);
        Ok(self)
    }

    /// Adds a swarm below, over which the host listens and dials with QUIC. The host closes it.
    ///
    /// ```
    /// use p2p_formats::x509::PrivateKey;
    /// use p2p_libp2p::Host;
    /// use p2p_swarms::MemoryRealm;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> p2p::Result<()> {
    /// let realm = MemoryRealm::default();
    /// let node = async |seed: u8| Host::builder(&PrivateKey::ed25519(&[seed; 32])).over(realm.open())?.start().await;
    /// let (alice, bob) = (node(1).await?, node(2).await?);
    /// let to = &bob.local_addrs()[0]; // /unix/1/quic-v1/p2p/ID
    /// println!("{:?} to {}", alice.pinger(to).await?.ping().await?, alice.identify(to).await?.agent);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] if the MTU of the swarm is below 1200 bytes, and outside of a tokio runtime.
    ///
    /// # Limits
    /// Up to 4096 addresses of the swarm are in use at the same time.
    pub fn over<A: Addr>(mut self, swarm: impl Swarm<A>) -> Result<Self> {
        self.swarms.push(Arc::new(SwarmPort::new(swarm, MAX_ADDRS)?));
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

    /// Keeps what is known of peers in this file: read when the host starts, if it exists, and replaced every minute and
    /// when the host is closed. Addresses lose the time that passes in between; those that the program named are not
    /// saved. Only the owner can read the file, which has at most 64 MiB.
    ///
    /// Two hosts must not share a file.
    #[must_use]
    pub fn peer_store(mut self, path: impl Into<PathBuf>) -> Self {
        self.peer_store = Some(path.into());
        self
    }

    /// Replaces the muxers over TCP, best first.
    #[must_use]
    pub fn muxers(mut self, muxers: &[Muxer]) -> Self {
        self.config.muxers = muxers.to_vec();
        self
    }

    /// Starts the host: it listens when this returns. Ping and identify are served.
    ///
    /// # Errors
    /// [`Error::Io`] if a socket cannot be bound, [`Error::Invalid`] for a key that is not Ed25519, for limits that
    /// cannot work, for a peer store that is not one, and outside of a tokio runtime.
    pub async fn start(self) -> Result<Host> {
        self.config.check()?;
        let shared = Shared::new(&self.private, self.config)?;
        let host = Host::of(shared.clone());
        shared.keep_time();
        if let Some(path) = self.peer_store {
            shared.keep_peers(path).await?;
        }
        for place in self.listen {
            match place {
                Place::Quic(Target::Ip(addr)) => shared.listen_quic(addr)?,
                Place::Tcp(Target::Ip(addr)) => shared.listen_tcp(addr)?,
                // No other place was taken.
                Place::Quic(_) | Place::Tcp(_) => {}
            }
        }
        for swarm in self.swarms {
            shared.listen_swarm(swarm)?;
        }
        Ok(host)
    }
}

/// Parses a place at which a host can listen.
pub(crate) fn place_to_listen(place: &str) -> Result<Place> {
    let addr: HostAddr = place.parse()?;
    let Some(at @ (Place::Quic(Target::Ip(_)) | Place::Tcp(Target::Ip(_)))) = addr.transport() else {
        let reason = "a host listens at /ip4 or /ip6, then /udp/PORT/quic-v1 or /tcp/PORT";
        return Err(Error::addr(place, 0, reason));
    };
    Ok(at)
}
