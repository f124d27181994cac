//! mplex (libp2p specification, mplex) over a reliable byte stream. It is deprecated, since it has no flow control, and off
//! unless it is configured; some peers have nothing else.
//!
//! It is written here, since the published crate bounds the frames that wait for readers, of up to 1 MiB each, and not
//! their bytes: 128 streams of 32 frames are 4 GiB. The task of a connection polls its [`Mplex`], which moves the bytes
//! of all streams.
//!
//! ```
//! use p2p_libp2p::mplex::Mplex;
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let (ours, theirs) = duplex(1024);
//! let ((mut ours, opener), (mut theirs, _handle)) = (Mplex::new(ours), Mplex::new(theirs));
//! tokio::spawn(async move { while let Some(Ok(_)) = ours.accept().await {} });
//! let mut stream = opener.open()?;
//! stream.write_all(b"hello").await?;
//! stream.shutdown().await?;
//!
//! let mut accepted = theirs.accept().await.expect("an open connection")?;
//! tokio::spawn(async move { theirs.accept().await.is_none() });
//! let mut text = String::new();
//! accepted.read_to_string(&mut text).await?;
//! assert_eq!(text, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//! A connection has at most 256 streams that the peer opened; further ones are reset. Received bytes that wait for
//! readers are at most 1 MiB and one read, 16 KiB, for all streams together. Then nothing is read from the connection,
//! so one slow reader stalls all others, for at most 5 s; after that its stream is reset. Writers wait when 64 KiB
//! wait to be sent, and a peer that makes this host answer without taking the answers loses the connection.

mod engine;
mod wire;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use self::engine::{Engine, Read, Write};
use self::wire::StreamId;
use crate::muxer::Io;

/// How long a reader that does not read stalls the streams beside it.
const STALL: Duration = Duration::from_secs(5);

/// Bytes that are read from the connection at once.
const READ: usize = 16 << 10;

#[derive(Debug, Default)]
struct State {
    engine: Engine,
    /// The task of the connection.
    task: Option<Waker>,
    is_closing: bool,
}

impl State {
    fn wake(&mut self) {
        engine::wake(&mut self.task);
    }
}

type Shared = Arc<Mutex<State>>;

/// A connection, which its task polls.
pub struct Mplex {
    io: Io,
    shared: Shared,
    /// Bytes that are being sent.
    sending: BytesMut,
    needs_flush: bool,
    chunk: Box<[u8]>,
    stalled: Option<Pin<Box<Sleep>>>,
}

/// Opens streams of a connection, and closes it when it is dropped.
#[derive(Debug)]
pub struct MplexHandle(Shared);

/// One end of a stream. Dropping it resets the stream, unless its writing half was ended: then the rest of what the peer sends
/// is dropped.
#[derive(Debug)]
pub struct MplexStream {
    shared: Shared,
    id: StreamId,
}

impl Mplex {
    /// Starts mplex on a byte stream, at whose other end the peer does so too. Dropping the result ends all streams.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> (Self, MplexHandle) {
        Self::over(Box::new(io))
    }

    pub(crate) fn over(io: Io) -> (Self, MplexHandle) {
        let shared = Shared::default();
        let mplex = Self {
            io,
            shared: shared.clone(),
            sending: BytesMut::new(),
            needs_flush: false,
            chunk: vec![0; READ].into(),
            stalled: None,
        };
        (mplex, MplexHandle(shared))
    }

    /// Moves all streams until the peer opens one; returns `None` when the connection has ended.
    ///
    /// # Errors
    /// The error of the byte stream, or [`io::ErrorKind::InvalidData`] if the peer broke the protocol or takes no answers.
    /// The connection is of no further use.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing.
    pub async fn accept(&mut self) -> Option<io::Result<MplexStream>> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Ends all streams, and closes the connection after what was written.
    pub async fn close(&mut self) {
        self.shared.lock().engine.end();
        // An error says that the connection has ended already.
        let _ = poll_fn(|cx| self.poll_close(cx)).await;
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<MplexStream>>> {
        loop {
            // Before the looks at what there is to do, so that nothing is missed.
            self.shared.lock().task = Some(cx.waker().clone());
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(Some(Err(error)));
            }
            let (opened, is_closing, has_room) = {
                let mut state = self.shared.lock();
                (state.engine.accept(), state.is_closing, state.engine.has_room())
            };
            if let Some(id) = opened {
                let shared = self.shared.clone();
                return Poll::Ready(Some(Ok(MplexStream { shared, id })));
            }
            if is_closing {
                self.shared.lock().engine.end();
                return self.poll_close(cx).map(|_| None);
            }
            if !has_room {
                let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALL)));
                ready!(stalled.as_mut().poll(cx));
                self.stalled = None;
                self.shared.lock().engine.reset_slowest();
                continue;
            }
            self.stalled = None;
            let mut buf = ReadBuf::new(&mut self.chunk);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf)) {
                Ok(()) if buf.filled().is_empty() => return Poll::Ready(None),
                Ok(()) => {
                    let handled = self.shared.lock().engine.handle_bytes(buf.filled());
                    if let Err(error) = handled {
                        return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::InvalidData, error))));
                    }
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Sends what streams have written.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.sending.is_empty() {
                self.sending = self.shared.lock().engine.take_out();
            }
            if self.sending.is_empty() {
                if self.needs_flush {
                    ready!(Pin::new(&mut self.io).poll_flush(cx))?;
                    self.needs_flush = false;
                }
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.sending))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sending.advance(count),
            }
            self.needs_flush = true;
        }
    }

    /// Sends the rest, ends the writing direction, and waits for the peer's end: a TCP socket that is dropped with unread
    /// bytes is reset, and the peer loses what it has not read.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        loop {
            let mut rest = ReadBuf::new(&mut self.chunk);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut rest))?;
            if rest.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Drop for Mplex {
    fn drop(&mut self) {
        self.shared.lock().engine.end();
    }
}

