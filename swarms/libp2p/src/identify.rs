//! Identify and identify push (libp2p specification, identify): what a peer is, where it is, and which protocols
//! it supports.
//!
//! Each side of a connection asks the other once. A message is behind its length as a varint, and may come in
//! several parts, which are merged. The key must be that of the connection; addresses that cannot be parsed are
//! skipped.
//!
//! # Limits
//! [`MAX_PARTS`] parts of [`MAX_PART`] bytes are read, [`MAX_ADDRS`] addresses and [`MAX_PROTOCOLS`] protocols
//! are kept. A message to send has at most [`MAX_SENT`] bytes: addresses and protocols beyond are left out.

use std::io;

use multiaddr::Multiaddr;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::envelope::{MAX_ADDRS, PeerRecord};
use crate::frame;
use crate::key::PublicKey;

/// The protocol id of identify: the peer that accepts the stream sends.
pub const IDENTIFY: &str = "/ipfs/id/1.0.0";
/// The protocol id of push: the peer that opens the stream sends.
pub const PUSH: &str = "/ipfs/id/push/1.0.0";

/// Maximum length of a part of a message to read, in bytes.
pub const MAX_PART: usize = 8 << 10;
/// Maximum number of parts of a message to read.
pub const MAX_PARTS: usize = 10;
/// Maximum number of protocols that are kept.
pub const MAX_PROTOCOLS: usize = 1024;
/// Maximum length of a message to send, in bytes.
pub const MAX_SENT: usize = 4096;
/// Maximum length of a text that is kept, in bytes.
const MAX_TEXT: usize = 512;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct IdentifyMessage {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub(crate) public_key: Option<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(crate) listen_addrs: Vec<Vec<u8>>,
    #[prost(string, repeated, tag = "3")]
    pub(crate) protocols: Vec<String>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub(crate) observed_addr: Option<Vec<u8>>,
    #[prost(string, optional, tag = "5")]
    pub(crate) protocol_version: Option<String>,
    #[prost(string, optional, tag = "6")]
    pub(crate) agent_version: Option<String>,
    #[prost(bytes = "vec", optional, tag = "8")]
    pub(crate) signed_peer_record: Option<Vec<u8>>,
}

/// What a peer said of itself. Only [`record`](Self::record) is signed by the peer; all of it came over its
/// connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identified {
    /// The addresses at which the peer says that it listens.
    pub listen_addrs: Vec<Multiaddr>,
    /// The protocols that the peer accepts.
    pub protocols: Vec<String>,
    /// The address at which the peer sees this host.
    pub observed_addr: Option<Multiaddr>,
    /// The version of the program's protocol family.
    pub protocol_version: String,
    /// The agent.
    pub agent: String,
    /// The signed record of its addresses.
    pub record: Option<PeerRecord>,
}

impl IdentifyMessage {
    /// Encodes the message within [`MAX_SENT`] bytes.
    pub(crate) fn encode_bounded(mut self) -> Vec<u8> {
        while self.encoded_len() > MAX_SENT {
            if self.signed_peer_record.take().is_some() {
                continue;
            }
            if self.listen_addrs.len() > 8 {
                self.listen_addrs.pop();
            } else if self.protocols.pop().is_none() && self.listen_addrs.pop().is_none() {
                break;
            }
        }
        self.encode_to_vec()
    }

    fn into_identified(self, key: &PublicKey) -> io::Result<Identified> {
        if self.public_key.is_some_and(|bytes| bytes != key.encode()) {
            return Err(invalid("identify names another key than that of the connection"));
        }
        let addrs = self.listen_addrs.into_iter().take(MAX_ADDRS);
        let record = self
            .signed_peer_record
            .and_then(|record| PeerRecord::open(&record).ok());
        Ok(Identified {
            listen_addrs: addrs.filter_map(|addr| Multiaddr::try_from(addr).ok()).collect(),
            protocols: self
                .protocols
                .into_iter()
                .filter(|protocol| protocol.len() <= MAX_TEXT)
                .take(MAX_PROTOCOLS)
                .collect(),
            observed_addr: self.observed_addr.and_then(|addr| Multiaddr::try_from(addr).ok()),
            protocol_version: bounded(self.protocol_version),
            agent: bounded(self.agent_version),
            record: record.filter(|record| record.peer_id == key.peer_id()),
        })
    }
}

fn bounded(text: Option<String>) -> String {
    text.filter(|text| text.len() <= MAX_TEXT).unwrap_or_default()
}

fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Sends a message, and ends the stream.
pub(crate) async fn send(stream: &mut (impl AsyncWrite + Unpin), message: IdentifyMessage) -> io::Result<()> {
    let bytes = frame::encode(&message.encode_bounded());
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}

