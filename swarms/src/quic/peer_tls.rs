//! TLS 1.3 between peers whose certificates prove a key, without names and authorities: the configurations of both
//! ends, and rustls's verifiers from one [`VerifyPeer`]. For QUIC of this crate, and for protocols beside it.
//!
//! # Security
//! Both ends show a certificate. There are no tickets, no resumption, no 0-RTT data and no server name. What a
//! certificate proves is decided by [`VerifyPeer`].

use std::fmt;
use std::sync::Arc;

use p2p::{Error, Result};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

/// Returns the cipher suites of both ends: AES-128 first, the fastest with AES instructions.
pub fn crypto() -> CryptoProvider {
    use provider::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..provider::default_provider()
    }
}

/// Returns the configuration of an end that is dialled, with application protocols (ALPN), best first.
///
/// # Errors
/// Returns [`Error::Invalid`] if `crypto` does not support TLS 1.3.
pub fn server(
    certified: Arc<SingleCertAndKey>,
    verify: impl VerifyPeer,
    crypto: Arc<CryptoProvider>,
    alpn: &[&[u8]],
) -> Result<ServerConfig> {
    let mut tls = ServerConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| invalid(&error))?
        .with_client_cert_verifier(Arc::new(PeerVerifier(verify)))
        .with_cert_resolver(certified);
    tls.alpn_protocols = alpn.iter().map(|id| id.to_vec()).collect();
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(tls)
}

/// Returns the configuration of an end that dials, with application protocols (ALPN), best first.
///
/// # Errors
/// Returns [`Error::Invalid`] if `crypto` does not support TLS 1.3.
pub fn client(
    certified: Arc<SingleCertAndKey>,
    verify: impl VerifyPeer,
    crypto: Arc<CryptoProvider>,
    alpn: &[&[u8]],
) -> Result<ClientConfig> {
    let mut tls = ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| invalid(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier(verify)))
        .with_client_cert_resolver(certified);
    tls.alpn_protocols = alpn.iter().map(|id| id.to_vec()).collect();
    tls.enable_sni = false;
    tls.resumption = Resumption::disabled();
    Ok(tls)
}

/// Converts an error of rustls that concerns a configuration.
pub(super) fn invalid(error: &impl fmt::Display) -> Error {
    Error::invalid("TLS configuration", error.to_string())
}

/// Verifies a peer, on either end of a handshake.
pub trait VerifyPeer: fmt::Debug + Send + Sync + 'static {
    /// Verifies the first certificate of a peer, which sent `others` as well.
    ///
    /// # Errors
    /// Returns the reason for refusing the peer, which receives it as an alert.
    fn verify_certificate(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error>;

    /// Verifies the peer's signature of the handshake with the key of its certificate.
    ///
    /// # Errors
    /// Returns the reason for refusing the peer.
    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error>;

    /// Returns the signature schemes that [`verify_signature`](Self::verify_signature) knows.
    fn schemes(&self) -> Vec<SignatureScheme>;
}

/// rustls's verifiers of servers and of clients, by one [`VerifyPeer`].
#[derive(Debug)]
pub struct PeerVerifier<V>(pub V);

/// The methods that both traits have.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(rustls::Error::General("peers use TLS 1.3 only".into()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.0.verify_signature(message, certificate, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.schemes()
        }
    };
}

impl<V: VerifyPeer> ServerCertVerifier for PeerVerifier<V> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.0.verify_certificate(end_entity, intermediates, now);
        verified.map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}

impl<V: VerifyPeer> ClientCertVerifier for PeerVerifier<V> {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.0.verify_certificate(end_entity, intermediates, now);
        verified.map(|()| ClientCertVerified::assertion())
    }

    signatures!();
}
