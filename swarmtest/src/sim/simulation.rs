//! The nodes, the queue, the clock and the timers.

use std::collections::VecDeque;
use std::time::Duration;

use p2p::engine::{Engine, Failure, Transmit};
use p2p::{CounterSnapshot, Counters};

use super::addr::SimAddr;
use super::churn::{Action, Churning, Plan};
use super::link::Links;
use super::mix::Mix;
use super::queue::{Queue, Slab};
use packets::{Ask, Kind, Packet};

mod packets;

/// Configuration of a simulation.
#[derive(Clone, Debug)]
pub struct Config {
    /// Seed of all randomness.
    pub seed: u64,
    /// The network between the nodes.
    pub links: Links,
    /// Timeout of an ask.
    pub ask_timeout: Duration,
    /// How long a leaving node runs on after [`Engine::handle_leave`].
    pub leaving: Duration,
}

impl Default for Config {
    /// Returns seed 0, [`Links::default`], an ask timeout of 500 ms, and 2 s for leaving.
    fn default() -> Self {
        Self {
            seed: 0,
            links: Links::default(),
            ask_timeout: Duration::from_millis(500),
            leaving: Duration::from_secs(2),
        }
    }
}

/// Counters of asks: `asked = answered + failed + abandoned + pending`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// Asks that engines sent.
    pub asked: u64,
    /// Asks that ended with a response.
    pub answered: u64,
    /// Asks that ended with a [`Failure`].
    pub failed: u64,
    /// Asks whose asker had stopped.
    pub abandoned: u64,
}

/// Engines of one type, the network between them, and virtual time.
///
/// Memory grows with packets in flight, and with events that are not taken ([`events`](Self::events)).
#[derive(Debug)]
pub struct Simulation<E: Engine<Addr = SimAddr>> {
    pub(super) config: Config,
    pub(super) now: u64,
    pub(super) random: Mix,
    queue: Queue<Due>,
    pub(super) nodes: Vec<Node<E>>,
    pub(super) up: usize,
    packets: Slab<Packet>,
    asks: Slab<Ask>,
    plans: Slab<Plan<E>>,
    pub(super) churning: Option<Churning<E>>,
    events: VecDeque<(Duration, SimAddr, E::Event)>,
    keeps_event: fn(&E::Event) -> bool,
    counters: Counters,
    asked: Asks,
    processed: u64,
    trace: Mix,
}

#[derive(Debug)]
pub(super) struct Node<E> {
    pub(super) engine: Option<E>,
    /// How often a node was started at this address: packets for an earlier life find no node.
    pub(super) life: u32,
    /// Its part of a partitioned network.
    part: u32,
    /// The earliest of its timers in the queue; `NEVER` if there is none.
    timer: u64,
    /// Until when its uplink is occupied.
    busy: u64,
}

/// A due action; the numbers are keys of the slabs.
#[derive(Clone, Copy, Debug)]
enum Due {
    Timer(u32),
    Packet(u32),
    Failure(u32),
    Plan(u32),
}

const NEVER: u64 = u64::MAX;

/// How often in a row an engine may be due again at once, before that counts as a fault of the engine.
const SPINS: u32 = 1000;

impl<E: Engine<Addr = SimAddr>> Simulation<E> {
    /// Creates a network without nodes, at time zero.
    pub fn new(config: Config) -> Self {
        Self {
            random: Mix(config.seed),
            trace: Mix(config.seed),
            config,
            now: 0,
            queue: Queue::new(),
            nodes: Vec::new(),
            up: 0,
            packets: Slab::new(),
            asks: Slab::new(),
            plans: Slab::new(),
            churning: None,
            events: VecDeque::new(),
            keeps_event: |_| true,
            counters: Counters::new("sim"),
            asked: Asks::default(),
            processed: 0,
        }
    }

    /// Returns a seed for the engine of the node at this address, derived from the simulation's seed only.
    pub fn seed(&self, addr: SimAddr) -> u64 {
        seed(self.config.seed, addr, 1)
    }

    /// Returns the address of the next [added](Self::add) node.
    pub fn next_addr(&self) -> SimAddr {
        SimAddr(self.nodes.len() as u32)
    }

    /// Starts a node at the next address.
    pub fn add(&mut self, engine: E) -> SimAddr {
        let addr = self.next_addr();
        self.nodes.push(Node {
            engine: None,
            life: 0,
            part: 0,
            timer: NEVER,
            busy: 0,
        });
        self.start(addr, engine);
        addr
    }

