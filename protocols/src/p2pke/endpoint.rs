//! The channels of a node by address, within the configured limits.

mod eviction;

use std::collections::{BTreeSet, VecDeque};
use std::hash::Hash;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use p2p::{Headroom, Packet, PeerId};
use rand::CryptoRng;

use super::channel::{Channel, Event, Hello};
use super::channel_counts::{ChannelCounts, Owner};
use super::hello_rate_limiter::HelloRateLimiter;
use super::path::DataPath;
use super::wire::{self, InitHello};
use super::{Error, Local};
use crate::hash::HashMap;
use crate::overlay::Prefix;
use eviction::Eviction;

/// Room for the layers below around a packet that no channel made.
const ROOM: Headroom = Headroom::new(64, 32);

#[derive(Debug)]
struct Slot {
    /// Boxed, so that vacant entries of the map are small.
    channel: Box<Channel>,
    timer: Option<Duration>,
    /// The arrival number, if the channel is half-open.
    half_open: Option<NonZeroU64>,
    /// The hash of the peer's id, if the channel counts as opened by a peer.
    peer: Option<NonZeroU64>,
}

/// All channels of a node.
///
/// A source gets memory with its first verified hello, not before, and loses it with its last session or
/// handshake.
#[derive(Debug)]
pub struct Endpoint<A> {
    local: Arc<Local>,
    rate_limiter: HelloRateLimiter,
    channels: HashMap<A, Slot>,
    timers: BTreeSet<(Duration, A)>,
    half_open: BTreeSet<(u64, A)>,
    arrivals: u64,
    counts: ChannelCounts,
    eviction: Eviction,
    prefix_of: fn(&A) -> Option<Prefix>,
    /// The time of this node's newest hello.
    last_opened: Option<Duration>,
    transmits: VecDeque<(A, Packet)>,
    events: VecDeque<(A, Event)>,
}

impl<A: Clone + Ord + Hash> Endpoint<A> {
    /// Creates a node without channels. Draws 8 bytes of randomness.
    pub fn new(local: Arc<Local>, rng: &mut dyn CryptoRng) -> Self {
        Self {
            rate_limiter: HelloRateLimiter::new(&local.config, rng.next_u64()),
            local,
            channels: HashMap::default(),
            timers: BTreeSet::new(),
            half_open: BTreeSet::new(),
            arrivals: 0,
            counts: ChannelCounts::default(),
            eviction: Eviction::default(),
            prefix_of: |_| None,
            last_opened: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Also counts channels and hellos by network: `prefix_of` returns the network of an address.
    #[must_use]
    pub fn with_prefixes(mut self, prefix_of: fn(&A) -> Option<Prefix>) -> Self {
        self.prefix_of = prefix_of;
        self
    }

    /// Returns this node's key and configuration.
    pub fn local(&self) -> &Arc<Local> {
        &self.local
    }

    /// Returns the number of channels, established or not.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Returns the path to the peer with a session at `addr`.
    pub fn path(&self, addr: &A) -> Option<&Arc<DataPath>> {
        self.channels.get(addr)?.channel.path()
    }

    /// Does the same as [`Channel::connect`] for this address.
    ///
    /// # Errors
    /// [`Full`](Error::Full) if this would exceed the limit of channels; [`Denied`](Error::Denied).
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
            // The node at this address may remember a hello of a channel that is forgotten here.
            channel.last_opened = self.last_opened;
            if self.confirmed() >= self.local.config.channels && !self.make_room(now) {
                return Err(Error::Full);
            }
            self.insert(addr.clone(), channel);
        }
        let Some(slot) = self.channels.get_mut(addr) else {
            return Err(Error::Full);
        };
        let result = slot.channel.connect(now, expected, rng);
        self.last_opened = self.last_opened.max(slot.channel.last_opened);
        let _ = self.update_channel(now, addr);
        result
    }

