//! The keys of one established session: seals and opens data in place, from any number of threads.
//!
//! The only lock is that of the replay window; it is held for some nanoseconds before and after the cipher.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::aead::{Aad, LessSafeKey};
use p2p::Packet;

use super::wire::{self, COUNTER_LIMIT, FIRST_DATA, HEADER, OVERHEAD, RESP_DONE, TAG};
use super::{Config, Error, ReplayWindow};
use crate::noise::nonce;

/// The two keys of one session, with the send counter and the replay window.
pub struct Transport {
    seal: LessSafeKey,
    open: LessSafeKey,
    /// The counter of the next message; beyond the limit it keeps counting, and nothing is sealed.
    next: AtomicU64,
    window: Mutex<ReplayWindow>,
    /// The newest counter in the window: a higher one is new without a check of the window.
    newest: AtomicU32,
    /// Time of the last authentic packet, in nanoseconds of the driver's clock.
    heard: AtomicU64,
    /// Whether data arrived.
    heard_data: AtomicBool,
    /// Time in nanoseconds of the driver's clock before which sealing does not request a rekey.
    suppress_rekey_until: AtomicU64,
    expires: Duration,
    rekey_at: Duration,
    rekey_after_messages: u32,
    rekey_after_silence: Duration,
    max_silence: Duration,
}

/// The result of sealing a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sealed {
    /// No action is needed.
    Fresh,
    /// A rekey is due: call [`Channel::rekey`](super::Channel::rekey) soon. The packet can be sent.
    RekeyDue,
}

impl Transport {
    pub(super) fn new(
        config: &Config,
        started: Duration,
        initiator: bool,
        seal: LessSafeKey,
        open: LessSafeKey,
    ) -> Self {
        // The initiator starts the rekey earlier, so that both sides seldom do it at once.
        let spread = config.reject_after.saturating_sub(config.rekey_after) / 3;
        let wait = if initiator { Duration::ZERO } else { spread };
        Self {
            seal,
            open,
            next: AtomicU64::new(u64::from(FIRST_DATA)),
            window: Mutex::new(ReplayWindow::new()),
            newest: AtomicU32::new(0),
            heard: AtomicU64::new(nanos(started)),
            heard_data: AtomicBool::new(false),
            suppress_rekey_until: AtomicU64::new(0),
            expires: started.saturating_add(config.reject_after),
            rekey_at: started.saturating_add(config.rekey_after + wait),
            rekey_after_messages: config.rekey_after_messages,
            rekey_after_silence: config.rekey_after_silence,
            max_silence: config.max_silence,
        }
    }

    /// Seals a packet in place: writes the counter into the room in front, and the tag into the room behind.
    ///
    /// # Errors
    /// [`Expired`](Error::Expired), [`Exhausted`](Error::Exhausted) or [`Silent`](Error::Silent): this
    /// session cannot be used now, and the packet is unchanged.
    pub fn seal(&self, now: Duration, packet: &mut Packet) -> Result<Sealed, Error> {
        if now > self.expires {
            return Err(Error::Expired);
        }
        let silence = now.saturating_sub(Duration::from_nanos(self.heard.load(Relaxed)));
        if silence > self.max_silence {
            return Err(Error::Silent);
        }
        let counter = self.next.fetch_add(1, Relaxed);
        let Some(counter) = u32::try_from(counter)
            .ok()
            .filter(|counter| *counter < COUNTER_LIMIT)
        else {
            return Err(Error::Exhausted);
        };
        self.seal_at(counter, packet)?;
        let due = silence > self.rekey_after_silence
            || now >= self.rekey_at
            || counter - FIRST_DATA >= self.rekey_after_messages;
        Ok(if due && nanos(now) >= self.suppress_rekey_until.load(Relaxed) {
            Sealed::RekeyDue
        } else {
            Sealed::Fresh
        })
    }

    /// Seals a packet with a counter that must not have been used before.
    pub(super) fn seal_at(&self, counter: u32, packet: &mut Packet) -> Result<(), Error> {
        let header = counter.to_be_bytes();
        let tag = self
            .seal
            .seal_in_place_separate_tag(nonce(counter.into()), Aad::from(header), packet)
            .map_err(|_| Error::Malformed("a message too long for the cipher"))?;
        packet.push_back(tag.as_ref());
        packet.push_front(&header);
        Ok(())
    }

    /// Opens a data packet in place: the packet then contains the sealed message.
    ///
    /// # Errors
    /// After [`Unauthenticated`](Error::Unauthenticated), the packet's bytes are undefined.
    /// [`Malformed`](Error::Malformed), [`Replayed`](Error::Replayed), [`Expired`](Error::Expired) and
    /// [`Unexpected`](Error::Unexpected) (a handshake message) may leave them unchanged.
    pub fn open(&self, now: Duration, packet: &mut Packet) -> Result<(), Error> {
        let counter = data_counter(packet)?;
        self.check(now, counter)?;
        self.open_at(counter, packet)?;
        let mut window = self.window();
        if !window.accept(counter) {
            return Err(Error::Replayed);
        }
        if counter > self.newest.load(Relaxed) {
            self.newest.store(counter, Relaxed);
        }
        drop(window);
        self.hear(now);
        if !self.heard_data() {
            self.heard_data.store(true, Relaxed);
        }
        Ok(())
    }

