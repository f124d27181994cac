//! Signed envelopes, and the peer records in them (libp2p RFC 0002 and RFC 0003).
//!
//! The domain and the payload type of a [`PeerRecord`] are those that go, js, py and rust exchange,
//! [`PEER_RECORD_DOMAIN`] and [`PEER_RECORD_TYPE`]; the ones in RFC 0003 are not in use.
//!
//! # Limits
//! An envelope to read has at most [`MAX_ENVELOPE`] bytes. A record has at most [`MAX_ADDRS`] addresses, those
//! beyond are dropped.

use multiaddr::{Multiaddr, PeerId};
use p2p_formats::varint;
use prost::Message as _;

use crate::key::{KeyError, Keypair, PublicKey};

/// The domain of signatures of peer records.
pub const PEER_RECORD_DOMAIN: &str = "libp2p-peer-record";
/// The payload type of peer records.
pub const PEER_RECORD_TYPE: &[u8] = &[0x03, 0x01];
/// Maximum length of an envelope to read, in bytes.
pub const MAX_ENVELOPE: usize = 16 << 10;
/// Maximum number of addresses of a record.
pub const MAX_ADDRS: usize = 100;

/// The reason for refusing an envelope or a record. No state changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The envelope exceeds [`MAX_ENVELOPE`].
    #[error("an envelope of {0} bytes exceeds the limit of {MAX_ENVELOPE} bytes")]
    TooLong(usize),
    /// The bytes are not the protobuf of an envelope or of its payload.
    #[error("{what} is not valid protobuf: {reason}")]
    Encoding {
        /// The invalid message.
        what: &'static str,
        /// The decoder's reason.
        reason: Box<str>,
    },
    /// The key or the signature is invalid.
    #[error("the key of the envelope: {0}")]
    Key(#[from] KeyError),
    /// The payload is of another type.
    #[error("the payload of the envelope is of another type")]
    PayloadType,
    /// The record names another peer than the one that signed it, or none.
    #[error("the record is not about the peer that signed it")]
    ForeignPeer,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EnvelopeMessage {
    #[prost(bytes = "vec", tag = "1")]
    public_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    payload_type: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    payload: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    signature: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RecordMessage {
    #[prost(bytes = "vec", tag = "1")]
    peer_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    seq: u64,
    #[prost(message, repeated, tag = "3")]
    addresses: Vec<AddressMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AddressMessage {
    #[prost(bytes = "vec", tag = "1")]
    multiaddr: Vec<u8>,
}

/// A payload with its type and the key that signed it, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The key that signed the payload.
    pub key: PublicKey,
    /// The type of the payload.
    pub payload_type: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Envelope {
    /// Signs a payload in a domain. Returns the encoded envelope.
    pub fn sign(keypair: &Keypair, domain: &str, payload_type: &[u8], payload: &[u8]) -> Vec<u8> {
        let envelope = EnvelopeMessage {
            public_key: keypair.public().encode().to_vec(),
            payload_type: payload_type.to_vec(),
            payload: payload.to_vec(),
            signature: keypair.sign(&signed_bytes(domain, payload_type, payload)),
        };
        envelope.encode_to_vec()
    }

    /// Parses an envelope, and verifies its signature in a domain.
    ///
    /// # Errors
    /// Any [`EnvelopeError`] but those of records.
    pub fn open(bytes: &[u8], domain: &str) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_ENVELOPE {
            return Err(EnvelopeError::TooLong(bytes.len()));
        }
        let envelope = decode::<EnvelopeMessage>("the envelope", bytes)?;
        let key = PublicKey::decode(&envelope.public_key)?;
        let signed = signed_bytes(domain, &envelope.payload_type, &envelope.payload);
        key.verify(&signed, &envelope.signature)?;
        Ok(Self {
            key,
            payload_type: envelope.payload_type,
            payload: envelope.payload,
        })
    }
}

/// The addresses of a peer at one time, signed by the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRecord {
    /// The peer.
    pub peer_id: PeerId,
    /// The sequence number: of two records of a peer, the one with the higher number is newer.
    pub seq: u64,
    /// The addresses. Those that could not be parsed are left out.
    pub addrs: Vec<Multiaddr>,
}

impl PeerRecord {
    /// Signs a record of this host. Returns the encoded envelope.
    pub fn sign(keypair: &Keypair, seq: u64, addrs: &[Multiaddr]) -> Vec<u8> {
        let record = RecordMessage {
            peer_id: keypair.peer_id().to_bytes(),
            seq,
            addresses: addrs
                .iter()
                .take(MAX_ADDRS)
                .map(|addr| AddressMessage {
                    multiaddr: addr.to_vec(),
                })
                .collect(),
        };
        let payload = record.encode_to_vec();
        Envelope::sign(keypair, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, &payload)
    }

    /// Parses an envelope with a record, and verifies that the record's peer signed it.
    ///
    /// # Errors
    /// Any [`EnvelopeError`].
    pub fn open(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let envelope = Envelope::open(bytes, PEER_RECORD_DOMAIN)?;
        if envelope.payload_type != PEER_RECORD_TYPE {
            return Err(EnvelopeError::PayloadType);
        }
        let record = decode::<RecordMessage>("the peer record", &envelope.payload)?;
        let peer_id = envelope.key.peer_id();
        if peer_id.to_bytes() != record.peer_id {
            return Err(EnvelopeError::ForeignPeer);
        }
        let addrs = record.addresses.into_iter().take(MAX_ADDRS);
        let addrs = addrs.filter_map(|addr| Multiaddr::try_from(addr.multiaddr).ok());
        Ok(Self {
            peer_id,
            seq: record.seq,
            addrs: addrs.collect(),
        })
    }
}

fn decode<M: prost::Message + Default>(what: &'static str, bytes: &[u8]) -> Result<M, EnvelopeError> {
    M::decode(bytes).map_err(|error| EnvelopeError::Encoding {
        what,
        reason: error.to_string().into(),
    })
}

/// Returns the bytes that a signature covers: each part behind its length.
fn signed_bytes(domain: &str, payload_type: &[u8], payload: &[u8]) -> Vec<u8> {
    let parts = [domain.as_bytes(), payload_type, payload];
    let mut signed = Vec::with_capacity(parts.iter().map(|part| part.len() + varint::MAX_LEN).sum());
    for part in parts {
        signed.extend_from_slice(varint::write(part.len() as u64, &mut [0; varint::MAX_LEN]));
        signed.extend_from_slice(part);
    }
    signed
}
