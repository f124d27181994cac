//! Streams of a connection.

use std::error::Error as _;
use std::fmt;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::slice;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures_util::{AsyncRead as _, AsyncWrite as _};
use p2p::Error;
use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

use crate::addr::HostAddr;
use crate::forward_write::forward_write;
use crate::host::CountedStream;
use crate::mplex::MplexStream;
use crate::negotiate::Negotiated;

/// A bidirectional stream to a peer, for one protocol: tokio's `AsyncRead` and `AsyncWrite`.
///
/// Shutting it down ends the writing direction after all written bytes (FIN). Dropping it before resets the
/// stream: the peer's reads and writes fail. Dropping it before the peer's end was read refuses the rest.
///
/// # Limits
/// Over yamux, whose crate reports a reset and a lost connection as an end, a stream whose writing direction was shut
/// down cannot tell them from the peer's end. A protocol must know from its messages whether they are complete.
///
/// # Cancel safety
/// Reads and writes are those of tokio: a cancelled `read` loses nothing.
pub struct Stream {
    inner: Negotiated<RawStream>,
    protocol: Arc<str>,
    peer: HostAddr,
    /// Released when the stream is dropped.
    held: Held,
}

/// What a stream holds of its connection.
pub(crate) struct Held {
    pub(crate) permit: Option<OwnedSemaphorePermit>,
    pub(crate) _counted: Option<CountedStream>,
}

impl Stream {
    pub(crate) fn new(inner: Negotiated<RawStream>, protocol: Arc<str>, peer: HostAddr, held: Held) -> Self {
        Self {
            inner,
            protocol,
            peer,
            held,
        }
    }

    /// Makes room for another stream before this one is ended: its peer may open another as soon as it has the end.
    pub(crate) fn release(&mut self) {
        self.held.permit = None;
    }

    /// Returns the protocol of the stream.
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// Returns the peer, whose identity the connection proved.
    pub fn peer(&self) -> &HostAddr {
        &self.peer
    }

    /// Writes all of `bytes`. Over QUIC they are kept until the peer has acknowledged them, not copied.
    ///
    /// # Errors
    /// Those of `write_all`.
    ///
    /// # Cancel safety
    /// A cancelled call may have written a part.
    pub async fn write_bytes(&mut self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            poll_fn(|cx| self.inner.get_mut().poll_write_bytes(cx, &mut bytes)).await?;
        }
        Ok(())
    }

    /// Waits until the peer has acknowledged all written bytes and the end, or the connection has ended. Over TCP, whose
    /// acknowledgements a process does not see, returns at once: what was written leaves before the connection is closed.
    pub(crate) async fn acknowledged(&mut self) {
        if let RawStream::Quic { send, .. } = self.inner.get_mut() {
            // A peer that stopped the stream, and a connection that is lost, take no more.
            let _ = send.stopped().await;
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("protocol", &self.protocol)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    forward_write!(inner);
}

/// Returns the error of a call whose stream to `peer` failed. A lost connection has its reason as a cause.
pub(crate) fn failed(peer: &HostAddr, error: &io::Error) -> Error {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        reason = format!("{reason}: {error}");
        cause = error.source();
    }
    Error::unreachable(peer, reason)
}

/// A stream of a connection, before any negotiation.
pub(crate) enum RawStream {
    Quic {
        send: SendStream,
        recv: RecvStream,
        is_finished: bool,
    },
    Yamux {
        stream: yamux::Stream,
        /// Whether the writing half was ended.
        is_shut: bool,
    },
    Mplex(MplexStream),
}

impl RawStream {
    pub(crate) fn quic((send, recv): (SendStream, RecvStream)) -> Self {
        let is_finished = false;
        Self::Quic {
            send,
            recv,
            is_finished,
        }
    }

    /// Writes some of `bytes`, and removes them.
    fn poll_write_bytes(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
        match self {
            Self::Quic { send, .. } => {
                let written = ready!(pin!(send.write_chunks(slice::from_mut(bytes))).poll(cx));
                Poll::Ready(written.map(drop).map_err(io::Error::from))
            }
            Self::Yamux { stream, .. } => {
                let written = ready!(Pin::new(stream).poll_write(cx, bytes))?;
                bytes.advance(written);
                Poll::Ready(Ok(()))
            }
            Self::Mplex(stream) => {
                let written = ready!(AsyncWrite::poll_write(Pin::new(stream), cx, bytes))?;
                bytes.advance(written);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl From<yamux::Stream> for RawStream {
    fn from(stream: yamux::Stream) -> Self {
        let is_shut = false;
        Self::Yamux { stream, is_shut }
    }
}

impl Drop for RawStream {
    fn drop(&mut self) {
        if let Self::Quic {
            send,
            is_finished: false,
            ..
        } = self
        {
            // quinn finishes a stream that is dropped; an error says that the stream has ended already.
            let _ = send.reset(VarInt::from_u32(0));
        }
        // yamux and mplex reset a stream that is dropped.
    }
}

impl AsyncRead for RawStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic { recv, .. } => recv.poll_read_buf(cx, buf).map_err(io::Error::from),
            Self::Yamux { stream, is_shut } => {
                let read = ready!(Pin::new(&mut *stream).poll_read(cx, buf.initialize_unfilled()))?;
                // The crate reports a reset as an end. A stream that both sides have ended is closed as well.
                if read == 0 && buf.remaining() > 0 && stream.is_closed() && !*is_shut {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                buf.advance(read);
                Poll::Ready(Ok(()))
            }
            Self::Mplex(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for RawStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Quic { send, .. } => Pin::new(send).poll_write(cx, buf).map_err(io::Error::from),
            Self::Yamux { stream, .. } => Pin::new(stream).poll_write(cx, buf),
            Self::Mplex(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // A QUIC connection sends what is written.
            Self::Quic { .. } => Poll::Ready(Ok(())),
            Self::Yamux { stream, .. } => Pin::new(stream).poll_flush(cx),
            Self::Mplex(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic {
                send, is_finished, ..
            } => {
                *is_finished = true;
                // Fails only where the stream was finished or reset before.
                let _ = send.finish();
                Poll::Ready(Ok(()))
            }
            Self::Yamux { stream, is_shut } => {
                *is_shut = true;
                Pin::new(stream).poll_close(cx)
            }
            Self::Mplex(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
