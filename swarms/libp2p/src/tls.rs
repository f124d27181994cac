//! TLS 1.3 with certificates that carry the peer's identity (libp2p specification, tls), for QUIC and for TCP.
//!
//! A host makes one certificate when it starts: a new ECDSA P-256 key, self-signed, with the extension in which
//! the host's identity signs that key. The encoding is that of `p2p-formats`; rustls and aws-lc-rs, which QUIC
//! needs anyway, do the rest, so no other X.509 crate is built.
//!
//! # Security
//! Provided: a peer that finished the handshake holds the private key of its peer id; the dialled peer is the
//! one that the address names; confidentiality, integrity and forward secrecy of TLS 1.3, against quantum
//! computers as well where both ends support X25519MLKEM768. Not provided: the dialler cannot know that the
//! listener accepted its certificate until the listener's first bytes arrive.

pub mod certificate;
mod verifier;

use std::fmt;
use std::sync::Arc;

use multiaddr::PeerId;
use p2p::{Error, Result};
use p2p_swarms::quic::peer_tls;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(crate) use self::verifier::OtherPeerFlag;
use self::verifier::Verifier;
use crate::config::Muxer;
use crate::key::{Keypair, PublicKey};

/// The application protocol of TLS without an early negotiated muxer, and of QUIC.
const ALPN: &[u8] = b"libp2p";

/// The certificate of a host, and the ciphers that it offers.
#[derive(Clone)]
pub(crate) struct TlsIdentity {
    certified: Arc<SingleCertAndKey>,
    crypto: Arc<CryptoProvider>,
    tcp_acceptor: TlsAcceptor,
    /// The application protocols over TCP, best first: a muxer, or its negotiation within.
    tcp_alpn: Vec<&'static [u8]>,
}

impl TlsIdentity {
    /// Makes a certificate for this key pair. Over TCP these muxers are offered, best first.
    pub(crate) fn new(keypair: &Keypair, muxers: &[Muxer]) -> Result<Self> {
        let (certificate, key) = certificate::generate(keypair)?;
        let key = provider::sign::any_ecdsa_type(&key).map_err(|error| invalid(&error))?;
        let certified = CertifiedKey::new(vec![certificate], key);
        let certified = Arc::new(SingleCertAndKey::from(certified));
        let crypto = Arc::new(peer_tls::crypto());
        let muxers = muxers.iter().map(|muxer| muxer.protocol().as_bytes());
        let tcp_alpn: Vec<_> = muxers.chain([ALPN]).collect();
        let tcp = server(&certified, &crypto, &tcp_alpn)?;
        Ok(Self {
            certified,
            crypto,
            tcp_acceptor: TlsAcceptor::from(Arc::new(tcp)),
            tcp_alpn,
        })
    }

    /// Returns the listener's side over TCP.
    pub(crate) fn tcp_acceptor(&self) -> &TlsAcceptor {
        &self.tcp_acceptor
    }

    /// Returns the dialler's side over TCP, which expects this peer, or accepts any.
    pub(crate) fn tcp_connector(
        &self,
        expected: Option<PeerId>,
        is_other: &OtherPeerFlag,
    ) -> Result<TlsConnector> {
        let config = self.client(expected, is_other, &self.tcp_alpn)?;
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// Returns the configuration of a dialler that expects this peer, or accepts any.
    fn client(
        &self,
        expected: Option<PeerId>,
        is_other: &OtherPeerFlag,
        alpn: &[&[u8]],
    ) -> Result<ClientConfig> {
        let verifier = Verifier::new(expected, is_other.clone(), &self.crypto);
        peer_tls::client(self.certified.clone(), verifier, self.crypto.clone(), alpn)
    }

    pub(crate) fn quic_server(&self) -> Result<QuicServerConfig> {
        QuicServerConfig::try_from(Arc::new(server(&self.certified, &self.crypto, &[ALPN])?))
            .map_err(|error| Error::invalid("TLS configuration", error.to_string()))
    }

    pub(crate) fn quic_client(
        &self,
        expected: Option<PeerId>,
        is_other: &OtherPeerFlag,
    ) -> Result<QuicClientConfig> {
        QuicClientConfig::try_from(Arc::new(self.client(expected, is_other, &[ALPN])?))
            .map_err(|error| Error::invalid("TLS configuration", error.to_string()))
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").finish_non_exhaustive()
    }
}

/// Returns the configuration of a listener that offers these application protocols, best first.
fn server(
    certified: &Arc<SingleCertAndKey>,
    crypto: &Arc<CryptoProvider>,
    alpn: &[&[u8]],
) -> Result<ServerConfig> {
    let verifier = Verifier::new(None, OtherPeerFlag::default(), crypto);
    peer_tls::server(certified.clone(), verifier, crypto.clone(), alpn)
}

fn invalid(error: &rustls::Error) -> Error {
    Error::invalid("TLS configuration", error.to_string())
}

/// Returns the key in the certificate of a peer whose handshake has finished.
pub(crate) fn peer_key(chain: &[CertificateDer<'_>]) -> Option<PublicKey> {
    // The verifier accepted it in the handshake.
    certificate::host_key(chain.first()?).ok()
}