    /// Starts a node at an address that was used before; a node that still runs there fails first.
    ///
    /// Asks of the earlier life are abandoned; packets for it reach the new node, as datagrams would.
    ///
    /// # Panics
    /// Panics if no node was ever added at this address.
    pub fn restart(&mut self, addr: SimAddr, engine: E) {
        self.fail(addr);
        self.start(addr, engine);
    }

    /// Stops a node immediately and without notice; returns its engine, if it ran.
    ///
    /// # Panics
    /// Panics if no node was ever added at this address.
    pub fn fail(&mut self, addr: SimAddr) -> Option<E> {
        let node = &mut self.nodes[addr.index()];
        let engine = node.engine.take()?;
        node.timer = NEVER;
        self.up -= 1;
        self.note(5, addr, addr, &[]);
        Some(engine)
    }

    /// Lets a node announce its departure, and stops it [later](Config::leaving).
    ///
    /// # Panics
    /// Panics if no node was ever added at this address.
    pub fn leave(&mut self, addr: SimAddr) {
        let life = self.nodes[addr.index()].life;
        if self.act(addr, Engine::handle_leave).is_some() {
            let at = self.now.saturating_add(nanos(self.config.leaving));
            self.plan(at, Plan::Stop { node: addr.0, life });
        }
    }

    /// Calls `act` with the node's engine, and then sends its transmissions. Returns `None` if no node is up
    /// there.
    ///
    /// # Panics
    /// Panics if no node was ever added at this address.
    pub fn act<T>(&mut self, addr: SimAddr, act: impl FnOnce(&mut E, Duration) -> T) -> Option<T> {
        let now = self.now();
        let result = act(self.nodes[addr.index()].engine.as_mut()?, now);
        self.drain(addr);
        Some(result)
    }

    /// Returns the engine of a node that is up.
    pub fn engine(&self, addr: SimAddr) -> Option<&E> {
        self.nodes.get(addr.index())?.engine.as_ref()
    }

    /// Returns the nodes that are up, ordered by address.
    pub fn nodes(&self) -> impl Iterator<Item = (SimAddr, &E)> {
        self.nodes.iter().zip(0..).filter_map(|(node, index)| {
            let engine = node.engine.as_ref()?;
            Some((SimAddr(index), engine))
        })
    }

    /// Returns the number of nodes that are up.
    pub fn up(&self) -> usize {
        self.up
    }

    /// Runs `action` at this time, or as soon as the simulation runs if that has passed.
    pub fn at(&mut self, time: Duration, action: impl FnOnce(&mut Self) + 'static) {
        let action: Action<E> = Box::new(action);
        self.plan(nanos(time), Plan::Run(action));
    }

    /// Assigns each node to a part of the network, by number; packets between different parts are dropped,
    /// including those in flight. Nodes added later are in part 0.
    pub fn partition(&mut self, part_of: impl Fn(SimAddr) -> u32) {
        for (node, index) in self.nodes.iter_mut().zip(0..) {
            node.part = part_of(SimAddr(index));
        }
    }

    /// Ends a partition.
    pub fn heal(&mut self) {
        self.partition(|_| 0);
    }

    /// Runs until this time: everything due until then has happened, and the clock shows it.
    ///
    /// # Panics
    /// Panics if an engine is still due after it has handled its timeout a thousand times at the same time.
    pub fn run_until(&mut self, time: Duration) {
        let end = nanos(time);
        while let Some(at) = self.queue.next_at().filter(|at| *at <= end) {
            let Some((_, due)) = self.queue.pop() else { break };
            self.now = self.now.max(at);
            self.processed += 1;
            self.happen(due);
        }
        self.now = self.now.max(end);
    }

