//! A small, correct swarm in memory with every capability, and a medium that loses, duplicates and reorders.
//!
//! It keeps the laws in the simplest way, and is the base of the suite's own mutants. It is not fast, and its
//! keys prove nothing, since its nodes do not lie.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use p2p::{
    Addr, AskSwarm, Counters, DropReason, Error, Message, Packet, PeerId, Rejection, Request, Respond,
    Result, SecureSwarm, Swarm,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::queue::{Gate, Queue, lock};

/// An identity at a place: `<peer id>@<number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The identity of the node.
    pub id: PeerId,
    /// The place of the node.
    pub place: u32,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.place)
    }
}

impl Addr for Address {
    fn peer_id(&self) -> Option<PeerId> {
        Some(self.id)
    }
}

/// Configuration of the medium and its nodes.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Probability that a message, a request or a response is lost.
    pub loss: f64,
    /// Probability that a message arrives twice.
    pub duplication: f64,
    /// Probability that a message overtakes waiting ones.
    pub reordering: f64,
    /// Seed of the random choices.
    pub seed: u64,
    /// Maximum length of a message in bytes.
    pub mtu: usize,
    /// Maximum number of messages, and of requests, that wait for a reader; further ones are dropped.
    pub queue: usize,
    /// Maximum number of asks of one node in flight.
    pub asks: usize,
    /// Timeout of an ask or a lookup.
    pub deadline: Duration,
    /// Maximum delay of a message, a request or a response. Each has its own delay, so that they overtake
    /// each other. Needs a tokio runtime with time, unless it is zero.
    pub delay: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            seed: 0,
            mtu: 1200,
            queue: 64,
            asks: 64,
            deadline: Duration::from_secs(10),
            delay: Duration::ZERO,
        }
    }
}

/// A medium in memory. Clones refer to the same medium.
#[derive(Clone, Debug, Default)]
pub struct Network(Arc<Medium>);

#[derive(Debug)]
struct Medium {
    config: Config,
    chances: Mutex<StdRng>,
    nodes: Mutex<BTreeMap<u32, Weak<State>>>,
}

impl Default for Medium {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl Medium {
    fn new(config: Config) -> Self {
        Self {
            config,
            chances: Mutex::new(StdRng::seed_from_u64(config.seed)),
            nodes: Mutex::default(),
        }
    }

    fn happens(&self, chance: f64) -> bool {
        chance > 0.0 && lock(&self.chances).random_bool(chance)
    }

    /// Returns the delay of the next message.
    fn delay(&self) -> Duration {
        if self.config.delay.is_zero() {
            return Duration::ZERO;
        }
        self.config.delay.mul_f64(lock(&self.chances).random())
    }

    /// Returns the node with this identity at this place.
    fn find(&self, addr: &Address) -> Option<Arc<State>> {
        let found = lock(&self.nodes).get(&addr.place)?.upgrade()?;
        (found.addr == *addr && !found.gate.is_closed()).then_some(found)
    }
}

impl Network {
    /// Creates a medium with this configuration.
    pub fn new(config: Config) -> Self {
        Self(Arc::new(Medium::new(config)))
    }

    /// Creates nodes at new places.
    pub fn nodes(&self, count: usize) -> Vec<Node> {
        let mut nodes = lock(&self.0.nodes);
        let first = nodes.last_key_value().map_or(0, |(place, _)| place + 1);
        let made = (first..).take(count).map(|place| {
            let state = Arc::new(State::new(address(place)));
            nodes.insert(place, Arc::downgrade(&state));
            self.node(state)
        });
        made.collect()
    }

    /// Creates a node at the address of a closed one.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] if there is a node.
    pub fn node_at(&self, addr: Address) -> Result<Node> {
        if self.0.find(&addr).is_some() {
            return Err(Error::invalid("address", format!("{addr} is taken")));
        }
        let state = Arc::new(State::new(addr));
        lock(&self.0.nodes).insert(addr.place, Arc::downgrade(&state));
        Ok(self.node(state))
    }

    fn node(&self, state: Arc<State>) -> Node {
        Node {
            medium: self.0.clone(),
            state,
            asking: Arc::default(),
        }
    }
}

/// Returns the address of the node at this place.
fn address(place: u32) -> Address {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&place.to_be_bytes());
    Address {
        id: PeerId::new(id),
        place,
    }
}

