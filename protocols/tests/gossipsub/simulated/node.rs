//! Simulated nodes: the engine with measurements and an uplink of limited rate, or a Sybil.

use std::time::Duration;

use bytes::Bytes;
use p2p_protocols::gossipsub::{Config, Engine, Event, Signing};
use p2p_swarmtest::sim::{self, SimAddr, Transmit};

use super::TOPIC;
use super::sybil::Sybil;

/// An honest node or a Sybil.
pub(crate) enum Node {
    Honest(Box<Honest>),
    Sybil(Box<Sybil>),
}

/// An honest node: the engine for tests, and its measurements.
pub(crate) struct Honest {
    pub(crate) engine: Engine<SimAddr>,
    /// Upload rate in bytes per second; `None` means unlimited.
    uplink: Option<u64>,
    /// The RPC that is being sent, and the time at which its last byte has left. Until then, all others wait
    /// in the engine, which orders them by priority and may drop unwanted ones.
    sending: Option<(Duration, Transmit<SimAddr>)>,
    /// Delivery time of each message, by number.
    pub(crate) got: Vec<Option<Duration>>,
    /// Number of received copies of each message.
    pub(crate) copies: Vec<u32>,
    /// Messages that were delivered twice, which must not happen.
    pub(crate) twice: u32,
    /// Bytes of sent RPCs: with messages, and of all other kinds.
    pub(crate) message_bytes: u64,
    pub(crate) control_bytes: u64,
}

/// Iterates over the messages of an RPC: the number, the publisher, and the message as an RPC with only this
/// message.
pub(super) fn messages(mut rpc: &[u8]) -> impl Iterator<Item = (u32, u32, &[u8])> {
    std::iter::from_fn(move || {
        // The RPC's field of messages, and in it the data field, which is the first in an unsigned message.
        let (message, rest) = field(rpc)?;
        let (alone, _) = rpc.split_at(rpc.len() - rest.len());
        rpc = rest;
        let (number, publisher) = said(field(message)?.0)?;
        Some((number, publisher, alone))
    })
}

/// Returns the number and the publisher in a message's data.
fn said(data: &[u8]) -> Option<(u32, u32)> {
    let (number, rest) = data.split_first_chunk()?;
    let publisher = rest.first_chunk()?;
    Some((u32::from_be_bytes(*number), u32::from_be_bytes(*publisher)))
}

/// Returns the bytes of field 2, if it is the first field, and the bytes after it.
fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&[2 << 3 | 2])?;
    let end = rest.iter().position(|byte| byte & 0x80 == 0)?;
    let (len, rest) = rest.split_at_checked(end + 1)?;
    let len = len
        .iter()
        .rev()
        .fold(0, |len, byte| len << 7 | usize::from(byte & 0x7f));
    rest.split_at_checked(len)
}

/// Returns the data of a message: its number, its publisher, and zeros up to this length.
pub(super) fn data(number: u32, publisher: SimAddr, size: usize) -> Bytes {
    let mut data = vec![0; size.max(8)];
    data[..4].copy_from_slice(&number.to_be_bytes());
    data[4..8].copy_from_slice(&publisher.0.to_be_bytes());
    data.into()
}

impl Honest {
    pub(super) fn new(config: Config, uplink: Option<u64>, seed: u64) -> Self {
        let engine = Engine::new(config, Signing::StrictNoSign, 0, Duration::ZERO, seed);
        Self {
            engine: engine.expect("a configuration"),
            uplink,
            sending: None,
            got: Vec::new(),
            copies: Vec::new(),
            twice: 0,
            message_bytes: 0,
            control_bytes: 0,
        }
    }

    pub(super) fn publish(&mut self, now: Duration, data: Bytes) {
        self.engine.publish(now, TOPIC, data).expect("published");
    }

    fn handle_rpc(&mut self, now: Duration, from: SimAddr, rpc: &[u8]) {
        for (number, ..) in messages(rpc) {
            let number = number as usize;
            grown(&mut self.copies, number);
            self.copies[number] += 1;
        }
        self.engine.handle_rpc(now, &from, &Bytes::copy_from_slice(rpc));
        while let Some(event) = self.engine.poll_event() {
            if let Event::Message(received) = event
                && let Some((number, _)) = said(&received.data)
            {
                let number = number as usize;
                grown(&mut self.got, number);
                self.twice += u32::from(self.got[number].is_some());
                self.got[number] = Some(now);
            }
        }
    }

    fn poll_transmit(&mut self, now: Duration) -> Option<Transmit<SimAddr>> {
        if let Some((done, _)) = &self.sending {
            return if *done > now {
                None
            } else {
                self.sending.take().map(|(_, transmit)| transmit)
            };
        }
        let transmit = self.engine.poll_transmit(now)?;
        let len = transmit.rpc.len() as u64;
        if messages(&transmit.rpc).next().is_some() {
            self.message_bytes += len;
        } else {
            self.control_bytes += len;
        }
        let (to, payload) = (transmit.to, transmit.rpc.to_vec());
        let tell = Transmit::Tell { to, payload };
        let Some(rate) = self.uplink else {
            return Some(tell);
        };
        let takes = Duration::from_nanos(len * 1_000_000_000 / rate);
        self.sending = Some((now + takes, tell));
        None
    }

    fn poll_timeout(&self) -> Duration {
        let due = self.engine.poll_timeout();
        self.sending.as_ref().map_or(due, |(done, _)| due.min(*done))
    }
}

fn grown<T: Clone + Default>(list: &mut Vec<T>, at: usize) {
    if list.len() <= at {
        list.resize(at + 1, T::default());
    }
}

impl Node {
    pub(crate) fn honest(&self) -> Option<&Honest> {
        match self {
            Node::Honest(honest) => Some(honest),
            Node::Sybil(_) => None,
        }
    }

    pub(super) fn honest_mut(&mut self) -> Option<&mut Honest> {
        match self {
            Node::Honest(honest) => Some(honest),
            Node::Sybil(_) => None,
        }
    }
}

impl sim::Engine for Node {
    type Addr = SimAddr;
    type Event = ();

    fn handle_message(&mut self, now: Duration, from: &SimAddr, payload: &[u8]) {
        match self {
            Node::Honest(honest) => honest.handle_rpc(now, *from, payload),
            Node::Sybil(sybil) => sybil.handle_rpc(now, *from, payload),
        }
    }

    fn handle_timeout(&mut self, now: Duration) {
        match self {
            Node::Honest(honest) => honest.engine.handle_timeout(now),
            Node::Sybil(sybil) => sybil.handle_timeout(now),
        }
    }

    fn poll_transmit(&mut self, now: Duration) -> Option<Transmit<SimAddr>> {
        match self {
            Node::Honest(honest) => honest.poll_transmit(now),
            Node::Sybil(sybil) => sybil.poll_transmit(),
        }
    }

    fn poll_timeout(&self) -> Option<Duration> {
        match self {
            Node::Honest(honest) => Some(honest.poll_timeout()),
            Node::Sybil(sybil) => sybil.poll_timeout(),
        }
    }
}
