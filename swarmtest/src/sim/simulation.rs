//! The nodes, the queue and the clock.

use std::collections::VecDeque;
use std::time::Duration;

use p2p::{CounterSnapshot, Counters, DropReason};

use super::churn::{Action, Arrival, Churn, Churning, Plan};
use super::engine::{Engine, Failure, SimAddr, Transmit};
use super::link::Links;
use super::mix::Mix;
use super::queue::{Queue, Slab};

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
pub struct Simulation<E: Engine> {
    config: Config,
    now: u64,
    random: Mix,
    queue: Queue<Due>,
    nodes: Vec<Node<E>>,
    up: usize,
    packets: Slab<Packet>,
    asks: Slab<Ask>,
    plans: Slab<Plan<E>>,
    churning: Option<Churning<E>>,
    events: VecDeque<(Duration, SimAddr, E::Event)>,
    counters: Counters,
    asked: Asks,
    processed: u64,
    trace: Mix,
}

#[derive(Debug)]
struct Node<E> {
    engine: Option<E>,
    /// How often a node was started at this address: packets for an earlier life find no node.
    life: u32,
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

#[derive(Debug)]
struct Packet {
    from: SimAddr,
    to: SimAddr,
    kind: Kind,
    payload: Vec<u8>,
}

/// The kind of a packet. `None` for an ask whose asker will have timed out by then.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Tell,
    Request(Option<u32>),
    Response(Option<u32>),
    Rejection(Option<u32>),
}

impl Kind {
    /// Returns the ask that fails if this packet is lost.
    fn ask(self) -> Option<u32> {
        match self {
            Kind::Tell => None,
            Kind::Request(ask) | Kind::Response(ask) | Kind::Rejection(ask) => ask,
        }
    }

    /// Returns the same kind without its ask.
    fn too_late(self) -> Self {
        match self {
            Kind::Tell => Kind::Tell,
            Kind::Request(_) => Kind::Request(None),
            Kind::Response(_) => Kind::Response(None),
            Kind::Rejection(_) => Kind::Rejection(None),
        }
    }

    fn word(self) -> u64 {
        match self {
            Kind::Tell => 1,
            Kind::Request(_) => 2,
            Kind::Response(_) => 3,
            Kind::Rejection(_) => 4,
        }
    }
}

/// A pending ask. Exactly one entry of the queue can end it: a packet, or its failure.
#[derive(Clone, Copy, Debug)]
struct Ask {
    asker: SimAddr,
    life: u32,
    id: u64,
    deadline: u64,
}

const NEVER: u64 = u64::MAX;

/// How often in a row an engine may be due again at once, before that counts as a fault of the engine.
const SPINS: u32 = 1000;

impl<E: Engine> Simulation<E> {
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

