//! A swarm in memory with queues, wakers, ids and buffers of its own, in which faults can be.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;
use std::time::Duration;

use p2p::{
    AskSwarm, BatchError, BatchOutcome, Counters, DropReason, Error, Headroom, Message, Packet, PeerId,
    Rejection, Request, Respond, Responder, Result, SecureSwarm, Swarm,
};
use p2p_swarmtest::reference::Address;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout_at};

use crate::mutants::lock;

mod asking;
mod queue;
mod telling;

use queue::{Queue, Wait};

/// Messages and requests that wait for a reader at most.
pub(crate) const QUEUE: usize = 64;

/// Requests that the legal swarm which serves few at a time hands out before one is answered.
pub(crate) const HANDLERS: usize = 4;

/// Asks that one node may have under way.
pub(crate) const ASKS: usize = 64;

/// How long an ask takes at most.
const DEADLINE: Duration = Duration::from_secs(10);

const MTU: usize = 1200;

/// Places from here on are other names of those below.
const ALIAS: u32 = 1 << 20;

/// The other name of a node.
fn alias(addr: Address) -> Address {
    Address {
        place: addr.place ^ ALIAS,
        ..addr
    }
}

/// The nodes of one medium, by place.
pub(crate) struct Net {
    fault: &'static str,
    nodes: Mutex<BTreeMap<u32, Weak<Inner>>>,
    /// Places that are bound.
    bound: Mutex<BTreeSet<u32>>,
    next: AtomicU32,
    told: AtomicUsize,
}

impl Net {
    pub(crate) fn new(fault: &'static str) -> Arc<Self> {
        Arc::new(Self {
            fault,
            nodes: Mutex::default(),
            bound: Mutex::default(),
            next: AtomicU32::new(0),
            told: AtomicUsize::new(0),
        })
    }

    pub(crate) fn nodes(self: &Arc<Self>, count: usize) -> Vec<Node> {
        (0..count)
            .map(|_| self.node(self.next.fetch_add(1, SeqCst)))
            .collect()
    }

    /// A node at the address of one that is gone.
    pub(crate) fn node_at(self: &Arc<Self>, addr: Address) -> Result<Node> {
        if lock(&self.bound).contains(&addr.place) {
            return Err(Error::invalid("address", "taken"));
        }
        Ok(self.node(addr.place))
    }

    fn node(self: &Arc<Self>, place: u32) -> Node {
        let mut id = [7; 32];
        id[28..].copy_from_slice(&place.to_be_bytes());
        let inner = Arc::new(Inner {
            net: self.clone(),
            addr: Address {
                id: PeerId::new(id),
                place,
            },
            state: Mutex::default(),
            closing: Notify::new(),
            freed: Notify::new(),
            counters: Counters::new("own"),
            in_flight: Mutex::default(),
            asking: AtomicUsize::new(0),
            serving: Arc::default(),
            handlers: Arc::new(Semaphore::new(HANDLERS)),
            first_deadline: Mutex::default(),
        });
        lock(&self.nodes).insert(place, Arc::downgrade(&inner));
        lock(&self.bound).insert(place);
        Node(inner)
    }

    fn find(&self, addr: &Address) -> Option<Arc<Inner>> {
        let addr = &match self.fault {
            "legal: a node has two addresses" | "legal: a source is an alias" if addr.place >= ALIAS => {
                alias(*addr)
            }
            _ => *addr,
        };
        let found = lock(&self.nodes).get(&addr.place)?.upgrade()?;
        let same = match self.fault {
            "an id is compared by its first 16 bytes" => {
                found.addr.id.as_bytes()[..16] == addr.id.as_bytes()[..16]
            }
            "an id is compared without its last byte" => {
                found.addr.id.as_bytes()[..31] == addr.id.as_bytes()[..31]
            }
            _ => found.addr == *addr,
        };
        (same && !lock(&found.state).closed).then_some(found)
    }
}

pub(crate) struct Inner {
    net: Arc<Net>,
    addr: Address,
    state: Mutex<State>,
    closing: Notify,
    freed: Notify,
    counters: Counters,
    in_flight: Mutex<Vec<(u64, Packet)>>,
    asking: AtomicUsize,
    serving: Arc<AtomicUsize>,
    /// For the swarm that serves few requests at a time.
    handlers: Arc<Semaphore>,
    first_deadline: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct State {
    closed: bool,
    messages: Queue<Message<Address>>,
    requests: Queue<Request<Address>>,
    told: usize,
    received: usize,
    next_tell: u64,
    next_ask: u64,
    asks: BTreeMap<u64, oneshot::Sender<Result<Packet, Rejection>>>,
    last_src: Option<Address>,
    seen: VecDeque<(Address, Vec<u8>)>,
    full: bool,
    by_source: BTreeMap<Address, usize>,
    batches: usize,
    overflowed: bool,
}

impl Inner {
    fn is(&self, fault: &str) -> bool {
        self.net.fault == fault
    }

