//! Authentication: TLS 1.3 with self-signed certificates on both sides, each bound to a [`PeerId`].
//!
//! A certificate proves only its key. Checks cover its size, structure, algorithm and self-signature, then
//! the peer's signature of the handshake with the key, and that the key is the dialled one and allowed.

use std::sync::Arc;

use aws_lc_rs::hmac;
use p2p::{Error, PeerId, Result};
use p2p_formats::x509::{Ed25519, PrivateKey, PublicKey, Signer, certified_key, certify};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

pub(super) use self::check::Check;
use super::QuicConfig;
pub(super) use super::peer_tls::crypto;
use super::peer_tls::{self, invalid};

mod check;

const ALPN: &[u8] = b"p2p";
const SCHEME: SignatureScheme = SignatureScheme::ED25519;

/// This node's key, with what TLS derives from it.
pub(super) struct Identity {
    pub(super) id: PeerId,
    pub(super) key: PublicKey,
    certified: Arc<SingleCertAndKey>,
    /// The key for stateless reset tokens: after a restart with the same private key the tokens are the same.
    pub(super) reset: hmac::Key,
}

impl Identity {
    pub(super) fn new(private: &PrivateKey, config: &QuicConfig) -> Result<Self> {
        if private.algorithm() != Ed25519::OID {
            return Err(Error::invalid("key", "TLS signatures use Ed25519 only"));
        }
        let signer: Arc<dyn Signer> = config.registry.signer(private)?.into();
        let key = signer.public_key().clone();
        let chain = vec![CertificateDer::from(certify(&*signer))];
        let certified = CertifiedKey::new(chain, Arc::new(TlsKey(signer)));
        let secret = hmac::Key::new(hmac::HMAC_SHA256, private.secret());
        let reset = hmac::sign(&secret, b"p2p stateless reset of QUIC connections");
        Ok(Self {
            id: (config.fingerprint)(&key),
            key,
            certified: Arc::new(SingleCertAndKey::from(certified)),
            reset: hmac::Key::new(hmac::HMAC_SHA256, reset.as_ref()),
        })
    }
}

/// Returns the TLS configuration for inbound dials.
pub(super) fn server(
    identity: &Identity,
    check: Check,
    crypto: Arc<CryptoProvider>,
) -> Result<QuicServerConfig> {
    let tls = peer_tls::server(identity.certified.clone(), check, crypto, &[ALPN])?;
    QuicServerConfig::try_from(Arc::new(tls)).map_err(|error| invalid(&error))
}

/// Returns the TLS configuration for outbound dials.
pub(super) fn client(
    identity: &Identity,
    check: Check,
    crypto: Arc<CryptoProvider>,
) -> Result<QuicClientConfig> {
    let tls = peer_tls::client(identity.certified.clone(), check, crypto, &[ALPN])?;
    QuicClientConfig::try_from(Arc::new(tls)).map_err(|error| invalid(&error))
}

/// Returns the key that the peer proved, and its identity.
pub(super) fn peer(connection: &quinn::Connection, config: &QuicConfig) -> Option<(PublicKey, PeerId)> {
    let chain = connection.peer_identity()?;
    let chain = chain.downcast_ref::<Vec<CertificateDer<'_>>>()?;
    let key = certified_key(chain.first()?, &config.registry).ok()?;
    let id = (config.fingerprint)(&key);
    Some((key, id))
}

#[derive(Debug)]
struct TlsKey(Arc<dyn Signer>);

impl SigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn rustls::sign::Signer>> {
        offered
            .contains(&SCHEME)
            .then(|| Box::new(TlsKey(self.0.clone())) as Box<dyn rustls::sign::Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl rustls::sign::Signer for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.0.sign(message))
    }

    fn scheme(&self) -> SignatureScheme {
        SCHEME
    }
}
