//! Two quinn endpoints, with the certificates of this crate checked on both sides.

use std::net::UdpSocket;
use std::sync::Arc;

use p2p_formats::x509::{Registry, certified_key, certify};
use p2p_swarms::quic::peer_tls::{PeerVerifier, VerifyPeer};
use p2p_swarms::quic::{MAX_UDP_DATAGRAM, mtu_discovery};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use crate::{key, loopback};

/// Requested kernel buffer size for each direction of a socket, in bytes: as on the other side.
const SOCKET_BUFFER: usize = 2 << 20;
/// Receive window of a stream, and unacknowledged bytes of a connection.
const WINDOW: u32 = 16 << 20;

/// A connection with both of its ends; the endpoints live as long as it does.
#[allow(dead_code, reason = "the bench of hosts does not use it")]
pub(crate) async fn connected() -> (Connection, Connection) {
    let mut transport = TransportConfig::default();
    // The same number as on the other side.
    transport.max_concurrent_uni_streams(256_u32.into());
    transport.max_concurrent_bidi_streams(256_u32.into());
    let config = EndpointConfig::default();
    connect(config, transport, || {
        UdpSocket::bind(loopback()).expect("a free port")
    })
    .await
}

/// How long datagrams are, where the path carries them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Datagrams {
    /// As quinn has it: those of Ethernet.
    Default,
    /// As on the other side.
    Long,
}

/// The same with the windows and socket buffers with which one stream is fastest.
pub(crate) async fn connected_for_bulk(datagrams: Datagrams) -> (Connection, Connection) {
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(WINDOW.into());
    transport.send_window(WINDOW.into());
    let mut config = EndpointConfig::default();
    if datagrams == Datagrams::Long {
        config.max_udp_payload_size(MAX_UDP_DATAGRAM).expect("a size");
        transport.mtu_discovery_config(Some(mtu_discovery()));
    }
    connect(config, transport, || {
        let socket = UdpSocket::bind(loopback()).expect("a free port");
        let buffers = socket2::SockRef::from(&socket);
        buffers.set_recv_buffer_size(SOCKET_BUFFER).expect("a size");
        buffers.set_send_buffer_size(SOCKET_BUFFER).expect("a size");
        socket
    })
    .await
}

async fn connect(
    config: EndpointConfig,
    transport: TransportConfig,
    socket: impl Fn() -> UdpSocket,
) -> (Connection, Connection) {
    let transport = Arc::new(transport);
    let [client, server] = [1, 2].map(|seed| endpoint(seed, config.clone(), &transport, socket()));
    let to = server.local_addr().expect("bound");
    let dial = async { client.connect(to, "p2p").expect("a valid address").await };
    let accept = async { server.accept().await.expect("open").await };
    let (dialled, accepted) = tokio::join!(dial, accept);
    (dialled.expect("a handshake"), accepted.expect("a handshake"))
}

fn endpoint(
    seed: u8,
    config: EndpointConfig,
    transport: &Arc<TransportConfig>,
    socket: UdpSocket,
) -> Endpoint {
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

    let server = QuicServerConfig::try_from(server).expect("a cipher for initial packets");
    let mut server = ServerConfig::with_crypto(Arc::new(server));
    server.transport_config(transport.clone());
    let client = QuicClientConfig::try_from(client).expect("a cipher for initial packets");
    let mut client = ClientConfig::new(Arc::new(client));
    client.transport_config(transport.clone());
    let endpoint = Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime));
    let mut endpoint = endpoint.expect("an endpoint");
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
