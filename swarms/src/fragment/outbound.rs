//! The send path: splits long messages into fragments.

use bytes::BytesMut;
use p2p::{Addr, BatchError, BatchOutcome, Headroom, Packet, Result, Swarm};
use p2p_protocols::fragment;

use super::shared::Shared;

/// Buffers of the last fragmented message, reused for the next one.
pub(super) struct Buffers<A> {
    slab: BytesMut,
    /// Always empty here.
    parts: Vec<(A, Packet)>,
}

impl<A> Default for Buffers<A> {
    fn default() -> Self {
        Self {
            slab: BytesMut::new(),
            parts: Vec::new(),
        }
    }
}

/// Buffers of messages up to this many bytes are reused.
const KEPT: usize = 128 << 10;

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    pub(super) async fn tell(&self, dst: &A, mut packet: Packet) -> Result<()> {
        packet.check_mtu(self.mtu)?;
        if packet.len() > self.chunk {
            return self.tell_parts(dst, packet).await;
        }
        self.mark_single(dst, &mut packet)?;
        self.inner.tell(dst, packet).await?;
        self.count_sent(1, 1);
        Ok(())
    }

    pub(super) async fn tell_batch(&self, batch: &mut Vec<(A, Packet)>) -> Result<(), BatchError> {
        let mut outcome = BatchOutcome::default();
        let mut long = Vec::new();
        batch.retain_mut(|(dst, packet)| {
            if packet.len() > self.chunk {
                long.push((dst.clone(), std::mem::take(packet)));
                return false;
            }
            let marked = packet
                .check_mtu(self.mtu)
                .and_then(|()| self.mark_single(dst, packet));
            outcome.keep(marked)
        });
        let sent = outcome.tell(&self.inner, batch).await;
        self.count_sent(sent, sent);
        for (dst, packet) in long {
            outcome.record(self.tell(&dst, packet).await);
        }
        outcome.finish()
    }

    /// Writes the header of a message of one part.
    fn mark_single(&self, dst: &A, packet: &mut Packet) -> Result<()> {
        let (id, whole) = (self.next_id(dst), std::mem::take(packet));
        let (room, mut slab) = (Headroom::default(), BytesMut::new());
        fragment::split(id, whole, self.chunk, room, &mut slab, |marked| *packet = marked)
    }

    /// Sends a message of several parts as one batch.
    async fn tell_parts(&self, dst: &A, packet: Packet) -> Result<()> {
        let (len, count) = (packet.len(), packet.len().div_ceil(self.chunk));
        // Taken out, so that concurrent tells do not wait for each other's copy.
        let Buffers { mut slab, mut parts } = self.swap_buffers(Buffers::default());
        parts.reserve(count);
        let (id, room) = (self.next_id(dst), self.inner.headroom());
        fragment::split(id, packet, self.chunk, room, &mut slab, |part| {
            parts.push((dst.clone(), part));
        })?;
        let result = self.inner.tell_batch(&mut parts).await;
        if len <= KEPT {
            parts.clear();
            self.swap_buffers(Buffers { slab, parts });
        }
        match result {
            Ok(()) => self.count_sent(1, count),
            Err(error) => {
                self.count_sent(usize::from(error.sent > 0), error.sent);
                return Err(error.first);
            }
        }
        Ok(())
    }

    fn next_id(&self, dst: &A) -> u32 {
        let mut ids = self.ids.lock();
        ids.next(dst)
    }

    fn swap_buffers(&self, other: Buffers<A>) -> Buffers<A> {
        let mut buffers = self.buffers.lock();
        std::mem::replace(&mut *buffers, other)
    }

    fn count_sent(&self, messages: usize, pieces: usize) {
        self.counters.add_sent(messages);
        self.pieces.add_sent(pieces);
    }
}
