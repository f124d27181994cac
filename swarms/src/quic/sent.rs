//! What was sent and is not acknowledged, so that a session does not end before it is.

use std::sync::{Mutex, MutexGuard, PoisonError};

use p2p::Rejection;
use quinn::{Dir, SendStream, StoppedError, VarInt};

/// Streams that are kept before the first look for acknowledged ones.
const FIRST_SWEEP: usize = 64;

/// The streams of one session that are finished and that the peer has not acknowledged whole.
///
/// Acknowledged streams are let go now and then, so this holds about as many as are under way: at most twice the streams
/// that the peer allows at a time, and 64.
#[derive(Default)]
pub(super) struct Unacknowledged(Mutex<Kept>);

struct Kept {
    streams: Vec<SendStream>,
    /// Acknowledged streams are let go at this length.
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a stream with what was written to it, and keeps it; false if the session ends: then it was taken back.
    pub(super) fn finish(&self, mut stream: SendStream) -> bool {
        let mut kept = self.lock();
        if kept.ended {
            drop(kept);
            reset(&mut stream, Rejection::DROPPED);
            return false;
        }
        // Harmless if the peer stopped it: then the peer does not care.
        let _ = stream.finish();
        if kept.streams.len() >= kept.sweep_at {
            // A stream that is acknowledged whole has no priority any more.
            kept.streams.retain(|stream| stream.priority().is_ok());
            kept.sweep_at = FIRST_SWEEP.max(2 * kept.streams.len());
        }
        kept.streams.push(stream);
        true
    }

    /// Whether nothing is to be waited for. If so, nothing further is sent.
    pub(super) fn end_if_acknowledged(&self) -> bool {
        let mut kept = self.lock();
        kept.streams.retain(|stream| stream.priority().is_ok());
        kept.ended |= kept.streams.is_empty();
        kept.ended
    }

    /// Waits until all is acknowledged, or the peer does not want it, or the connection ended. Then nothing further is sent.
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

    /// Sends nothing further, and waits for nothing. Returns how many tells are not acknowledged.
    pub(super) fn end(&self) -> usize {
        let mut kept = self.lock();
        kept.ended = true;
        let streams = std::mem::take(&mut kept.streams);
        drop(kept);
        let is_told = |stream: &&SendStream| stream.id().dir() == Dir::Uni && stream.priority().is_ok();
        streams.iter().filter(is_told).count()
    }
}

/// Streams that are waited for. Those that are left when the wait ends go back.
struct Taken<'a> {
    sent: &'a Unacknowledged,
    streams: Vec<SendStream>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.sent.lock().streams.append(&mut self.streams);
    }
}

/// Takes a stream back, and says why.
pub(super) fn reset(stream: &mut SendStream, why: Rejection) {
    let _ = stream.reset(VarInt::from_u32(why.code().get().into()));
}
