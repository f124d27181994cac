//! Message framing: a tell is the whole contents of a unidirectional stream; an ask is a length of 4 bytes,
//! big endian, followed by as many bytes, in each direction of a bidirectional stream.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use p2p::{DropReason, Packet, Rejection};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};

use super::budget::{Budget, Charge};
use super::sent::{Unacknowledged, reset};

/// Length of the length field in front of a request and of a response.
pub(super) const LENGTH: usize = 4;

/// Why a message did not arrive completely.
#[derive(Debug)]
pub(super) enum Cut {
    /// It is dropped here, for this reason.
    Dropped(DropReason),
    /// The peer reset the stream, with this code.
    Reset(VarInt),
    /// The stream ended after this many bytes, which are too few.
    Short(usize),
    /// The session ended.
    Lost(quinn::ConnectionError),
}

/// Charge for an incomplete message in addition to its bytes: the stream, and the waiting future.
pub(super) const WAITING: usize = 1024;

/// A message that is being received. Its buffer grows with received bytes, not with the announced length.
#[derive(Debug)]
pub(super) struct Incoming {
    recv: RecvStream,
    buf: BytesMut,
    /// Whether a length field comes first; data after the announced bytes is ignored.
    framed: bool,
    mtu: usize,
    /// Whether it is the response to an ask of this node.
    own: bool,
    /// Charged while the rest is awaited.
    charge: Option<Charge>,
}

/// Maximum length of messages that arrive in few chunks.
const SHORT: usize = 2048;
/// Room that a longer message gets, as a multiple of what has arrived.
const GROWTH: usize = 4;

impl Incoming {
    pub(super) fn tell(recv: RecvStream, mtu: usize) -> Self {
        Self::new(recv, false, mtu)
    }

    pub(super) fn request(recv: RecvStream, mtu: usize) -> Self {
        Self::new(recv, true, mtu)
    }

    pub(super) fn response(recv: RecvStream, mtu: usize) -> Self {
        let own = true;
        Self {
            own,
            ..Self::new(recv, true, mtu)
        }
    }

    fn new(recv: RecvStream, framed: bool, mtu: usize) -> Self {
        Self {
            recv,
            buf: BytesMut::new(),
            framed,
            mtu,
            own: false,
            charge: None,
        }
    }