    /// Runs for this duration, as [`run_until`](Self::run_until) does.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now().saturating_add(time));
    }

    /// Returns the virtual time since the start.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now)
    }

    /// Takes the events of engines, oldest first: the time, the node, the event.
    pub fn events(&mut self) -> impl Iterator<Item = (Duration, SimAddr, E::Event)> {
        self.events.drain(..)
    }

    /// Keeps only the events of engines for which `keeps` returns true, from now on. Without a filter all
    /// events are kept until they are taken.
    pub fn filter_events(&mut self, keeps: fn(&E::Event) -> bool) {
        self.keeps_event = keeps;
    }

    /// Returns the counters of packets. A tell is one packet; a request and its response are two.
    pub fn counters(&self) -> CounterSnapshot {
        self.counters.snapshot()
    }

    /// Returns the number of packets in flight, counted one by one: `sent = delivered + dropped + in flight`.
    pub fn in_flight(&self) -> u64 {
        self.packets.count() as u64
    }

    /// Returns the counters of asks.
    pub fn asks(&self) -> Asks {
        self.asked
    }

    /// Returns the number of pending asks, counted one by one.
    pub fn asks_pending(&self) -> u64 {
        self.asks.count() as u64
    }

    /// Returns the number of processed queue entries: arrivals, timers, failures and planned actions.
    pub fn processed(&self) -> u64 {
        self.processed
    }

    /// Returns a hash of all events: each start and stop, and each packet with its time, route, bytes and
    /// fate.
    pub fn trace(&self) -> u64 {
        self.trace.digest()
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Packet(key) => {
                if let Some(packet) = self.packets.remove(key) {
                    self.arrive(&packet);
                }
            }
            Due::Timer(node) => self.wake(SimAddr(node)),
            Due::Failure(ask) => {
                self.end_ask(ask, Err(Failure::Unreachable));
            }
            Due::Plan(key) => match self.plans.remove(key) {
                Some(Plan::Run(action)) => action(self),
                Some(Plan::Depart { node, life }) => self.depart(SimAddr(node), life),
                Some(Plan::Stop { node, life }) if self.lives(SimAddr(node), life) => {
                    self.fail(SimAddr(node));
                }
                Some(Plan::Arrive { node }) => self.come_back(SimAddr(node)),
                Some(Plan::Stop { .. }) | None => {}
            },
        }
    }

    /// Calls a node's timeout handler, if it is due.
    fn wake(&mut self, addr: SimAddr) {
        let now = self.now;
        let node = &mut self.nodes[addr.index()];
        if node.timer > now {
            return; // A timer of an earlier life, or one that an earlier deadline replaced.
        }
        node.timer = NEVER;
        for _ in 0..SPINS {
            let Some(engine) = &mut self.nodes[addr.index()].engine else {
                return;
            };
            if engine.poll_timeout().is_none_or(|due| nanos(due) > now) {
                return self.set_timer(addr);
            }
            engine.handle_timeout(Duration::from_nanos(now));
            self.drain_output(addr);
        }
        panic!(
            "{addr} is due again at once after {SPINS} timeouts at {:?}",
            self.now()
        );
    }

    /// Sends and collects the output of an engine, and reads its timeout.
    fn drain(&mut self, addr: SimAddr) {
        self.drain_output(addr);
        self.set_timer(addr);
    }

    fn drain_output(&mut self, addr: SimAddr) {
        let now = self.now();
        let transmit = |engine: &mut E| engine.poll_transmit(now);
        while let Some(transmit) = self.nodes[addr.index()].engine.as_mut().and_then(transmit) {
            match transmit {
                Transmit::Tell { to, payload } => self.send(addr, to, Kind::Tell, payload),
                Transmit::Ask { to, id, request } => {
                    self.asked.asked += 1;
                    let ask = self.asks.insert(Ask {
                        asker: addr,
                        life: self.nodes[addr.index()].life,
                        id,
                        deadline: self.now.saturating_add(nanos(self.config.ask_timeout)),
                    });
                    self.send(addr, to, Kind::Request(Some(ask)), request);
                }
            }
        }
        if let Some(engine) = &mut self.nodes[addr.index()].engine {
            let events = std::iter::from_fn(|| engine.poll_event()).filter(self.keeps_event);
            self.events.extend(events.map(|event| (now, addr, event)));
        }
    }

    fn set_timer(&mut self, addr: SimAddr) {
        let node = &mut self.nodes[addr.index()];
        let Some(due) = node.engine.as_ref().and_then(E::poll_timeout) else {
            return;
        };
        let due = nanos(due).max(self.now);
        if due < node.timer {
            node.timer = due;
            self.queue.push(due, Due::Timer(addr.0));
        }
    }

    fn start(&mut self, addr: SimAddr, engine: E) {
        let node = &mut self.nodes[addr.index()];
        node.engine = Some(engine);
        node.life += 1;
        node.busy = self.now;
        let life = node.life;
        self.up += 1;
        self.note(8, addr, addr, &life.to_le_bytes());
        self.drain(addr);
    }

    pub(super) fn lives(&self, addr: SimAddr, life: u32) -> bool {
        let node = &self.nodes[addr.index()];
        node.life == life && node.engine.is_some()
    }

    pub(super) fn plan(&mut self, at: u64, plan: Plan<E>) {
        let key = self.plans.insert(plan);
        self.queue.push(at.max(self.now), Due::Plan(key));
    }
}

/// Returns a seed for this life of a node.
pub(super) fn seed(seed: u64, addr: SimAddr, life: u32) -> u64 {
    let mut mix = Mix(seed);
    mix.absorb(u64::from(addr.0) << 32 | u64::from(life));
    mix.digest()
}

/// Converts a time to nanoseconds; saturates.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER)
}
