//! Identify: the messages in which two peers of a connection tell each other their keys, addresses and
//! protocols.
//!
//! libp2p specifications: identify/README.md, `/ipfs/id/1.0.0` ([`PROTOCOL`]) and `/ipfs/id/push/1.0.0`
//! ([`PUSH_PROTOCOL`]). This module is the codec: [`Info`] describes a peer, [`Info::encode`] writes it, and
//! a [`Reader`] reads it from a stream in pieces of any size.
//!
//! # Protocol
//! A stream carries messages, each with its length in front (a varint), up to the end of the stream. For
//! [`PROTOCOL`] the responder writes and closes; for [`PUSH_PROTOCOL`] the opener does. This side writes one
//! message. On receipt, the messages of a stream are merged in their order: entries of repeated fields are
//! appended, other fields are replaced. A push has only the fields that changed; [`Info::update`] applies it.
//!
//! Field numbers: 1 public key, 2 listen address, 3 protocol, 4 observed address, 5 protocol version, 6 agent
//! version, 8 signed peer record. The specification lacks the length in front and field 8; both are what the
//! implementations of libp2p send. Addresses, keys and records are opaque bytes here.
//!
//! ```
//! use p2p_protocols::identify::{Info, Limits, Reader};
//!
//! let info = Info {
//!     public_key: Some(b"key".as_slice().into()),
//!     protocols: vec!["/ipfs/id/1.0.0".into(), "/ipfs/ping/1.0.0".into()],
//!     agent_version: Some("example/1.0".into()),
//!     ..Info::default()
//! };
//! let encoded = info.encode()?;
//!
//! let mut reader = Reader::new(Limits::default());
//! for piece in encoded.bytes.chunks(7) {
//!     reader.handle_bytes(piece)?;
//! }
//! let received = reader.finish()?;
//! assert_eq!(received.info, info);
//! received.info.verify_key(b"key")?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # Limits
//! [`Limits`] bounds what a stream may carry. Addresses and protocols beyond their limits are ignored and
//! counted ([`Received`]); a message that is too long, or one too many, is a [`WireError`]. A reader holds at
//! most the bytes of one incomplete message, and copies of the values that it keeps: some 200 KiB with the
//! defaults. This side sends at most [`MAX_SENT`] bytes; [`Info::encode`] documents what it leaves out.
//!
//! # Security
//! **Required of the caller.** [`Info::verify_key`] with the key that the connection proved. Addresses that do
//! not parse must be skipped, not fail the message. A signed peer record must be verified before it is used.
//! One [`Reader`] for each stream, with a deadline for the stream.
//!
//! **Not provided.** All fields are claims of the peer. An observed address is what this peer says it sees;
//! several peers in different networks must agree before it is used.

mod encode;
mod error;
mod info;
mod reader;

pub use encode::{Encoded, MAX_SENT};
pub use error::{EncodeError, KeyMismatch, WireError};
pub use info::Info;
pub use reader::{Limits, Reader, Received};

/// The protocol in which the responder identifies itself.
pub const PROTOCOL: &str = "/ipfs/id/1.0.0";
/// The protocol in which the opener of the stream tells what changed.
pub const PUSH_PROTOCOL: &str = "/ipfs/id/push/1.0.0";

/// Field numbers.
mod field {
    pub(super) const PUBLIC_KEY: u8 = 1;
    pub(super) const LISTEN_ADDR: u8 = 2;
    pub(super) const PROTOCOL: u8 = 3;
    pub(super) const OBSERVED_ADDR: u8 = 4;
    pub(super) const PROTOCOL_VERSION: u8 = 5;
    pub(super) const AGENT_VERSION: u8 = 6;
    pub(super) const SIGNED_PEER_RECORD: u8 = 8;
}
