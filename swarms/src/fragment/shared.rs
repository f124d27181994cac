//! State shared by the callers of one swarm and its driver.

use p2p::{Addr, Counters, DropReason, Headroom, Message, Swarm};
use p2p_protocols::fragment::{self, Ids, Reassembler};
use parking_lot::{Mutex, MutexGuard};

use super::outbound::Buffers;
use super::{FragmentConfig, HEADER};
use crate::driver::{Driver, Mailbox, Timer};

pub(super) struct Shared<A: Addr, S> {
    pub(super) inner: S,
    pub(super) config: FragmentConfig,
    /// Number of message bytes that one fragment carries.
    pub(super) chunk: usize,
    pub(super) mtu: usize,
    pub(super) ids: Mutex<Ids<A>>,
    pub(super) buffers: Mutex<Buffers<A>>,
    engine: Mutex<Reassembler<A>>,
    pub(super) driver: Driver<()>,
    pub(super) timer: Timer,
    pub(super) mailbox: Mailbox<Message<A>>,
    pub(super) counters: Counters,
    pub(super) pieces: Counters,
}

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    pub(super) fn new(inner: S, config: FragmentConfig) -> Self {
        let mtu = fragment::mtu(config.mtu, inner.mtu());
        let room = Headroom::new(HEADER, 0).plus(inner.headroom());
        let driver = Driver::new();
        driver.set_needs_background(false);
        Self {
            chunk: fragment::chunk(inner.mtu()),
            mtu,
            ids: Mutex::new(Ids::new(config.destinations)),
            buffers: Mutex::default(),
            engine: Mutex::new(Reassembler::new(config.reassembly, mtu, room)),
            driver,
            timer: Timer::default(),
            mailbox: Mailbox::new(config.messages),
            counters: Counters::new("frag"),
            pieces: Counters::new("frag-piece"),
            config,
            inner,
        }
    }

    pub(super) fn engine(&self) -> MutexGuard<'_, Reassembler<A>> {
        self.engine.lock()
    }

    /// Counts the incomplete messages that the engine dropped.
    pub(super) fn count_given_up(&self, engine: &mut Reassembler<A>) {
        while let Some(given_up) = engine.poll_given_up() {
            self.counters.add_dropped_from(given_up.reason, &given_up.src);
            self.pieces.add_dropped_many(given_up.reason, given_up.parts);
        }
    }

    /// Fails all current and later receives, and drops what waits.
    pub(super) fn close(&self) {
        self.counters
            .add_dropped_many(DropReason::Closed, self.mailbox.close());
        let mut engine = self.engine();
        engine.clear(DropReason::Closed);
        self.count_given_up(&mut engine);
        drop(engine);
        self.driver.close();
    }
}