    /// Waits until the message is complete; until then it is charged to `budget`.
    ///
    /// If the stream ends with its message, its end is read as well, so that it costs nothing further.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, budget: &Arc<Budget>) -> Poll<Result<Packet, Cut>> {
        loop {
            if let Some(whole) = self.frame()? {
                let mut buf = std::mem::take(&mut self.buf);
                buf.truncate(whole);
                // The length field becomes headroom of the packet.
                return Poll::Ready(Ok(Packet::from_buffer(buf, LENGTH)));
            }
            // A short message is one chunk and the end, which are read together if there is room for two
            // chunks.
            let read = if self.buf.len() < SHORT {
                self.read::<2>(cx)
            } else {
                self.read::<32>(cx)
            };
            let Poll::Ready(more) = read else {
                let charge = self.charge.get_or_insert_with(|| Charge::new(budget, self.own));
                if !charge.raise(WAITING + self.buf.capacity()) {
                    return Poll::Ready(Err(Cut::Dropped(DropReason::Budget)));
                }
                return Poll::Pending;
            };
            if !more? {
                return Poll::Ready(if self.framed {
                    Err(Cut::Short(self.buf.len()))
                } else {
                    Ok(Packet::from_buffer(std::mem::take(&mut self.buf), 0))
                });
            }
        }
    }

    /// Reads up to this many chunks; returns whether there were any before the end.
    fn read<const PIECES: usize>(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Cut>> {
        let mut pieces = [const { Bytes::new() }; PIECES];
        let read = pin!(self.recv.read_chunks(&mut pieces)).poll(cx);
        let read = ready!(read).map_err(|error| match error {
            ReadError::Reset(code) => Cut::Reset(code),
            ReadError::ConnectionLost(error) => Cut::Lost(error),
            // No other code reads this stream.
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
                Cut::Dropped(DropReason::Malformed)
            }
        })?;
        let Some(read) = read else {
            return Poll::Ready(Ok(false));
        };
        self.append(pieces.get(..read).unwrap_or_default())?;
        Poll::Ready(Ok(true))
    }

    fn append(&mut self, pieces: &[Bytes]) -> Result<(), Cut> {
        let more = pieces.iter().map(Bytes::len).sum::<usize>();
        if !self.framed && self.buf.len() + more > self.mtu {
            return Err(Cut::Dropped(DropReason::Oversize));
        }
        self.grow(more);
        for piece in pieces {
            self.buf.extend_from_slice(piece);
            if self.frame()?.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Makes room for `more` bytes. Each growth copies what has arrived, so a long message gets more room than it needs
    /// now, up to that of the longest one.
    fn grow(&mut self, more: usize) {
        let needed = self.buf.len() + more;
        if needed > self.buf.capacity() {
            let longest = self.mtu.saturating_add(LENGTH);
            let ample = if needed < SHORT {
                needed
            } else {
                needed.saturating_mul(GROWTH).min(longest)
            };
            // No more than this: `reserve` would at least double the room, beyond that of the longest message.
            let mut buf = BytesMut::with_capacity(ample.max(needed));
            buf.extend_from_slice(&self.buf);
            self.buf = buf;
        }
    }

    /// Returns the length of the frame if it is complete and the message is framed.
    fn frame(&self) -> Result<Option<usize>, Cut> {
        if !self.framed {
            return Ok(None);
        }
        let whole = announced(&self.buf, self.mtu)?;
        Ok(whole.filter(|whole| self.buf.len() >= *whole))
    }
}

/// Returns the length of the frame at the start of `buf`, including its length field, if that has arrived.
pub(super) fn announced(buf: &[u8], mtu: usize) -> Result<Option<usize>, Cut> {
    let Some(length) = buf.first_chunk::<LENGTH>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > mtu {
        return Err(Cut::Dropped(DropReason::Oversize));
    }
    Ok(Some(length + LENGTH))
}

/// Prepends the length to a packet, which the MTU bounds to less than 4 GiB.
pub(super) fn frame(packet: &mut Packet) {
    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    packet.push_front(&length.to_be_bytes());
}

/// A stream that is written. Dropping it before it is finished resets it.
#[derive(Debug)]
pub(super) struct Outgoing(Option<SendStream>);

impl Outgoing {
    pub(super) fn new(send: SendStream) -> Self {
        Self(Some(send))
    }

    /// Writes `rest`, removing the written part, and finishes the stream; `sent` keeps it until it is
    /// acknowledged.
    ///
    /// # Errors
    /// Returns the errors of a stream, and [`WriteError::ClosedStream`] if the session is closing.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        rest: &mut Bytes,
        sent: &Unacknowledged,
    ) -> Poll<Result<(), WriteError>> {
        while let Some(send) = &mut self.0
            && !rest.is_empty()
        {
            let written = pin!(send.write_chunks(std::slice::from_mut(rest))).poll(cx);
            if let Err(error) = ready!(written) {
                self.reset(Rejection::DROPPED);
                return Poll::Ready(Err(error));
            }
        }
        let finished = self.0.take().is_none_or(|send| sent.finish(send));
        Poll::Ready(if finished {
            Ok(())
        } else {
            Err(WriteError::ClosedStream)
        })
    }

    /// Finishes the stream after the bytes written so far.
    pub(super) fn finish(&mut self) {
        // Quinn finishes a stream on drop, unless the peer stopped it and so does not want the data.
        self.0 = None;
    }

    /// Resets the stream with a reason.
    pub(super) fn reset(&mut self, why: Rejection) {
        if let Some(mut send) = self.0.take() {
            reset(&mut send, why);
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.reset(Rejection::DROPPED);
    }
}

/// Waits for `future`, for at most `limit` if it is not ready at once; no timer is set if it is.
pub(super) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let now = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
    match now {
        Poll::Ready(value) => Some(value),
        Poll::Pending => tokio::time::timeout(limit, future).await.ok(),
    }
}

/// Returns the output of `future` if it is ready at once.
pub(super) fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_frame_contains_its_length(payload in proptest::collection::vec(any::<u8>(), 0..300), more: Vec<u8>) {
            let mut packet = Packet::from(payload.clone());
            frame(&mut packet);
            let mut bytes = packet.to_vec();
            bytes.extend(more);
            prop_assert_eq!(announced(&bytes, payload.len()).ok(), Some(Some(payload.len() + LENGTH)));
            prop_assert_eq!(&bytes[LENGTH..LENGTH + payload.len()], &payload[..]);
            if let Some(less) = payload.len().checked_sub(1) {
                prop_assert!(announced(&bytes, less).is_err());
            }
        }

        #[test]
        fn an_announced_length_never_exceeds_the_mtu(bytes: Vec<u8>, mtu in 0..100_000_usize) {
            match announced(&bytes, mtu) {
                Ok(None) => prop_assert!(bytes.len() < LENGTH),
                Ok(Some(whole)) => prop_assert!(whole <= mtu + LENGTH),
                Err(cut) => prop_assert!(matches!(cut, Cut::Dropped(DropReason::Oversize))),
            }
        }
    }
}
