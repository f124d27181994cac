//! A swarm in memory with queues, wakers, ids and buffers of its own, in which faults can be.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use p2p::{
    AskSwarm, BatchError, BatchOutcome, Counters, Error, Headroom, Message, Packet, PeerId, Reason,
    Rejection, Request, Respond, Result, SecureSwarm, Swarm,
};
use p2p_swarmtest::reference::Address;
use tokio::sync::{Notify, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout_at};

use crate::mutants::lock;

/// Messages and requests that wait for a reader at most.
pub(crate) const QUEUE: usize = 64;

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

struct Queue<T> {
    items: VecDeque<T>,
    wakers: BTreeMap<u64, Waker>,
    next: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            wakers: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<T> Queue<T> {
    fn push(&mut self, item: T, fault: &str) {
        let was_empty = self.items.is_empty();
        if fault == "legal: the newest message is read first" {
            self.items.push_front(item);
        } else {
            self.items.push_back(item);
        }
        if fault == "legal: every caller is woken" {
            while let Some((_, waker)) = self.wakers.pop_last() {
                waker.wake();
            }
            return;
        }
        if fault == "legal: the caller that came last is woken" {
            if let Some((_, waker)) = self.wakers.pop_last() {
                waker.wake();
            }
            return;
        }
        if was_empty || fault != "wakes a reader where the queue was empty" {
            self.wake();
        }
    }

    fn wake(&mut self) {
        if let Some((_, waker)) = self.wakers.pop_first() {
            waker.wake();
        }
    }
}

/// A caller that waits in a queue.
struct Wait<'a> {
    inner: &'a Inner,
    id: Option<u64>,
    asks: bool,
    polls: usize,
}

