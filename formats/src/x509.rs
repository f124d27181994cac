//! Keys of any algorithm: parsed from files and packets, loaded by a registry, and hashed into ids.
//!
//! - [`PublicKey`] and [`PrivateKey`] are bytes with the object identifier of an algorithm. They parse for
//!   any algorithm, so that a key of a future algorithm can be stored, shown and forwarded.
//! - [`Registry`] loads them as a [`Signer`] and a [`Verifier`]. Its default has [`Ed25519`];
//!   [`Registry::with`] adds other algorithms. It checks the algorithm and all lengths before any public-key
//!   operation.
//! - [`certify`] and [`certified_key`] put a public key into a self-signed certificate for TLS, and extract
//!   it. [`CertificateFields`] and [`write_certificate`] are for certificates with extensions.
//! - A [`Fingerprint`] maps a public key to a [`PeerId`](p2p::PeerId): [`shake256`] for P2PKE, [`sha3_256`]
//!   for QUIC. So a key has two ids; a swarm can be configured with another fingerprint.
//!
//! # Encodings
//! A public key is a `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7; RFC 8410 for Ed25519). A private key is
//! PKCS#8 (RFC 5958), or the structure of a public key with the secret in the bit string, as the Go library
//! writes it; both are accepted, and [`PrivateKey::to_pem`] writes PKCS#8. Algorithm parameters and elements
//! after the known ones are ignored and dropped, so **the canonical encoding, which is hashed into ids, has
//! none**: the id of an RSA key is not the hash of the encoding that other programs write.
//!
//! # Limits
//! [`MAX_KEY_DER`] and [`MAX_CERTIFICATE_DER`]: longer inputs are refused without parsing.
//!
//! # Security
//! Required of the caller: seeds from a cryptographic source of randomness, and key files that others cannot
//! read. Provided: secrets are zeroized when dropped and never shown by `Debug`; keys and signatures of
//! invalid length are refused before an algorithm processes them. Not provided: certificate chains, validity
//! periods, revocation.

mod certificate;
mod der;
mod ed25519;
mod error;
mod extended;
mod fingerprint;
mod key;
mod registry;

pub use ::der::asn1::ObjectIdentifier;
pub use certificate::{CertificateError, MAX_CERTIFICATE_DER, certified_key, certify};
pub use ed25519::Ed25519;
pub use error::KeyError;
pub use extended::{
    CertificateExtension, CertificateFields, MAX_EXTENSIONS, read_octet_pair, write_certificate,
    write_octet_pair,
};
pub use fingerprint::{Fingerprint, sha3_256, shake256};
pub use key::{MAX_KEY_DER, PrivateKey, PublicKey};
pub use registry::{Algorithm, Registry, Signer, Verifier};