/// A public key: the bytes of the identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The state of a node that other nodes access.
#[derive(Debug)]
struct State {
    addr: Address,
    messages: Queue<Message<Address>>,
    requests: Queue<Request<Address>>,
    gate: Gate,
    counters: Counters,
    /// Messages in flight, which count like waiting ones.
    in_flight: AtomicUsize,
}

impl State {
    fn new(addr: Address) -> Self {
        Self {
            addr,
            messages: Queue::default(),
            requests: Queue::default(),
            gate: Gate::default(),
            counters: Counters::new("reference"),
            in_flight: AtomicUsize::new(0),
        }
    }

    /// Receives a message from the medium.
    fn arrive(&self, message: Message<Address>, ahead: usize, most: usize) {
        if self.gate.is_closed() {
            self.counters.add_dropped(DropReason::Closed);
        } else if self.messages.push(message, ahead, most).is_err() {
            self.counters.add_dropped(DropReason::QueueFull);
        }
    }
}

/// One node of a [`Network`]. Dropping it frees its place.
#[derive(Debug)]
pub struct Node {
    medium: Arc<Medium>,
    state: Arc<State>,
    asking: Arc<AtomicUsize>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

impl Node {
    fn end(&self) {
        if !self.state.gate.close() {
            return;
        }
        while self.state.requests.try_pop().is_some() {}
        while self.state.messages.try_pop().is_some() {
            self.state.counters.add_dropped(DropReason::Closed);
        }
    }

    /// Passes one message to the medium.
    fn send(&self, dst: &Address, payload: Packet) {
        let (config, counters) = (&self.medium.config, &self.state.counters);
        counters.add_sent(1);
        if self.medium.happens(config.loss) {
            return counters.add_dropped(DropReason::Lost);
        }
        let Some(to) = self.medium.find(dst) else {
            return counters.add_dropped(DropReason::NoPeer);
        };
        let message = Message {
            src: self.state.addr,
            dst: *dst,
            payload,
        };
        let copy = self.medium.happens(config.duplication).then(|| message.clone());
        counters.add_duplicated(usize::from(copy.is_some()));
        for message in [Some(message), copy].into_iter().flatten() {
            let ahead = if self.medium.happens(config.reordering) {
                3
            } else {
                0
            };
            let (to, most, delay) = (to.clone(), config.queue, self.medium.delay());
            if delay.is_zero() {
                to.arrive(message, ahead, most);
            } else if to.messages.len() + to.in_flight.load(SeqCst) >= most {
                to.counters.add_dropped(DropReason::QueueFull);
            } else {
                to.in_flight.fetch_add(1, SeqCst);
                tokio::spawn(async move {
                    sleep(delay).await;
                    to.arrive(message, ahead, most);
                    to.in_flight.fetch_sub(1, SeqCst);
                });
            }
        }
    }
}

impl Swarm<Address> for Node {
    async fn tell(&self, dst: &Address, packet: Packet) -> Result<()> {
        self.state.gate.check_open()?;
        packet.check_mtu(self.mtu())?;
        self.send(dst, packet);
        Ok(())
    }

    async fn receive(&self) -> Result<Message<Address>> {
        let message = self
            .state
            .gate
            .unless_closed(async { Ok(self.state.messages.pop().await) })
            .await?;
        self.state.counters.add_delivered(1);
        Ok(message)
    }

    async fn receive_batch(&self, out: &mut Vec<Message<Address>>, max: usize) -> Result<usize> {
        if max == 0 {
            return Ok(0);
        }
        out.push(self.receive().await?);
        let more = std::iter::from_fn(|| self.state.messages.try_pop()).take(max - 1);
        let before = out.len();
        out.extend(more);
        self.state.counters.add_delivered(out.len() - before);
        Ok(out.len() - before + 1)
    }

    fn mtu(&self) -> usize {
        self.medium.config.mtu
    }

    fn local_addrs(&self) -> Vec<Address> {
        vec![self.state.addr]
    }

