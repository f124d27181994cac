//! Formats of data that is stored or shared: varints, keys, certificates and signed records.
//!
//! ```text
//!    PublicKey ──Fingerprint──▶ PeerId          PrivateKey ──Registry──▶ Signer
//!        │                                                                 │
//!    certify (X.509 for TLS)                               SignedRecord::sign(context, payload)
//! ```
//!
//! # What is here
//!
//! | module | content | specification |
//! | --- | --- | --- |
//! | [`varint`] | unsigned LEB128 integers | Go's `encoding/binary` |
//! | [`x509`] | public and private keys, fingerprints, self-signed certificates, a registry of signature algorithms | RFC 5280, RFC 5958, RFC 8410 |
//! | [`record`] | statements signed in a context | [`record`] |
//!
//! # Features
//! `ciphers`, on by default: Ed25519 of [`x509::Registry`], with aws-lc-rs, which is C and assembly. Without it the crate compiles for
//! WebAssembly, and a registry has the algorithms that the program adds.
//!
//! # Example
//! A record that is signed by one node and opened by another:
//!
//! ```
//! use p2p_formats::record::{RecordError, SignedRecord};
//! use p2p_formats::x509::{PrivateKey, Registry, shake256};
//!
//! let registry = Registry::default();
//! let signer = registry.signer(&PrivateKey::ed25519(&[1; 32]))?;
//! let bytes = SignedRecord::sign(&*signer, "example", b"I am at 192.0.2.1:4242")?;
//!
//! let record = SignedRecord::open(&bytes, "example", &registry)?;
//! assert_eq!(record.payload(), b"I am at 192.0.2.1:4242");
//! assert_eq!(record.signer(shake256), shake256(signer.public_key()));
//!
//! let other_context = SignedRecord::open(&bytes, "another context", &registry);
//! assert!(matches!(other_context, Err(RecordError::BadSignature { .. })));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Deliberately absent: I/O. The caller reads files and sends packets.
#![forbid(unsafe_code)]

pub mod record;
pub mod varint;
pub mod x509;
