//! Keys named by the algorithm they are for: read from files and packets, loaded by a registry, hashed into ids.
//!
//! - [`PublicKey`] and [`PrivateKey`] are bytes with an algorithm's object identifier. They parse whatever
//!   the algorithm is, so that a key of a future algorithm can be stored, shown and passed on.
//! - [`Registry`] turns them into a [`Signer`] and a [`Verifier`]. [`Ed25519`] is in it from the start;
//!   [`Registry::with`] adds others. Algorithm and sizes are checked here, before any arithmetic.
//! - [`certify`] and [`certified_key`] put a public key into a self-signed certificate, as TLS wants it, and take it out.
//! - A [`Fingerprint`] makes a public key into a [`PeerId`](p2p::PeerId): [`shake256`] for P2PKE, [`sha3_256`]
//!   for QUIC. One key has two ids, and a swarm takes any other fingerprint in their place.
//!
//! # Encodings
//! A public key is a `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7; RFC 8410 for Ed25519). A private key is
//! PKCS#8 (RFC 5958), or the same shape as a public key with the secret in the bit string, as the Go library
//! writes it; both are read, and PKCS#8 is what [`PrivateKey::to_pem`] writes. Algorithm parameters and
//! elements behind the known ones are read over and dropped, so **the canonical encoding, of which ids are
//! made, has none**: an RSA key's id is not the hash of the encoding that other programs write.
//!
//! # Security
//! Required of the caller: seeds from a good source of randomness, and files that others cannot read.
//! Provided: secrets are wiped when dropped and never shown by `Debug`; keys and signatures of a wrong size
//! are refused before an algorithm sees them. Not provided: certificates' chains, validity periods, revocation.

mod certificate;
mod der;
mod ed25519;
mod error;
mod fingerprint;
mod key;
mod registry;

pub use ::der::asn1::ObjectIdentifier;
pub use certificate::{CertificateError, MAX_CERTIFICATE_DER, certified_key, certify};
pub use ed25519::Ed25519;
pub use error::KeyError;
pub use fingerprint::{Fingerprint, sha3_256, shake256};
pub use key::{MAX_KEY_DER, PrivateKey, PublicKey};
pub use registry::{Algorithm, Registry, Signer, Verifier};