impl fmt::Debug for Mplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mplex")
            .field("sending", &self.sending.len())
            .finish_non_exhaustive()
    }
}

impl MplexHandle {
    /// Opens a stream.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionAborted`] if the connection has ended.
    pub fn open(&self) -> io::Result<MplexStream> {
        let mut state = self.0.lock();
        let ended = || io::Error::new(io::ErrorKind::ConnectionAborted, "the connection has ended");
        let id = state
            .engine
            .open()
            .filter(|_| !state.is_closing)
            .ok_or_else(ended)?;
        state.wake();
        let shared = self.0.clone();
        Ok(MplexStream { shared, id })
    }

    /// Returns whether the connection has ended.
    pub fn is_ended(&self) -> bool {
        self.0.lock().engine.is_ended()
    }
}

impl Drop for MplexHandle {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closing = true;
        state.wake();
    }
}

impl AsyncRead for MplexStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.shared.lock();
        let had_room = state.engine.has_room();
        match state.engine.read(self.id, buf.initialize_unfilled(), cx.waker()) {
            Read::Bytes(count) => {
                buf.advance(count);
                if !had_room {
                    state.wake();
                }
                Poll::Ready(Ok(()))
            }
            Read::End => Poll::Ready(Ok(())),
            Read::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Read::Nothing => Poll::Pending,
        }
    }
}

impl AsyncWrite for MplexStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.shared.lock();
        match state.engine.write(self.id, buf, cx.waker()) {
            Write::Taken(count) => {
                state.wake();
                Poll::Ready(Ok(count))
            }
            Write::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Write::Closed => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Write::Full => Poll::Pending,
        }
    }

    /// Completes at once: the task of the connection sends what is written.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        state.engine.close_write(self.id);
        state.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for MplexStream {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.engine.remove(self.id);
        state.wake();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::{Instant, timeout};

    use super::*;

    /// Serves accepted streams until the connection ends.
    fn run(mut mplex: Mplex) -> tokio::sync::mpsc::UnboundedReceiver<MplexStream> {
        let (accepted, streams) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(stream)) = mplex.accept().await {
                let _ = accepted.send(stream);
            }
        });
        streams
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_read_is_reset_and_stalls_no_other_for_long() {
        let (ours, theirs) = duplex(READ);
        let ((ours, opener), (theirs, _theirs)) = (Mplex::new(ours), Mplex::new(theirs));
        let (_ours, mut accepted) = (run(ours), run(theirs));
        let mut slow = opener.open().expect("a stream");
        let flood = tokio::spawn(async move {
            loop {
                if let Err(error) = slow.write_all(&[0; 4096]).await {
                    return error.kind();
                }
            }
        });
        let mut not_read = accepted.recv().await.expect("a stream");
        let began = Instant::now();
        // Time goes on once nothing moves: everything is full then.
        sleep(STALL / 2).await;
        let mut heard = String::new();
        let exchange = async {
            let mut other = opener.open().expect("a stream");
            other.write_all(b"hello").await.expect("an open stream");
            other.shutdown().await.expect("an open stream");
            let mut echo = accepted.recv().await.expect("a stream");
            echo.read_to_string(&mut heard).await.expect("an open stream");
        };
        timeout(2 * STALL, exchange).await.expect("the stall ends");
        assert_eq!(heard, "hello");
        let stalled = began.elapsed();
        assert!(
            (STALL..STALL + Duration::from_millis(10)).contains(&stalled),
            "{stalled:?}"
        );
        assert_eq!(flood.await.expect("no panic"), io::ErrorKind::ConnectionReset);
        let error = not_read.read_u8().await.expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_sends_garbage_loses_the_connection() {
        let (ours, mut theirs) = duplex(READ);
        let (mut ours, opener) = Mplex::new(ours);
        let mut stream = opener.open().expect("a stream");
        theirs.write_all(&[7, 0]).await.expect("a connection");
        let error = ours.accept().await.expect("a reason").expect_err("no stream");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(ours);
        assert!(opener.is_ended() && opener.open().is_err());
        assert!(stream.read_u8().await.is_err() && stream.write_u8(0).await.is_err());
    }
}
