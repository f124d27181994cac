//! Verification of a peer's certificate, in both directions.

use std::fmt;
use std::sync::{Arc, OnceLock};

use p2p::PeerId;
use p2p_formats::x509::{Ed25519, PublicKey, certified_key};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};

use super::SCHEME;
use crate::allowed_peers::Permits as _;
use crate::quic::QuicConfig;
use crate::quic::peer_tls::VerifyPeer;

/// Accepts the peers that the configuration allows, or only the expected one of these.
pub(in crate::quic) struct Check {
    config: Arc<QuicConfig>,
    expected: Option<PeerId>,
    refusal: Arc<OnceLock<String>>,
}

/// Why a peer was refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Certificate(#[from] p2p_formats::x509::CertificateError),
    #[error("TLS signatures use Ed25519 only")]
    Algorithm,
    #[error("the peer has another identity: {0}")]
    Other(PeerId),
    #[error("{0} is not allowed by this node")]
    Denied(PeerId),
}

impl Check {
    /// Returns the check for inbound dials.
    pub(in crate::quic) fn any(config: Arc<QuicConfig>) -> Self {
        Self {
            config,
            expected: None,
            refusal: Arc::default(),
        }
    }

    /// Returns the check for a dialled peer.
    pub(in crate::quic) fn only(id: PeerId, config: Arc<QuicConfig>) -> Self {
        Self {
            expected: Some(id),
            ..Self::any(config)
        }
    }

    /// Returns the slot that receives the reason if a dialled peer is refused.
    pub(in crate::quic) fn refusal(&self) -> Arc<OnceLock<String>> {
        self.refusal.clone()
    }

    fn key(&self, certificate: &CertificateDer<'_>) -> Result<PublicKey, Refusal> {
        let key = certified_key(certificate, &self.config.registry)?;
        if key.algorithm() == Ed25519::OID {
            Ok(key)
        } else {
            Err(Refusal::Algorithm)
        }
    }

    fn admit(&self, certificate: &CertificateDer<'_>) -> Result<(), Refusal> {
        let id = (self.config.fingerprint)(&self.key(certificate)?);
        if self.expected.is_some_and(|expected| expected != id) {
            return Err(Refusal::Other(id));
        }
        if !self.config.allow.permits(&id) {
            return Err(Refusal::Denied(id));
        }
        Ok(())
    }
}

impl VerifyPeer for Check {
    fn verify_certificate(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<(), rustls::Error> {
        self.admit(certificate).map_err(|refusal| {
            if self.expected.is_some() {
                let _ = self.refusal.set(refusal.to_string());
            }
            match refusal {
                // The peer receives the alert "access denied".
                Refusal::Denied(_) => CertificateError::ApplicationVerificationFailure.into(),
                other => CertificateError::Other(OtherError(Arc::new(other))).into(),
            }
        })
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let bad = || rustls::Error::from(CertificateError::BadSignature);
        if signed.scheme != SCHEME {
            return Err(bad());
        }
        let key = self.key(certificate).map_err(|_| bad())?;
        let verifier = self.config.registry.verifier(&key).map_err(|_| bad())?;
        verifier.verify(message, signed.signature()).map_err(|_| bad())?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        vec![SCHEME]
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}
