//! The node with a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use p2p::{BatchError, BatchOutcome, Counters, DropReason, Error, Message, Packet, Result, Swarm};
use p2p_swarmtest::reference::{Address, Node};
use tokio::task::yield_now;

use super::fault::{Fate, Fault, Got, Received, Told};
use crate::mutants::lock;

/// A correct node with a fault.
pub(crate) struct Rare {
    pub(super) inner: Arc<Node>,
    pub(super) addr: Address,
    pub(super) crowd: Arc<Crowd>,
    pub(super) own: Own,
}

/// What faults are told of one node.
#[derive(Default)]
pub(super) struct Own {
    told: AtomicUsize,
    received: AtomicUsize,
    pub(super) waiting: AtomicUsize,
    parses: AtomicUsize,
    batches: AtomicUsize,
    parsed: Mutex<BTreeSet<Address>>,
    last_src: Mutex<Option<Address>>,
    copies: Mutex<Vec<Message<Address>>>,
    last_told: Mutex<Vec<u8>>,
    same: AtomicUsize,
    lost: AtomicUsize,
    turn: tokio::sync::Mutex<()>,
    /// Callers that were cancelled, and whose turn is forgotten.
    forgotten: AtomicUsize,
    pub(super) asks: AtomicUsize,
    pub(super) asking: AtomicUsize,
    pub(super) requests: AtomicUsize,
    pub(super) rejected: AtomicUsize,
    pub(super) cancelled: AtomicUsize,
    /// Held by each request that is not answered yet.
    pub(super) serving: Arc<()>,
    pub(super) last_response: Mutex<Option<Packet>>,
    closes: AtomicUsize,
    /// Whether this node is closed; the way back of its requests sees it too.
    pub(super) closed: Arc<AtomicBool>,
    /// Calls that ended because this node closed, and calls after it.
    ended: AtomicUsize,
    late: AtomicUsize,
    /// Callers of `receive_ask` that wait.
    pub(super) waiting_asks: AtomicUsize,
    pub(super) late_asks: AtomicUsize,
    pub(super) answers: Arc<AtomicUsize>,
    pub(super) looks: AtomicUsize,
    pub(super) looking: AtomicUsize,
    /// Messages told to wrong identities, by place.
    wronged: Mutex<BTreeMap<u32, usize>>,
}

/// Nodes that were made together, and what faults are told of them.
pub(crate) struct Crowd {
    pub(super) fault: &'static Fault,
    traffic: Mutex<BTreeMap<Address, Traffic>>,
    pub(super) siblings: Mutex<BTreeSet<Address>>,
    stash: Mutex<BTreeMap<Address, Vec<Message<Address>>>>,
    /// Nodes that a fault does not let go of.
    kept: Mutex<Vec<Arc<Node>>>,
    pub(super) looks: AtomicUsize,
}

/// What was told to one node.
#[derive(Default)]
struct Traffic {
    told: usize,
    unread: usize,
    floods: usize,
    full: bool,
    gone: bool,
    /// Whether there was ever such a node.
    made: bool,
    senders: BTreeSet<Address>,
}

/// How many unread messages make a flood.
pub(super) const FULL: usize = 60;

impl Crowd {
    pub(super) fn of(fault: &'static Fault) -> Arc<Self> {
        Arc::new(Self {
            fault,
            traffic: Mutex::default(),
            siblings: Mutex::default(),
            stash: Mutex::default(),
            kept: Mutex::default(),
            looks: AtomicUsize::new(0),
        })
    }

    /// The node at the place of an address that names another.
    pub(super) fn there(&self, addr: &Address) -> Option<Address> {
        let traffic = lock(&self.traffic);
        if traffic.get(addr).is_some_and(|to| to.made) {
            return None;
        }
        let made = traffic.iter().filter(|(_, to)| to.made).map(|(addr, _)| *addr);
        made.into_iter().find(|other| other.place == addr.place)
    }

    /// Messages that wait at a node.
    pub(super) fn unread(&self, addr: &Address) -> usize {
        lock(&self.traffic).get(addr).map_or(0, |to| to.unread)
    }

    /// Whether a node is closed or gone.
    pub(super) fn is_gone(&self, addr: &Address) -> bool {
        lock(&self.traffic).get(addr).is_none_or(|to| to.gone)
    }

    /// Messages that were told to a node.
    pub(super) fn told(&self, addr: &Address) -> usize {
        lock(&self.traffic).get(addr).map_or(0, |to| to.told)
    }

