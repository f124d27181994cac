//! Identify and identify push (libp2p specification, identify): what a peer is, where it is, and which protocols
//! it supports.
//!
//! Each side of a connection asks the other once, and pushes what changes. The codec and its limits are those of
//! [`p2p_protocols::identify`]. The key must be that of the connection; addresses that cannot be parsed are
//! skipped, and so is a record that the peer did not sign.

use std::io;

use multiaddr::Multiaddr;
use p2p_protocols::identify::{Info, Limits, Reader};
pub use p2p_protocols::identify::{PROTOCOL as IDENTIFY, PUSH_PROTOCOL as PUSH};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::envelope::PeerRecord;
use crate::key::PublicKey;

/// Bytes that are read at once.
const READ: usize = 2048;

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

impl Identified {
    /// Parses what the peer with this key sent.
    pub(crate) fn new(info: &Info, key: &PublicKey) -> Self {
        let addr = |bytes: &[u8]| Multiaddr::try_from(bytes.to_vec()).ok();
        let record = info.signed_peer_record.as_deref().map(PeerRecord::open);
        Self {
            listen_addrs: info.listen_addrs.iter().filter_map(|bytes| addr(bytes)).collect(),
            protocols: info.protocols.clone(),
            observed_addr: info.observed_addr.as_deref().and_then(addr),
            protocol_version: info.protocol_version.clone().unwrap_or_default(),
            agent: info.agent_version.clone().unwrap_or_default(),
            record: record
                .and_then(Result::ok)
                .filter(|record| record.peer_id == key.peer_id()),
        }
    }
}

fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Sends a message, and ends the stream.
pub(crate) async fn send(stream: &mut (impl AsyncWrite + Unpin), info: &Info) -> io::Result<()> {
    let encoded = info.encode().map_err(invalid)?;
    stream.write_all(&encoded.bytes).await?;
    stream.shutdown().await
}

/// Reads what the peer with this key sends to the end of the stream.
pub(crate) async fn receive(stream: &mut (impl AsyncRead + Unpin), key: &PublicKey) -> io::Result<Info> {
    let (mut reader, mut bytes) = (Reader::new(Limits::default()), [0; READ]);
    loop {
        let count = stream.read(&mut bytes).await?;
        if count == 0 {
            break;
        }
        reader
            .handle_bytes(bytes.get(..count).unwrap_or_default())
            .map_err(invalid)?;
    }
    let info = reader.finish().map_err(invalid)?.info;
    info.verify_key(key.encode()).map_err(invalid)?;
    Ok(info)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use p2p_formats::x509::PrivateKey;

    use super::*;
    use crate::key::Keypair;

    fn keypair(seed: u8) -> Keypair {
        Keypair::new(&PrivateKey::ed25519(&[seed; 32])).expect("an Ed25519 key")
    }

    fn addr() -> Multiaddr {
        "/ip4/192.0.2.1/udp/4001/quic-v1".parse().expect("a multiaddr")
    }

    /// What `keypair` says of itself, with the record of `signer`.
    fn info(keypair: &Keypair, signer: &Keypair) -> Info {
        let addr = addr();
        Info {
            public_key: Some(Bytes::copy_from_slice(keypair.public().encode())),
            listen_addrs: vec![addr.to_vec().into(), vec![0xff; 9].into()],
            protocols: vec![IDENTIFY.to_owned()],
            observed_addr: Some(addr.to_vec().into()),
            protocol_version: Some("a/1".to_owned()),
            agent_version: Some("b/2".to_owned()),
            signed_peer_record: Some(PeerRecord::sign(signer, 7, &[addr]).into()),
        }
    }

    #[tokio::test]
    async fn a_message_is_read() {
        let keypair = keypair(1);
        let mut sent = Vec::new();
        send(&mut sent, &info(&keypair, &keypair))
            .await
            .expect("memory takes everything");
        let info = receive(&mut &sent[..], keypair.public())
            .await
            .expect("a valid message");
        let identified = Identified::new(&info, keypair.public());
        // The address that is not valid is skipped.
        assert_eq!(identified.listen_addrs, [addr()]);
        assert_eq!(identified.observed_addr, Some(addr()));
        assert_eq!(
            (&*identified.agent, &*identified.protocol_version),
            ("b/2", "a/1")
        );
        assert_eq!(identified.record.map(|record| record.seq), Some(7));
    }

    #[tokio::test]
    async fn the_key_must_be_that_of_the_connection() {
        let sent = info(&keypair(1), &keypair(1)).encode().expect("it fits").bytes;
        let error = receive(&mut &sent[..], keypair(2).public())
            .await
            .expect_err("another key");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_record_of_another_peer_is_ignored() {
        let (ours, other) = (keypair(1), keypair(2));
        let identified = Identified::new(&info(&ours, &other), ours.public());
        assert_eq!(identified.record, None);
        assert_eq!(identified.listen_addrs, [addr()]);
    }

    #[tokio::test]
    async fn a_stream_that_ends_early_is_no_message() {
        let keypair = keypair(1);
        let sent = info(&keypair, &keypair).encode().expect("it fits").bytes;
        for end in [0, 1, 50, sent.len() - 1] {
            assert!(receive(&mut &sent[..end], keypair.public()).await.is_err());
        }
    }
}