    /// Does the same as [`Channel::release`] for this address.
    pub fn release(&mut self, addr: &A, expected: Option<PeerId>) {
        if let Some(slot) = self.channels.get_mut(addr) {
            slot.channel.release(expected);
        }
    }

    /// Does the same as [`Channel::rekey`] for this address.
    pub fn rekey(&mut self, now: Duration, addr: &A, rng: &mut dyn CryptoRng) -> Result<(), Error> {
        let Some(slot) = self.channels.get_mut(addr) else {
            return Ok(());
        };
        let result = slot.channel.rekey(now, rng);
        self.last_opened = self.last_opened.max(slot.channel.last_opened);
        let _ = self.update_channel(now, addr);
        result
    }

    /// Processes a packet from `src`. Returns its contents and its peer if it was data.
    ///
    /// For an address with a [path](Self::path), only packets that the path reports as
    /// [`Unexpected`](Error::Unexpected) need to be passed here.
    ///
    /// # Errors
    /// The reason for dropping the packet. No session changes.
    pub fn handle(
        &mut self,
        now: Duration,
        src: &A,
        packet: Packet,
        rng: &mut dyn CryptoRng,
    ) -> Result<Option<(PeerId, Packet)>, Error> {
        if wire::is_init_hello(&packet) {
            let result = self.handle_hello(now, src, &packet, rng);
            return result.and(self.update_channel(now, src)).map(|()| None);
        }
        let Some(slot) = self.channels.get_mut(src) else {
            self.hint(now, src, &packet);
            return Err(Error::NoSession);
        };
        if let Some(counter) = wire::parse_no_session(&packet)
            && slot.channel.check_hint(now, counter)?
        {
            self.rate_limiter.take_hint(now)?;
        }
        let result = slot.channel.handle(now, packet, rng);
        self.last_opened = self.last_opened.max(slot.channel.last_opened);
        let peer = slot.channel.path().map(|path| path.peer());
        let updated = self.update_channel(now, src);
        let data = result?;
        updated?;
        Ok(data.and_then(|packet| Some((peer?, packet))))
    }

    /// Queues a no-session notice, which is not longer than the packet. Performs no public-key operation and
    /// allocates no state.
    fn hint(&mut self, now: Duration, src: &A, packet: &[u8]) {
        if let Some(counter @ wire::FIRST_DATA..) = wire::counter(packet)
            && packet.len() >= wire::OVERHEAD
            && self.rate_limiter.admit_hint(now, src)
        {
            let hint = Packet::new(ROOM, &wire::no_session(counter));
            self.transmits.push_back((src.clone(), hint));
        }
    }

    /// Performs the cheapest check first, and allocates last.
    fn handle_hello(
        &mut self,
        now: Duration,
        src: &A,
        packet: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), Error> {
        let hello = InitHello::parse(packet)?;
        let prefix = (self.prefix_of)(src);
        if let Some(slot) = self.channels.get_mut(src) {
            if slot.channel.check(now, &hello)? == Hello::New {
                if !slot.channel.admit_rekey(now, &hello) {
                    self.rate_limiter.admit_from(now, src, prefix)?;
                }
                slot.channel.answer(now, &hello, rng)?;
            }
            return Ok(());
        }
        self.rate_limiter.check_from(now, src, prefix)?;
        if self.inbound_is_full() && !self.can_evict(now) {
            return Err(Error::Full);
        }
        let mut channel = Channel::new(self.local.clone());
        channel.check(now, &hello)?;
        self.rate_limiter.admit_from(now, src, prefix)?;
        channel.answer(now, &hello, rng)?;
        self.insert(src.clone(), channel);
        while self.half_open.len() >= self.local.config.half_open.max(1) {
            let Some((_, oldest)) = self.half_open.pop_first() else {
                break;
            };
            self.remove(&oldest);
        }
        Ok(())
    }

