//! The encrypted stream after the handshake.
//!
//! Written bytes gather in the current frame, which is sealed when it is full and when the stream is flushed. So
//! a muxer's header and body leave in one frame. Frames are sealed and opened in place.

use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use aws_lc_rs::aead::{Aad, LessSafeKey};
use bytes::{Buf as _, BytesMut};
use p2p_protocols::noise::{KEY, TAG, aead_key, nonce};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// Length of a frame's length in bytes.
const LENGTH: usize = 2;
/// Maximum number of plaintext bytes in a frame.
const MAX_PLAIN: usize = u16::MAX as usize - TAG;
/// Sealed bytes that wait for the connection at most; beyond them a write waits.
const MAX_SEALED: usize = 128 << 10;
/// Sealed bytes from which on the buffer has room for all that may wait.
const SMALL: usize = 8 << 10;
/// Bytes that are read from the connection at once.
const READ: usize = 64 << 10;

/// A stream that is encrypted by Noise.
pub struct NoiseStream<S> {
    io: S,
    sealing: Sealing,
    opening: Opening,
}

struct Sealing {
    key: LessSafeKey,
    counter: u64,
    /// Sealed frames, and behind them the frame that is being filled, if there is one.
    out: BytesMut,
    /// Offset of the frame that is being filled.
    frame: Option<usize>,
}

struct Opening {
    key: LessSafeKey,
    counter: u64,
    /// Received bytes, from a frame's first one on.
    received: BytesMut,
    /// Opened bytes that are not read yet.
    plain: BytesMut,
}

impl<S> NoiseStream<S> {
    pub(super) fn new(io: S, send: &[u8; KEY], receive: &[u8; KEY]) -> Option<Self> {
        Some(Self {
            io,
            sealing: Sealing {
                key: aead_key(send)?,
                counter: 0,
                out: BytesMut::new(),
                frame: None,
            },
            opening: Opening {
                key: aead_key(receive)?,
                counter: 0,
                received: BytesMut::new(),
                plain: BytesMut::new(),
            },
        })
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl Sealing {
    /// Adds bytes to the current frame, and seals it if it is full. Returns the number of added bytes.
    fn push(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let frame = *self.frame.get_or_insert_with(|| {
            let frame = self.out.len();
            self.out.extend_from_slice(&[0; LENGTH]);
            frame
        });
        let room = (frame + LENGTH + MAX_PLAIN).saturating_sub(self.out.len());
        let added = bytes.get(..room).unwrap_or(bytes);
        if self.out.capacity() < self.out.len() + added.len() && self.out.len() + added.len() > SMALL {
            // Much is being written: the buffer moves no more.
            self.out.reserve(MAX_SEALED + LENGTH + MAX_PLAIN + TAG);
        }
        self.out.extend_from_slice(added);
        if added.len() == room {
            self.seal()?;
        }
        Ok(added.len())
    }

    /// Seals the current frame, if there is one.
    fn seal(&mut self) -> io::Result<()> {
        let Some(frame) = self.frame.take() else {
            return Ok(());
        };
        let Some((length, body)) = self
            .out
            .get_mut(frame..)
            .and_then(|frame| frame.split_at_mut_checked(LENGTH))
        else {
            return Ok(());
        };
        let sealed = u16::try_from(body.len() + TAG).map_err(|_| invalid("a frame is too long"))?;
        length.copy_from_slice(&sealed.to_be_bytes());
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(self.counter), Aad::empty(), body)
            .map_err(|_| invalid("a frame could not be sealed"))?;
        self.counter = self
            .counter
            .checked_add(1)
            .ok_or_else(|| invalid("the nonces are used up"))?;
        self.out.extend_from_slice(tag.as_ref());
        Ok(())
    }
}

impl Opening {
    /// Opens the next frame, if it has arrived.
    fn open(&mut self) -> io::Result<bool> {
        let Some(length) = self.received.first_chunk::<LENGTH>() else {
            return Ok(false);
        };
        let length = usize::from(u16::from_be_bytes(*length));
        if length < TAG {
            return Err(invalid("a Noise frame is shorter than its tag"));
        }
        if self.received.len() < LENGTH + length {
            return Ok(false);
        }
        self.received.advance(LENGTH);
        let mut frame = self.received.split_to(length);
        let opened = self
            .key
            .open_in_place(nonce(self.counter), Aad::empty(), &mut frame)
            .map_err(|_| invalid("a Noise frame is not authentic"))?
            .len();
        self.counter = self
            .counter
            .checked_add(1)
            .ok_or_else(|| invalid("the nonces are used up"))?;
        frame.truncate(opened);
        self.plain = frame;
        if self.received.is_empty() {
            // An idle connection keeps no buffer.
            self.received = BytesMut::new();
        }
        Ok(true)
    }
}

impl<S: AsyncWrite + Unpin> NoiseStream<S> {
    /// Writes sealed frames until at most `rest` bytes wait.
    fn poll_drain(&mut self, cx: &mut Context<'_>, rest: usize) -> Poll<io::Result<()>> {
        while self.sealing.out.len() > rest {
            let sealed = self.sealing.frame.unwrap_or(self.sealing.out.len());
            let written = ready!(
                Pin::new(&mut self.io).poll_write(cx, self.sealing.out.get(..sealed).unwrap_or_default())
            )?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sealing.out.advance(written);
            if let Some(frame) = &mut self.sealing.frame {
                *frame = frame.saturating_sub(written);
            }
        }
        if self.sealing.out.is_empty() {
            self.sealing.out = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for NoiseStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.opening.plain.is_empty() {
            // A frame without contents is skipped.
            if this.opening.open()? {
                continue;
            }
            let filled = this.opening.received.len();
            this.opening.received.reserve(READ);
            let read = pin!(this.io.read_buf(&mut this.opening.received)).poll(cx);
            if read.is_pending() && filled == 0 {
                // An idle connection keeps no buffer.
                this.opening.received = BytesMut::new();
            }
            let count = ready!(read)?;
            if count == 0 {
                return Poll::Ready(if filled == 0 {
                    Ok(())
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                });
            }
        }
        let len = this.opening.plain.len().min(buf.remaining());
        buf.put_slice(this.opening.plain.get(..len).unwrap_or_default());
        this.opening.plain.advance(len);
        if this.opening.plain.is_empty() {
            this.opening.plain = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for NoiseStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.sealing.out.len() >= MAX_SEALED {
            this.sealing.seal()?;
            ready!(this.poll_drain(cx, MAX_SEALED / 2))?;
        }
        Poll::Ready(this.sealing.push(buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.sealing.seal()?;
        ready!(this.poll_drain(cx, 0))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl<S> fmt::Debug for NoiseStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoiseStream")
            .field("sent", &self.sealing.counter)
            .field("received", &self.opening.counter)
            .finish_non_exhaustive()
    }
}
