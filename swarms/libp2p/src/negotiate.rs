//! multistream-select 1.0: the negotiation of a protocol on a connection or a stream (libp2p specification,
//! connections).
//!
//! A message is a varint length, a text, and a line feed that the length includes. The dialler sends the header and
//! its first proposal together; the listener answers with the header, and with the proposal or `na`. The bytes
//! behind the accepted proposal belong to the protocol, also where they arrive together with it: a
//! [`Negotiated`] keeps them for its reader.
//!
//! The published crate is not used: its stream panics when it is read again after an error that the peer caused,
//! and it accepts messages of 16 KiB.
//!
//! # Limits
//! A message has at most [`MAX_LINE`] bytes, and a listener answers at most [`MAX_PROPOSALS`] proposals. The
//! caller bounds the time.

mod wire;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use self::wire::{HEADER, REFUSAL, encode, take_line};
pub use self::wire::{MAX_LINE, MalformedLine};
use crate::forward_write::forward_write;

/// Maximum number of proposals that a listener answers.
pub const MAX_PROPOSALS: usize = 64;

/// Bytes that a negotiation reads at once.
const READ: usize = 1280;

/// The reason for which a negotiation failed. The stream is of no further use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiateError {
    /// A message is not valid.
    #[error("multistream-select: {0}")]
    Malformed(#[from] MalformedLine),
    /// The first message is not the header.
    #[error("multistream-select: the first message is not the header of version 1.0.0")]
    Header,
    /// The peer answered with a text that is neither the proposal nor a refusal.
    #[error("multistream-select: the answer is neither the proposal nor a refusal")]
    Answer,
    /// The peer refused every proposal.
    #[error("the peer supports none of the proposed protocols")]
    Refused,
    /// The peer made more than [`MAX_PROPOSALS`] proposals.
    #[error("multistream-select: more than {MAX_PROPOSALS} proposals")]
    TooMany,
    /// The stream ended.
    #[error("the stream ended within its negotiation")]
    Ended,
    /// The stream failed.
    #[error("the stream failed within its negotiation: {0}")]
    Io(#[from] io::Error),
}

impl From<NegotiateError> for io::Error {
    fn from(error: NegotiateError) -> Self {
        match error {
            NegotiateError::Io(error) => error,
            NegotiateError::Ended => io::Error::new(io::ErrorKind::UnexpectedEof, error),
            NegotiateError::Refused => io::Error::new(io::ErrorKind::Unsupported, error),
            error => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// A stream that is negotiated, or whose single proposal awaits its answer.
///
/// Reading first awaits the answer to a lazy proposal. After an error that the peer caused, every further read
/// fails as well.
pub struct Negotiated<S> {
    inner: S,
    /// Received bytes that are not read yet.
    ahead: BytesMut,
    awaited: Awaited,
}

/// What a dialler awaits before the first byte of the protocol.
enum Awaited {
    Nothing,
    Header(Arc<str>),
    Answer(Arc<str>),
    /// An earlier read failed.
    Failed,
}

impl<S> Negotiated<S> {
    /// Wraps a stream before its negotiation.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            ahead: BytesMut::new(),
            awaited: Awaited::Nothing,
        }
    }

    /// Returns the stream below.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the stream below mutably. Bytes that were read ahead are not in it.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Negotiated<S> {
    /// Proposes `protocols` in turn. Returns the index of the one that the peer accepts.
    ///
    /// # Errors
    /// Any [`NegotiateError`] but [`NegotiateError::TooMany`].
    pub async fn dial(&mut self, protocols: &[&str]) -> Result<usize, NegotiateError> {
        let mut out = encode(HEADER)?;
        for (index, protocol) in protocols.iter().enumerate() {
            out.extend(encode(protocol)?);
            self.send(&out).await?;
            out.clear();
            if index == 0 && self.line().await? != HEADER {
                return Err(NegotiateError::Header);
            }
            match self.line().await? {
                answer if answer == *protocol => return Ok(index),
                answer if answer == REFUSAL => {}
                _ => return Err(NegotiateError::Answer),
            }
        }
        Err(NegotiateError::Refused)
    }

    /// Proposes one protocol, and leaves its answer to the first read. What is written follows the proposal at
    /// once; a peer that refuses the protocol ignores it.
    ///
    /// # Errors
    /// [`NegotiateError::Malformed`] for a protocol id that is too long, and errors of the stream.
    pub async fn dial_lazily(&mut self, protocol: Arc<str>) -> Result<(), NegotiateError> {
        let mut out = encode(HEADER)?;
        out.extend(encode(&protocol)?);
        self.inner.write_all(&out).await?;
        self.awaited = Awaited::Header(protocol);
        Ok(())
    }

    /// Answers proposals until `accept` returns a value for one, and returns that value.
    ///
    /// # Errors
    /// Any [`NegotiateError`] but [`NegotiateError::Answer`]; [`NegotiateError::Refused`] if the peer ends the
    /// stream after refusals.
    pub async fn listen<T>(
        &mut self,
        mut accept: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, NegotiateError> {
        if self.line().await? != HEADER {
            return Err(NegotiateError::Header);
        }
        let mut out = encode(HEADER)?;
        for answered in 0..MAX_PROPOSALS {
            // Header and answer leave together if the proposal is here. Otherwise the peer may await the header.
            let proposal = match take_line(&mut self.ahead) {
                Ok(Some(line)) => line,
                Ok(None) => {
                    self.send(&out).await?;
                    out.clear();
                    match self.line().await {
                        Err(NegotiateError::Ended) if answered > 0 => return Err(NegotiateError::Refused),
                        line => line?,
                    }
                }
                // Behind a refused lazy proposal are bytes of its protocol.
                Err(malformed) => {
                    self.send(&out).await?;
                    return Err(malformed.into());
                }
            };
            if let Some(accepted) = accept(&proposal) {
                out.extend(encode(&proposal)?);
                self.send(&out).await?;
                return Ok(accepted);
            }
            out.extend(encode(REFUSAL)?);
        }
        Err(NegotiateError::TooMany)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), NegotiateError> {
        if !bytes.is_empty() {
            self.inner.write_all(bytes).await?;
            self.inner.flush().await?;
        }
        Ok(())
    }

    async fn line(&mut self) -> Result<String, NegotiateError> {
        loop {
            if let Some(line) = take_line(&mut self.ahead)? {
                return Ok(line);
            }
            self.ahead.reserve(READ);
            if (&mut self.inner)
                .take(READ as u64)
                .read_buf(&mut self.ahead)
                .await?
                == 0
            {
                return Err(NegotiateError::Ended);
            }
        }
    }

    /// Reads the answer to a lazy proposal.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NegotiateError>> {
        loop {
            if matches!(self.awaited, Awaited::Nothing) {
                return Poll::Ready(Ok(()));
            }
            let Some(line) = take_line(&mut self.ahead)? else {
                let mut chunk = [0; READ];
                let mut buf = ReadBuf::new(&mut chunk);
                ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf))?;
                if buf.filled().is_empty() {
                    return Poll::Ready(Err(NegotiateError::Ended));
                }
                self.ahead.extend_from_slice(buf.filled());
                continue;
            };
            self.awaited = match std::mem::replace(&mut self.awaited, Awaited::Failed) {
                Awaited::Header(protocol) if line == HEADER => Awaited::Answer(protocol),
                Awaited::Header(_) => return Poll::Ready(Err(NegotiateError::Header)),
                Awaited::Answer(protocol) if line == *protocol => Awaited::Nothing,
                Awaited::Answer(_) if line == REFUSAL => return Poll::Ready(Err(NegotiateError::Refused)),
                Awaited::Answer(_) | Awaited::Failed | Awaited::Nothing => {
                    return Poll::Ready(Err(NegotiateError::Answer));
                }
            };
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Negotiated<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !matches!(this.awaited, Awaited::Nothing) {
            let answer = ready!(this.poll_answer(cx));
            if let Err(error) = answer {
                this.awaited = Awaited::Failed;
                this.ahead.clear();
                return Poll::Ready(Err(error.into()));
            }
        }
        if this.ahead.is_empty() {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let len = this.ahead.len().min(buf.remaining());
        buf.put_slice(&this.ahead.split_to(len));
        if this.ahead.is_empty() {
            // The memory of the negotiation is freed.
            this.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Negotiated<S> {
    forward_write!(inner);
}

impl<S> fmt::Debug for Negotiated<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Negotiated")
            .field("ahead", &self.ahead.len())
            .finish_non_exhaustive()
    }
}