    /// Whether a fault keeps this address.
    pub(super) fn keeps(&self, addr: &Address) -> bool {
        lock(&self.kept)
            .iter()
            .any(|node| node.local_addrs().contains(addr))
    }
}

/// A tell that sends a part when it is dropped.
struct Unfinished<'a> {
    node: &'a Node,
    message: Option<(Address, Packet)>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some((dst, mut packet)) = self.message.take() {
            packet.truncate(packet.len() / 2);
            let _ = self.node.tell(&dst, packet).now_or_never();
        }
    }
}

impl Rare {
    /// The nodes, which see one another's traffic.
    pub(super) fn all(crowd: &Arc<Crowd>, nodes: Vec<Node>) -> Vec<Self> {
        let nodes = nodes.into_iter().map(|node| {
            let addr = node.local_addrs()[0];
            let traffic = Traffic {
                made: true,
                ..Traffic::default()
            };
            lock(&crowd.traffic).insert(addr, traffic);
            Self {
                inner: Arc::new(node),
                addr,
                crowd: crowd.clone(),
                own: Own::default(),
            }
        });
        nodes.collect()
    }

    fn fate(&self, dst: &Address, packet: &Packet, place: usize, batch: usize) -> Fate {
        let index = self.own.told.fetch_add(1, SeqCst);
        let there = self.crowd.there(dst);
        let wronged = {
            let mut wronged = lock(&self.own.wronged);
            let wronged = wronged.entry(dst.place).or_default();
            *wronged += usize::from(there.is_some());
            *wronged
        };
        let same = {
            let mut last = lock(&self.own.last_told);
            if *last == packet[..] {
                self.own.same.fetch_add(1, SeqCst) + 1
            } else {
                *last = packet.to_vec();
                self.own.same.store(0, SeqCst);
                0
            }
        };
        let mut traffic = lock(&self.crowd.traffic);
        let others_unread = traffic
            .iter()
            .filter(|(addr, _)| *addr != dst)
            .map(|(_, traffic)| traffic.unread)
            .max();
        let other = traffic
            .keys()
            .copied()
            .find(|other| *other != self.addr && other != dst);
        let siblings = lock(&self.crowd.siblings);
        let siblings_unread = traffic
            .iter()
            .filter(|(addr, _)| *addr != dst && siblings.contains(addr))
            .map(|(_, traffic)| traffic.unread)
            .max()
            .unwrap_or(0);
        let closed = traffic.values().filter(|traffic| traffic.gone).count();
        let own_closed = self.own.closed.load(SeqCst);
        let known = traffic.contains_key(dst);
        let to = traffic.entry(*dst).or_default();
        to.senders.insert(self.addr);
        let told = Told {
            index,
            to_dst: to.told,
            senders: to.senders.len(),
            unread: to.unread,
            batch,
            place,
            src: self.addr,
            dst: *dst,
            other,
            payload: packet,
            mtu: self.inner.mtu(),
            same,
            gone: to.gone || !known,
            others_unread: others_unread.unwrap_or(0),
            tight: packet.room().front == 0,
            parsed: lock(&self.own.parsed).contains(dst),
            floods: to.floods,
            siblings_unread,
            closed,
            own_closed,
            there,
            wronged,
        };
        let fate = (self.crowd.fault.tell)(&told);
        to.told += 1;
        fate
    }

    /// Sends, and keeps the books.
    async fn send(&self, dst: &Address, packet: Packet) -> Result<()> {
        self.inner.tell(dst, packet).await?;
        if let Some(to) = lock(&self.crowd.traffic).get_mut(dst) {
            to.unread = (to.unread + 1).min(FULL + 4);
            to.full |= to.unread >= FULL;
        }
        Ok(())
    }

