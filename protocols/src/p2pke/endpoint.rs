//! All channels of a node, by address, within the configuration's limits.

use std::collections::{BTreeSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use p2p::{Packet, PeerId};
use rand::CryptoRng;

use super::channel::{Channel, Event, Hello};
use super::gate::Gate;
use super::path::DataPath;
use super::wire::{self, InitHello};
use super::{Error, Local};
use crate::hash::HashMap;

#[derive(Debug)]
struct Slot {
    /// Boxed, so that free places of the map are small.
    channel: Box<Channel>,
    timer: Option<Duration>,
    /// When it came, if it is half open.
    half_open: Option<u64>,
}

/// All channels of a node.
///
/// A source gets memory here with its first hello that is verified, not before, and loses it when its last
/// session or handshake is gone.
#[derive(Debug)]
pub struct Endpoint<A> {
    local: Arc<Local>,
    gate: Gate,
    channels: HashMap<A, Slot>,
    timers: BTreeSet<(Duration, A)>,
    half_open: BTreeSet<(u64, A)>,
    arrivals: u64,
    /// The newest hello of this node.
    last_opened: Option<Duration>,
    transmits: VecDeque<(A, Packet)>,
    events: VecDeque<(A, Event)>,
}

impl<A: Clone + Ord + Hash> Endpoint<A> {
    /// A node without channels. Draws 8 bytes of randomness.
    pub fn new(local: Arc<Local>, rng: &mut dyn CryptoRng) -> Self {
        Self {
            gate: Gate::new(&local.config, rng.next_u64()),
            local,
            channels: HashMap::default(),
            timers: BTreeSet::new(),
            half_open: BTreeSet::new(),
            arrivals: 0,
            last_opened: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Who this node is.
    pub fn local(&self) -> &Arc<Local> {
        &self.local
    }

    /// How many channels there are, established or not.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// The path to whoever has a session at `addr`.
    pub fn path(&self, addr: &A) -> Option<&Arc<DataPath>> {
        self.channels.get(addr)?.channel.path()
    }

    /// As [`Channel::connect`], at this address.
    ///
    /// # Errors
    /// [`Full`](Error::Full) if that takes one more channel than are allowed; [`Denied`](Error::Denied).
    pub fn connect(
        &mut self,
        now: Duration,
        addr: &A,
        expected: Option<PeerId>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Option<Arc<DataPath>>, Error> {
        if !self.channels.contains_key(addr) {
            if expected.is_some_and(|expected| !self.local.allows(&expected)) {
                return Err(Error::Denied);
            }
            let mut channel = Channel::new(self.local.clone());
            // Whoever is there may remember a hello of a channel that is forgotten here.
            channel.last_opened = self.last_opened;
            self.insert(addr.clone(), channel)?;
        }
        let Some(slot) = self.channels.get_mut(addr) else {
            return Err(Error::Full);
        };
        let result = slot.channel.connect(now, expected, rng);
        self.last_opened = self.last_opened.max(slot.channel.last_opened);
        self.settle(addr);
        result
    }

    /// As [`Channel::renew`], at this address.
    pub fn renew(&mut self, now: Duration, addr: &A, rng: &mut dyn CryptoRng) -> Result<(), Error> {
        let Some(slot) = self.channels.get_mut(addr) else {
            return Ok(());
        };
        let result = slot.channel.renew(now, rng);
        self.last_opened = self.last_opened.max(slot.channel.last_opened);
        self.settle(addr);
        result
    }

    /// Takes a packet from `src` and gives back what was in it and whose it is, if it was data.
    ///
    /// Packets of an address with a [path](Self::path) need not come here, but for those that the path calls
    /// [`Unexpected`](Error::Unexpected).
    ///
    /// # Errors
    /// Why the packet is dropped. No session is the worse for it.
    pub fn handle(
        &mut self,
        now: Duration,
        src: &A,
        packet: Packet,
        rng: &mut dyn CryptoRng,
    ) -> Result<Option<(PeerId, Packet)>, Error> {
        if wire::is_init_hello(&packet) {
            let result = self.handle_hello(now, src, &packet, rng);
            self.settle(src);
            return result.map(|()| None);
        }
        let slot = self.channels.get_mut(src).ok_or(Error::NoSession)?;
        let result = slot.channel.handle(now, packet, rng);
        let peer = slot.channel.path().map(|path| path.peer());
        self.settle(src);
        Ok(result?.and_then(|packet| Some((peer?, packet))))
    }

    /// The cheapest check comes first, and memory last.
    fn handle_hello(
        &mut self,
        now: Duration,
        src: &A,
        packet: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), Error> {
        let hello = InitHello::parse(packet)?;
        if let Some(slot) = self.channels.get_mut(src) {
            if slot.channel.check(now, &hello)? == Hello::New {
                self.gate.admit(now, src)?;
                slot.channel.answer(now, &hello, rng)?;
            }
            return Ok(());
        }
        if self.channels.len() >= self.local.config.channels {
            return Err(Error::Full);
        }
        self.gate.check(now, src)?;
        let mut channel = Channel::new(self.local.clone());
        channel.check(now, &hello)?;
        self.gate.admit(now, src)?;
        channel.answer(now, &hello, rng)?;
        self.insert(src.clone(), channel)?;
        while self.half_open.len() >= self.local.config.half_open.max(1) {
            let Some((_, oldest)) = self.half_open.pop_first() else {
                break;
            };
            self.remove(&oldest);
        }
        Ok(())
    }

    fn insert(&mut self, addr: A, channel: Channel) -> Result<(), Error> {
        if self.channels.len() >= self.local.config.channels {
            return Err(Error::Full);
        }
        let slot = Slot {
            channel: Box::new(channel),
            timer: None,
            half_open: None,
        };
        self.channels.insert(addr, slot);
        Ok(())
    }

    fn remove(&mut self, addr: &A) {
        if let Some(slot) = self.channels.remove(addr) {
            if let Some(at) = slot.timer {
                self.timers.remove(&(at, addr.clone()));
            }
            if let Some(arrival) = slot.half_open {
                self.half_open.remove(&(arrival, addr.clone()));
            }
        }
    }

    /// Forgets whoever is at this address, with all keys.
    pub fn disconnect(&mut self, addr: &A) {
        self.remove(addr);
    }

    /// Takes over what a channel wants, after anything that may have changed it.
    fn settle(&mut self, addr: &A) {
        let Some(slot) = self.channels.get_mut(addr) else {
            return;
        };
        while let Some(packet) = slot.channel.poll_transmit() {
            self.transmits.push_back((addr.clone(), packet));
        }
        while let Some(event) = slot.channel.poll_event() {
            self.events.push_back((addr.clone(), event));
        }
        if slot.channel.is_idle() {
            self.remove(addr);
            return;
        }
        let timer = slot.channel.poll_timeout();
        if timer != slot.timer {
            if let Some(at) = slot.timer {
                self.timers.remove(&(at, addr.clone()));
            }
            self.timers.extend(timer.map(|at| (at, addr.clone())));
            slot.timer = timer;
        }
        match (slot.half_open, slot.channel.is_half_open()) {
            (None, true) => {
                self.arrivals += 1;
                slot.half_open = Some(self.arrivals);
                self.half_open.insert((self.arrivals, addr.clone()));
            }
            (Some(arrival), false) => {
                slot.half_open = None;
                self.half_open.remove(&(arrival, addr.clone()));
            }
            _ => {}
        }
    }

    /// The next moment at which [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Does what time asks for on all channels.
    pub fn handle_timeout(&mut self, now: Duration, rng: &mut dyn CryptoRng) {
        while self.poll_timeout().is_some_and(|at| at <= now) {
            let Some((_, addr)) = self.timers.pop_first() else {
                break;
            };
            if let Some(slot) = self.channels.get_mut(&addr) {
                slot.timer = None;
                slot.channel.handle_timeout(now, rng);
            }
            self.settle(&addr);
        }
    }

    /// The next packet to send, and where to.
    pub fn poll_transmit(&mut self) -> Option<(A, Packet)> {
        self.transmits.pop_front()
    }

    /// The next thing that happened, and where.
    pub fn poll_event(&mut self) -> Option<(A, Event)> {
        self.events.pop_front()
    }
}
