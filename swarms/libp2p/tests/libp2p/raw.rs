//! Peers that speak by hand, and so can break every rule.

use std::net::SocketAddr;
use std::sync::Arc;

use p2p_formats::x509::PrivateKey;
use p2p_libp2p::tls::certificate::generate;
use p2p_libp2p::{Host, HostAddr, Keypair};
use p2p_swarms::quic::peer_tls::{self, VerifyPeer};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// The header of multistream-select.
pub(crate) const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";

/// Application protocols over TCP and over QUIC.
const YAMUX: &[&[u8]] = &[b"/yamux/1.0.0"];
const QUIC: &[&[u8]] = &[b"libp2p"];

pub(crate) fn keypair(seed: u8) -> Keypair {
    Keypair::new(&PrivateKey::ed25519(&[seed; 32])).expect("an Ed25519 key")
}

/// Returns a message of multistream-select.
pub(crate) fn line(text: &str) -> Vec<u8> {
    let mut line = vec![u8::try_from(text.len() + 1).expect("a short text")];
    line.extend_from_slice(text.as_bytes());
    line.push(b'\n');
    line
}

/// Returns the socket address of a host.
pub(crate) fn at(host: &Host) -> SocketAddr {
    p2p::Addr::socket_addr(&host.local_addrs()[0]).expect("a socket address")
}

/// Accepts every peer.
#[derive(Debug)]
struct Any;

impl VerifyPeer for Any {
    fn verify_certificate(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<(), rustls::Error> {
        Ok(())
    }

    fn verify_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Shows no certificate.
#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// What a peer shows in a TLS handshake: certificates, and the key that signs the handshake.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Arc<dyn SigningKey>,
}

impl Shown {
    /// The certificate of a host that keeps the rules.
    pub(crate) fn of(seed: u8) -> Self {
        let (certificate, key) = generate(&keypair(seed)).expect("randomness");
        Self::new(vec![certificate], &key)
    }

    pub(crate) fn new(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'static>) -> Self {
        let key = any_supported_type(key).expect("a key");
        Self { chain, key }
    }

    fn certified(&self) -> Arc<SingleCertAndKey> {
        let certified = CertifiedKey::new(self.chain.clone(), self.key.clone());
        Arc::new(SingleCertAndKey::from(certified))
    }

    /// Without certificates, the peer shows none.
    fn client(&self, alpn: &[&[u8]]) -> ClientConfig {
        let crypto = Arc::new(peer_tls::crypto());
        let mut tls = peer_tls::client(self.certified(), Any, crypto, alpn).expect("a configuration");
        if self.chain.is_empty() {
            tls.client_auth_cert_resolver = Arc::new(NoCertificate);
        }
        tls
    }

    fn server(&self, alpn: &[&[u8]]) -> ServerConfig {
        let crypto = Arc::new(peer_tls::crypto());
        peer_tls::server(self.certified(), Any, crypto, alpn).expect("a configuration")
    }

    fn quic_server(&self) -> quinn::ServerConfig {
        let server = QuicServerConfig::try_from(self.server(QUIC)).expect("TLS 1.3");
        quinn::ServerConfig::with_crypto(Arc::new(server))
    }

    /// Dials a host over TCP with TLS, and agrees on yamux.
    pub(crate) async fn dial_tcp(&self, host: &Host) -> std::io::Result<client::TlsStream<TcpStream>> {
        let mut socket = TcpStream::connect(at(host)).await?;
        propose(&mut socket, "/tls/1.0.0").await?;
        let name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
        let connector = TlsConnector::from(Arc::new(self.client(YAMUX)));
        connector.connect(name, socket).await
    }

    /// Answers a dial over TCP with TLS, and agrees on yamux.
    pub(crate) async fn answer_tcp(
        &self,
        mut socket: TcpStream,
    ) -> std::io::Result<server::TlsStream<TcpStream>> {
        accept(&mut socket, "/tls/1.0.0").await?;
        TlsAcceptor::from(Arc::new(self.server(YAMUX)))
            .accept(socket)
            .await
    }

    /// An endpoint that dials and answers over QUIC.
    pub(crate) fn endpoint(&self) -> quinn::Endpoint {
        let mut endpoint = listening(self.quic_server());
        let client = QuicClientConfig::try_from(self.client(QUIC)).expect("TLS 1.3");
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(client)));
        endpoint
    }

    /// An endpoint that offers no datagrams in its transport parameters.
    pub(crate) fn endpoint_without_datagrams(&self) -> quinn::Endpoint {
        let mut server = self.quic_server();
        let mut transport = quinn::TransportConfig::default();
        transport.datagram_receive_buffer_size(None);
        server.transport_config(Arc::new(transport));
        listening(server)
    }

    /// Dials a host over QUIC.
    pub(crate) async fn dial_quic(&self, host: &Host) -> (quinn::Endpoint, quinn::Connection) {
        let endpoint = self.endpoint();
        let connecting = endpoint.connect(at(host), "libp2p").expect("it dials");
        let connection = connecting.await.expect("a connection");
        (endpoint, connection)
    }
}

fn listening(server: quinn::ServerConfig) -> quinn::Endpoint {
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    quinn::Endpoint::server(server, local).expect("a free port")
}

/// Accepts the next connection of a host.
pub(crate) async fn accept_connection(endpoint: &quinn::Endpoint) -> quinn::Connection {
    let incoming = endpoint.accept().await.expect("an open endpoint");
    incoming.await.expect("a connection")
}

/// Accepts a connection of a host, and never answers on its streams.
pub(crate) async fn keep_streams(endpoint: &quinn::Endpoint) {
    let peer = accept_connection(endpoint).await;
    let mut kept = Vec::new();
    while let Ok(stream) = peer.accept_bi().await {
        kept.push(stream);
    }
}

/// Returns the address of the peer with this seed at an endpoint.
pub(crate) fn place_of(seed: u8, endpoint: &quinn::Endpoint) -> HostAddr {
    HostAddr::new(keypair(seed).peer_id(), place(endpoint).place().clone())
}

/// Returns the address at which an endpoint answers.
pub(crate) fn place(endpoint: &quinn::Endpoint) -> HostAddr {
    let at = endpoint.local_addr().expect("a bound port");
    let place = format!("/ip4/{}/udp/{}/quic-v1", at.ip(), at.port());
    place.parse().expect("a valid address")
}

/// Proposes a protocol, which the peer must accept.
pub(crate) async fn propose(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    protocol: &str,
) -> std::io::Result<()> {
    let proposal = [HEADER, &line(protocol)].concat();
    io.write_all(&proposal).await?;
    io.flush().await?;
    let mut answer = vec![0; proposal.len()];
    io.read_exact(&mut answer).await?;
    assert_eq!(answer, proposal, "the protocol is accepted");
    Ok(())
}

/// Accepts a protocol, which the peer must propose first.
pub(crate) async fn accept(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    protocol: &str,
) -> std::io::Result<()> {
    let expected = [HEADER, &line(protocol)].concat();
    let mut proposal = vec![0; expected.len()];
    io.read_exact(&mut proposal).await?;
    assert_eq!(proposal, expected, "the protocol is proposed");
    io.write_all(&expected).await?;
    io.flush().await
}

/// Opens a QUIC stream for a protocol.
pub(crate) async fn open(
    connection: &quinn::Connection,
    protocol: &str,
) -> tokio::io::Join<quinn::RecvStream, quinn::SendStream> {
    let (send, recv) = connection.open_bi().await.expect("a stream");
    let mut stream = tokio::io::join(recv, send);
    propose(&mut stream, protocol).await.expect("an open stream");
    stream
}
