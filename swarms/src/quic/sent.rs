//! Tracks unacknowledged streams, so that a session is not closed before its data is acknowledged.

use p2p::Rejection;
use parking_lot::{Mutex, MutexGuard};
use quinn::{Dir, SendStream, StoppedError, VarInt};

/// Number of streams that are kept before acknowledged ones are first removed.
const FIRST_SWEEP: usize = 64;

/// The finished streams of one session that the peer has not fully acknowledged.
///
/// Acknowledged streams are removed at intervals, so this holds at most twice the number of streams that the
/// peer permits at a time, and 64.
#[derive(Default)]
pub(super) struct Unacknowledged(Mutex<Kept>);

struct Kept {
    streams: Vec<SendStream>,
    /// Acknowledged streams are removed at this length.
    sweep_at: usize,
    ended: bool,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            streams: Vec::new(),
            sweep_at: FIRST_SWEEP,
            ended: false,
        }
    }
}

impl Unacknowledged {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock()
    }

    /// Finishes a stream and keeps it. Returns false if the session is closing: the stream was reset.
    pub(super) fn finish(&self, mut stream: SendStream) -> bool {
        let mut kept = self.lock();
        if kept.ended {
            drop(kept);
            reset(&mut stream, Rejection::DROPPED);
            return false;
        }
        // An error is harmless: the peer stopped the stream and does not want the data.
        let _ = stream.finish();
        if kept.streams.len() >= kept.sweep_at {
            // A fully acknowledged stream has no priority.
            kept.streams.retain(|stream| stream.priority().is_ok());
            kept.sweep_at = FIRST_SWEEP.max(2 * kept.streams.len());
        }
        kept.streams.push(stream);
        true
    }

    /// Returns whether all data is acknowledged. If so, no further data is sent.
    pub(super) fn end_if_acknowledged(&self) -> bool {
        let mut kept = self.lock();
        kept.streams.retain(|stream| stream.priority().is_ok());
        kept.ended |= kept.streams.is_empty();
        kept.ended
    }

    /// Waits until all data is acknowledged or refused by the peer, or the connection has ended. No further
    /// data is sent then.
    pub(super) async fn acknowledged(&self) {
        while let Some(mut taken) = self.take() {
            while let Some(stream) = taken.streams.last() {
                if let Err(StoppedError::ConnectionLost(_)) = stream.stopped().await {
                    return;
                }
                taken.streams.pop();
            }
        }
    }

    fn take(&self) -> Option<Taken<'_>> {
        let mut kept = self.lock();
        if kept.streams.is_empty() {
            kept.ended = true;
            return None;
        }
        let streams = std::mem::take(&mut kept.streams);
        drop(kept);
        Some(Taken { sent: self, streams })
    }

    /// Stops sending without waiting. Returns the number of unacknowledged tells.
    pub(super) fn end(&self) -> usize {
        let mut kept = self.lock();
        kept.ended = true;
        let streams = std::mem::take(&mut kept.streams);
        drop(kept);
        let is_told = |stream: &&SendStream| stream.id().dir() == Dir::Uni && stream.priority().is_ok();
        streams.iter().filter(is_told).count()
    }
}

/// Streams that are being awaited. The remaining ones are returned when the wait ends.
struct Taken<'a> {
    sent: &'a Unacknowledged,
    streams: Vec<SendStream>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.sent.lock().streams.append(&mut self.streams);
    }
}

/// Resets a stream with a reason.
pub(super) fn reset(stream: &mut SendStream, why: Rejection) {
    let _ = stream.reset(VarInt::from_u32(why.code().get().into()));
}