    async fn tell_one(&self, dst: &Address, packet: Packet, place: usize, batch: usize) -> Result<()> {
        let _turn = match self.crowd.fault.special {
            "one tell at a time" => Some(self.own.turn.lock().await),
            _ => None,
        };
        match self.fate(dst, &packet, place, batch) {
            Fate::Sound => self.send(dst, packet).await,
            Fate::Lost => {
                self.own.lost.fetch_add(1, SeqCst);
                Ok(())
            }
            Fate::Twice => {
                self.send(dst, packet.clone()).await?;
                self.send(dst, packet).await
            }
            Fate::Changed(bytes) => self.send(dst, Packet::from(&bytes[..])).await,
            Fate::Also(other) => {
                self.send(&other, packet.clone()).await?;
                self.send(dst, packet).await
            }
            Fate::Refused(error) => Err(error),
            Fate::SentAndRefused(error) => {
                self.send(dst, packet).await?;
                Err(error)
            }
            Fate::Late(by) => {
                tokio::time::sleep(by).await;
                self.send(dst, packet).await
            }
            Fate::Stashed => {
                let mut stash = lock(&self.crowd.stash);
                let stash = stash.entry(*dst).or_default();
                if stash.len() < FULL {
                    stash.push(Message {
                        src: self.addr,
                        dst: *dst,
                        payload: packet,
                    });
                }
                Ok(())
            }
            Fate::Waits => {
                while self.crowd.unread(dst) >= FULL {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                self.send(dst, packet).await
            }
            Fate::Partial(yields) => {
                let message = Some((*dst, packet));
                let mut unfinished = Unfinished {
                    node: &self.inner,
                    message,
                };
                for _ in 0..yields {
                    yield_now().await;
                }
                match unfinished.message.take() {
                    Some((dst, packet)) => self.send(&dst, packet).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// Whether a fault lets a receive go on although this node is closed: of callers that waited before.
    fn stays_open(&self, special: &str, before: usize, was_closed: bool) -> bool {
        if was_closed {
            let late = self.own.late.fetch_add(1, SeqCst);
            return special == "the sixth receive after close hangs" && late == 5;
        }
        let ended = self.own.ended.fetch_add(1, SeqCst);
        match special {
            "closes forty receives" => before >= 40,
            "closes two of three receives in a flood" => {
                ended % 3 == 2 && self.own.received.load(SeqCst) >= 100
            }
            _ => false,
        }
    }

    fn seen(&self, batch: Option<usize>, place: usize) -> Received {
        Received {
            index: self.own.received.load(SeqCst),
            batch,
            place,
            waiting: self.own.waiting.load(SeqCst),
            last_src: *lock(&self.own.last_src),
            mtu: self.inner.mtu(),
        }
    }

    /// What becomes of a message that came.
    fn got(&self, message: &mut Message<Address>, batch: Option<usize>, place: usize) -> Got {
        if let Some(to) = lock(&self.crowd.traffic).get_mut(&self.addr) {
            to.unread = to.unread.saturating_sub(1);
            if to.unread == 0 && std::mem::take(&mut to.full) {
                to.floods += 1;
            }
        }
        let seen = self.seen(batch, place);
        self.own.received.fetch_add(1, SeqCst);
        *lock(&self.own.last_src) = Some(message.src);
        (self.crowd.fault.receive)(&seen, message)
    }
}

/// A caller that waits.
struct Waiting<'a>(&'a AtomicUsize, Option<&'a AtomicUsize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
        if let Some(forgotten) = self.1 {
            forgotten.fetch_add(1, SeqCst);
        }
    }
}

impl Swarm<Address> for Rare {
    async fn tell(&self, dst: &Address, packet: Packet) -> Result<()> {
        self.tell_one(dst, packet, 0, 1).await
    }

    async fn tell_batch(&self, batch: &mut Vec<(Address, Packet)>) -> Result<(), BatchError> {
        let count = batch.len();
        let first = batch.first().cloned();
        (self.crowd.fault.batch)(batch);
        let mut outcome = BatchOutcome::default();
        for (place, (dst, packet)) in batch.drain(..).enumerate() {
            outcome.record(self.tell_one(&dst, packet, place, count).await);
        }
        let left = (self.crowd.fault.batch_leaves)(count);
        batch.extend(first.into_iter().cycle().take(left));
        (self.crowd.fault.batch_says)(count, outcome.finish())
    }

    async fn receive(&self) -> Result<Message<Address>> {
        if let Some(copy) = lock(&self.own.copies).pop() {
            return Ok(copy);
        }
        let before = self.own.waiting.fetch_add(1, SeqCst);
        let special = self.crowd.fault.special;
        let mut waiting = Waiting(
            &self.own.waiting,
            (special == "forgets turns").then_some(&self.own.forgotten),
        );
        if special == "wakes six" && before >= 6 {
            return pending().await;
        }
        loop {
            if special == "stashes" {
                if let Some(message) = self.inner.receive().now_or_never() {
                    let mut message = message?;
                    self.got(&mut message, None, 0);
                    return Ok(message);
                }
                let stashed = lock(&self.crowd.stash).get_mut(&self.addr).and_then(Vec::pop);
                if let Some(message) = stashed {
                    return Ok(message);
                }
            }
            let was_closed = self.own.closed.load(SeqCst);
            let mut message = match self.inner.receive().await {
                Err(Error::Closed) if self.stays_open(special, before, was_closed) => {
                    return pending().await;
                }
                message => message?,
            };
            waiting.1 = None;
            if special == "forgets turns" && self.own.forgotten.load(SeqCst) >= 3 {
                self.own.forgotten.store(0, SeqCst);
                lock(&self.own.copies).push(message);
                return pending().await;
            }
            for _ in 0..(self.crowd.fault.holds)(&self.seen(None, 0)) {
                yield_now().await;
            }
            match self.got(&mut message, None, 0) {
                Got::Sound => return Ok(message),
                Got::Lost => {}
                Got::Twice => {
                    lock(&self.own.copies).push(message.clone());
                    return Ok(message);
                }
            }
        }
    }

    async fn receive_batch(&self, out: &mut Vec<Message<Address>>, max: usize) -> Result<usize> {
        let calls = self.own.batches.fetch_add(1, SeqCst);
        let most = (self.crowd.fault.max)(calls, out.len(), max);
        let mut taken = Vec::new();
        let mut count = 0;
        while count == 0 {
            let before = self.inner.receive_batch(&mut taken, most).await?;
            for _ in 0..(self.crowd.fault.holds)(&self.seen(Some(max), 0)) {
                yield_now().await;
            }
            if before == 0 {
                return Ok(0);
            }
            let forgotten = (self.crowd.fault.forgets)(out.len(), taken.len());
            out.drain(..forgotten.min(out.len()));
            for (place, mut message) in taken.drain(..).enumerate() {
                match self.got(&mut message, Some(max), place) {
                    Got::Sound => out.push(message),
                    Got::Lost => continue,
                    Got::Twice => {
                        out.push(message.clone());
                        out.push(message);
                        count += 1;
                    }
                }
                count += 1;
            }
        }
        Ok(count)
    }

    fn mtu(&self) -> usize {
        (self.crowd.fault.mtu)(self.own.received.load(SeqCst), self.inner.mtu())
    }

    fn local_addrs(&self) -> Vec<Address> {
        self.inner.local_addrs()
    }

    fn parse_addr(&self, text: &str) -> Result<Address> {
        let calls = self.own.parses.fetch_add(1, SeqCst);
        let read = (self.crowd.fault.parse)(calls, text, self.inner.parse_addr(text));
        if let Ok(addr) = &read {
            lock(&self.own.parsed).insert(*addr);
        }
        read
    }

    async fn close(&self) {
        if let Some(traffic) = lock(&self.crowd.traffic).get_mut(&self.addr) {
            traffic.gone = true;
        }
        let closes = self.own.closes.fetch_add(1, SeqCst);
        let most = match self.crowd.fault.special {
            "closes twice" => 2,
            "closes 11 times" => 11,
            _ => usize::MAX,
        };
        if closes >= most {
            std::future::pending::<()>().await;
        }
        let used = self.own.received.load(SeqCst) > 0;
        self.own.closed.store(true, SeqCst);
        if used && self.crowd.fault.special == "closes later once used" {
            yield_now().await;
        }
        let told = self.own.told.load(SeqCst) > 0;
        if told && self.crowd.fault.special == "keeps the address of a teller" {
            lock(&self.crowd.kept).push(self.inner.clone());
        }
        self.inner.close().await;
        while self.crowd.fault.special == "waits for ten receives" && self.own.waiting.load(SeqCst) > 10 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        self.inner.visit_counters(&mut |counters| {
            let true_ones = counters.snapshot();
            let sums = [
                true_ones.sent as usize,
                true_ones.delivered as usize,
                true_ones.duplicated as usize,
                true_ones.dropped_total() as usize,
            ];
            let mut sums = sums;
            if self.crowd.fault.special == "counts what is lost" {
                // As sent, though not as dropped.
                sums[0] += self.own.lost.load(SeqCst);
            }
            let [sent, delivered, duplicated, dropped] = (self.crowd.fault.count)(sums);
            let shown = Counters::new(counters.layer());
            shown.add_sent(sent);
            shown.add_delivered(delivered);
            shown.add_duplicated(duplicated);
            shown.add_dropped_many(DropReason::QueueFull, dropped);
            visit(&shown);
        });
    }
}

impl Drop for Rare {
    fn drop(&mut self) {
        if let Some(traffic) = lock(&self.crowd.traffic).get_mut(&self.addr) {
            traffic.gone = true;
        }
        if self.crowd.fault.special == "keeps the address" {
            lock(&self.crowd.kept).push(self.inner.clone());
        }
    }
}
