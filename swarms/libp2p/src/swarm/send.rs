//! The send path: each tell and each ask is a stream.

use std::io::{self, ErrorKind};
use std::num::NonZeroU8;
use std::sync::Arc;

use p2p::{DropReason, Error, Packet, Rejection, Result};
use p2p_formats::varint;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::Core;
use crate::addr::HostAddr;
use crate::frame::{self, Head};
use crate::host::Shared;
use crate::stream::{Stream, failed};

/// A message or a response that a peer has not taken yet. A message of which the peer says nothing, because the connection
/// or the wait for it has ended, counts as lost when this is dropped.
pub(super) struct Sending {
    core: Arc<Core>,
    counts: bool,
}

impl Sending {
    pub(super) fn begin(core: &Arc<Core>) -> Self {
        core.sending.send_modify(|sending| *sending += 1);
        Self {
            core: core.clone(),
            counts: false,
        }
    }

    /// Records that it is a message, and that its tell has returned `Ok`.
    fn told(mut self) -> Self {
        self.counts = true;
        self
    }

    /// Records that the peer has taken it.
    pub(super) fn taken(mut self) {
        self.counts = false;
    }

    /// Counts the message as dropped, since the peer has no such swarm.
    pub(super) fn refused(mut self, peer: &HostAddr) {
        self.counts = false;
        self.core
            .attachment
            .counters
            .add_dropped_from(DropReason::NoChannel, peer);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.counts {
            self.core.attachment.counters.add_dropped(DropReason::Lost);
        }
        self.core
            .sending
            .send_modify(|sending| *sending = sending.saturating_sub(1));
    }
}

impl Core {
    pub(super) async fn tell(self: &Arc<Self>, dst: &HostAddr, packet: Packet) -> Result<()> {
        self.attachment.check_open()?;
        packet.check_mtu(self.config.mtu)?;
        let limit = self.config.send_timeout;
        let sending = Sending::begin(self);
        let host = &self.attachment.host;
        let tell = self
            .attachment
            .unless_closed(send(host, dst, &self.tell_id, packet));
        let Ok(sent) = timeout(limit, tell).await else {
            let doing = "sending a message";
            return Err(Error::TimedOut { doing, limit });
        };
        self.ends.await_end(sending.told(), sent?);
        self.attachment.counters.add_sent(1);
        Ok(())
    }

    pub(super) async fn ask(self: &Arc<Self>, dst: &HostAddr, request: Packet) -> Result<Packet> {
        self.attachment.check_open()?;
        request.check_mtu(self.config.mtu)?;
        let limit = self.config.ask_timeout;
        let exchange = async {
            let host = &self.attachment.host;
            let response = exchange(host, dst, &self.ask_id, request, self.config.mtu);
            // A stream that ends without a response says that the request was dropped.
            response.await?.ok_or(Error::Rejected(Rejection::DROPPED))
        };
        match timeout(limit, self.attachment.unless_closed(exchange)).await {
            Ok(response) => {
                let response = response?;
                self.asks.add_sent(1);
                Ok(response)
            }
            Err(_) => Err(Error::TimedOut {
                doing: "waiting for the response",
                limit,
            }),
        }
    }
}

/// Opens a stream, writes a message, and ends the writing direction.
async fn send(host: &Arc<Shared>, dst: &HostAddr, protocol: &Arc<str>, mut packet: Packet) -> Result<Stream> {
    let mut stream = host.open_lazily(dst, protocol.clone()).await?;
    frame(&mut packet);
    let written = async {
        stream.write_bytes(packet.into_bytes()).await?;
        stream.shutdown().await
    };
    match written.await {
        Ok(()) => Ok(stream),
        Err(error) => Err(broken(dst, &error)),
    }
}

/// Sends a request on a stream of its own. Returns the response, of at most `max` bytes, or `None` if the peer ends the
/// stream without one.
pub(crate) async fn exchange(
    host: &Arc<Shared>,
    dst: &HostAddr,
    protocol: &Arc<str>,
    request: Packet,
    max: usize,
) -> Result<Option<Packet>> {
    let stream = &mut send(host, dst, protocol, request).await?;
    let head = frame::read_head(stream, max).await;
    let length = match head.map_err(|error| broken(dst, &error))? {
        Head::Length(length) => length,
        Head::Rejected(code) => {
            let code = NonZeroU8::new(code).map_or(Rejection::DROPPED, Rejection::new);
            return Err(Error::Rejected(code));
        }
        Head::End => return Ok(None),
    };
    let body = frame::read_body(stream, length, |_| true).await;
    let body = body.map_err(|error| broken(dst, &error))?;
    Ok(Some(Packet::from_buffer(body, 0)))
}

/// Returns the error of a call whose stream failed.
fn broken(dst: &HostAddr, error: &io::Error) -> Error {
    match error.kind() {
        // The peer reset the stream: its swarm dropped the request.
        ErrorKind::ConnectionReset => Error::Rejected(Rejection::DROPPED),
        // The peer has no such swarm.
        ErrorKind::Unsupported => Error::Rejected(Rejection::NO_CHANNEL),
        ErrorKind::InvalidData => Error::invalid("response", error.to_string()),
        _ => failed(dst, error),
    }
}

/// Prepends the length to a packet.
pub(crate) fn frame(packet: &mut Packet) {
    let mut length = [0; varint::MAX_LEN];
    let length = varint::write(packet.len() as u64, &mut length);
    packet.push_front(length);
}