    fn parse_addr(&self, text: &str) -> Result<Address> {
        let at = text
            .find('@')
            .ok_or_else(|| Error::addr(text, text.len(), "expected id@number"))?;
        let (id, place) = (&text[..at], &text[at + 1..]);
        let id = id.parse().map_err(|error| match error {
            Error::InvalidAddr { at, reason, .. } => Error::addr(text, at, reason),
            other => other,
        })?;
        match place.parse::<u32>() {
            Ok(number) if number.to_string() == place => Ok(Address { id, place: number }),
            _ => Err(Error::addr(text, at + 1, "expected a number after the @")),
        }
    }

    async fn close(&self) {
        self.end();
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.state.counters);
    }
}

/// Returns the response of a request.
struct Back {
    medium: Arc<Medium>,
    asker: oneshot::Sender<Result<Packet, Rejection>>,
}

impl Back {
    /// Sends the result to the asker. If it is lost, the sender is kept until the asker's timeout.
    fn send(self, outcome: Result<Packet, Rejection>) {
        if !self.medium.happens(self.medium.config.loss) {
            // The asker may have been cancelled.
            let _ = self.asker.send(outcome);
        }
    }
}

#[async_trait::async_trait]
impl Respond for Back {
    async fn respond(self: Box<Self>, response: Packet) -> Result<()> {
        match response.check_mtu(self.medium.config.mtu) {
            Ok(()) => {
                self.send(Ok(response));
                Ok(())
            }
            Err(error) => {
                self.send(Err(Rejection::OVERSIZE));
                Err(error)
            }
        }
    }

    fn reject(self: Box<Self>, why: Rejection) {
        self.send(Err(why));
    }
}

/// The slot of one ask in flight.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Sleeps for `delay`; without a delay it neither yields nor needs a clock.
async fn sleep_unless_zero(delay: Duration) {
    if !delay.is_zero() {
        sleep(delay).await;
    }
}

impl AskSwarm<Address> for Node {
    async fn ask(&self, dst: &Address, request: Packet) -> Result<Packet> {
        self.state.gate.check_open()?;
        let config = &self.medium.config;
        request.check_mtu(config.mtu)?;
        let slot = Slot(self.asking.clone());
        if self.asking.fetch_add(1, SeqCst) >= config.asks {
            return Err(Error::Limit {
                what: "asks in flight",
                limit: config.asks,
            });
        }
        let late = || Error::TimedOut {
            doing: "an ask",
            limit: config.deadline,
        };
        let (asker, outcome) = oneshot::channel();
        sleep_unless_zero(self.medium.delay()).await;
        if !self.medium.happens(config.loss) {
            let Some(to) = self.medium.find(dst) else {
                return Err(Error::unreachable(dst, "no node has this address"));
            };
            let back = Back {
                medium: self.medium.clone(),
                asker,
            };
            let message = Message {
                src: self.state.addr,
                dst: *dst,
                payload: request,
            };
            let request = Request::new(message, back);
            if let Err(request) = to.requests.push(request, 0, config.queue) {
                request.reject(Rejection::BUSY);
            }
        }
        let answered = async {
            match timeout(config.deadline, outcome).await {
                Ok(Ok(outcome)) => {
                    sleep_unless_zero(self.medium.delay()).await;
                    outcome.map_err(Error::Rejected)
                }
                // The request or the response was lost.
                Ok(Err(_)) => {
                    sleep(config.deadline).await;
                    Err(late())
                }
                Err(_) => Err(late()),
            }
        };
        let outcome = self.state.gate.unless_closed(answered).await;
        drop(slot);
        outcome
    }

    async fn receive_ask(&self) -> Result<Request<Address>> {
        self.state
            .gate
            .unless_closed(async { Ok(self.state.requests.pop().await) })
            .await
    }
}

impl SecureSwarm<Address> for Node {
    type PublicKey = Key;

    fn public_key(&self) -> Key {
        Key(*self.state.addr.id.as_bytes())
    }

    async fn lookup_public_key(&self, addr: &Address) -> Result<Key> {
        let limit = self.medium.config.deadline;
        let look = async {
            if let Some(found) = self.medium.find(addr) {
                return Ok(Key(*found.addr.id.as_bytes()));
            }
            sleep(limit).await;
            Err(Error::TimedOut {
                doing: "looking up a key",
                limit,
            })
        };
        self.state.gate.unless_closed(look).await
    }
}
