//! Noise over a byte stream (libp2p specification, noise): `Noise_XX_25519_ChaChaPoly_SHA256`, with the
//! identities of both peers and the dialler's muxers in the handshake.
//!
//! Each message is a frame: a length of two bytes, big endian, and as many bytes.
//!
//! # Security
//! Provided: the peer holds the private key of its peer id; confidentiality, integrity and forward secrecy; the
//! dialler's identity is shown to no peer that did not prove its own. Not provided: protection against quantum
//! computers.

mod handshake;
mod payload;
mod transport;

pub use self::handshake::{NoiseError, NoiseKey, OtherPeer, Role, handshake};
pub use self::transport::NoiseStream;