    /// Starts churn of all nodes that are up; `engine` creates the engines of returning nodes.
    ///
    /// Replaces earlier churn. A first session is as long as any other; planned actions remain.
    pub fn churn(&mut self, churn: Churn, engine: impl FnMut(Arrival) -> E + 'static) {
        self.churning = Some(Churning {
            churn,
            engine: Box::new(engine),
        });
        let up: Vec<SimAddr> = self.nodes().map(|(addr, _)| addr).collect();
        for addr in up {
            self.plan_departure(addr);
        }
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
                self.end_ask(ask, Err(Failure::TimedOut));
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

    fn arrive(&mut self, packet: &Packet) {
        let Packet { from, to, .. } = *packet;
        if self.nodes[from.index()].part != self.nodes[to.index()].part {
            return self.lose(packet, DropReason::Partitioned);
        }
        let now = self.now();
        let Some(engine) = &mut self.nodes[to.index()].engine else {
            return self.lose(packet, DropReason::NoPeer);
        };
        match packet.kind {
            Kind::Tell => engine.handle_message(now, from, &packet.payload),
            Kind::Request(ask) => {
                let response = engine.handle_request(now, from, &packet.payload);
                self.delivered(packet);
                let (kind, response) = match response {
                    Some(response) => (Kind::Response(ask), response),
                    None => (Kind::Rejection(ask), Vec::new()),
                };
                self.send(to, from, kind, response);
                return self.drain(to);
            }
            Kind::Response(Some(ask)) => {
                return self.answer(ask, packet, Ok(&packet.payload));
            }
            Kind::Rejection(Some(ask)) => {
                return self.answer(ask, packet, Err(Failure::Rejected));
            }
            Kind::Response(None) | Kind::Rejection(None) => {
                return self.lose(packet, DropReason::Expired);
            }
        }
        self.delivered(packet);
        self.drain(to);
    }

    /// Passes a response to its asker, if that is still in the same life.
    fn answer(&mut self, ask: u32, packet: &Packet, answer: Result<&[u8], Failure>) {
        if self.end_ask(ask, answer) {
            self.delivered(packet);
        } else {
            self.dropped(packet, DropReason::NoPeer);
        }
    }

    /// Ends an ask; returns whether its asker still existed.
    fn end_ask(&mut self, ask: u32, answer: Result<&[u8], Failure>) -> bool {
        let Some(ask) = self.asks.remove(ask) else {
            return false;
        };
        if !self.lives(ask.asker, ask.life) {
            self.asked.abandoned += 1;
            return false;
        }
        match answer {
            Ok(_) => self.asked.answered += 1,
            Err(_) => self.asked.failed += 1,
        }
        let word = if answer.is_ok() { 6 } else { 7 };
        self.note(word, ask.asker, ask.asker, &ask.id.to_le_bytes());
        self.act(ask.asker, |engine, now| engine.handle_answer(now, ask.id, answer));
        true
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
        while let Some(transmit) = self.nodes[addr.index()]
            .engine
            .as_mut()
            .and_then(E::poll_transmit)
        {
            match transmit {
                Transmit::Tell { dst, payload } => self.send(addr, dst, Kind::Tell, payload),
                Transmit::Ask { dst, id, request } => {
                    self.asked.asked += 1;
                    let ask = self.asks.insert(Ask {
                        asker: addr,
                        life: self.nodes[addr.index()].life,
                        id,
                        deadline: self.now.saturating_add(nanos(self.config.ask_timeout)),
                    });
                    self.send(addr, dst, Kind::Request(Some(ask)), request);
                }
            }
        }
        let now = self.now();
        if let Some(engine) = &mut self.nodes[addr.index()].engine {
            self.events
                .extend(std::iter::from_fn(|| engine.poll_event()).map(|event| (now, addr, event)));
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

    /// Sends a packet, or loses it.
    fn send(&mut self, from: SimAddr, to: SimAddr, kind: Kind, payload: Vec<u8>) {
        self.counters.add_sent(1);
        let mut packet = Packet {
            from,
            to,
            kind,
            payload,
        };
        match self.way(&packet) {
            Err(reason) => self.lose(&packet, reason),
            Ok(at) => {
                if let Some(ask) = kind.ask() {
                    let deadline = self.asks.get(ask).map_or(NEVER, |ask| ask.deadline);
                    if at > deadline {
                        self.queue.push(deadline, Due::Failure(ask));
                        packet.kind = kind.too_late();
                    }
                }
                let key = self.packets.insert(packet);
                self.queue.push(at, Due::Packet(key));
            }
        }
    }

    /// Returns the arrival time of a packet, or the drop reason.
    fn way(&mut self, packet: &Packet) -> Result<u64, DropReason> {
        let (from, to) = (packet.from, packet.to);
        let mut leaves = self.now;
        if let Some(uplink) = &self.config.links.uplink {
            let node = &mut self.nodes[from.index()];
            let begins = node.busy.max(self.now);
            if begins - self.now > nanos(uplink.queue) {
                return Err(DropReason::QueueFull);
            }
            node.busy = begins.saturating_add(uplink.occupied(packet.payload.len()));
            leaves = node.busy;
        }
        let part = self.nodes[from.index()].part;
        if self.nodes.get(to.index()).ok_or(DropReason::NoPeer)?.part != part {
            return Err(DropReason::Partitioned);
        }
        let links = &self.config.links;
        if links.loss > 0.0 && self.random.uniform() < links.loss {
            return Err(DropReason::Lost);
        }
        let latency = links.latency(self.config.seed, from, to, &mut self.random);
        Ok(leaves.saturating_add(nanos(latency)))
    }

    /// Drops a packet; its ask fails at the asker's timeout.
    fn lose(&mut self, packet: &Packet, reason: DropReason) {
        self.dropped(packet, reason);
        if let Some(key) = packet.kind.ask()
            && let Some(ask) = self.asks.get(key)
        {
            self.queue.push(ask.deadline.max(self.now), Due::Failure(key));
        }
    }

    fn dropped(&mut self, packet: &Packet, reason: DropReason) {
        self.counters.add_dropped(reason);
        let word = packet.kind.word() | (1 + reason as u64) << 8;
        self.note(word, packet.from, packet.to, &packet.payload);
    }

    fn delivered(&mut self, packet: &Packet) {
        self.counters.add_delivered(1);
        self.note(packet.kind.word(), packet.from, packet.to, &packet.payload);
    }

    /// Absorbs an event into the trace.
    fn note(&mut self, word: u64, from: SimAddr, to: SimAddr, bytes: &[u8]) {
        self.trace.absorb(self.now);
        self.trace.absorb(word);
        self.trace.absorb(u64::from(from.0) << 32 | u64::from(to.0));
        self.trace.absorb_bytes(bytes);
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

    fn lives(&self, addr: SimAddr, life: u32) -> bool {
        let node = &self.nodes[addr.index()];
        node.life == life && node.engine.is_some()
    }

    fn plan(&mut self, at: u64, plan: Plan<E>) {
        let key = self.plans.insert(plan);
        self.queue.push(at.max(self.now), Due::Plan(key));
    }

    fn plan_departure(&mut self, addr: SimAddr) {
        let life = self.nodes[addr.index()].life;
        self.plan_churn(|churn| churn.session, Plan::Depart { node: addr.0, life });
    }

    /// Plans an action for a random time, unless churn will have ended by then.
    fn plan_churn(&mut self, after: impl FnOnce(&Churn) -> super::Distribution, plan: Plan<E>) {
        let Some(Churning { churn, .. }) = &self.churning else {
            return;
        };
        let after = after(churn).sample(|| self.random.uniform());
        let at = self.now.saturating_add(nanos(after));
        if at < nanos(churn.until) {
            self.plan(at, plan);
        }
    }

    /// Ends a session.
    fn depart(&mut self, addr: SimAddr, life: u32) {
        let Some(Churning { churn, .. }) = &self.churning else {
            return;
        };
        if !self.lives(addr, life) {
            return;
        }
        if self.random.uniform() < churn.announced {
            self.leave(addr);
        } else {
            self.fail(addr);
        }
        self.plan_churn(|churn| churn.absence, Plan::Arrive { node: addr.0 });
    }

    fn come_back(&mut self, addr: SimAddr) {
        let contact = self.random_up(addr);
        let arrival = Arrival {
            addr,
            now: self.now(),
            seed: seed(self.config.seed, addr, self.nodes[addr.index()].life + 1),
            contact,
        };
        let Some(churning) = &mut self.churning else {
            return;
        };
        let engine = (churning.engine)(arrival);
        self.restart(addr, engine);
        self.plan_departure(addr);
    }

    /// Returns a random node that is up, other than this one.
    fn random_up(&mut self, other_than: SimAddr) -> Option<SimAddr> {
        let others = self.up - usize::from(self.nodes[other_than.index()].engine.is_some());
        if others == 0 {
            return None;
        }
        loop {
            let index = self.random.next() % self.nodes.len() as u64;
            let addr = SimAddr(index as u32);
            if addr != other_than && self.nodes[addr.index()].engine.is_some() {
                return Some(addr);
            }
        }
    }
}

fn seed(seed: u64, addr: SimAddr, life: u32) -> u64 {
    let mut mix = Mix(seed);
    mix.absorb(u64::from(addr.0) << 32 | u64::from(life));
    mix.digest()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER)
}
