//! yamux over an encrypted connection (libp2p specification, yamux), by the published crate.
//!
//! The task of a connection polls its [`Muxer`], which moves all its streams; other tasks open streams by a
//! channel to it.
//!
//! # Limits
//! A connection has at most [`MAX_STREAMS`] streams; a peer that opens more is told to go away, and gets no stream. The
//! receive windows of all streams together are at most 256 KiB for each of them. The crate keeps each data frame that
//! waits for a reader in a buffer of its own, so frames of a few bytes occupy many times their length.

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

/// Bytes that are read at most before written frames leave.
const UNFLUSHED: usize = 64 << 10;

pub(crate) type Io = Box<dyn EncryptedIo>;

/// An encrypted byte stream.
pub(crate) trait EncryptedIo: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> EncryptedIo for T {}

type Reply = oneshot::Sender<Result<yamux::Stream, ConnectionError>>;

/// Opens streams of a muxer.
#[derive(Clone, Debug)]
pub(crate) struct MuxerHandle(mpsc::Sender<Reply>);

/// A yamux connection, which its task polls.
pub(crate) struct Muxer {
    connection: Connection<Compat>,
    requests: mpsc::Receiver<Reply>,
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
        let (sender, requests) = mpsc::channel(QUEUE);
        let muxer = Self {
            connection: Connection::new(Compat::new(io), config, mode),
            requests,
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
                match self.requests.poll_recv(cx) {
                    Poll::Ready(Some(reply)) => {
                        self.opening = Some(reply).filter(|reply| !reply.is_closed());
                        continue;
                    }
                    Poll::Ready(None) => {
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
        self.0.send(reply).await.map_err(|_| ended())?;
        let opened = opened.await.map_err(|_| ended())?;
        opened.map_err(|error| io::Error::new(io::ErrorKind::ConnectionAborted, error))
    }

    /// Returns whether the connection has ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.0.is_closed()
    }
}

/// The traits of the `futures` crate, which yamux takes, for an encrypted stream.
///
/// yamux flushes after each frame. Here frames that follow one another leave together: when nothing is left to read,
/// which yamux tries last, or when [`UNFLUSHED`] bytes were read meanwhile.
struct Compat {
    io: Io,
    /// Bytes that were read since something was written that is not flushed yet.
    unflushed: Option<usize>,
}

impl Compat {
    fn new(io: Io) -> Self {
        let unflushed = None;
        Self { io, unflushed }
    }

    fn poll_flush_now(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.io).poll_flush(cx));
        self.unflushed = None;
        Poll::Ready(flushed)
    }
}

impl FuturesRead for Compat {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        let read = Pin::new(&mut self.io).poll_read(cx, &mut buf)?;
        if let Some(unflushed) = &mut self.unflushed {
            *unflushed += buf.filled().len();
            if (read.is_pending() || *unflushed >= UNFLUSHED)
                && let Poll::Ready(Err(error)) = self.poll_flush_now(cx)
            {
                return Poll::Ready(Err(error));
            }
        }
        read.map(|()| Ok(buf.filled().len()))
    }
}

impl FuturesWrite for Compat {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        if written.is_ready() {
            self.unflushed.get_or_insert(0);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends the writing direction, and waits for the peer's end: a TCP socket that is dropped with unread bytes, or
    /// that gets bytes after it was dropped, is reset, and the peer loses what it has not read.
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        loop {
            let mut rest = [0; 1024];
            let mut rest = ReadBuf::new(&mut rest);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut rest))?;
            if rest.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::Waker;

    use super::*;

    /// A stream that counts flushes, and has this many bytes to read.
    struct Counting {
        flushes: Arc<AtomicUsize>,
        readable: usize,
    }

    impl AsyncRead for Counting {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.readable == 0 {
                return Poll::Pending;
            }
            let read = buf.remaining().min(self.readable);
            self.readable -= read;
            buf.initialize_unfilled_to(read);
            buf.advance(read);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Counting {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes.fetch_add(1, SeqCst);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll_flush(cx)
        }
    }

    /// Writes and flushes `frames` as yamux does, then reads to the end. Returns the number of flushes below.
    fn flushes(frames: usize, readable: usize) -> usize {
        let flushes = Arc::new(AtomicUsize::new(0));
        let mut io = Compat::new(Box::new(Counting {
            flushes: flushes.clone(),
            readable,
        }));
        let mut cx = Context::from_waker(Waker::noop());
        let mut io = Pin::new(&mut io);
        for _ in 0..frames {
            assert!(io.as_mut().poll_write(&mut cx, &[7; 64]).is_ready());
            assert!(io.as_mut().poll_flush(&mut cx).is_ready());
        }
        while io.as_mut().poll_read(&mut cx, &mut [0; FRAME]).is_ready() {}
        flushes.load(SeqCst)
    }

    #[test]
    fn frames_in_a_row_are_flushed_once_when_nothing_is_left_to_read() {
        assert_eq!(
            [flushes(0, 0), flushes(1, 0), flushes(8, 0), flushes(8, 100)],
            [0, 1, 1, 1]
        );
    }

    #[test]
    fn frames_leave_while_there_is_more_to_read() {
        let flushes = Arc::new(AtomicUsize::new(0));
        let mut io = Compat::new(Box::new(Counting {
            flushes: flushes.clone(),
            readable: usize::MAX,
        }));
        let mut cx = Context::from_waker(Waker::noop());
        let mut io = Pin::new(&mut io);
        assert!(io.as_mut().poll_write(&mut cx, &[7; 64]).is_ready());
        for _ in 0..UNFLUSHED / FRAME {
            assert_eq!(flushes.load(SeqCst), 0);
            assert!(io.as_mut().poll_read(&mut cx, &mut [0; FRAME]).is_ready());
        }
        assert_eq!(flushes.load(SeqCst), 1);
    }
}
