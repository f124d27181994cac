//! One message, one stream: a tell is all bytes of a unidirectional stream; an ask is a length of 4 bytes, big endian,
//! and as many bytes, in each direction of a bidirectional one.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use p2p::{Packet, Reason, Rejection};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};

/// Bytes of the length in front of a request and of a response.
pub(super) const LENGTH: usize = 4;

/// Bytes of unfinished messages, over all sessions or in one.
#[derive(Debug)]
pub(super) struct Budget {
    held: AtomicUsize,
    max: usize,
    above: Option<Arc<Budget>>,
}

impl Budget {
    pub(super) fn new(max: usize, above: Option<Arc<Budget>>) -> Self {
        Self {
            held: AtomicUsize::new(0),
            max,
            above,
        }
    }

    fn charge(&self, bytes: usize) -> bool {
        if self.held.fetch_add(bytes, Relaxed).saturating_add(bytes) > self.max {
            self.held.fetch_sub(bytes, Relaxed);
            return false;
        }
        if self.above.as_ref().is_some_and(|above| !above.charge(bytes)) {
            self.held.fetch_sub(bytes, Relaxed);
            return false;
        }
        true
    }

    fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
        if let Some(above) = &self.above {
            above.release(bytes);
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }
}

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

/// A message that is being received. Its buffer grows with the bytes that came, never with those announced.
#[derive(Debug)]
pub(super) struct Incoming {
    recv: RecvStream,
    buf: BytesMut,
    /// A length stands in front, and what follows the bytes that it counts is ignored.
    framed: bool,
    mtu: usize,
    /// Charged while the rest is waited for.
    charged: usize,
    budget: Arc<Budget>,
}

impl Incoming {
    pub(super) fn tell(recv: RecvStream, mtu: usize, budget: Arc<Budget>) -> Self {
        Self::new(recv, false, mtu, budget)
    }

    pub(super) fn framed(recv: RecvStream, mtu: usize, budget: Arc<Budget>) -> Self {
        Self::new(recv, true, mtu, budget)
    }

    fn new(recv: RecvStream, framed: bool, mtu: usize, budget: Arc<Budget>) -> Self {
        Self {
            recv,
            buf: BytesMut::new(),
            framed,
            mtu,
            charged: 0,
            budget,
        }
    }

    /// How long the whole is, as far as that is known.
    fn announced(&self) -> Result<Option<usize>, Cut> {
        if !self.framed {
            return Ok(None);
        }
        announced(&self.buf, self.mtu)
    }

    /// Waits for the message to be whole.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Packet, Cut>> {
        loop {
            let announced = self.announced()?;
            if announced.is_some_and(|whole| self.buf.len() >= whole) {
                return Poll::Ready(Ok(self.take(announced)));
            }
            let wanted = announced.map_or(usize::MAX, |whole| whole - self.buf.len());
            let read = pin!(self.recv.read_chunk(wanted, true)).poll(cx);
            match read {
                Poll::Pending => {
                    let held = self.buf.capacity();
                    let more = held.saturating_sub(self.charged);
                    if !self.budget.charge(more) {
                        return Poll::Ready(Err(Cut::Dropped(Reason::Budget)));
                    }
                    self.charged += more;
                    return Poll::Pending;
                }
                Poll::Ready(Ok(Some(chunk))) => {
                    if !self.framed && self.buf.len() + chunk.bytes.len() > self.mtu {
                        return Poll::Ready(Err(Cut::Dropped(Reason::Oversize)));
                    }
                    self.append(&chunk.bytes);
                }
                Poll::Ready(Ok(None)) if self.framed => {
                    return Poll::Ready(Err(Cut::Short(self.buf.len())));
                }
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(self.take(None))),
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(match error {
                        ReadError::Reset(code) => Cut::Reset(code),
                        ReadError::ConnectionLost(error) => Cut::Lost(error),
                        _ => Cut::Dropped(Reason::Malformed),
                    }));
                }
            }
        }
    }

    fn append(&mut self, bytes: &Bytes) {
        self.buf.extend_from_slice(bytes);
    }

    fn take(&mut self, whole: Option<usize>) -> Packet {
        let mut buf = std::mem::take(&mut self.buf);
        match whole {
            // The length becomes room for whatever goes in front of the packet next.
            Some(whole) => {
                buf.truncate(whole);
                Packet::from_buffer(buf, LENGTH)
            }
            None => Packet::from_buffer(buf, 0),
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.charged > 0 {
            self.budget.release(self.charged);
        }
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

    /// Writes everything and ends the stream.
    pub(super) async fn send(mut self, packet: Packet) -> Result<(), WriteError> {
        if let Some(send) = &mut self.0 {
            if !packet.is_empty() {
                send.write_chunk(packet.into_bytes()).await?;
            }
            self.finish();
        }
        Ok(())
    }

    /// Ends the stream with what was written so far.
    pub(super) fn finish(&mut self) {
        if let Some(mut send) = self.0.take() {
            // It fails where the peer stopped the stream, which then does not care.
            let _ = send.finish();
        }
    }

    /// Takes the stream back, and says why.
    pub(super) fn reset(&mut self, why: Rejection) {
        if let Some(mut send) = self.0.take() {
            let _ = send.reset(VarInt::from_u32(why.code().get().into()));
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
    let now = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
    match now {
        Poll::Ready(value) => Some(value),
        Poll::Pending => tokio::time::timeout(limit, future).await.ok(),
    }
}

/// The same as a future, for whoever can await it.
pub(super) async fn receive(incoming: &mut Incoming) -> Result<Packet, Cut> {
    std::future::poll_fn(|cx| Poll::Ready(ready!(incoming.poll(cx)))).await
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

    #[test]
    fn a_budget_holds_in_each_session_and_in_total() {
        let total = Arc::new(Budget::new(100, None));
        let sessions = [(); 3].map(|()| Budget::new(60, Some(total.clone())));
        assert!(sessions[0].charge(60) && !sessions[0].charge(1));
        assert!(!sessions[1].charge(41) && sessions[1].charge(40) && !sessions[2].charge(1));
        sessions[0].release(60);
        assert!(sessions[2].charge(60));
        assert_eq!(total.held(), 100);
    }
}
