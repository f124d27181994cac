//! The payload of handshake messages: the identity of the sender, and the muxers that it supports.

use prost::Message as _;

use super::NoiseError;
use crate::key::{Keypair, PublicKey};

/// The prefix of the bytes that the identity signs; the Noise static key follows.
const SIGNATURE_PREFIX: &[u8] = b"noise-libp2p-static-key:";

/// Maximum number of muxers that are read.
const MAX_MUXERS: usize = 16;

#[derive(Clone, PartialEq, prost::Message)]
struct PayloadMessage {
    #[prost(bytes = "vec", tag = "1")]
    identity_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    identity_sig: Vec<u8>,
    #[prost(message, optional, tag = "4")]
    extensions: Option<ExtensionsMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExtensionsMessage {
    #[prost(bytes = "vec", repeated, tag = "1")]
    webtransport_certhashes: Vec<Vec<u8>>,
    #[prost(string, repeated, tag = "2")]
    stream_muxers: Vec<String>,
}

/// The contents of a peer's payload, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) key: PublicKey,
    /// The muxers that the peer supports, best first.
    pub(super) muxers: Vec<String>,
}

impl Payload {
    /// Encodes a payload that binds the Noise static key to the identity.
    pub(super) fn encode(keypair: &Keypair, static_key: &[u8], muxers: &[&str]) -> Vec<u8> {
        let muxers = muxers.iter().map(|muxer| (*muxer).to_owned()).collect();
        let message = PayloadMessage {
            identity_key: keypair.public().encode().to_vec(),
            identity_sig: keypair.sign(&signed_bytes(static_key)),
            extensions: Some(ExtensionsMessage {
                webtransport_certhashes: Vec::new(),
                stream_muxers: muxers,
            }),
        };
        message.encode_to_vec()
    }

    /// Parses a payload, and verifies that its identity signed the Noise static key.
    pub(super) fn decode(bytes: &[u8], static_key: &[u8]) -> Result<Self, NoiseError> {
        let message =
            PayloadMessage::decode(bytes).map_err(|error| NoiseError::Payload(error.to_string().into()))?;
        let key = PublicKey::decode(&message.identity_key)?;
        key.verify(&signed_bytes(static_key), &message.identity_sig)?;
        let muxers = message.extensions.map(|extensions| extensions.stream_muxers);
        Ok(Self {
            key,
            muxers: muxers.into_iter().flatten().take(MAX_MUXERS).collect(),
        })
    }
}

fn signed_bytes(static_key: &[u8]) -> Vec<u8> {
    [SIGNATURE_PREFIX, static_key].concat()
}