    /// Checks a counter before the packet is authenticated, at a lower cost than the cipher's.
    fn check(&self, now: Duration, counter: u32) -> Result<(), Error> {
        if now > self.expires {
            Err(Error::Expired)
        } else if counter > self.newest.load(Relaxed) && counter < COUNTER_LIMIT
            || self.window().is_new(counter)
        {
            Ok(())
        } else {
            Err(Error::Replayed)
        }
    }

    /// Opens a packet with this counter. Handshake messages have fixed counters, which are not in the window.
    pub(super) fn open_at(&self, counter: u32, packet: &mut Packet) -> Result<(), Error> {
        let header: [u8; HEADER] = packet.pop_front().ok_or(Error::Malformed("no counter"))?;
        self.open
            .open_in_place(nonce(counter.into()), Aad::from(header), packet)
            .map_err(|_| Error::Unauthenticated)?;
        packet.truncate(packet.len().saturating_sub(TAG));
        Ok(())
    }

    fn window(&self) -> std::sync::MutexGuard<'_, ReplayWindow> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an authentic packet. The packets of a batch have the same time, so only the first one writes.
    pub(super) fn hear(&self, now: Duration) {
        let now = nanos(now);
        if self.heard.load(Relaxed) < now {
            self.heard.fetch_max(now, Relaxed);
        }
    }

    /// Returns whether data arrived in this session.
    pub fn heard_data(&self) -> bool {
        self.heard_data.load(Relaxed)
    }

    /// Returns the time of the last authentic packet, on the driver's clock.
    pub fn heard_at(&self) -> Duration {
        Duration::from_nanos(self.heard.load(Relaxed))
    }

    /// Returns the expiry of the session: it seals and opens up to and including this time.
    pub fn expires(&self) -> Duration {
        self.expires
    }

    /// Returns whether the peer has been silent for so long that it may have forgotten the session.
    pub(super) fn is_silent(&self, now: Duration) -> bool {
        now.saturating_sub(self.heard_at()) > self.max_silence
    }

    /// Returns whether a data packet was sealed with this counter.
    pub(super) fn has_sealed(&self, counter: u32) -> bool {
        (u64::from(FIRST_DATA)..self.next.load(Relaxed)).contains(&u64::from(counter))
    }

    /// Returns whether all counters are used.
    pub(super) fn is_exhausted(&self) -> bool {
        self.next.load(Relaxed) >= u64::from(COUNTER_LIMIT)
    }

    /// Suppresses rekey requests until this time.
    pub(super) fn suppress_rekey_until(&self, until: Duration) {
        self.suppress_rekey_until.store(nanos(until), Relaxed);
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("next", &self.next)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the counter of a data packet of valid length.
pub(super) fn data_counter(packet: &[u8]) -> Result<u32, Error> {
    match wire::counter(packet) {
        Some(counter) if counter <= RESP_DONE => Err(Error::Unexpected),
        Some(_) if packet.len() < OVERHEAD => Err(Error::Malformed("shorter than a tag")),
        Some(counter) => Ok(counter),
        None => Err(Error::Malformed("shorter than a counter")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(config: &Config) -> [Transport; 2] {
        let key = |byte| crate::noise::aead_key(&[byte; 32]).expect("a key of the right length");
        [
            Transport::new(config, Duration::ZERO, true, key(1), key(2)),
            Transport::new(config, Duration::ZERO, false, key(2), key(1)),
        ]
    }

    #[test]
    fn no_counter_beyond_the_last_is_used() {
        let [there, here] = pair(&Config::default());
        there.next.store((COUNTER_LIMIT - 1).into(), Relaxed);
        let mut packet = Packet::from(b"last");
        assert_eq!(there.seal(Duration::ZERO, &mut packet), Ok(Sealed::RekeyDue));
        assert_eq!(wire::counter(&packet), Some(0xffff_fffd));
        assert_eq!(here.open(Duration::ZERO, &mut packet), Ok(()));
        for _ in 0..3 {
            assert_eq!(there.seal(Duration::ZERO, &mut packet), Err(Error::Exhausted));
            assert_eq!(packet, b"last", "unchanged");
        }
        assert!(there.is_exhausted());
    }

    #[test]
    fn sealing_a_packet_with_room_does_not_move_it() {
        let [there, here] = pair(&Config::default());
        let mut packet = Packet::new(p2p::Headroom::new(HEADER, TAG), b"in place");
        let at = packet.as_ptr();
        assert_eq!(there.seal(Duration::ZERO, &mut packet), Ok(Sealed::Fresh));
        assert_eq!(packet.len(), b"in place".len() + OVERHEAD);
        assert_eq!(here.open(Duration::ZERO, &mut packet), Ok(()));
        assert_eq!(packet, b"in place");
        assert_eq!(packet.as_ptr(), at);
    }
}