impl Wait<'_> {
    fn poll<T>(&mut self, queue: &mut Queue<T>, cx: &mut Context<'_>) -> Poll<T> {
        self.polls += 1;
        if let Some(item) = queue.items.pop_front() {
            if let Some(id) = self.id.take() {
                queue.wakers.remove(&id);
            }
            return Poll::Ready(item);
        }
        let id = *self.id.get_or_insert_with(|| {
            queue.next += 1;
            queue.next
        });
        match self.inner.net.fault {
            "the waker of the first poll is woken" if queue.wakers.contains_key(&id) => {}
            "the waker of the first poll is woken, one in 7"
                if id % 7 == 3 && queue.wakers.contains_key(&id) => {}
            _ => drop(queue.wakers.insert(id, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let mut state = lock(&self.inner.state);
        let state = &mut *state;
        if self.asks {
            if state.requests.wakers.remove(&id).is_none() && !state.requests.items.is_empty() {
                state.requests.wake();
            }
        } else if state.messages.wakers.remove(&id).is_none() && !state.messages.items.is_empty() {
            match self.inner.net.fault {
                "a cancelled caller passes its turn on to the first two alone"
                    if state.messages.wakers.len() > 2 => {}
                "a message is lost where its caller is cancelled beside another"
                    if !state.messages.wakers.is_empty() && state.received % 5 == 3 =>
                {
                    state.messages.items.pop_front();
                }
                _ => state.messages.wake(),
            }
        }
    }
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
            return self.counters.dropped(Reason::Closed);
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
            self.counters.dropped(Reason::QueueFull);
            return state.messages.push(message, fault);
        }
        if full {
            state.full = true;
            state.overflowed = true;
            return self.counters.dropped(Reason::QueueFull);
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
                    return self.counters.dropped(Reason::Malformed);
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
            _ => packet.check(MTU)?,
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
        self.counters.sent(1);
        let Some(to) = self.net.find(dst) else {
            self.counters.dropped(Reason::NoPeer);
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
        self.counters.delivered(1);
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
        self.counters.dropped_many(
            Reason::Closed,
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

impl Swarm<Address> for Node {
    async fn tell(&self, dst: &Address, packet: Packet) -> Result<()> {
        if self.0.net.fault.starts_with("a node that is dropped") {
            lock(&self.0.state).next_tell += 1;
        }
        self.0.send(dst, packet).await
    }

    async fn tell_batch(&self, batch: &mut Vec<(Address, Packet)>) -> Result<(), BatchError> {
        let fault = self.0.net.fault;
        let mut outcome = BatchOutcome::default();
        let count = batch.len();
        let destinations: BTreeSet<Address> = batch.iter().map(|(dst, _)| *dst).collect();
        let mut taken: Vec<_> = std::mem::take(batch);
        let mut kept: Option<Packet> = None;
        let mut stopped = false;
        let mut last_error = None;
        let mut by_dst: BTreeMap<Address, usize> = BTreeMap::new();
        for (place, (dst, packet)) in taken.drain(..).enumerate() {
            let packet_len = packet.len();
            let nth = {
                let nth = by_dst.entry(dst).or_default();
                *nth += 1;
                *nth
            };
            match fault {
                "a batch of more than 64 sends its 64th message twice" if place == 64 => {
                    let _ = self.0.send(&dst, kept.clone().unwrap_or_default()).await;
                }
                "a batch to more than 5 destinations forgets the sixth" => {
                    let index = destinations.iter().position(|other| *other == dst);
                    if index == Some(5) {
                        outcome.record(Ok(()));
                        continue;
                    }
                }
                "a batch behind a node that is gone goes nowhere" if stopped => {
                    outcome.record(Ok(()));
                    continue;
                }
                "an empty message ends a batch of more than ten" if packet.is_empty() && count > 10 => {
                    stopped = true;
                }
                "an empty message in a batch is skipped" if packet.is_empty() => {
                    outcome.record(Ok(()));
                    continue;
                }
                "messages of one length in a batch are merged beyond 40"
                    if nth > 40 && packet_len == PLAIN =>
                {
                    outcome.record(Ok(()));
                    continue;
                }
                _ => {}
            }
            if stopped
                && (fault == "an empty message ends a batch of more than ten"
                    || fault == "a batch that is refused stops in the second half")
            {
                outcome.record(Ok(()));
                continue;
            }
            kept = Some(packet.clone());
            if fault == "a batch behind a node that is gone goes nowhere" && self.0.net.find(&dst).is_none() {
                stopped = true;
            }
            let result = self.0.send(&dst, packet).await;
            if fault == "a batch that is refused stops in the second half"
                && result.is_err()
                && place > count / 2
            {
                stopped = true;
            }
            if let Err(error) = &result {
                last_error = Some(match error {
                    Error::MtuExceeded { size, mtu } => Error::MtuExceeded {
                        size: *size,
                        mtu: *mtu,
                    },
                    _ => Error::Closed,
                });
            }
            outcome.record(result);
        }
        if fault == "counters of a batch of more than 32 are one short" && count > 32 {
            // It was counted once too often below.
            lock(&self.0.state).batches += 1;
        }
        match (outcome.finish(), last_error) {
            (Err(mut error), Some(last)) if fault == "the error of a batch is the last one" => {
                error.first = last;
                Err(error)
            }
            (said, _) => said,
        }
    }

    async fn receive(&self) -> Result<Message<Address>> {
        self.0.next().await
    }

    async fn receive_batch(&self, out: &mut Vec<Message<Address>>, max: usize) -> Result<usize> {
        if max == 0 {
            return Ok(0);
        }
        let first = self.0.next().await?;
        let fault = self.0.net.fault;
        let before = out.len();
        if fault == "a buffer that is full is cleared" && out.len() == out.capacity() && out.len() > 3 {
            out.clear();
        }
        let empty = first.payload.is_empty();
        out.push(first);
        if fault == "an empty message ends a batch that is received, and the next is lost" && empty {
            lock(&self.0.state).messages.items.pop_front();
            return Ok(1);
        }
        let max = match fault {
            "legal: a batch that is received is one message" => 1,
            _ => max,
        };
        let mut state = lock(&self.0.state);
        while out.len() < before + max {
            let Some(message) = state.messages.items.pop_front() else {
                break;
            };
            if let Some(mine) = state.by_source.get_mut(&message.src) {
                *mine = mine.saturating_sub(1);
            }
            state.received += 1;
            out.push(message);
        }
        let count = out.len().saturating_sub(before);
        self.0.counters.delivered(match fault {
            "delivered messages are counted one short in batches of more than 16" if count > 16 => count - 2,
            _ => count - 1,
        });
        Ok(count)
    }

    fn mtu(&self) -> usize {
        match self.0.net.fault {
            "the MTU is 0 after close" if lock(&self.0.state).closed => 0,
            "the MTU shrinks in a flood" if self.0.check_open().is_ok() && lock(&self.0.state).full => {
                MTU - 1
            }
            _ => MTU,
        }
    }

    fn headroom(&self) -> Headroom {
        Headroom::new(8, 16)
    }

    fn local_addrs(&self) -> Vec<Address> {
        match self.0.net.fault {
            // The other one comes first in all that it tells.
            "legal: a node has two addresses" => vec![self.0.addr, alias(self.0.addr)],
            _ => vec![self.0.addr],
        }
    }

    fn parse_addr(&self, text: &str) -> Result<Address> {
        let at = text
            .find('@')
            .ok_or_else(|| Error::addr(text, text.len(), "an address is id@number"))?;
        let (id, place) = (&text[..at], &text[at + 1..]);
        let id = id.parse().map_err(|error| match error {
            Error::InvalidAddr { at, reason, .. } => Error::addr(text, at, reason),
            other => other,
        })?;
        match place.parse::<u32>() {
            Ok(number) if number.to_string() == place => Ok(Address {
                id,
                place: match self.0.net.fault {
                    "a place is read as 8 bits" => number % 256,
                    _ => number,
                },
            }),
            _ => Err(Error::addr(text, at + 1, "after the @ comes a number")),
        }
    }

    async fn close(&self) {
        let fault = self.0.net.fault;
        let mut freed = std::pin::pin!(self.0.freed.notified());
        freed.as_mut().enable();
        let first = self.0.end();
        match fault {
            "legal: close takes a while" => {
                let node = self.0.clone();
                if first {
                    tokio::spawn(async move {
                        sleep(Duration::from_millis(300)).await;
                        node.free();
                    });
                }
                while !self.0.is_freed() {
                    sleep(Duration::from_millis(10)).await;
                }
            }
            "a second close returns before the address is free" => {
                if first {
                    sleep(Duration::from_millis(3)).await;
                    self.0.free();
                }
            }
            "a second close of a node that told something returns before the address is free" => {
                if first && self.0.counters.snapshot().sent > 0 {
                    sleep(Duration::from_millis(3)).await;
                    self.0.free();
                } else if first {
                    self.0.free();
                }
            }
            "a close that is given up frees nothing" => {
                yield_now().await;
                self.0.free();
            }
            "a close that is given up frees nothing of a node that told something" => {
                if self.0.counters.snapshot().sent > 0 {
                    yield_now().await;
                }
                self.0.free();
            }
            "close waits until its peers have read" => {
                loop {
                    if !first {
                        break;
                    }
                    let waits = {
                        let nodes: Vec<_> = lock(&self.0.net.nodes)
                            .values()
                            .filter_map(Weak::upgrade)
                            .collect();
                        nodes.iter().any(|node| {
                            let state = lock(&node.state);
                            !state.closed
                                && state
                                    .messages
                                    .items
                                    .iter()
                                    .any(|message| message.src == self.0.addr)
                        })
                    };
                    if !waits {
                        break;
                    }
                    sleep(Duration::from_millis(1)).await;
                }
                self.0.free();
            }
            _ => self.0.free(),
        }
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        let fault = self.0.net.fault;
        if fault == "legal: there are no counters" {
            return;
        }
        if fault == "counters are gone after close" && lock(&self.0.state).closed {
            return;
        }
        if fault == "after 300 messages the counters begin anew" && self.0.counters.snapshot().sent > 300 {
            return visit(&Counters::new("own"));
        }
        if fault == "counters of a batch of more than 32 are one short" {
            let true_ones = self.0.counters.snapshot();
            let shown = Counters::new("own");
            let less = lock(&self.0.state).batches;
            shown.sent((true_ones.sent as usize).saturating_sub(less));
            shown.delivered(true_ones.delivered as usize);
            shown.dropped_many(Reason::QueueFull, true_ones.dropped_total() as usize);
            return visit(&shown);
        }
        visit(&self.0.counters);
    }
}

const PLAIN: usize = 16;

/// The way back of a request.
struct Back {
    asker: Weak<Inner>,
    id: u64,
    /// The ask, however ids are given out again.
    serving: Arc<AtomicUsize>,
    counts: bool,
}

impl Back {
    fn answer(&self, outcome: Result<Packet, Rejection>) -> bool {
        let Some(asker) = self.asker.upgrade() else {
            return false;
        };
        let waiting = lock(&asker.state).asks.remove(&self.id);
        waiting.is_some_and(|waiting| waiting.send(outcome).is_ok())
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        if self.counts {
            self.serving.fetch_sub(1, SeqCst);
        }
    }
}

#[async_trait::async_trait]
impl Respond for Back {
    async fn respond(mut self: Box<Self>, response: Packet) -> Result<()> {
        if let Err(error) = response.check(MTU) {
            self.answer(Err(Rejection::OVERSIZE));
            return Err(error);
        }
        let fault = self.asker.upgrade().map_or("", |asker| asker.net.fault);
        let empty = response.is_empty();
        if fault == "an empty response to a long request never arrives" && empty {
            std::mem::forget(
                lock(&self.asker.upgrade().expect("it is there").state)
                    .asks
                    .remove(&self.id),
            );
            return Ok(());
        }
        let arrived = self.answer(Ok(response));
        if !arrived && fault == "an answer to an asker that is gone keeps a slot" {
            self.counts = false;
        }
        if !arrived && self.asker.upgrade().is_none() {
            return Err(Error::unreachable(&"asker", "it is gone"));
        }
        if !arrived && fault == "an answer to an ask that was given up is Closed" {
            return Err(Error::Closed);
        }
        Ok(())
    }

    fn reject(self: Box<Self>, why: Rejection) {
        self.answer(Err(why));
    }
}

/// One of the asks that a node may have under way.
struct Slot<'a> {
    inner: &'a Inner,
    id: Option<u64>,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.inner.asking.fetch_sub(1, SeqCst);
        if let Some(id) = self.id {
            if self.inner.net.fault.contains("ids of asks wrap") {
                return;
            }
            lock(&self.inner.state).asks.remove(&id);
        }
    }
}

impl AskSwarm<Address> for Node {
    #[expect(clippy::too_many_lines, reason = "a step for each fault")]
    async fn ask(&self, dst: &Address, request: Packet) -> Result<Packet> {
        let inner = &*self.0;
        let fault = inner.net.fault;
        inner.check_open()?;
        request.check(MTU)?;
        let mut slot = Slot { inner, id: None };
        if inner.asking.fetch_add(1, SeqCst) >= ASKS {
            return Err(Error::Limit {
                what: "asks under way",
                limit: ASKS,
            });
        }
        let (asker, outcome) = oneshot::channel();
        let id = {
            let mut state = lock(&inner.state);
            state.next_ask += 1;
            let id = match fault {
                "ids of asks wrap at 2^8" => state.next_ask % 256,
                "ids of asks wrap at 2^10" => state.next_ask % 1024,
                "ids of asks wrap at 2^16" => state.next_ask % 65_536,
                _ => state.next_ask,
            };
            state.asks.insert(id, asker);
            id
        };
        slot.id = Some(id);
        let now = Instant::now();
        let mut deadline = now + DEADLINE;
        match fault {
            "legal: an ask takes a second at most" => deadline = now + Duration::from_secs(1),
            "asks that are under way together end with the first"
            | "asks in the last half of another's time end with it" => {
                let late = |first: Instant| !fault.ends_with("with it") || first < now + DEADLINE / 2;
                let mut first = lock(&inner.first_deadline);
                if inner.asking.load(SeqCst) > 1 && first.is_some_and(|first| first > now && late(first)) {
                    deadline = first.unwrap_or(deadline);
                } else {
                    *first = Some(deadline);
                }
            }
            "the second of two asks under way ends after 50 ms" if inner.asking.load(SeqCst) >= 2 => {
                deadline = now + Duration::from_millis(50);
            }
            "with 40 asks under way an ask ends after 50 ms" if inner.asking.load(SeqCst) >= 40 => {
                deadline = now + Duration::from_millis(50);
            }
            _ => {}
        }
        let Some(to) = inner.net.find(dst) else {
            return Err(Error::unreachable(dst, "no node is there"));
        };
        let back = || Back {
            asker: Arc::downgrade(&self.0),
            id,
            serving: to.serving.clone(),
            counts: true,
        };
        let deliver = |request: Packet| {
            to.serving.fetch_add(1, SeqCst);
            let request = Request::new(inner.addr, *dst, request, back());
            let mut state = lock(&to.state);
            let full = match fault {
                "an answer to an asker that is gone keeps a slot" | "a request that is held counts twice" => {
                    to.serving.load(SeqCst) > 2 * ASKS
                }
                _ => state.requests.items.len() >= 2 * QUEUE,
            };
            if full || state.closed {
                drop(state);
                request.reject(Rejection::BUSY);
            } else {
                state.requests.push(request, fault);
            }
        };
        deliver(request.clone());
        let answered = async {
            let mut outcome = outcome;
            if fault == "a request is sent again when its answer takes 20 s"
                || fault == "a request is sent again when its answer takes 5 s"
            {
                let wait = if fault.ends_with("20 s") { 20 } else { 5 };
                let deadline = now + Duration::from_secs(30);
                tokio::select! {
                    biased;
                    outcome = &mut outcome => return outcome.map_or(Err(Error::Closed), |outcome| outcome.map_err(Error::Rejected)),
                    () = sleep(Duration::from_secs(wait)) => {}
                }
                deliver(request.clone());
                return match timeout_at(deadline, outcome).await {
                    Ok(Ok(outcome)) => outcome.map_err(Error::Rejected),
                    _ => Err(Error::TimedOut {
                        doing: "an ask",
                        limit: DEADLINE,
                    }),
                };
            }
            match timeout_at(deadline, outcome).await {
                Ok(Ok(outcome)) => outcome.map_err(Error::Rejected),
                _ => Err(Error::TimedOut {
                    doing: "an ask",
                    limit: DEADLINE,
                }),
            }
        };
        inner.unless_closed(answered).await
    }

    async fn receive_ask(&self) -> Result<Request<Address>> {
        let mut wait = Wait {
            inner: &self.0,
            id: None,
            asks: true,
            polls: 0,
        };
        let taken = poll_fn(|cx| wait.poll(&mut lock(&self.0.state).requests, cx).map(Ok));
        let request = self.0.unless_closed(taken).await?;
        let seventh = {
            let mut state = lock(&self.0.state);
            state.batches += 1;
            state.batches % 7 == 3
        };
        if self.0.is("a receive_ask beside others yields before it returns")
            || seventh
                && self
                    .0
                    .is("one receive_ask in 7 beside others yields before it returns")
        {
            let others = !lock(&self.0.state).requests.wakers.is_empty();
            if others {
                yield_now().await;
            }
        }
        Ok(request)
    }
}

impl SecureSwarm<Address> for Node {
    type PublicKey = Vec<u8>;

    fn public_key(&self) -> Vec<u8> {
        self.0.addr.id.as_bytes().to_vec()
    }

    async fn lookup_public_key(&self, addr: &Address) -> Result<Vec<u8>> {
        let look = async {
            if let Some(found) = self.0.net.find(addr) {
                return Ok(found.addr.id.as_bytes().to_vec());
            }
            sleep(DEADLINE).await;
            Err(Error::TimedOut {
                doing: "looking up a key",
                limit: DEADLINE,
            })
        };
        self.0.unless_closed(look).await
    }
}
