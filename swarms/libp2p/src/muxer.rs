//! yamux over an encrypted connection (libp2p specification, yamux), by the published crate.
//!
//! The task of a connection polls its [`Muxer`], which moves all its streams; other tasks open streams by a
//! channel to it.
//!
//! # Limits
//! A connection has at most [`MAX_STREAMS`] streams; a peer that opens more ends the connection. The receive
//! windows of all streams together are at most 256 KiB for each of them.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::{AsyncRead as FuturesRead, AsyncWrite as FuturesWrite};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use yamux::{Config, Connection, ConnectionError, Mode};

/// Maximum number of streams of a connection, in both directions together.
pub(crate) const MAX_STREAMS: usize = 512;

/// Requests to open a stream that wait for the muxer; beyond them, callers wait.
const QUEUE: usize = 64;

/// Payload of a data frame in bytes.
const FRAME: usize = 16 << 10;

pub(crate) type Io = Box<dyn EncryptedIo>;

/// An encrypted byte stream.
pub(crate) trait EncryptedIo: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> EncryptedIo for T {}

type Reply = oneshot::Sender<Result<yamux::Stream, ConnectionError>>;

enum Command {
    Open(Reply),
    Close,
}

/// Opens streams of a muxer, and closes it.
#[derive(Clone, Debug)]
pub(crate) struct MuxerHandle(mpsc::Sender<Command>);

/// A yamux connection, which its task polls.
pub(crate) struct Muxer {
    connection: Connection<Compat>,
    commands: mpsc::Receiver<Command>,
    opening: Option<Reply>,
    is_closing: bool,
}

impl Muxer {
    pub(crate) fn new(io: Io, is_dialler: bool) -> (Self, MuxerHandle) {
        let mut config = Config::default();
        config.set_split_send_size(FRAME);
        config.set_max_num_streams(MAX_STREAMS);
        config.set_max_connection_receive_window(Some(MAX_STREAMS * yamux::DEFAULT_CREDIT as usize));
        let mode = if is_dialler { Mode::Client } else { Mode::Server };
        let (sender, commands) = mpsc::channel(QUEUE);
        let muxer = Self {
            connection: Connection::new(Compat(io), config, mode),
            commands,
            opening: None,
            is_closing: false,
        };
        (muxer, MuxerHandle(sender))
    }

    /// Moves all streams until the peer opens one; returns `None` when the connection has ended.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing.
    pub(crate) async fn accept(&mut self) -> Option<Result<yamux::Stream, ConnectionError>> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Ends all streams, and closes the connection after what was written.
    pub(crate) async fn close(&mut self) {
        // An error says that the connection has ended already.
        let _ = poll_fn(|cx| self.connection.poll_close(cx)).await;
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<yamux::Stream, ConnectionError>>> {
        loop {
            if self.is_closing {
                return self.connection.poll_close(cx).map(|_| None);
            }
            if let Some(reply) = self.opening.take() {
                match self.connection.poll_new_outbound(cx) {
                    Poll::Ready(opened) => {
                        // A caller that is gone drops the stream, which resets it.
                        let _ = reply.send(opened);
                        continue;
                    }
                    Poll::Pending => self.opening = Some(reply),
                }
            } else {
                match self.commands.poll_recv(cx) {
                    Poll::Ready(Some(Command::Open(reply))) => {
                        self.opening = Some(reply).filter(|reply| !reply.is_closed());
                        continue;
                    }
                    Poll::Ready(Some(Command::Close) | None) => {
                        self.is_closing = true;
                        continue;
                    }
                    Poll::Pending => {}
                }
            }
            return self.connection.poll_next_inbound(cx);
        }
    }
}

impl MuxerHandle {
    /// Opens a stream.
    pub(crate) async fn open(&self) -> io::Result<yamux::Stream> {
        let ended = || io::Error::new(io::ErrorKind::ConnectionAborted, "the connection has ended");
        let (reply, opened) = oneshot::channel();
        self.0.send(Command::Open(reply)).await.map_err(|_| ended())?;
        let opened = opened.await.map_err(|_| ended())?;
        opened.map_err(|error| io::Error::new(io::ErrorKind::ConnectionAborted, error))
    }

    /// Returns whether the connection has ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.0.is_closed()
    }

    /// Closes the connection. Returns whether its task was told; otherwise it has ended or is overloaded.
    pub(crate) fn close(&self) -> bool {
        self.0.try_send(Command::Close).is_ok()
    }
}

/// The traits of the `futures` crate, which yamux takes, for an encrypted stream.
struct Compat(Io);

impl FuturesRead for Compat {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    }
}

impl FuturesWrite for Compat {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    /// Ends the writing direction, and waits for the peer's end: a TCP socket that is dropped with unread bytes, or
    /// that gets bytes after it was dropped, is reset, and the peer loses what it has not read.
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_shutdown(cx))?;
        loop {
            let mut rest = [0; 1024];
            let mut rest = ReadBuf::new(&mut rest);
            ready!(Pin::new(&mut self.0).poll_read(cx, &mut rest))?;
            if rest.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
