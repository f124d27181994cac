//! A certificate is public: a peer that presents another's must also sign the handshake with its key.

use std::sync::Arc;

use p2p::{DropReason, Packet, Swarm as _};
use p2p_formats::x509::{Signer, certify};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::{Raw, addr, dropped, eventually, key, udp};
use crate::quic::QuicConfig;
use crate::quic::peer_tls::PeerVerifier;
use crate::quic::tls::{self, Check};

/// Signs handshakes with a key that is not the certificate's.
#[derive(Clone, Debug)]
struct OtherKey(Arc<dyn Signer>);

impl SigningKey for OtherKey {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn rustls::sign::Signer>> {
        Some(Box::new(self.clone()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl rustls::sign::Signer for OtherKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.0.sign(message))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Returns the certificate of the node with the key `victim`, and the key `own`.
fn stolen(victim: u8, own: u8) -> Arc<SingleCertAndKey> {
    let registry = QuicConfig::default().registry;
    let [victim, own] = [victim, own].map(|seed| registry.signer(&key(seed)).expect("a good key"));
    let chain = vec![CertificateDer::from(certify(&*victim))];
    Arc::new(CertifiedKey::new(chain, Arc::new(OtherKey(own.into()))).into())
}

#[tokio::test]
async fn a_dial_with_the_certificate_of_another_peer_gets_no_session_without_its_key() {
    let swarm = udp(1, QuicConfig::default());
    let raw = Raw::new(9);
    for (victim, own, is_served) in [(2, 3, false), (3, 3, true)] {
        let check = Check::any(Arc::new(QuicConfig::default()));
        let mut client = rustls::ClientConfig::builder_with_provider(Arc::new(tls::crypto()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("a configuration")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PeerVerifier(check)))
            .with_client_cert_resolver(stolen(victim, own));
        client.alpn_protocols = vec![b"p2p".to_vec()];
        let client = QuicClientConfig::try_from(client).expect("a configuration");
        let client = quinn::ClientConfig::new(Arc::new(client));
        let dialling = raw
            .0
            .connect_with(client, addr(&swarm).addr, "p2p")
            .expect("it dials");
        // A client of TLS 1.3 learns only later that its certificate was refused.
        let connection = dialling.await.expect("the server proves its key");
        if is_served {
            eventually("it has a session", || swarm.sessions() == 1).await;
        } else {
            connection.closed().await;
            assert_eq!(dropped(&swarm, "quic-handshake", DropReason::Unauthenticated), 1);
            assert_eq!(swarm.sessions(), 0);
        }
    }
}

#[tokio::test]
async fn a_node_with_the_certificate_of_the_dialled_peer_gets_no_message_without_its_key() {
    for (victim, own, is_served) in [(2, 3, false), (2, 2, true)] {
        let raw = Raw::new(9);
        let check = Check::any(Arc::new(QuicConfig::default()));
        let mut server = rustls::ServerConfig::builder_with_provider(Arc::new(tls::crypto()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("a configuration")
            .with_client_cert_verifier(Arc::new(PeerVerifier(check)))
            .with_cert_resolver(stolen(victim, own));
        server.alpn_protocols = vec![b"p2p".to_vec()];
        let server = QuicServerConfig::try_from(server).expect("a configuration");
        raw.0
            .set_server_config(Some(quinn::ServerConfig::with_crypto(Arc::new(server))));
        let swarm = udp(1, QuicConfig::default());
        let to = raw.addr(victim);
        let accepting = async { raw.0.accept().await.expect("open").await };
        let (told, accepted) = tokio::join!(swarm.tell(&to, Packet::from(b"secret")), accepting);
        assert_eq!(told.is_ok(), is_served, "{told:?}");
        assert_eq!(accepted.is_ok(), is_served, "{accepted:?}");
        assert_eq!(swarm.sessions(), usize::from(is_served));
    }
}