/// Reads a message to the end of the stream, in one part or several.
pub(crate) async fn receive(
    stream: &mut (impl AsyncRead + Unpin),
    key: &PublicKey,
) -> io::Result<Identified> {
    let mut merged = IdentifyMessage::default();
    let mut parts = 0;
    while let Some(part) = frame::read(stream, MAX_PART).await? {
        parts += 1;
        if parts > MAX_PARTS {
            return Err(invalid("identify has more than 10 parts"));
        }
        merged.merge(part).map_err(invalid)?;
    }
    if parts == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    merged.into_identified(key)
}

#[cfg(test)]
mod tests {
    use p2p_formats::x509::PrivateKey;

    use super::*;
    use crate::key::Keypair;

    fn keypair(seed: u8) -> Keypair {
        Keypair::new(&PrivateKey::ed25519(&[seed; 32])).expect("an Ed25519 key")
    }

    fn message(keypair: &Keypair) -> IdentifyMessage {
        let addr: Multiaddr = "/ip4/192.0.2.1/udp/4001/quic-v1".parse().expect("a multiaddr");
        IdentifyMessage {
            public_key: Some(keypair.public().encode().to_vec()),
            listen_addrs: vec![addr.to_vec(), vec![0xff; 9]],
            protocols: vec![IDENTIFY.to_owned()],
            observed_addr: Some(addr.to_vec()),
            protocol_version: Some("a/1".to_owned()),
            agent_version: Some("b/2".to_owned()),
            signed_peer_record: Some(PeerRecord::sign(keypair, 7, &[addr])),
        }
    }

    #[tokio::test]
    async fn a_message_in_one_part_is_read() {
        let keypair = keypair(1);
        let mut sent = Vec::new();
        send(&mut sent, message(&keypair))
            .await
            .expect("memory takes everything");
        let identified = receive(&mut &sent[..], keypair.public())
            .await
            .expect("a valid message");
        assert_eq!(
            identified.listen_addrs.len(),
            1,
            "the address that is not valid is skipped"
        );
        assert_eq!(
            (&*identified.agent, &*identified.protocol_version),
            ("b/2", "a/1")
        );
        assert_eq!(identified.record.map(|record| record.seq), Some(7));
    }

    #[tokio::test]
    async fn parts_are_merged() {
        let keypair = keypair(1);
        let first = IdentifyMessage {
            protocols: vec!["/a".to_owned()],
            ..IdentifyMessage::default()
        };
        let second = IdentifyMessage {
            protocols: vec!["/b".to_owned()],
            agent_version: Some("c".to_owned()),
            ..IdentifyMessage::default()
        };
        let bytes = [first, second]
            .map(|part| frame::encode(&part.encode_to_vec()))
            .concat();
        let identified = receive(&mut &bytes[..], keypair.public())
            .await
            .expect("valid parts");
        assert_eq!(identified.protocols, ["/a", "/b"]);
        assert_eq!(identified.agent, "c");
    }

    #[tokio::test]
    async fn the_key_must_be_that_of_the_connection() {
        let bytes = frame::encode(&message(&keypair(1)).encode_bounded());
        let error = receive(&mut &bytes[..], keypair(2).public())
            .await
            .expect_err("another key");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn too_many_parts_too_long_ones_and_none_are_refused() {
        let keypair = keypair(1);
        let eleven = frame::encode(&[]).repeat(MAX_PARTS + 1);
        assert!(receive(&mut &eleven[..], keypair.public()).await.is_err());
        let ten = frame::encode(&[]).repeat(MAX_PARTS);
        assert!(receive(&mut &ten[..], keypair.public()).await.is_ok());
        let long = frame::encode(&[0; MAX_PART + 1]);
        assert!(receive(&mut &long[..], keypair.public()).await.is_err());
        assert!(receive(&mut &[][..], keypair.public()).await.is_err());
        let short = &frame::encode(&message(&keypair).encode_bounded())[..50];
        assert!(receive(&mut &short[..], keypair.public()).await.is_err());
    }

    #[test]
    fn a_message_to_send_is_bounded() {
        let mut message = message(&keypair(1));
        message.protocols = (0..2000).map(|index| format!("/protocol/{index}")).collect();
        message.listen_addrs = vec![message.listen_addrs[0].clone(); 500];
        let bytes = message.encode_bounded();
        assert!(bytes.len() <= MAX_SENT);
        let message = IdentifyMessage::decode(&bytes[..]).expect("a valid message");
        assert!(!message.protocols.is_empty() && !message.listen_addrs.is_empty());
    }
}