    fn check_open(&self) -> Result<()> {
        if lock(&self.state).closed {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    async fn unless_closed<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let mut closing = std::pin::pin!(self.closing.notified());
        closing.as_mut().enable();
        self.check_open()?;
        tokio::select! {
            biased;
            () = closing => Err(Error::Closed),
            result = future => result,
        }
    }

    /// Takes a message in.
    fn arrive(&self, mut message: Message<Address>) {
        let fault = self.net.fault;
        let mut state = lock(&self.state);
        let state = &mut *state;
        if state.closed {
            return self.counters.add_dropped(DropReason::Closed);
        }
        state.told += 1;
        let mine = state.by_source.entry(message.src).or_default();
        let full = match fault {
            "each source has a queue of its own" => *mine >= QUEUE,
            "two of three sources have a queue of their own" if !message.src.place.is_multiple_of(3) => {
                *mine >= QUEUE
            }
            _ => state.messages.items.len() >= QUEUE,
        };
        if full && fault == "legal: the oldest message makes room" {
            state.messages.items.pop_front();
            self.counters.add_dropped(DropReason::QueueFull);
            return state.messages.push(message, fault);
        }
        if full {
            state.full = true;
            state.overflowed = true;
            return self.counters.add_dropped(DropReason::QueueFull);
        }
        *mine += 1;
        match fault {
            "receive buffers are used again after 40 messages"
            | "receive buffers are used again after 4 messages" => {
                let len = state.messages.items.len();
                let most = if fault.contains("40") { 40 } else { 4 };
                if len >= most {
                    let old = &mut state.messages.items[len - most];
                    let most = old.payload.len().min(message.payload.len());
                    old.payload[..most].copy_from_slice(&message.payload[..most]);
                }
            }
            "receive buffers of one length are used again after 10 messages" => {
                let len = state.messages.items.len();
                if len >= 10 && state.messages.items[len - 10].payload.len() == message.payload.len() {
                    state.messages.items[len - 10].payload = message.payload.clone();
                }
            }
            "under load a message names the sender before" if state.messages.items.len() > 20 => {
                let last = state.last_src.unwrap_or(message.src);
                state.last_src = Some(message.src);
                message.src = last;
            }
            "equal payloads of two senders are one message" => {
                let seen = state
                    .seen
                    .iter()
                    .any(|(src, seen)| *src != message.src && *seen == message.payload[..]);
                state.seen.push_back((message.src, message.payload.to_vec()));
                state.seen.truncate(200);
                if state.seen.len() == 200 {
                    state.seen.pop_front();
                }
                if seen {
                    return self.counters.add_dropped(DropReason::Malformed);
                }
            }
            "after an overflow an empty message is dropped"
                if state.overflowed && message.payload.is_empty() =>
            {
                return;
            }
            "after 2^16 messages one in 100 comes twice"
                if state.told > 65_536 && state.told.is_multiple_of(100) =>
            {
                state.messages.push(message.clone(), fault);
            }
            "the 4,096th message is lost" if state.told == 4096 => return,
            "the 65,536th message is lost" if state.told == 65_536 => return,
            "two callers of receive get one message, one in 40"
                if state.messages.wakers.len() >= 2 && state.told % 40 == 7 =>
            {
                state.messages.push(message.clone(), fault);
            }
            "with two callers of receive every third message is lost"
                if state.messages.wakers.len() >= 2 && state.told % 3 == 1 =>
            {
                return;
            }
            "with two callers of receive one message in 40 is lost"
                if state.messages.wakers.len() >= 2 && state.told % 40 == 7 =>
            {
                return;
            }
            _ => {}
        }
        state.last_src = Some(message.src);
        state.messages.push(message, fault);
    }

    async fn send(&self, dst: &Address, mut packet: Packet) -> Result<()> {
        self.check_open()?;
        let fault = self.net.fault;
        match fault {
            "a full packet with room loses its last byte"
                if packet.len() == MTU && packet.room().front >= 8 =>
            {
                packet.truncate(MTU - 1);
            }
            "a tag overwrites the last byte of packets without room behind"
                if packet.room().back == 0 && packet.len() > 16 && packet.len().is_multiple_of(16) =>
            {
                let last = packet.len() - 1;
                packet[last] = 0x5a;
            }
            "the MTU is checked with the headers, which wrap at 2^16"
                if packet.len() + 16 > 65_536 && packet.len() % 65_536 <= MTU =>
            {
                packet.truncate(MTU);
            }
            _ => packet.check_mtu(MTU)?,
        }
        let told = self.net.told.fetch_add(1, SeqCst);
        if fault == "legal: a tell takes some turns" {
            for _ in 0..told % 4 {
                yield_now().await;
            }
        }
        let mut packet = Some(packet);
        if fault.starts_with("two tells") {
            let id = {
                let mut state = lock(&self.state);
                state.next_tell += 1;
                state.next_tell
            };
            lock(&self.in_flight).push((id, packet.take().unwrap_or_default()));
            yield_now().await;
            let mut flying = lock(&self.in_flight);
            let at = flying.iter().position(|(other, _)| *other == id);
            if let Some(at) = at {
                if flying.len() >= 2 && told % 20 == 7 {
                    let other = (at + 1) % flying.len();
                    let (one, two) = (flying[at].1.clone(), flying[other].1.clone());
                    match fault {
                        "two tells in flight swap their payloads, one in 20" => {
                            flying[at].1 = two;
                            flying[other].1 = one;
                        }
                        "two tells in flight send one payload twice, one in 20" => flying[at].1 = two,
                        _ => {}
                    }
                }
                packet = Some(flying.remove(at).1);
            }
        }
        let packet = packet.unwrap_or_default();
        if fault == "a tell waits a second for a reader, beside others" {
            let busy = self
                .net
                .find(dst)
                .is_some_and(|to| lock(&to.state).messages.items.len() > QUEUE / 2);
            if busy && told % 64 == 1 {
                sleep(Duration::from_millis(1)).await;
            }
        }
        self.counters.add_sent(1);
        let Some(to) = self.net.find(dst) else {
            self.counters.add_dropped(DropReason::NoPeer);
            return match fault {
                "legal: telling a node that is gone is an error" => {
                    Err(Error::unreachable(dst, "no node is there"))
                }
                "telling a node that is gone is Closed after a while" if told % 7 == 3 => Err(Error::Closed),
                _ => Ok(()),
            };
        };
        let src = match fault {
            "legal: a node has two addresses" | "legal: a source is an alias" => alias(self.addr),
            _ => self.addr,
        };
        to.arrive(Message {
            src,
            dst: match fault {
                "legal: a source is an alias" if dst.place >= ALIAS => alias(*dst),
                _ => *dst,
            },
            payload: packet,
        });
        Ok(())
    }

    async fn next(&self) -> Result<Message<Address>> {
        let mut wait = Wait {
            inner: self,
            id: None,
            asks: false,
            polls: 0,
        };
        let taken = poll_fn(|cx| {
            let mut state = lock(&self.state);
            match wait.poll(&mut state.messages, cx) {
                Poll::Ready(message) => {
                    state.received += 1;
                    if let Some(mine) = state.by_source.get_mut(&message.src) {
                        *mine = mine.saturating_sub(1);
                    }
                    Poll::Ready(Ok(message))
                }
                Poll::Pending => Poll::Pending,
            }
        });
        let message = self.unless_closed(taken).await?;
        if self.is("a receive beside others yields before it returns") {
            let others = !lock(&self.state).messages.wakers.is_empty();
            if others {
                yield_now().await;
            }
        }
        self.counters.add_delivered(1);
        Ok(message)
    }

    /// Ends every call; says whether it was open.
    fn end(&self) -> bool {
        let (messages, requests);
        {
            let mut state = lock(&self.state);
            if std::mem::replace(&mut state.closed, true) {
                return false;
            }
            messages = std::mem::take(&mut state.messages.items);
            requests = std::mem::take(&mut state.requests.items);
            if self.is("asks that are under way when a node closes end with their deadline") {
                std::mem::forget(std::mem::take(&mut state.asks));
            }
        }
        self.counters.add_dropped_many(
            DropReason::Closed,
            match self.net.fault {
                "messages that wait when a node closes are not counted" => 0,
                "of messages that wait when a node closes ten are counted" => messages.len().min(10),
                _ => messages.len(),
            },
        );
        drop(requests);
        self.closing.notify_waiters();
        true
    }

    fn is_freed(&self) -> bool {
        !lock(&self.net.bound).contains(&self.addr.place)
    }

    fn free(&self) {
        lock(&self.net.bound).remove(&self.addr.place);
        self.freed.notify_waiters();
    }
}

/// A node. Dropping it frees its place.
pub(crate) struct Node(Arc<Inner>);

impl Drop for Node {
    fn drop(&mut self) {
        self.0.end();
        let told = lock(&self.0.state).next_tell;
        if told > 0 && self.0.is("a node that is dropped after a tell keeps its address")
            || told > 4
                && self
                    .0
                    .is("a node that is dropped after five tells keeps its address")
        {
            return;
        }
        self.0.free();
    }
}
