//! Streams to peers: they are negotiated, and RPCs are written to them.

use std::sync::Arc;

use bytes::BytesMut;
use p2p::{Error, Packet, Result};
use p2p_formats::varint;
use p2p_protocols::gossipsub::{OpeningId, Version};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::core::{Core, LAYER};
use super::link::Link;
use crate::addr::HostAddr;
use crate::connection::OpenError;
use crate::negotiate::NegotiateError;
use crate::stream::{Stream, failed};

/// Short RPCs that leave together are written together, up to this many bytes.
const TOGETHER: usize = 16 << 10;

/// The reason for which there is no stream to a node.
struct NotOpened {
    /// Whether the node supports none of the protocols.
    is_refused: bool,
}

impl Core {
    /// Opens the stream to a node, and reports the result.
    pub(super) async fn open(self: Arc<Self>, link: &Link, id: OpeningId) {
        let opened = tokio::select! {
            biased;
            () = link.ended() => return,
            () = self.closed() => return,
            opened = self.negotiate(&link.peer) => opened,
        };
        match opened {
            Ok((stream, version)) => {
                let earlier = link.outbound.lock().await.replace(stream);
                drop(earlier);
                let is_used = self.drive(|links, _| links.handle_opened(&link.peer, id, version));
                if !is_used {
                    let unused = link.outbound.lock().await.take();
                    drop(unused);
                }
            }
            Err(NotOpened { is_refused }) => {
                self.drive(|links, now| links.handle_open_failed(now, &link.peer, id, is_refused));
            }
        }
    }

    async fn negotiate(&self, peer: &HostAddr) -> std::result::Result<(Stream, Version), NotOpened> {
        let connection = peer.libp2p_id().and_then(|id| self.host.open_connection(&id));
        let connection = connection.ok_or(NotOpened { is_refused: false })?;
        let protocols: Vec<&str> = self.versions.iter().map(|version| version.protocol()).collect();
        match connection.open(&protocols, self.host.config.stream_timeout).await {
            Ok(stream) => {
                let version = Version::from_protocol(stream.protocol());
                Ok((stream, version.ok_or(NotOpened { is_refused: true })?))
            }
            Err(error) => {
                let is_refused = matches!(error, OpenError::Negotiation(NegotiateError::Refused));
                tracing::debug!(layer = LAYER, %peer, is_refused, "no stream was opened");
                Err(NotOpened { is_refused })
            }
        }
    }

    /// Writes RPCs to a peer. A stream on which that fails, or is cancelled, is reset.
    pub(super) async fn send(&self, peer: &HostAddr, packets: Vec<Packet>) -> Result<()> {
        self.check_open()?;
        let no_stream = |reason: &str| Error::unreachable(peer, reason);
        let link = self
            .link_of(peer)
            .ok_or_else(|| no_stream("it is no peer of this node"))?;
        let mut outbound = link.outbound.lock().await;
        let mut stream = outbound
            .take()
            .ok_or_else(|| no_stream("there is no stream to it now"))?;
        let count = packets.len();
        let written = tokio::select! {
            biased;
            () = link.ended() => Err(no_stream("it has left")),
            written = self.write(&mut stream, packets) => written,
        };
        match written {
            Ok(()) => {
                *outbound = Some(stream);
                drop(outbound);
                self.counters.add_sent(count);
                Ok(())
            }
            Err(error) => {
                drop(outbound);
                tracing::debug!(layer = LAYER, %peer, %error, "the stream was lost");
                Err(error)
            }
        }
    }

    async fn write(&self, stream: &mut Stream, packets: Vec<Packet>) -> Result<()> {
        let mut short = BytesMut::new();
        for mut packet in packets {
            packet.check_mtu(self.config.gossip.engine.limits.rpc)?;
            let mut length = [0; varint::MAX_LEN];
            packet.push_front(varint::write(packet.len() as u64, &mut length));
            if !short.is_empty() && short.len() + packet.len() > TOGETHER {
                self.write_bytes(stream, short.split().freeze()).await?;
            }
            if packet.len() > TOGETHER {
                self.write_bytes(stream, packet.into_bytes()).await?;
            } else {
                short.extend_from_slice(&packet);
            }
        }
        if !short.is_empty() {
            self.write_bytes(stream, short.freeze()).await?;
        }
        let flushed = timeout(self.config.send_timeout, stream.flush()).await;
        self.in_time(stream, flushed)
    }

    async fn write_bytes(&self, stream: &mut Stream, bytes: bytes::Bytes) -> Result<()> {
        let written = timeout(self.config.send_timeout, stream.write_bytes(bytes)).await;
        self.in_time(stream, written)
    }

    fn in_time(
        &self,
        stream: &Stream,
        written: std::result::Result<std::io::Result<()>, tokio::time::error::Elapsed>,
    ) -> Result<()> {
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(stream.peer(), &error)),
            Err(_) => Err(Error::TimedOut {
                doing: "sending an RPC",
                limit: self.config.send_timeout,
            }),
        }
    }
}
