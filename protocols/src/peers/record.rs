//! Certified records.

use std::time::Duration;

use bytes::Bytes;

use super::config::Source;
use super::entry::{Entry, Record};
use super::store::{Error, PeerStore};

impl<P: Clone + Ord, A: Clone + Eq> PeerStore<P, A> {
    /// Stores a certified record, whose signature the caller has verified, and its addresses. `envelope` is
    /// the signed record, to pass on to others. Returns whether the record was stored: a record whose sequence
    /// number is not higher than that of the stored one is ignored.
    ///
    /// # Errors
    /// [`Error`]; then the earlier record stays.
    pub fn put_record(
        &mut self,
        now: Duration,
        peer: &P,
        seq: u64,
        envelope: &[u8],
        addrs: impl IntoIterator<Item = A>,
        source: Source,
    ) -> Result<bool, Error> {
        let known = self.entries.get(peer).and_then(|entry| entry.record.as_ref());
        if known.is_some_and(|known| known.seq >= seq) {
            return Ok(false);
        }
        // A small record must not pin the buffer of a large message.
        let envelope = Bytes::copy_from_slice(envelope);
        let record = Record { seq, envelope };
        let new = ("a record", record.envelope.len());
        let old = |entry: &Entry<A>| entry.record.as_ref().map_or(0, |record| record.envelope.len());
        let addrs: Vec<A> = addrs.into_iter().take(self.config.addrs).collect();
        self.change(now, peer, new, old, |entry| {
            entry.record = Some(record);
            entry.addrs.retain_mut(|known| {
                let stays =
                    !known.is_certified || known.source >= Source::Connected || addrs.contains(&known.addr);
                known.is_certified = false;
                stays
            });
        })?;
        for addr in addrs {
            self.add_addr(now, peer, addr, source, true);
        }
        Ok(true)
    }
}
