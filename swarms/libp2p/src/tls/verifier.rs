//! Verification of a peer's certificate in both directions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use multiaddr::PeerId;
use p2p_formats::x509::CertificateFields;
use p2p_swarms::quic::peer_tls::VerifyPeer;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{DigitallySignedStruct, OtherError, SignatureScheme};

use super::certificate::{self, CertificateError};

/// Accepts any peer with a valid certificate, or only the expected one.
#[derive(Debug)]
pub(super) struct Verifier {
    expected: Option<PeerId>,
    is_other: OtherPeerFlag,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Tells whether a handshake failed because another peer answered than the one that was dialled: QUIC passes on the text
/// of an error alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct OtherPeerFlag(Arc<AtomicBool>);

impl OtherPeerFlag {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Another peer answered than the one that was dialled.
#[derive(Debug, thiserror::Error)]
#[error("the peer is {found}, not {expected}")]
struct OtherPeer {
    found: PeerId,
    expected: PeerId,
}

impl Verifier {
    pub(super) fn new(
        expected: Option<PeerId>,
        is_other: OtherPeerFlag,
        crypto: &Arc<CryptoProvider>,
    ) -> Self {
        Self {
            expected,
            is_other,
            algorithms: crypto.signature_verification_algorithms,
        }
    }
}

impl VerifyPeer for Verifier {
    fn verify_certificate(
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
            Some(expected) if expected != found => {
                self.is_other.0.store(true, Relaxed);
                Err(refusal(OtherPeer { found, expected }))
            }
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

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn refusal(error: impl std::error::Error + Send + Sync + 'static) -> rustls::Error {
    rustls::CertificateError::Other(OtherError(Arc::new(error))).into()
}
