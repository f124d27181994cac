//! The upgrade of a TCP connection: security is negotiated, its handshake performed, and the muxer negotiated
//! within, unless the handshake chose it already (libp2p specification, connections).

use std::sync::Arc;

use p2p::Result;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsStream;

use crate::config::{Muxer, Security};
use crate::connection::{Acceptor, Opener};
use crate::key::{Keypair, PublicKey};
use crate::mplex::Mplex;
use crate::muxer::{self, Io};
use crate::negotiate::{NegotiateError, Negotiated};
use crate::noise::{self, NoiseError, NoiseKey, Role};
use crate::tls::{OtherPeerFlag, TlsIdentity, peer_key};

/// The reason for which a connection could not be upgraded. It is of no further use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// The negotiation of security or of the muxer failed.
    #[error("{what}: {source}")]
    Negotiation {
        /// What was negotiated.
        what: &'static str,
        /// The reason.
        source: NegotiateError,
    },
    /// The Noise handshake failed.
    #[error(transparent)]
    Noise(#[from] NoiseError),
    /// The TLS handshake failed.
    #[error("the TLS handshake failed: {error}")]
    Tls {
        error: std::io::Error,
        /// Whether another peer answered than the one that was dialled.
        is_other_peer: bool,
    },
    /// The TLS configuration is invalid.
    #[error(transparent)]
    Config(#[from] p2p::Error),
    /// The peer of a finished handshake has no key.
    #[error("the peer has no certificate")]
    NoKey,
}

impl UpgradeError {
    /// Returns whether another peer answered than the one that was dialled.
    pub(crate) fn is_other_peer(&self) -> bool {
        match self {
            Self::Noise(error) => matches!(error, NoiseError::OtherPeer(_)),
            Self::Tls { is_other_peer, .. } => *is_other_peer,
            Self::Negotiation { .. } | Self::Config(_) | Self::NoKey => false,
        }
    }
}

/// What a host needs for upgrades.
#[derive(Debug)]
pub(crate) struct Upgrader {
    pub(crate) keypair: Arc<Keypair>,
    pub(crate) noise: NoiseKey,
    pub(crate) tls: TlsIdentity,
    /// The secure channels that are offered, best first.
    pub(crate) security: Vec<Security>,
    /// The muxers that are offered, best first.
    pub(crate) muxers: Vec<Muxer>,
}

/// An upgraded connection.
pub(crate) struct Upgraded {
    pub(crate) key: PublicKey,
    pub(crate) security: Security,
    pub(crate) muxer: Muxer,
    pub(crate) ends: (Opener, Acceptor),
}

impl Upgrader {
    pub(crate) async fn upgrade<S>(&self, socket: S, role: Role) -> Result<Upgraded, UpgradeError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let failed = |source| UpgradeError::Negotiation {
            what: "negotiating the secure channel",
            source,
        };
        let mut plain = Negotiated::new(socket);
        let offered: Vec<_> = self.security.iter().map(|security| security.protocol()).collect();
        let chosen = match role {
            Role::Dialler(_) => plain.dial(&offered).await,
            Role::Listener => {
                let accept = |proposal: &str| offered.iter().position(|offered| *offered == proposal);
                plain.listen(accept).await
            }
        };
        let chosen = chosen.map_err(failed)?;
        let security = self.security.get(chosen).copied().unwrap_or(Security::Noise);
        let muxers: Vec<_> = self.muxers.iter().map(|muxer| muxer.protocol()).collect();
        let (io, key, muxer): (Io, _, _) = match security {
            Security::Noise => {
                let (stream, key, muxer) =
                    noise::handshake(plain, role, &self.keypair, &self.noise, &muxers).await?;
                (Box::new(stream), key, muxer)
            }
            Security::Tls => {
                let stream = self.tls(plain, role).await?;
                let session = stream.get_ref().1;
                let key = session.peer_certificates().and_then(peer_key);
                let key = key.ok_or(UpgradeError::NoKey)?;
                // `libp2p` is none of the muxers.
                let muxer = session.alpn_protocol();
                let muxer = muxer.map(|alpn| String::from_utf8_lossy(alpn).into_owned());
                (Box::new(stream), key, muxer)
            }
        };
        let chosen = muxer.and_then(|chosen| self.muxers.iter().find(|muxer| muxer.protocol() == chosen));
        let (io, muxer) = match chosen {
            Some(muxer) => (io, *muxer),
            None => self.negotiate_muxer(io, &muxers, role).await?,
        };
        let ends = match muxer {
            Muxer::Yamux => {
                let (muxer, handle) = muxer::Muxer::new(io, role != Role::Listener);
                (Opener::Yamux(handle), Acceptor::Yamux(Box::new(muxer)))
            }
            Muxer::Mplex => {
                let (mplex, handle) = Mplex::over(io);
                (Opener::Mplex(handle), Acceptor::Mplex(Box::new(mplex)))
            }
        };
        Ok(Upgraded {
            key,
            security,
            muxer,
            ends,
        })
    }

    async fn tls<S>(&self, plain: Negotiated<S>, role: Role) -> Result<TlsStream<Negotiated<S>>, UpgradeError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Ok(match role {
            Role::Dialler(expected) => {
                // The name is not sent, since the configuration disables it.
                let name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
                let is_other = OtherPeerFlag::default();
                let connector = self.tls.tcp_connector(expected, &is_other)?;
                let connected = connector.connect(name, plain).await;
                let failed = |error| UpgradeError::Tls {
                    error,
                    is_other_peer: is_other.is_set(),
                };
                connected.map_err(failed)?.into()
            }
            Role::Listener => {
                let accepted = self.tls.tcp_acceptor().accept(plain).await;
                let failed = |error| UpgradeError::Tls {
                    error,
                    is_other_peer: false,
                };
                accepted.map_err(failed)?.into()
            }
        })
    }

    /// Negotiates a muxer within the secure channel.
    async fn negotiate_muxer(
        &self,
        io: Io,
        offered: &[&str],
        role: Role,
    ) -> Result<(Io, Muxer), UpgradeError> {
        let mut secure = Negotiated::new(io);
        let negotiated = match role {
            Role::Dialler(_) => secure.dial(offered).await,
            Role::Listener => {
                let accept = |proposal: &str| offered.iter().position(|offered| *offered == proposal);
                secure.listen(accept).await
            }
        };
        let failed = |source| UpgradeError::Negotiation {
            what: "negotiating the muxer",
            source,
        };
        let chosen = negotiated.map_err(failed)?;
        let muxer = self.muxers.get(chosen).copied().unwrap_or(Muxer::Yamux);
        Ok((Box::new(secure), muxer))
    }
}
