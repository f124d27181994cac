//! Sends a file in numbered chunks over a lossy swarm: acknowledged, retransmitted, checked by hash.
//!
//! Two engines without a clock or a swarm. The sender has a fixed number of chunks in flight. It declares one
//! lost when a later one was acknowledged, or no acknowledgement arrived for some time. The receiver hashes
//! chunks in order, and holds only those that arrive early. The last chunk is the hash that the sender
//! expects.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use p2p::{Headroom, Packet};

/// Length of the header of a chunk: kind, transmission, index, count.
pub const HEADER: usize = 13;
const DATA: u8 = 0;
const ACK: u8 = 1;
/// A chunk is lost when one that was sent this many later is acknowledged.
const OVERTAKEN: u32 = 8;
/// All chunks in flight are lost when none was acknowledged for this time.
const SILENCE: Duration = Duration::from_millis(100);
/// Maximum distance of early chunks that a receiver holds; chunks further ahead are dropped.
const AHEAD: u32 = 4096;

/// A parsed message of the transfer.
#[derive(Debug)]
pub enum Read {
    /// A chunk; the packet holds only its data.
    Data {
        /// The transmission and the index of the chunk.
        sent: Sent,
        /// Number of chunks.
        count: u32,
        /// The chunk.
        chunk: Packet,
    },
    /// The transmissions that arrived.
    Ack(Vec<Sent>),
}

/// One transmission of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    transmission: u32,
    index: u32,
}

/// Parses a message; returns `None` if it is invalid.
pub fn read(mut packet: Packet) -> Option<Read> {
    match packet.pop_front::<1>()? {
        [DATA] => {
            let sent = read_sent(&mut packet)?;
            let count = u32::from_be_bytes(packet.pop_front()?);
            (sent.index < count).then_some(Read::Data {
                sent,
                count,
                chunk: packet,
            })
        }
        [ACK] => {
            let mut acks = Vec::with_capacity(packet.len() / 8);
            while let Some(sent) = read_sent(&mut packet) {
                acks.push(sent);
            }
            packet.is_empty().then_some(Read::Ack(acks))
        }
        _ => None,
    }
}

fn read_sent(packet: &mut Packet) -> Option<Sent> {
    Some(Sent {
        transmission: u32::from_be_bytes(packet.pop_front()?),
        index: u32::from_be_bytes(packet.pop_front()?),
    })
}

/// Returns the message that acknowledges `acks`.
pub fn ack(acks: &[Sent], room: Headroom) -> Packet {
    let mut packet = Packet::with_capacity(room, 1 + 8 * acks.len());
    packet.push_back(&[ACK]);
    for sent in acks {
        packet.push_back(&sent.transmission.to_be_bytes());
        packet.push_back(&sent.index.to_be_bytes());
    }
    packet
}

/// Sends one file.
#[derive(Debug)]
pub struct Sender<F> {
    file: F,
    hash: [u8; 32],
    chunk: usize,
    count: u32,
    window: usize,
    next: u32,
    transmission: u32,
    in_flight: BTreeMap<u32, u32>,
    lost: VecDeque<u32>,
    acked: Vec<bool>,
    missing: u32,
    heard: Instant,
    resent: u64,
}

impl<F: AsRef<[u8]>> Sender<F> {
    /// Creates a sender of `file`, whose hash is `hash`, in chunks of `chunk` bytes (at least 32), with up to
    /// `window` in flight. Returns `None` if there would be 2³² chunks or more.
    pub fn new(file: F, hash: [u8; 32], chunk: usize, window: usize, now: Instant) -> Option<Self> {
        let chunk = chunk.max(hash.len());
        // One more for the hash.
        let count = u32::try_from(file.as_ref().len().div_ceil(chunk))
            .ok()?
            .checked_add(1)?;
        Some(Self {
            file,
            hash,
            chunk,
            count,
            window: window.max(1),
            next: 0,
            transmission: 0,
            in_flight: BTreeMap::new(),
            lost: VecDeque::new(),
            acked: vec![false; count as usize],
            missing: count,
            heard: now,
            resent: 0,
        })
    }

    /// Returns whether every chunk was acknowledged.
    pub fn is_done(&self) -> bool {
        self.missing == 0
    }

    /// Returns the number of retransmitted chunks.
    pub fn resent(&self) -> u64 {
        self.resent
    }

