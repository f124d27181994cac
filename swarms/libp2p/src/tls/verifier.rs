//! Verification of a peer's certificate in both directions.

use std::sync::Arc;

use multiaddr::PeerId;
use p2p_formats::x509::CertificateFields;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};

use super::certificate::{self, CertificateError};

/// Accepts any peer with a valid certificate, or only the expected one.
#[derive(Debug)]
pub(super) struct Verifier {
    expected: Option<PeerId>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Another peer answered than the one that was dialled.
#[derive(Debug, thiserror::Error)]
#[error("the peer is {found}, not {expected}")]
struct OtherPeer {
    found: PeerId,
    expected: PeerId,
}

impl Verifier {
    pub(super) fn new(expected: Option<PeerId>, crypto: &Arc<CryptoProvider>) -> Self {
        Self {
            expected,
            algorithms: crypto.signature_verification_algorithms,
        }
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        if !others.is_empty() {
            return Err(refusal(CertificateError::Count(1 + others.len())));
        }
        let now = std::time::Duration::from_secs(now.as_secs());
        let key = certificate::verify(certificate, now, &self.algorithms).map_err(refusal)?;
        let found = key.peer_id();
        match self.expected {
            Some(expected) if expected != found => Err(refusal(OtherPeer { found, expected })),
            _ => Ok(()),
        }
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let fields = CertificateFields::parse(certificate).map_err(refusal)?;
        let key = SubjectPublicKeyInfoDer::from(fields.key);
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }
}

fn refusal(error: impl std::error::Error + Send + Sync + 'static) -> rustls::Error {
    rustls::CertificateError::Other(OtherError(Arc::new(error))).into()
}

fn tls12() -> rustls::Error {
    rustls::Error::General("libp2p uses TLS 1.3 only".into())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
