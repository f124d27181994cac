//! The keys of one established session: seals and opens data in place, from any number of threads at once.
//!
//! The only lock is the replay window's own, which is held for some nanoseconds before and after the cipher.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use p2p::Packet;

use super::wire::{self, COUNTER_LIMIT, FIRST_DATA, HEADER, OVERHEAD, RESP_DONE, TAG};
use super::{Config, Error, ReplayWindow};

/// The cipher's nonce for a counter: 4 zero bytes, then the counter in little-endian.
pub(super) fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// A ChaCha20-Poly1305 key; `None` only if the library cannot allocate.
pub(super) fn aead_key(key: &[u8; 32]) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, key)
        .ok()
        .map(LessSafeKey::new)
}

/// The two keys of one session, with the counter of one and the replay window of the other.
pub struct Transport {
    seal: LessSafeKey,
    open: LessSafeKey,
    /// The counter of the next message; beyond the limit it counts on, and nothing is sealed.
    next: AtomicU64,
    window: Mutex<ReplayWindow>,
    /// The newest counter in the window: one beyond it is new without a look there.
    newest: AtomicU32,
    /// Nanoseconds of the driver's clock at which something authentic last came.
    heard: AtomicU64,
    /// Whether data came.
    heard_data: AtomicBool,
    /// Nanoseconds of the driver's clock before which a seal does not ask for a new session.
    quiet_until: AtomicU64,
    expires: Duration,
    rekey_at: Duration,
    rekey_after_messages: u32,
    refresh_after: Duration,
    keep_alive: Duration,
}

/// What sealing a packet found about its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sealed {
    /// Nothing is to be done.
    Fresh,
    /// A new session is due: call [`Channel::renew`](super::Channel::renew) soon. The packet is good to be sent.
    RenewalDue,
}

impl Transport {
    pub(super) fn new(
        config: &Config,
        started: Duration,
        initiator: bool,
        seal: LessSafeKey,
        open: LessSafeKey,
    ) -> Self {
        // The initiator renews first, so that the two sides seldom do it at once.
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
            quiet_until: AtomicU64::new(0),
            expires: started.saturating_add(config.reject_after),
            rekey_at: started.saturating_add(config.rekey_after + wait),
            rekey_after_messages: config.rekey_after_messages,
            refresh_after: config.refresh_after,
            keep_alive: config.keep_alive,
        }
    }

    /// Seals a packet in place: the counter goes into the room in front, the tag into the room behind.
    ///
    /// # Errors
    /// [`Expired`](Error::Expired), [`Exhausted`](Error::Exhausted) or [`Silent`](Error::Silent): this
    /// session cannot be used (any more), and the packet is as it was.
    pub fn seal(&self, now: Duration, packet: &mut Packet) -> Result<Sealed, Error> {
        if now > self.expires {
            return Err(Error::Expired);
        }
        let silence = now.saturating_sub(Duration::from_nanos(self.heard.load(Relaxed)));
        if silence > self.keep_alive {
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
        let due = silence > self.refresh_after
            || now >= self.rekey_at
            || counter - FIRST_DATA >= self.rekey_after_messages;
        Ok(if due && nanos(now) >= self.quiet_until.load(Relaxed) {
            Sealed::RenewalDue
        } else {
            Sealed::Fresh
        })
    }

    /// Seals a packet under a counter that must not have been used before.
    pub(super) fn seal_at(&self, counter: u32, packet: &mut Packet) -> Result<(), Error> {
        let header = counter.to_be_bytes();
        let tag = self
            .seal
            .seal_in_place_separate_tag(nonce(counter.into()), Aad::from(header), packet)
            .map_err(|_| Error::Malformed("a message that is too long for the cipher"))?;
        packet.push_back(tag.as_ref());
        packet.push_front(&header);
        Ok(())
    }

    /// Opens a data packet in place: what is left of it is what was sealed.
    ///
    /// # Errors
    /// [`Unauthenticated`](Error::Unauthenticated), and the packet's bytes are undefined; or
    /// [`Malformed`](Error::Malformed), [`Replayed`](Error::Replayed), [`Expired`](Error::Expired) or
    /// [`Unexpected`](Error::Unexpected) (a handshake message), and they may be as they were.
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

    /// What can be said of a counter before the packet is proven: costs less than the cipher.
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

    /// Opens whatever was sealed under a counter. Handshake messages have fixed ones, which no window sees.
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

    /// Something authentic came. The packets of a batch come at one moment, and the first of them says so.
    pub(super) fn hear(&self, now: Duration) {
        let now = nanos(now);
        if self.heard.load(Relaxed) < now {
            self.heard.fetch_max(now, Relaxed);
        }
    }

    /// Whether data came in this session.
    pub fn heard_data(&self) -> bool {
        self.heard_data.load(Relaxed)
    }

    /// When something authentic last came, on the driver's clock.
    pub fn heard_at(&self) -> Duration {
        Duration::from_nanos(self.heard.load(Relaxed))
    }

    /// When the session ends: it seals and opens up to and including this moment.
    pub fn expires(&self) -> Duration {
        self.expires
    }

    /// Whether the peer has been silent for so long that it may have forgotten the session.
    pub(super) fn is_silent(&self, now: Duration) -> bool {
        now.saturating_sub(self.heard_at()) > self.keep_alive
    }

    /// Whether a data packet was sealed under this counter.
    pub(super) fn has_sealed(&self, counter: u32) -> bool {
        (u64::from(FIRST_DATA)..self.next.load(Relaxed)).contains(&u64::from(counter))
    }

    /// Whether all counters are used.
    pub(super) fn is_exhausted(&self) -> bool {
        self.next.load(Relaxed) >= u64::from(COUNTER_LIMIT)
    }

    /// Keeps seals from asking for a new session until then.
    pub(super) fn quiet_until(&self, until: Duration) {
        self.quiet_until.store(nanos(until), Relaxed);
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

/// The counter of a data packet that is long enough to be one.
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
        let key = |byte| aead_key(&[byte; 32]).expect("a key of the right length");
        [
            Transport::new(config, Duration::ZERO, true, key(1), key(2)),
            Transport::new(config, Duration::ZERO, false, key(2), key(1)),
        ]
    }

    #[test]
    fn the_last_counter_is_used_and_none_beyond_it() {
        let [there, here] = pair(&Config::default());
        there.next.store((COUNTER_LIMIT - 1).into(), Relaxed);
        let mut packet = Packet::from(b"last");
        assert_eq!(there.seal(Duration::ZERO, &mut packet), Ok(Sealed::RenewalDue));
        assert_eq!(wire::counter(&packet), Some(0xffff_fffd));
        assert_eq!(here.open(Duration::ZERO, &mut packet), Ok(()));
        for _ in 0..3 {
            assert_eq!(there.seal(Duration::ZERO, &mut packet), Err(Error::Exhausted));
            assert_eq!(packet, b"last", "as it was");
        }
        assert!(there.is_exhausted());
    }

    #[test]
    fn sealing_in_the_room_of_a_packet_does_not_move_it() {
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
