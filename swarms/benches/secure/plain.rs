//! Two quinn endpoints, with the certificates of this crate checked on both sides.

use std::sync::Arc;

use p2p_formats::x509::{Registry, certified_key, certify};
use p2p_swarms::quic::peer_tls::{PeerVerifier, VerifyPeer};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use crate::{key, loopback};

/// A connection with both of its ends; the endpoints live as long as it does.
pub(crate) async fn connected() -> (Connection, Connection) {
    let [client, server] = [1, 2].map(endpoint);
    let to = server.local_addr().expect("bound");
    let dial = async { client.connect(to, "p2p").expect("a valid address").await };
    let accept = async { server.accept().await.expect("open").await };
    let (dialled, accepted) = tokio::join!(dial, accept);
    (dialled.expect("a handshake"), accepted.expect("a handshake"))
}

fn endpoint(seed: u8) -> Endpoint {
    use aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let crypto = Arc::new(CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    });
    let signer = Registry::default().signer(&key(seed)).expect("a good key");
    let certificate = CertificateDer::from(certify(&*signer));
    let secret = || PrivatePkcs8KeyDer::from(key(seed).to_pkcs8().to_vec()).into();
    let versions = &[&rustls::version::TLS13];
    let server = rustls::ServerConfig::builder_with_provider(crypto.clone());
    let mut server = server
        .with_protocol_versions(versions)
        .expect("a version")
        .with_client_cert_verifier(Arc::new(PeerVerifier(SelfSigned)))
        .with_single_cert(vec![certificate.clone()], secret())
        .expect("a good key");
    let client = rustls::ClientConfig::builder_with_provider(crypto);
    let mut client = client
        .with_protocol_versions(versions)
        .expect("a version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier(SelfSigned)))
        .with_client_auth_cert(vec![certificate], secret())
        .expect("a good key");
    server.alpn_protocols = vec![b"p2p".to_vec()];
    client.alpn_protocols = vec![b"p2p".to_vec()];

    let mut transport = TransportConfig::default();
    // The same number as on the other side.
    transport.max_concurrent_uni_streams(256_u32.into());
    transport.max_concurrent_bidi_streams(256_u32.into());
    let transport = Arc::new(transport);
    let server = QuicServerConfig::try_from(server).expect("a cipher for initial packets");
    let mut server = ServerConfig::with_crypto(Arc::new(server));
    server.transport_config(transport.clone());
    let client = QuicClientConfig::try_from(client).expect("a cipher for initial packets");
    let mut client = ClientConfig::new(Arc::new(client));
    client.transport_config(transport);
    let mut endpoint = Endpoint::server(server, loopback()).expect("a free port");
    endpoint.set_default_client_config(client);
    endpoint
}

/// Checks that a certificate is signed by its own key, and the handshake by the same key.
#[derive(Debug)]
struct SelfSigned;

impl VerifyPeer for SelfSigned {
    fn verify_certificate(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<(), Error> {
        let key = certified_key(certificate, &Registry::default());
        key.map(drop).map_err(|_| CertificateError::BadEncoding.into())
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let bad = |_| Error::InvalidCertificate(CertificateError::BadSignature);
        let registry = Registry::default();
        let key = certified_key(certificate, &registry).map_err(|_| CertificateError::BadEncoding)?;
        let verifier = registry.verifier(&key).map_err(bad)?;
        verifier.verify(message, signed.signature()).map_err(bad)?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
