//! One message, one stream: a tell is all bytes of a unidirectional stream; an ask is a length of 4 bytes, big endian,
//! and as many bytes, in each direction of a bidirectional one.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use p2p::{Packet, Reason, Rejection};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};

use super::budget::{Budget, Charge};
use super::sent::{Unacknowledged, reset};

/// Bytes of the length in front of a request and of a response.
pub(super) const LENGTH: usize = 4;

/// Why a message did not arrive whole.
#[derive(Debug)]
pub(super) enum Cut {
    /// It is dropped here, for this reason.
    Dropped(Reason),
    /// The peer took it back, with this code.
    Reset(VarInt),
    /// The stream ended after so many bytes, which are too few.
    Short(usize),
    /// The session ended.
    Lost(quinn::ConnectionError),
}

/// What a message that waits for its end is charged besides its bytes: the stream, and the future that waits.
pub(super) const WAITING: usize = 1024;

/// A message that is being received. Its buffer grows with the bytes that came, never with those announced.
#[derive(Debug)]
pub(super) struct Incoming {
    recv: RecvStream,
    buf: BytesMut,
    /// A length stands in front, and what follows the bytes that it counts is ignored.
    framed: bool,
    mtu: usize,
    /// The response to an ask of this node.
    own: bool,
    /// Charged while the rest is waited for.
    charge: Option<Charge>,
}

/// Bytes of messages that take few pieces.
const SHORT: usize = 2048;

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

    /// Waits for the message to be whole; until then `budget` pays for it.
    ///
    /// A stream that ends with its message is read to its end with it, so that it costs nothing further.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, budget: &Arc<Budget>) -> Poll<Result<Packet, Cut>> {
        loop {
            if let Some(whole) = self.frame()? {
                let mut buf = std::mem::take(&mut self.buf);
                buf.truncate(whole);
                // The length becomes room for whatever goes in front of the packet next.
                return Poll::Ready(Ok(Packet::from_buffer(buf, LENGTH)));
            }
            // A short message is one piece and the end, which come together if there is room for two pieces.
            let read = if self.buf.len() < SHORT {
                self.read::<2>(cx)
            } else {
                self.read::<16>(cx)
            };
            let Poll::Ready(more) = read else {
                let charge = self.charge.get_or_insert_with(|| Charge::new(budget, self.own));
                if !charge.raise(WAITING + self.buf.capacity()) {
                    return Poll::Ready(Err(Cut::Dropped(Reason::Budget)));
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

    /// Reads so many pieces at most; says whether there were any before the end.
    fn read<const PIECES: usize>(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Cut>> {
        let mut pieces = [const { Bytes::new() }; PIECES];
        let read = pin!(self.recv.read_chunks(&mut pieces)).poll(cx);
        let read = ready!(read).map_err(|error| match error {
            ReadError::Reset(code) => Cut::Reset(code),
            ReadError::ConnectionLost(error) => Cut::Lost(error),
            // Nobody else reads this stream.
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
                Cut::Dropped(Reason::Malformed)
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
            return Err(Cut::Dropped(Reason::Oversize));
        }
        self.buf.reserve(more);
        for piece in pieces {
            self.buf.extend_from_slice(piece);
            if self.frame()?.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Bytes of the frame that is there whole, if this is a framed message.
    fn frame(&self) -> Result<Option<usize>, Cut> {
        if !self.framed {
            return Ok(None);
        }
        let whole = announced(&self.buf, self.mtu)?;
        Ok(whole.filter(|whole| self.buf.len() >= *whole))
    }
}

/// Bytes of the frame that `buf` begins with, its length included, if that is there.
pub(super) fn announced(buf: &[u8], mtu: usize) -> Result<Option<usize>, Cut> {
    let Some(length) = buf.first_chunk::<LENGTH>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > mtu {
        return Err(Cut::Dropped(Reason::Oversize));
    }
    Ok(Some(length + LENGTH))
}

/// Puts the length in front of a packet, which the MTU keeps below 4 GiB.
pub(super) fn frame(packet: &mut Packet) {
    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    packet.push_front(&length.to_be_bytes());
}

/// A stream that is written. Dropping it before it is finished takes back what was written.
#[derive(Debug)]
pub(super) struct Outgoing(Option<SendStream>);

impl Outgoing {
    pub(super) fn new(send: SendStream) -> Self {
        Self(Some(send))
    }

    /// Writes `rest`, of which it takes what was written, and ends the stream; `sent` keeps it until it is acknowledged.
    ///
    /// # Errors
    /// As those of a stream; [`WriteError::ClosedStream`] also where the session is about to end.
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

    /// Ends the stream with what was written so far.
    pub(super) fn finish(&mut self) {
        // A stream of quinn's finishes as it is dropped, unless the peer stopped it, who then does not care.
        self.0 = None;
    }

    /// Takes the stream back, and says why.
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

/// Waits for `future`, and for at most `limit` where it is not ready at once: then it costs no timer.
pub(super) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let now = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
    match now {
        Poll::Ready(value) => Some(value),
        Poll::Pending => tokio::time::timeout(limit, future).await.ok(),
    }
}

/// What `future` is ready with at once.
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
        fn a_frame_says_its_length(payload in proptest::collection::vec(any::<u8>(), 0..300), more: Vec<u8>) {
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
        fn no_bytes_announce_more_than_the_mtu(bytes: Vec<u8>, mtu in 0..100_000_usize) {
            match announced(&bytes, mtu) {
                Ok(None) => prop_assert!(bytes.len() < LENGTH),
                Ok(Some(whole)) => prop_assert!(whole <= mtu + LENGTH),
                Err(cut) => prop_assert!(matches!(cut, Cut::Dropped(Reason::Oversize))),
            }
        }
    }
}
