//! Sends a file in numbered chunks over a swarm that may lose them: acknowledged, sent again, checked by hash.
//!
//! Two engines without a clock or a swarm of their own. The sender has a fixed number of chunks under way and takes
//! one for lost when a later one was acknowledged, or nothing was for a while. The receiver hashes chunks in
//! order, and holds only what came early; the last chunk is the hash that the sender expects.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use p2p::{Headroom, Packet};

/// Bytes in front of a chunk: kind, transmission, index, count.
pub const HEADER: usize = 13;
const DATA: u8 = 0;
const ACK: u8 = 1;
/// A chunk is lost when one that was sent so many later is acknowledged.
const OVERTAKEN: u32 = 8;
/// All chunks under way are lost when none was acknowledged for so long.
const SILENCE: Duration = Duration::from_millis(100);
/// Chunks ahead of the first missing one that a receiver holds; what is further ahead is dropped.
const AHEAD: u32 = 4096;

/// A message of the transfer, read.
#[derive(Debug)]
pub enum Read {
    /// A chunk; the packet holds the chunk alone.
    Data {
        /// Which transmission of which chunk it is.
        sent: Sent,
        /// Chunks that there are.
        count: u32,
        /// The chunk.
        chunk: Packet,
    },
    /// What arrived.
    Ack(Vec<Sent>),
}

/// One transmission of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    transmission: u32,
    index: u32,
}

/// Reads a message; nothing if it is none of the transfer's.
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

/// The message that acknowledges `acks`.
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
    under_way: BTreeMap<u32, u32>,
    lost: VecDeque<u32>,
    acked: Vec<bool>,
    missing: u32,
    heard: Instant,
    resent: u64,
}

impl<F: AsRef<[u8]>> Sender<F> {
    /// Sends `file`, whose hash is `hash`, in chunks of `chunk` bytes (at least 32), up to `window` at a time.
    /// Nothing if there would be 2³² chunks or more.
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
            under_way: BTreeMap::new(),
            lost: VecDeque::new(),
            acked: vec![false; count as usize],
            missing: count,
            heard: now,
            resent: 0,
        })
    }

    /// Whether every chunk was acknowledged.
    pub fn is_done(&self) -> bool {
        self.missing == 0
    }

    /// Chunks that were sent again.
    pub fn resent(&self) -> u64 {
        self.resent
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.under_way.is_empty()).then(|| self.heard + SILENCE)
    }

    /// The next message to send, if there is room for one under way.
    pub fn poll_transmit(&mut self, now: Instant, room: Headroom) -> Option<Packet> {
        if self.under_way.len() >= self.window {
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
        if self.under_way.is_empty() {
            self.heard = now;
        }
        let transmission = self.transmission;
        self.transmission = transmission.wrapping_add(1);
        self.under_way.insert(transmission, index);
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

    /// The receiver has these.
    pub fn handle_ack(&mut self, acks: &[Sent], now: Instant) {
        let mut newest = 0;
        for sent in acks {
            self.under_way.remove(&sent.transmission);
            newest = newest.max(sent.transmission);
            if let Some(acked) = self.acked.get_mut(sent.index as usize)
                && !std::mem::replace(acked, true)
            {
                self.missing -= 1;
            }
            self.heard = now;
        }
        while let Some(oldest) = self.under_way.first_entry()
            && oldest.key().saturating_add(OVERTAKEN) < newest
        {
            self.lost.push_back(oldest.remove());
        }
    }

    /// It is time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.lost
                .extend(std::mem::take(&mut self.under_way).into_values());
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
    /// Whether all of the file is there, and if so whether its hash is the one that the sender sent.
    pub fn verdict(&self) -> Option<bool> {
        self.verdict
    }

    /// Bytes of the file that arrived and have all bytes before them.
    pub fn received(&self) -> usize {
        self.received
    }

    /// A chunk came. Returns whether to acknowledge it.
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

    /// Sends `file` where every message for which `lose` says so is lost; returns the ends.
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
    fn a_changed_byte_is_found() {
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