    fn insert(&mut self, addr: A, channel: Channel) {
        let slot = Slot {
            channel: Box::new(channel),
            timer: None,
            half_open: None,
            peer: None,
        };
        self.channels.insert(addr, slot);
    }

    fn remove(&mut self, addr: &A) {
        if let Some(slot) = self.channels.remove(addr) {
            if let Some(at) = slot.timer {
                self.timers.remove(&(at, addr.clone()));
            }
            if let Some(arrival) = slot.half_open {
                self.half_open.remove(&(arrival.get(), addr.clone()));
            }
            if let Some(peer) = slot.peer {
                self.counts.remove(&self.owner(addr, peer));
            }
        }
    }

    /// Forgets the channel of this address, with all its keys.
    pub fn disconnect(&mut self, addr: &A) {
        self.remove(addr);
    }

    /// Updates timers, limits and queues after a channel may have changed.
    ///
    /// # Errors
    /// [`Full`](Error::Full) if a peer has just confirmed the channel and the limits leave no place for it;
    /// the channel is then removed.
    fn update_channel(&mut self, now: Duration, addr: &A) -> Result<(), Error> {
        let Some(slot) = self.channels.get_mut(addr) else {
            return Ok(());
        };
        if slot.channel.is_idle() {
            self.drain(addr);
            self.remove(addr);
            return Ok(());
        }
        let inbound = slot.channel.path().filter(|_| !slot.channel.is_outbound());
        let peer = inbound.map(|path| Owner::hash(&self.rate_limiter, &path.peer()));
        if peer != slot.peer {
            let before = slot.peer.take();
            if let Some(before) = before {
                self.counts.remove(&self.owner(addr, before));
            }
            if let Some(peer) = peer {
                let owner = self.owner(addr, peer);
                if !self.admit(now, addr, &owner, before.is_some()) {
                    self.remove(addr);
                    if before.is_some() {
                        self.events.push_back((addr.clone(), Event::Expired));
                    }
                    return Err(Error::Full);
                }
                self.counts.add(&owner);
                if let Some(slot) = self.channels.get_mut(addr) {
                    slot.peer = Some(peer);
                }
            }
        }
        self.drain(addr);
        let Some(slot) = self.channels.get_mut(addr) else {
            return Ok(());
        };
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
                slot.half_open = NonZeroU64::new(self.arrivals);
                self.half_open.insert((self.arrivals, addr.clone()));
            }
            (Some(arrival), false) => {
                slot.half_open = None;
                self.half_open.remove(&(arrival.get(), addr.clone()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes the queued packets and events of a channel.
    fn drain(&mut self, addr: &A) {
        let Some(slot) = self.channels.get_mut(addr) else {
            return;
        };
        while let Some(packet) = slot.channel.poll_transmit() {
            self.transmits.push_back((addr.clone(), packet));
        }
        while let Some(event) = slot.channel.poll_event() {
            self.events.push_back((addr.clone(), event));
        }
    }

    fn owner(&self, addr: &A, peer: NonZeroU64) -> Owner {
        Owner {
            peer,
            prefix: (self.prefix_of)(addr),
        }
    }

    /// Returns the time at which [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Processes the expired timers of all channels.
    pub fn handle_timeout(&mut self, now: Duration, rng: &mut dyn CryptoRng) {
        while self.poll_timeout().is_some_and(|at| at <= now) {
            let Some((_, addr)) = self.timers.pop_first() else {
                break;
            };
            if let Some(slot) = self.channels.get_mut(&addr) {
                slot.timer = None;
                slot.channel.handle_timeout(now, rng);
            }
            let _ = self.update_channel(now, &addr);
        }
    }

    /// Returns the next packet to send, with its destination.
    pub fn poll_transmit(&mut self) -> Option<(A, Packet)> {
        self.transmits.pop_front()
    }

    /// Returns the next event, with its address.
    pub fn poll_event(&mut self) -> Option<(A, Event)> {
        self.events.pop_front()
    }
}