    /// Returns the time at which [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.in_flight.is_empty()).then(|| self.heard + SILENCE)
    }

    /// Returns the next message to send, if the window has room.
    pub fn poll_transmit(&mut self, now: Instant, room: Headroom) -> Option<Packet> {
        if self.in_flight.len() >= self.window {
            return None;
        }
        let again = loop {
            match self.lost.pop_front() {
                Some(index) if self.is_acked(index) => {}
                other => break other,
            }
        };
        let index = match again {
            Some(index) => {
                self.resent += 1;
                index
            }
            None if self.next < self.count => {
                self.next += 1;
                self.next - 1
            }
            None => return None,
        };
        if self.in_flight.is_empty() {
            self.heard = now;
        }
        let transmission = self.transmission;
        self.transmission = transmission.wrapping_add(1);
        self.in_flight.insert(transmission, index);
        let file = self.file.as_ref();
        let start = (index as usize).saturating_mul(self.chunk);
        let chunk = if index + 1 == self.count {
            &self.hash[..]
        } else {
            file.get(start..file.len().min(start + self.chunk))
                .unwrap_or_default()
        };
        let mut packet = Packet::with_capacity(room, HEADER + chunk.len());
        packet.push_back(&[DATA]);
        packet.push_back(&transmission.to_be_bytes());
        packet.push_back(&index.to_be_bytes());
        packet.push_back(&self.count.to_be_bytes());
        packet.push_back(chunk);
        Some(packet)
    }

    /// Processes acknowledgements.
    pub fn handle_ack(&mut self, acks: &[Sent], now: Instant) {
        let mut newest = 0;
        for sent in acks {
            self.in_flight.remove(&sent.transmission);
            newest = newest.max(sent.transmission);
            if let Some(acked) = self.acked.get_mut(sent.index as usize)
                && !std::mem::replace(acked, true)
            {
                self.missing -= 1;
            }
            self.heard = now;
        }
        while let Some(oldest) = self.in_flight.first_entry()
            && oldest.key().saturating_add(OVERTAKEN) < newest
        {
            self.lost.push_back(oldest.remove());
        }
    }

    /// Processes an expired timeout.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.lost
                .extend(std::mem::take(&mut self.in_flight).into_values());
        }
    }

    fn is_acked(&self, index: u32) -> bool {
        self.acked.get(index as usize).copied().unwrap_or(true)
    }
}

/// Receives one file.
#[derive(Debug, Default)]
pub struct Receiver {
    next: u32,
    early: BTreeMap<u32, Packet>,
    hasher: blake3::Hasher,
    received: usize,
    verdict: Option<bool>,
}

impl Receiver {
    /// Returns whether the complete file has the hash that the sender sent; `None` while it is incomplete.
    pub fn verdict(&self) -> Option<bool> {
        self.verdict
    }

    /// Returns the number of bytes of the file that arrived without a gap.
    pub fn received(&self) -> usize {
        self.received
    }

    /// Processes a chunk. Returns whether to acknowledge it.
    pub fn handle_data(&mut self, sent: Sent, count: u32, chunk: Packet) -> bool {
        if sent.index >= self.next.saturating_add(AHEAD) {
            return false;
        }
        if sent.index >= self.next {
            self.early.insert(sent.index, chunk);
        }
        while let Some(chunk) = self.early.remove(&self.next) {
            self.next += 1;
            if self.next == count {
                self.verdict = Some(*chunk == *self.hasher.finalize().as_bytes());
            } else {
                self.received += chunk.len();
                self.hasher.update(&chunk);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Transfers `file`; each message for which `lose` returns true is lost. Returns both ends.
    fn transfer(file: &[u8], mut lose: impl FnMut() -> bool) -> (Sender<&[u8]>, Receiver) {
        let mut now = Instant::now();
        let hash = *blake3::hash(file).as_bytes();
        let mut sender = Sender::new(file, hash, 100, 20, now).expect("few chunks");
        let mut receiver = Receiver::default();
        for _ in 0..1_000_000 {
            if sender.is_done() {
                return (sender, receiver);
            }
            let mut acks = Vec::new();
            while let Some(packet) = sender.poll_transmit(now, Headroom::default()) {
                if lose() {
                    continue;
                }
                let Some(Read::Data { sent, count, chunk }) = read(packet) else {
                    panic!("a sender sends data");
                };
                if receiver.handle_data(sent, count, chunk) {
                    acks.push(sent);
                }
            }
            if !acks.is_empty() && !lose() {
                let Some(Read::Ack(acks)) = read(ack(&acks, Headroom::default())) else {
                    panic!("an acknowledgement is one");
                };
                sender.handle_ack(&acks, now);
            }
            now = sender.poll_timeout().unwrap_or(now);
            sender.handle_timeout(now);
        }
        panic!("the transfer does not end");
    }

    #[test]
    fn a_file_arrives_whole_over_any_loss() {
        for len in [0, 1, 99, 100, 101, 12_345] {
            let file: Vec<u8> = (0..len).map(|byte: u32| byte.to_le_bytes()[0]).collect();
            let mut state = 1_u32;
            for often in [0, 10, 50] {
                let (sender, receiver) = transfer(&file, || {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 16) % 100 < often
                });
                assert_eq!(receiver.verdict(), Some(true), "{len} bytes, {often} % lost");
                assert_eq!(receiver.received(), file.len());
                assert!(often > 0 || sender.resent() == 0);
            }
        }
    }

    #[test]
    fn a_changed_byte_is_detected() {
        let hash = *blake3::hash(b"another file").as_bytes();
        let now = Instant::now();
        let mut sender = Sender::new(b"a file", hash, 100, 20, now).expect("few chunks");
        let mut receiver = Receiver::default();
        while let Some(packet) = sender.poll_transmit(now, Headroom::default()) {
            let Some(Read::Data { sent, count, chunk }) = read(packet) else {
                panic!("a sender sends data");
            };
            receiver.handle_data(sent, count, chunk);
        }
        assert_eq!(receiver.verdict(), Some(false));
    }
}
